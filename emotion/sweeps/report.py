"""What came of a sweep: which runs are missing and why, the ranking of the others, and what a search found."""

from collections import Counter
from pathlib import Path

from emotion import ranking, report, run_folder
from emotion.cli import near
from emotion.run_folder import RunState
from emotion.sweeps.command import Sweep

SHOWN = 20


def write(sweep: Sweep) -> bool:
    """Print what became of the runs, and write ranking.csv and .md; whether all are finished or pruned."""
    found = [one for one in run_folder.below(sweep.folder) if one.folder != sweep.folder]
    counted = Counter(one.state for one in found)
    counted["not begun"] = max(0, sweep.size - len(found))
    parts = ", ".join(f"{n} {state}" for state, n in counted.items() if n)
    print(f"\nsweep {near(sweep.folder)}: {sweep.size} runs: {parts}", flush=True)
    for one in [one for one in found if one.state not in ("finished", "pruned", "empty")][:SHOWN]:
        last = f": {one.why.splitlines()[-1]}" if one.why else ""
        print(f"  {one.folder.relative_to(sweep.folder)} {one.state}{last}")
    whole = counted["finished"] + counted["pruned"] == sweep.size
    if not whole:
        print("The same command runs what is missing.")
    finished = [one for one in found if one.state == "finished"]
    if finished:
        rows = ranking.ranked([one.record for one in finished], [_named(one, sweep.folder) for one in finished])
        report.print_table(ranking.TITLE, rows[:SHOWN], left=2)
        written = ranking.write(rows, sweep.folder)
        print("\n".join(f"wrote {near(path)}" for path in written))
    if any(one.record.get("config", {}).get("study") for one in found):
        from emotion.sweeps.study_report import write as write_study

        write_study(sweep.folder, found)
    return whole


def _named(one: RunState, folder: Path) -> str:
    """What tells a run from the others: what a study had it try, or what its folder is named by."""
    study = one.record["config"].get("study")
    return " ".join(map(_short, study["tried"])) if study else str(one.folder.relative_to(folder))


def _short(override: str) -> str:
    """A number with no more digits than a reader wants."""
    key, _, value = override.partition("=")
    try:
        return f"{key}={float(value):.3g}"
    except ValueError:
        return override
