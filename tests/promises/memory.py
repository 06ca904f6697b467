"""How much memory a process has, and has had, as Linux counts it."""

import re
from pathlib import Path


def resident(pid: int) -> float:
    """Megabytes that it has now."""
    return _status(pid, "VmRSS")


def peak(pid: int) -> float:
    """The most that it has had since `forget_peak`."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Have `peak` begin with what there is now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1000
