"""Learning rates over the steps of a run, for each of several parameter groups."""

from collections.abc import Callable

import pytest
import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from emotion.optim.schedules import cosine, linear, one_cycle, staged_cosine

RATES = (1e-4, 1e-3)
STEPS = 100


def optimizer() -> Optimizer:
    return SGD([{"params": [torch.zeros(1)], "lr": rate} for rate in RATES])


def rates(scheduler: LRScheduler, steps: int = STEPS) -> list[list[float]]:
    """The rates of each group before each step, and after the last."""
    by_step = [[group["lr"] for group in scheduler.optimizer.param_groups]]
    for _ in range(steps):
        scheduler.optimizer.step()
        scheduler.step()
        by_step.append([group["lr"] for group in scheduler.optimizer.param_groups])
    return [list(group) for group in zip(*by_step, strict=True)]


def test_staged_cosine_warms_up_in_its_first_epochs_then_falls_to_its_floor() -> None:
    scheduler = staged_cosine(optimizer(), STEPS, epochs=10, warmup_epochs=3, floor=0.1)
    for peak, values in zip(RATES, rates(scheduler), strict=True):
        assert values[:30] == pytest.approx([peak * (step + 1) / 30 for step in range(30)])
        assert values[30] == pytest.approx(peak)
        assert values[65] == pytest.approx(peak * 0.55)  # half way down
        assert values[-1] == pytest.approx(peak * 0.1)


def test_staged_cosine_without_warmup_starts_at_its_rate() -> None:
    assert rates(staged_cosine(optimizer(), STEPS, epochs=10, warmup_epochs=0))[1][0] == pytest.approx(1e-3)


def test_a_warmup_longer_than_the_run_only_rises() -> None:
    values = rates(staged_cosine(optimizer(), STEPS, epochs=2, warmup_epochs=3), STEPS - 1)[1]
    assert values == sorted(values)


def test_staged_cosine_is_cosine_with_that_warmup() -> None:
    assert rates(staged_cosine(optimizer(), STEPS, 10, 2)) == rates(cosine(optimizer(), STEPS, 0.2))


def test_one_cycle_peaks_at_the_rate_of_each_group() -> None:
    for peak, values in zip(RATES, rates(one_cycle(optimizer(), STEPS), STEPS - 1), strict=True):
        assert max(values) == pytest.approx(peak)
        assert values[-1] < peak / 1000
    _, values = rates(one_cycle(optimizer(), 200, warmup=0.1), 199)
    assert values.index(max(values)) == 19


def test_linear_rises_to_the_rate_and_falls_to_0() -> None:
    for peak, values in zip(RATES, rates(linear(optimizer(), STEPS, warmup=0.2)), strict=True):
        assert values[:20] == pytest.approx([peak * (step + 1) / 20 for step in range(20)])
        assert values[20:] == pytest.approx([peak * (STEPS - step) / 80 for step in range(20, STEPS + 1)])


def test_default_warmups_peak_after_their_share_of_the_steps() -> None:
    peaks = {make: rates(make(optimizer(), 200), 199)[1] for make in (cosine, linear, one_cycle)}
    assert {make.__name__: values.index(max(values)) for make, values in peaks.items()} == {
        "cosine": 9, "linear": 29, "one_cycle": 59,
    }  # fmt: skip
    assert peaks[cosine][105] == pytest.approx(5e-4)  # half way between the peak, at step 10, and the end
    assert rates(cosine(optimizer(), 20))[1][-1] == 0  # and stays there after the last step


def test_a_schedule_of_few_steps_starts_below_no_rate_of_0() -> None:
    assert rates(linear(optimizer(), 2), 2)[1] == pytest.approx([1e-3, 1e-3, 0])
    assert rates(linear(optimizer(), 1), 1)[1] == pytest.approx([1e-3, 0])
    assert rates(cosine(optimizer(), 1), 1)[1] == pytest.approx([1e-3, 1e-3])


@pytest.mark.parametrize("make", [cosine, linear])
@pytest.mark.parametrize("warmup", [-0.1, 5])
def test_a_warmup_that_is_no_share_is_refused(make: Callable[..., LRScheduler], warmup: float) -> None:
    with pytest.raises(ValueError, match=rf"warmup={warmup}; expected a share from 0 to 1"):
        make(optimizer(), STEPS, warmup=warmup)


def test_a_floor_that_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match="floor=2; expected a share from 0 to 1"):
        cosine(optimizer(), STEPS, floor=2)
