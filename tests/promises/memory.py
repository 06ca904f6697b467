"""Memory of a process, in megabytes, as Linux reports it."""

import re
from pathlib import Path


def resident(pid: int) -> float:
    """Return the resident memory."""
    return _status(pid, "VmRSS")


def peak(pid: int) -> float:
    """Return the peak since `reset_peak`."""
    return _status(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, name: str) -> float:
    match = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1]) / 1000
