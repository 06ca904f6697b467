"""The runs of experiments that the README's figures come from: what may be kept, and where."""

import re
import shutil
from functools import cache, partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from emotion.config.compose import CONF, compose
from emotion.data.readers.fer2013 import PUBLISHED_MD5
from emotion.errors import UserError
from emotion.io.atomic import write_atomically
from emotion.records import run_record
from emotion.records.run_record import Run


@cache
def experiment(name: str) -> dict[str, Any]:
    """The config of conf/experiment/`name`; not to be changed, as whoever asks next is given the same.

    Raises:
        UserError: there is none of that name.
    """
    names = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
    if name not in names:
        raise UserError(
            f"{name} is no experiment; expected {', '.join(names)}: python -m emotion.train experiment=NAME."
        )
    cfg = compose("train", f"experiment={name}", f"name={name}", "run_dir=RUN")
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def check(run: Run, records: Path) -> None:
    """UserError unless `run` may be kept: an experiment as it stands, on FER2013, of a commit, its place free."""
    record, config = run.record, run.record["config"]
    if differing := run_record.differing(config, experiment(config["name"])):
        raise UserError(f"{run.folder} is not {config['name']} as it stands: it has another {', '.join(differing)}.")
    if record["data"]["digest"] != PUBLISHED_MD5:
        raise UserError(f"{run.folder} was trained on {record['data']['source']}; expected the published fer2013.csv.")
    if mix := record["data"].get("mix"):
        raise UserError(f"{run.folder}: {mix['source']} was mixed into its training; expected FER2013 alone.")
    if not (record["commit"] or "+changes").isalnum():
        raise UserError(f"{run.folder}: no commit holds the code that it ran; commit first, then run it again.")
    if places := re.findall(r'"((?:/|~|[A-Z]:)[^"]*)"', (run.folder / run_record.RECORD).read_text()):
        raise UserError(
            f"{run.folder}: its record names places of this machine ({places[0]}); run it with data_dir=data."
        )
    kept = run_record.read_record(_place(run, records))
    if kept not in (None, record):
        raise UserError(f"{_place(run, records)} is another run of that seed; remove it first if it is to give way.")


def keep(run: Run, records: Path) -> Path:
    """Copy what the tables and `compare` need; where to."""
    kept = _place(run, records)
    kept.mkdir(parents=True, exist_ok=True)
    for name in (run_record.RECORD, run_record.PREDICTIONS, "metrics.csv"):
        if (run.folder / name).is_file() and run.folder.resolve() != kept.resolve():
            write_atomically(kept / name, partial(shutil.copyfile, run.folder / name))
    return kept


def _place(run: Run, records: Path) -> Path:
    config = run.record["config"]
    place: Path = records / config["name"] / f"seed={config['seed']}"
    return place
