"""What memory a process holds, as Linux tells it."""

from pathlib import Path

STATUS = Path("/proc/self/status")


def memory(process: int | str = "self") -> dict[str, float]:
    """MB of a process's own (RssAnon) and of files that it has mapped (RssFile)."""
    lines = (STATUS.parents[1] / str(process) / STATUS.name).read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {kind: int(fields[kind].split()[0]) * 1024 / 1e6 for kind in ("RssAnon", "RssFile")}
