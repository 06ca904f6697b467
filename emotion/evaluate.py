"""Evaluate a checkpoint or an ensemble: python -m emotion.evaluate checkpoint=RUN [tta=flip] [robustness=true]."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from emotion.checkpoints.locate import BEST_CHECKPOINT, PORTABLE_SUFFIX, announce_default, locate_all
from emotion.cli import verb
from emotion.config.compose import CONF, choices
from emotion.config.typed import ACCELERATORS, EVALUATION_PRECISIONS, check_choices, typed
from emotion.data.sources import check_data, stored_shape
from emotion.errors import UserError, counted
from emotion.io.bounded import read_json_object
from emotion.reporting.text import relative_path, short_source
from emotion.runtime.announce import announce

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emotion.checkpoints.ensemble import Ensemble
    from emotion.data.datamodule import EmotionDataModule
    from emotion.data.faces import Faces
    from emotion.data.splits import RowNumbers
    from emotion.evaluation.score import EvaluationResult


@dataclass(frozen=True)
class EvaluateConfig:
    """The settings of conf/evaluate.yaml; without data, labels and split, those of the (first) checkpoint are used."""

    data_dir: str
    cache_dir: str
    checkpoint: Any
    subset: str
    tta: str
    votes: str | None
    robustness: bool
    precision: str
    accelerator: str
    output: str | None
    verbose: bool = False
    data: dict[str, Any] | None = None
    labels: dict[str, Any] | None = None
    split: dict[str, Any] | None = None


def evaluate(cfg: DictConfig, folder: Path = Path("outputs/evaluate")) -> dict[str, Any]:
    """Score a subset of a split: all its rows, and the deduplicated ones, whose pixels no checkpoint was trained on.

    Writes JSON and figures (PNG and PDF): for a single checkpoint to `evaluation` in its run, for portable weights and
    ensembles to `folder`.

    Raises:
        UserError: A setting is invalid, a checkpoint or the data is missing, or the data has other classes.
    """
    config = typed(cfg, EvaluateConfig)
    names = locate_all(config.checkpoint)
    announce_default("evaluate", config.checkpoint)
    _check(config)
    from emotion.checkpoints.ensemble import load_ensemble
    from emotion.checkpoints.training_data import choose_subset, load_data
    from emotion.evaluation.robustness import robustness
    from emotion.evaluation.score import BATCH_SIZE, score_rows
    from emotion.records.run_record import checkpoint_title
    from emotion.reporting import artifacts, tables
    from emotion.runtime.hardware import torch_device
    from emotion.runtime.precision import evaluation_precision

    announce(f"reading {' and '.join(names)}")
    ensemble = load_ensemble(config.checkpoint).to(torch_device(config.accelerator))
    data = load_data(ensemble.loaded[0], cfg, some_classes=True)
    if data.classes != ensemble.classes and (others := ensemble.restrict(data.classes)):
        print(f"only classes of the data are predicted: {', '.join(data.classes)}; not {', '.join(others)}")
    votes = _load_votes(config, data.faces)
    subset = choose_subset(config.subset, data, ensemble.loaded)
    rows = data.rows(subset)
    precision = evaluation_precision(
        ensemble.members, config.precision, BATCH_SIZE, config.accelerator, config.cache_dir
    )
    folder, name = _output_path(config, subset, ensemble, data, folder)
    summary = ensemble.summary()
    if folder != ensemble.loaded[0].path.parent.parent / "evaluation":  # a run may replace its own
        _check_output(folder / f"{name}.json", summary["checkpoint"])
    training_rows = _training_rows(config, subset, ensemble, data, rows)
    images, tta = data.faces.images, config.tta
    announce(f"scoring {counted(len(rows), 'face')}")
    result = score_rows(ensemble, images, data.labels, rows, training_rows, (tta,), precision, data.votes)[tta]
    scores = result.scores | {"slices": _slices(result, data, votes)}
    faces = f"all {counted(len(rows), 'face')}" if subset == "all" else f"{counted(len(rows), 'face')} of {subset}"
    _print(config, cfg, ensemble, data, faces, scores)
    title = " + ".join(map(checkpoint_title, ensemble.loaded))
    title += f": {ensemble.name}, {short_source(data.faces.source)}, {faces}, tta={tta}"
    if config.robustness:
        scores["robustness"] = robustness(ensemble, images, result, precision)
        tables.print_robustness(scores["robustness"], verbose=config.verbose)
    summary |= {
        "source": data.faces.source,
        "digest": data.faces.digest,
        "split": data.hparams["split"],
        "subset": subset,
        "votes": config.votes,
    }
    artifacts.save_scores(folder, name, summary | scores, data.classes, title, vector=True)
    artifacts.save_figures(folder, name, result, images, data.classes, title, vector=True)
    if config.robustness:
        artifacts.save_robustness(folder, name, scores["robustness"], title)
    print(f"scores and figures: {relative_path(folder.absolute())}/{name}*")
    return scores


def _check(config: EvaluateConfig) -> None:
    from emotion.checkpoints.training_data import SUBSETS
    from emotion.data.transforms.tta import TTA
    from emotion.runtime.hardware import check_gpu

    check_choices(
        config,
        subset=SUBSETS,
        tta=tuple(TTA),
        precision=EVALUATION_PRECISIONS,
        accelerator=ACCELERATORS,
    )
    check_gpu(config.accelerator)


def _print(
    config: EvaluateConfig,
    cfg: DictConfig,
    ensemble: "Ensemble",
    data: "EmotionDataModule",
    faces: str,
    scores: dict[str, Any],
) -> None:
    """Print the scores of `faces`, under the checkpoints and their temperatures, and the classes that have no face."""
    from emotion.reporting.tables import print_scores

    members = [
        f"{path} at temperature {temperature:.3g}"
        for path, temperature in zip(ensemble.paths, ensemble.temperatures, strict=True)
    ]
    if len(members) > 1:
        print("\n".join(["ensemble of", *members]))
    heading = members[0] if len(members) == 1 else f"ensemble of {len(members)} checkpoints"
    heading = f"{ensemble.name}, {data.faces.source}, {faces}\n{heading}"
    print_scores(heading, {config.tta: scores}, verbose=config.verbose)
    if absent := [name for name, of_class in scores["all"]["classes"].items() if not of_class["n"]]:
        print(
            f"No face has the label {' or '.join(absent)}. Predicting it is an error and adds a class with F1 0 to "
            f"macro F1.{_removal_advice(cfg, data, absent)}"
        )


def _removal_advice(cfg: DictConfig, data: "EmotionDataModule", absent: Sequence[str]) -> str:
    """Return how to leave classes out of the label scheme; empty for the classes of the data themselves."""
    removals = " ".join(f"'~labels.{name}'" for name in absent)
    if cfg.get("labels"):
        return f" To predict only other classes, add {removals}"
    for name in choices("labels") if cfg.get("labels") is None else ():
        if OmegaConf.load(CONF / "labels" / f"{name}.yaml") == data.hparams["labels"]:
            return f" To predict only other classes: labels={name} {removals}"
    return ""


def _training_rows(
    config: EvaluateConfig, subset: str, ensemble: "Ensemble", data: "EmotionDataModule", rows: "RowNumbers"
) -> "RowNumbers":
    """Return the rows that any member was trained on; print what is unknown, or shared with the rows to evaluate."""
    import numpy as np

    from emotion.checkpoints.training_data import training_rows

    known = [rows[:0]]
    for member in ensemble.loaded:
        of_member = training_rows(member, data.hparams["source"], data.faces, config.cache_dir)
        if of_member is None:
            print(f"{member.path} was trained on other data than {data.faces.source}; its training rows are unknown.")
            continue
        shared = int(np.isin(rows, of_member).sum())
        if len(ensemble.loaded) > 1 and shared:
            print(
                f"{member.path} was trained on {shared:,} of the {counted(len(rows), f'{subset} row')}; "
                f"the deduplicated scores leave them out."
            )
        known.append(of_member)
    return np.unique(np.concatenate(known))


def _load_votes(config: EvaluateConfig, faces: "Faces") -> "NDArray[np.uint8] | None":
    """Return the votes (N, V) of the data, or of votes=FILE without classes that only one annotator chose."""
    from emotion.data.readers.ferplus import check_votes, drop_single_votes, read_votes

    if not config.votes:
        return faces.votes
    path = Path(config.votes)
    table = read_votes(path, "votes")
    check_votes(path, table, faces)
    return drop_single_votes(table.votes)


def _slices(result: "EvaluationResult", data: "EmotionDataModule", votes: "NDArray[np.uint8] | None") -> dict[str, Any]:
    from emotion.evaluation import slices

    values = {"brightness": slices.brightness(data.faces.images, result.rows)}
    if votes is not None:
        values["agreement"] = slices.agreement(votes, result.rows)
    return {name: slices.by_quartile(of_rows, result, len(data.classes)) for name, of_rows in values.items()}


def _output_path(
    config: EvaluateConfig, subset: str, ensemble: "Ensemble", data: "EmotionDataModule", folder: Path
) -> tuple[Path, str]:
    """Return the output folder and the prefix of its files.

    The prefix differs for other data or another split, and with votes= or robustness=true: an evaluation without them
    does not replace those scores.
    """
    stem = "ensemble"
    if len(ensemble.loaded) == 1:
        path = ensemble.loaded[0].path
        run = path.parent.parent if path.parent.name == BEST_CHECKPOINT.parent.name else path.parent
        folder, stem = folder if path.suffix == PORTABLE_SUFFIX else run / "evaluation", path.stem
    split = data.hparams["split"]["_target_"].rsplit(".", 1)[-1]
    first, source = ensemble.loaded[0], data.hparams["source"]
    here = data.state_dict(), data.classes, stored_shape(source), source.get("detector")
    in_training = first.data_state, first.classifier.classes, first.source_shape, first.data["source"].get("detector")
    other = f"_{hashlib.md5(repr(here).encode()).hexdigest()[:8]}" if here != in_training else ""
    more = "_votes" * bool(config.votes) + "_robustness" * config.robustness
    return Path(config.output or folder), f"{stem}_{split}_{subset}_{config.tta}{other}{more}"


def _check_output(path: Path, checkpoint: str | list[str]) -> None:
    """Raise UserError if the file has the scores of another checkpoint."""
    if not path.is_file():
        return
    other = read_json_object(path).get("checkpoint")
    if not isinstance(other, str | list) or _resolved(other) != _resolved(checkpoint):
        raise UserError(f"{path} contains the scores of {other}; choose another folder: output=FOLDER.")


def _resolved(checkpoint: str | list[str]) -> list[Path]:
    return [Path(path).resolve() for path in ([checkpoint] if isinstance(checkpoint, str) else checkpoint)]


@verb("evaluate", positional="checkpoint", uses_torch=True, check=check_data)
def main(cfg: DictConfig) -> None:
    """Evaluate a checkpoint."""
    evaluate(cfg, relative_path(Path(HydraConfig.get().runtime.output_dir)))


if __name__ == "__main__":
    main()
