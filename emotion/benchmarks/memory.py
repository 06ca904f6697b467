"""What memory a process holds, as Linux tells it."""

from pathlib import Path

STATUS = Path("/proc/self/status")


def memory(process: int | str = "self") -> dict[str, float]:
    """MB of a process's own (RssAnon), of files that it has mapped (RssFile), and of both at its peak (VmHWM).

    The peak is that of the program that runs, where `getrusage` begins with what the process that started it held.
    """
    lines = (STATUS.parents[1] / str(process) / STATUS.name).read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {kind: int(fields[kind].split()[0]) * 1024 / 1e6 for kind in ("RssAnon", "RssFile", "VmHWM")}


def peak() -> float | None:
    """MB that this process has held at most; None where the system does not tell."""
    return memory()["VmHWM"] if STATUS.is_file() else None
