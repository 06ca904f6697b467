"""Score a checkpoint: python -m emotion.evaluate checkpoint=RUN [views=flip] [split=official] [subset=val]."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from emotion.cli import near, verb
from emotion.errors import UserError

if TYPE_CHECKING:
    from emotion.checkpoints import Loaded
    from emotion.data.datamodule import EmotionDataModule
    from emotion.data.splits import RowNumbers


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Scores of one part of a split, on all rows and on those whose pixels the checkpoint was not trained on.

    Without `data`, `labels` and `split` the checkpoint is scored on the data and the split that it was trained with.

    Raises:
        UserError: something given is missing or wrong, or the data has other classes than the checkpoint.
    """
    from emotion import checkpoints, evaluation, machine, report

    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    _check(settings)
    subset, views, accelerator = settings["subset"], settings["views"], settings["accelerator"]
    loaded = checkpoints.load(settings["checkpoint"])
    data, trained_on = _data(settings, loaded)
    judged = evaluation.score_rows(
        loaded.classifier.to("cuda" if machine.on_gpu(accelerator) else "cpu"),
        data.faces.images,
        data.labels,
        getattr(data.split, subset),
        trained_on,
        views,
        machine.precision(settings["precision"], accelerator),
        data.votes,
    )
    scores = judged.scores
    title = f"{subset} of {data.faces.source}, {loaded.path}"
    report.print_scores(title, {views: scores})
    described = {"checkpoint": str(loaded.path), "epoch": loaded.epoch, "source": data.faces.source}
    asked = {"digest": data.faces.digest, "split": data.hparams["split"], "subset": subset}
    split = data.hparams["split"]["_target_"].rsplit(".", 1)[-1]
    name = f"{loaded.path.stem}_{split}_{subset}_{views}"
    run = loaded.path.parent.parent if loaded.path.parent.name == checkpoints.BEST.parent.name else loaded.path.parent
    folder = Path(settings["output"] or run / "evaluation")
    for path in report.save_scores(folder, name, described | asked | scores, data.classes, title):
        print(f"wrote {near(path.absolute())}")
    return scores


def _check(settings: dict[str, Any]) -> None:
    import torch

    from emotion.views import VIEWS

    expected = {
        "subset": ("train", "val", "test"),
        "views": tuple(VIEWS),
        "precision": ("auto", "32-true", "bf16-mixed"),
        "accelerator": ("auto", "cpu", "gpu") if torch.cuda.is_available() else ("auto", "cpu"),
    }
    for name, choices in expected.items():
        if settings[name] not in choices:
            raise UserError(f"{name}={settings[name]}: expected {', '.join(choices)}.")


def _data(settings: dict[str, Any], loaded: "Loaded") -> tuple["EmotionDataModule", "RowNumbers"]:
    """The data to score, and the rows of it that the checkpoint was trained on."""
    from emotion import checkpoints
    from emotion.data.datamodule import EmotionDataModule
    from emotion.data.sources import locate, not_found

    asked = dict(loaded.data) | {"cache_dir": settings["cache_dir"], "overfit": 0, "target": "majority"}
    if "labels" in settings:
        asked["labels"] = settings["labels"]
    if "data" in settings:
        source = locate(settings["data"])
        if source.stand_in:
            print(f"*** {not_found(settings['data'])} ***\n")
        asked["source"] = source.reader
    trained = EmotionDataModule(**asked)
    trained.setup()
    checkpoints.check_classes(loaded.path, loaded.classifier.classes, trained.classes)
    rows = trained.split.train
    if trained.faces.parts and trained.faces.parts[0].digest == loaded.digest:  # the same rows under other labels
        alone = EmotionDataModule(**asked | {"source": asked["source"]["source"]})
        alone.setup()
        rows = alone.split.train
    elif trained.faces.digest != loaded.digest:
        print(
            f"{trained.faces.source} is not what {loaded.path} was trained on: which of its rows it knows is unknown."
        )
        rows = rows[:0]
    if "split" not in settings:
        return trained, rows
    data = EmotionDataModule(**asked | {"split": settings["split"]})
    data.setup()
    return data, rows


@verb("evaluate")
def main(cfg: DictConfig) -> None:
    """Score and report."""
    evaluate(cfg)


if __name__ == "__main__":
    main()
