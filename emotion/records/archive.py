"""The archive of runs behind the README's tables: check a run, copy its record."""

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
from emotion.records.predictions import PREDICTIONS
from emotion.records.recipe import recipe_differences
from emotion.records.run_folder import Run
from emotion.records.run_record import RECORD, RunRecord


@cache
def experiment(name: str) -> dict[str, Any]:
    """Return the config of conf/experiment/`name`. It is cached; do not change it.

    Raises:
        UserError: There is no such experiment.
    """
    names = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
    if name not in names:
        raise UserError(
            f"{name} is not an experiment; expected {', '.join(names)}: python -m emotion.train experiment=NAME."
        )
    cfg = compose("train", f"experiment={name}", f"name={name}", "run_dir=RUN")
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def check(run: Run, records: Path) -> None:
    """Check that a run may be archived.

    Raises:
        UserError: The run is not an unchanged experiment, was not trained on FER2013 alone or not from a commit, its
            record contains absolute paths, or another run of its seed is archived.
    """
    folder, record = run.folder, run.record
    if differing := recipe_differences(record.config, experiment(record.name)):
        raise UserError(f"{folder} differs from the experiment {record.name} in {', '.join(differing)}.")
    if record.data["digest"] != PUBLISHED_MD5:
        raise UserError(f"{folder} was trained on {record.data['source']}; expected the published fer2013.csv.")
    if mix := record.data.get("mix"):
        raise UserError(f"{folder}: {mix['source']} was mixed into its training data; expected FER2013 alone.")
    if not (record.commit or "+changes").isalnum():
        raise UserError(f"{folder} was not trained from a commit; commit the code and train again.")
    if paths := re.findall(r'"((?:/|~|[A-Z]:)[^"]*)"', (folder / RECORD).read_text()):
        raise UserError(f"{folder}: its record contains absolute paths ({paths[0]}); train with data_dir=data.")
    target = _target(run, records)
    if RunRecord.read(target) not in (None, record):
        raise UserError(f"{target} holds another run of that seed; remove it first to replace it.")


def keep(run: Run, records: Path) -> Path:
    """Copy the files that the tables and `compare` read into the archive; return the folder."""
    target = _target(run, records)
    target.mkdir(parents=True, exist_ok=True)
    for name in (RECORD, PREDICTIONS, "metrics.csv"):
        if (run.folder / name).is_file() and run.folder.resolve() != target.resolve():
            write_atomically(target / name, partial(shutil.copyfile, run.folder / name))
    return target


def _target(run: Run, records: Path) -> Path:
    return records / run.record.name / f"seed={run.record.seed}"
