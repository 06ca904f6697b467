"""Score a checkpoint, or several as one: python -m emotion.evaluate checkpoint=RUN [tta=flip] [robustness=true]."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from emotion.checkpoints.locate import BEST_CHECKPOINT, SHIPPED, locate_all
from emotion.cli import verb
from emotion.errors import UserError
from emotion.reporting.text import console, near

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emotion.checkpoints.ensemble import Ensemble
    from emotion.data.datamodule import EmotionDataModule
    from emotion.data.faces import Faces
    from emotion.data.splits import RowNumbers
    from emotion.evaluation.score import Judged

Settings = dict[str, Any]


def evaluate(cfg: DictConfig, folder: Path = Path("outputs/evaluate")) -> Settings:
    """Scores of one part of a split, on all rows and on those whose pixels no checkpoint was trained on.

    Without `data`, `labels` and `split` it is the data and the split that the (first) checkpoint was trained with.
    `folder` takes what is written of several checkpoints, which have no one run to lie in.

    Raises:
        UserError: something given is missing or wrong, or the data has other classes than the checkpoint.
    """
    settings: Settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    locate_all(settings["checkpoint"])
    _check(settings)
    from emotion.checkpoints import ensemble
    from emotion.checkpoints.training_data import data_of
    from emotion.evaluation.score import BATCH, score_rows
    from emotion.reporting import artifacts, tables
    from emotion.runtime.hardware import device
    from emotion.runtime.precision import precision_of

    subset, tta, accelerator = settings["subset"], settings["tta"], settings["accelerator"]
    judge = ensemble.load(settings["checkpoint"]).to(device(accelerator))
    data = data_of(judge.loaded[0], settings)
    votes = _votes(settings, data.faces)
    rows = getattr(data.split, subset)
    computed = settings["precision"], BATCH, accelerator, settings["cache_dir"]
    precision = precision_of(judge.members, *computed)
    folder, name = _place(settings, judge, data, folder)
    _refuse_others(folder / f"{name}.json", judge)
    trained_on = _trained_on(settings, judge, data, rows)
    judged = score_rows(judge, data.faces.images, data.labels, rows, trained_on, (tta,), precision, data.votes)[tta]
    scores = judged.scores | {"slices": _slices(judged, data, votes)}
    each = [f"{path} at temperature {t:.3g}" for path, t in zip(judge.paths, judge.temperatures, strict=True)]
    several = f"the mean of {len(each)} checkpoints"
    title = f"{subset} of {data.faces.source}\n{each[0] if len(each) == 1 else several}"
    if len(each) > 1:
        print("\n".join([f"{several}:", *each]))
    tables.print_scores(title, {tta: scores})
    tables.print_slices(scores["slices"])
    if settings["robustness"]:
        scores["robustness"] = _robustness(judge, data, judged, precision)
        tables.print_robustness(scores["robustness"])
    described = judge.described() | {"source": data.faces.source, "digest": data.faces.digest}
    asked = {"split": data.hparams["split"], "subset": subset, "votes": settings["votes"]}
    written = artifacts.save_scores(folder, name, described | asked | scores, data.classes, title)
    written += artifacts.save_pictures(folder, name, judged, data.faces.images, data.classes, title)
    if settings["robustness"]:
        written += [artifacts.save_robustness(folder, name, scores["robustness"], title)]
    for path in written:
        print(f"wrote {near(path.absolute())}")
    return scores


def _check(settings: Settings) -> None:
    import torch

    from emotion.data.transforms.tta import TTA

    expected = {
        "subset": ("train", "val", "test"),
        "tta": tuple(TTA),
        "precision": ("auto", "32-true", "bf16-mixed"),
        "accelerator": ("auto", "cpu", "gpu") if torch.cuda.is_available() else ("auto", "cpu"),
    }
    for name, choices in expected.items():
        if settings[name] not in choices:
            raise UserError(f"{name}={settings[name]}: expected {', '.join(choices)}.")
    if not isinstance(settings["robustness"], bool):
        raise UserError(f"robustness={settings['robustness']}: expected true or false.")


def _trained_on(settings: Settings, judge: "Ensemble", data: "EmotionDataModule", rows: "RowNumbers") -> "RowNumbers":
    """The rows of the data that a checkpoint was trained on; says what is unknown or overlaps."""
    import numpy as np

    from emotion.checkpoints.training_data import training_rows

    known = [rows[:0]]
    for one in judge.loaded:
        own = training_rows(one, data.hparams["source"], data.faces, settings["cache_dir"])
        if own is None:
            print(f"{data.faces.source} is not what {one.path} was trained on: which of its rows it knows is unknown.")
        elif len(judge.loaded) > 1 and (both := int(np.isin(rows, own).sum())):
            print(
                f"{one.path} was trained on {both:,} of these {len(rows):,} {settings['subset']} rows, which are not "
                f"among those not in training."
            )
        known += [] if own is None else [own]
    return np.unique(np.concatenate(known))


def _votes(settings: Settings, faces: "Faces") -> "NDArray[np.uint8] | None":
    """Taggers' votes (N, V) on the faces without those that one tagger alone gave: of votes=FILE, or the data's own."""
    from emotion.data.readers.ferplus import check_rows, read_votes, without_single

    if not settings["votes"]:
        return faces.votes
    path = Path(settings["votes"])
    table = read_votes(path, "votes")
    check_rows(path, table, faces.source, faces.usage)
    return without_single(table.votes)


def _slices(judged: "Judged", data: "EmotionDataModule", votes: "NDArray[np.uint8] | None") -> Settings:
    from emotion.evaluation import slices

    values = {"brightness": slices.brightness(data.faces.images, judged.rows)}
    if votes is not None:
        values["agreement"] = slices.agreement(votes, judged.rows)
    return {name: slices.by_quartile(each, judged, len(data.classes)) for name, each in values.items()}


def _robustness(judge: "Ensemble", data: "EmotionDataModule", judged: "Judged", precision: str | int) -> Settings:
    """With a progress bar: it takes as long as scoring for each corruption and severity."""
    from rich.progress import Progress

    from emotion.data.transforms.corruptions import CORRUPTIONS, SEVERITIES
    from emotion.evaluation.robustness import robustness

    out = console()
    with Progress(console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("corrupted faces", total=len(CORRUPTIONS) * len(SEVERITIES))
        return robustness(judge, data.faces.images, judged, precision, lambda: bar.advance(task))


def _place(settings: Settings, judge: "Ensemble", data: "EmotionDataModule", folder: Path) -> tuple[Path, str]:
    """The folder, in a single checkpoint's run unless `output` says otherwise, and the name that files begin with."""
    stem = "ensemble"
    if len(judge.loaded) == 1:
        path = judge.loaded[0].path
        run = path.parent.parent if path.parent.name == BEST_CHECKPOINT.parent.name else path.parent
        folder, stem = folder if path.suffix == SHIPPED else run / "evaluation", path.stem
    split = data.hparams["split"]["_target_"].rsplit(".", 1)[-1]
    return Path(settings["output"] or folder), f"{stem}_{split}_{settings['subset']}_{settings['tta']}"


def _refuse_others(path: Path, judge: "Ensemble") -> None:
    """Raises UserError where the scores of another checkpoint lie in our place, which are not to be lost."""
    if path.is_file() and (other := json.loads(path.read_text())["checkpoint"]) != judge.described()["checkpoint"]:
        raise UserError(f"{path} holds the scores of {other}; give another folder: output=FOLDER.")


@verb("evaluate")
def main(cfg: DictConfig) -> None:
    """Score and report."""
    evaluate(cfg, near(Path(HydraConfig.get().runtime.output_dir)))


if __name__ == "__main__":
    main()
