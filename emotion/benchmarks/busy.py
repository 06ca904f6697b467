"""How much of the time a device computes, by the profiler's own record of what ran on it."""

from collections.abc import Callable, Iterable


def busy_share(step: Callable[[], object], steps: int, device: str) -> float:
    """The share of the time, from the first operation to the last, in which `device` (cuda or cpu) ran any."""
    from torch.profiler import ProfilerActivity, profile

    step()  # what is made ready once does not count
    activity = {"cuda": ProfilerActivity.CUDA, "cpu": ProfilerActivity.CPU}[device]
    with profile(activities=[activity]) as record:
        for _ in range(steps):
            step()
    ran: list[tuple[float, float]] = [
        (event.time_range.start, event.time_range.end)
        for event in record.events() or []
        if event.device_type.name.lower() == device
    ]
    return covered(ran) / (max(end for _, end in ran) - min(start for start, _ in ran))


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of spans (start, end), which may overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
