"""What has been run: list, filter, tag, clean: python -m emotion.runs [FOLDER ...]."""

import math
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from emotion.cli import bare_arguments_are, verb
from emotion.config.compose import listed
from emotion.errors import UserError
from emotion.reporting.text import duration, near

if TYPE_CHECKING:
    from emotion.records.run_folder import RunState

Settings = dict[str, Any]
SORTED = ("folder", "val", "test", "epochs", "minutes", "mb")
REMOVED = ("runs", "checkpoints")


def runs(cfg: DictConfig) -> list["RunState"]:
    """Print the runs that are meant, tag them or remove what is to go; which they are.

    Raises:
        UserError: a folder, state, condition or order that is none; or what is to be removed is in use.
    """
    from emotion.records import query, run_folder

    settings: Settings = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    _check(settings)
    folders = [Path(name) for name in listed(settings["runs"])]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise UserError(f"{', '.join(missing)} is not there; expected folders that runs lie in, such as outputs.")
    below = {run.folder.absolute(): run for folder in folders for run in run_folder.below(folder)}
    found = query.matching(list(below.values()), settings)
    if settings["sort"] != "folder":
        found.sort(key=lambda run: _order(run, settings["sort"]))
    added, dropped = query.words(settings["tag"]), query.words(settings["untag"])
    for run in found if added or dropped else ():
        query.retag(run.folder, added, dropped)
    _show(found, len(below))
    if settings["remove"]:
        _remove(found, settings)
    return found


def _check(settings: Settings) -> None:
    if settings["sort"] not in SORTED:
        raise UserError(f"sort={settings['sort']}: expected {', '.join(SORTED)}.")
    if settings["remove"] not in (None, *REMOVED):
        raise UserError(f"remove={settings['remove']}: expected {' or '.join(REMOVED)}.")


def _order(run: "RunState", by: str) -> tuple[bool, float]:
    """The most first, of a score that is the better the lower the least; what a run does not have comes last."""
    from emotion.records import query

    value = query.FIGURES[by](run)
    lower = by == "val" and run.record.get("best", {}).get("mode") == "min"
    return not math.isfinite(value), value if lower else -value


def _show(found: Sequence["RunState"], of: int) -> None:
    from emotion.records import query
    from emotion.reporting.tables import print_table

    if not found:
        print(f"none of {of} runs")
        return
    rows = []
    for run in found:
        record, test, megabytes = run.record, query.FIGURES["test"](run), query.FIGURES["mb"](run)
        epochs, best = record.get("epochs", "-"), record.get("best")
        if pruned := record.get("pruned"):
            epochs, best = pruned["epoch"] + 1, {"metric": record["config"]["monitor"]["metric"], **pruned}
        rows.append(
            {
                "run": str(near(run.folder)),
                "state": run.state + " *" * query.is_drawn(run),
                "tags": " ".join(query.tags(run.folder)),
                "epochs": str(epochs),
                "by validation": f"{best['metric']} {best['score']:.4f}" if best else "-",
                "test accuracy %": f"{100 * test:.1f}" if math.isfinite(test) else "-",
                "time": duration(record["fit_seconds"]) if "fit_seconds" in record else "-",
                "MB": f"{megabytes:.1f}",
            }
        )
    print_table(f"{len(found)} of {of} runs", rows, left=3)
    if any(query.is_drawn(run) for run in found):
        print("* on SYNTHETIC faces")
    for run in found:
        if run.why:
            print(f"{near(run.folder)}: {run.why.splitlines()[-1]}")


def _remove(found: Sequence["RunState"], settings: Settings) -> None:
    """Raises UserError where one is under way; a finished run goes only where its state was asked for."""
    from emotion.checkpoints.load import PREVIOUS_CHECKPOINT
    from emotion.checkpoints.locate import LAST_CHECKPOINT
    from emotion.records import query
    from emotion.records.run_folder import InUse, alone_in, read

    whole = settings["remove"] == "runs"
    if whole and not settings["state"] and any(run.state == "finished" for run in found):
        raise UserError("remove=runs would take finished ones as well; say which are meant: state=[failed,stopped].")
    if whole:
        places = [run.folder for run in found]
    else:
        of = [run.folder for run in found if run.state in ("finished", "pruned")]
        places = [folder / name for folder in of for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT)]
    places = [place for place in places if place.exists()]
    megabytes = sum(query.size(p) if p.is_dir() else p.stat().st_size for p in places) / 1e6
    if not settings["sure"]:
        print(f"would remove {len(places)} {settings['remove']}, {megabytes:.1f} MB; sure=true does it")
        return
    removed = 0
    for run in (run for run in found if any(place.is_relative_to(run.folder) for place in places)):
        try:
            with alone_in(run.folder):
                if read(run.folder).record == run.record:  # nobody has gone on with it meanwhile
                    if whole:
                        shutil.rmtree(run.folder)
                    for path in (run.folder / LAST_CHECKPOINT, run.folder / PREVIOUS_CHECKPOINT):
                        path.unlink(missing_ok=True)
                    removed += 1
        except InUse as error:
            print(f"kept: {error}")
    print(f"removed {removed} {settings['remove']}, {megabytes:.1f} MB")


@verb("runs")
def main(cfg: DictConfig) -> None:
    """List, tag, clean."""
    runs(cfg)


def quote(key: str) -> None:
    """Quote the one setting whose value has signs that Hydra would read."""
    sys.argv[1:] = [
        re.sub(rf"^{key}=([^'\"].*)$", lambda match: f"{key}='{match[1]}'", argument) for argument in sys.argv[1:]
    ]


if __name__ == "__main__":
    quote("where")
    bare_arguments_are("runs")
    main()
