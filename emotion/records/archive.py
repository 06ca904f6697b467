"""The archive behind the README's tables: check and copy the records of runs and of explanations."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from emotion.config.compose import choices, compose
from emotion.config.migrate import migrate
from emotion.data.cache import published_digest
from emotion.data.faces import SYNTHETIC
from emotion.data.readers.fer2013 import PUBLISHED_MD5
from emotion.errors import UserError, listing
from emotion.io.atomic import make_folder, write_bytes
from emotion.io.bounded import read_json_object
from emotion.records.predictions import PREDICTIONS
from emotion.records.recipe import setting_differences
from emotion.records.run_folder import Run
from emotion.records.run_record import RECORD, RunRecord

EXPLANATIONS, EXPLANATIONS_RECORD = "explanations", "explain.json"


@cache
def experiment(name: str) -> dict[str, Any]:
    """Return the config of conf/experiment/`name`. It is cached; do not change it.

    Raises:
        UserError: There is no such experiment.
    """
    names = choices("experiment")
    if name not in names:
        raise UserError(
            f"{name} is not an experiment; expected {', '.join(names)}: python -m emotion.train experiment=NAME."
        )
    cfg = compose("train", f"experiment={name}", f"name={name}", "run_dir=RUN")
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def check_seeds(runs: Iterable[Run]) -> None:
    """Raise UserError if two runs are of the same experiment and seed, as only one can be archived."""
    seen: dict[tuple[str, int], Run] = {}
    for run in runs:
        other = seen.setdefault((run.record.name, run.record.seed), run)
        if other is not run:
            raise UserError(
                f"{other.folder} and {run.folder} are both experiment={run.record.name} seed={run.record.seed}; give "
                f"one of them."
            )


def check(run: Run, records: Path) -> None:
    """Check that a run may be archived.

    Raises:
        UserError: The run is not an unchanged experiment, was trained on other data than FER2013 and FER+ or not from a
            commit, its record contains absolute paths, or another run of its seed is archived.
    """
    folder, record = run.folder, run.record
    if differing := setting_differences(record.config, experiment(record.name)):
        raise UserError(
            f"{folder} is not an unchanged run of experiment={record.name}; python -m emotion.train "
            f"experiment={record.name} seed={record.seed} makes one. Settings that differ:{listing(differing, 5)}"
        )
    if record.data["digest"] != published_digest(record.config["data"]):
        raise UserError(
            f"{folder} was trained on {record.data['source']}; expected the published fer2013.csv, alone or with "
            f"FER+'s votes."
        )
    if mix := record.data.get("mix"):
        raise UserError(f"{folder}: {mix['source']} was mixed into its training data; expected FER2013 alone.")
    _check_provenance(folder, record.commit, (folder / RECORD).read_text())
    target = _target(run, records)
    if RunRecord.read(target) not in (None, record):
        raise UserError(f"{target} holds another run of that seed; remove it first to replace it.")


def keep(run: Run, records: Path) -> Path:
    """Copy the files that the tables and `compare` read into the archive; return the folder."""
    target = _target(run, records)
    if run.folder.resolve() != target.resolve():
        names = (RECORD, PREDICTIONS, "metrics.csv")
        _copy(run.folder, target, [name for name in names if (run.folder / name).is_file()])
    return target


def check_explanations(folder: Path) -> None:
    """Check that a folder of explanations may be archived.

    Raises:
        UserError: The folder has no record, or a damaged one; or the record has no faithfulness scores, concerns faces
            that are neither FER2013's nor synthetic, was not made from a commit, or contains absolute paths.
    """
    path = folder / EXPLANATIONS_RECORD
    if not path.is_file():
        raise UserError(f"{folder} has no {path.name}; expected a folder that python -m emotion.explain wrote.")
    record = migrate(read_json_object(path))
    source = record["faces"]["source"]
    if not all("measures" in explanation for explanation in record["explanations"]):
        raise UserError(f"{path} has no faithfulness scores; explain again with faithfulness.")
    if record["faces"]["digest"] != PUBLISHED_MD5 and source != SYNTHETIC:
        raise UserError(f"{path} explains faces of {source}; expected the published fer2013.csv or synthetic faces.")
    _check_provenance(folder, record["commit"], path.read_text())


def keep_explanations(folder: Path, records: Path) -> Path:
    """Copy the record of a folder of explanations into the archive, and the sheet of synthetic faces."""
    source = read_json_object(folder / EXPLANATIONS_RECORD)["faces"]["source"]
    target = records / EXPLANATIONS / folder.name
    _copy(folder, target, [EXPLANATIONS_RECORD, *(["sheet.png"] if source == SYNTHETIC else [])])
    return target


def _copy(folder: Path, target: Path, names: Iterable[str]) -> None:
    make_folder(target)
    for name in names:
        write_bytes(target / name, (folder / name).read_bytes())


def _check_provenance(folder: Path, commit: str | None, text: str) -> None:
    """Raise UserError unless a record was made from a commit and has no absolute paths."""
    if not commit or commit.endswith("+changes"):
        raise UserError(f"{folder} was not made from a commit; commit the code and run it again.")
    if paths := re.findall(r'"((?:/|~|[A-Z]:)[^"]*)"', text):
        raise UserError(f"{folder}: its record contains absolute paths ({paths[0]}); run it with data_dir=data.")


def _target(run: Run, records: Path) -> Path:
    return records / run.record.name / f"seed={run.record.seed}"
