"""Score a checkpoint: python -m emotion.evaluate checkpoint=RUN [views=flip] [split=official] [subset=val]."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from emotion.cli import near, verb
from emotion.errors import UserError


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Scores of one part of a split, on all rows and on those whose pixels the checkpoint was not trained on.

    Without `data` and `split` the checkpoint is scored on the data and the split that it was trained with.

    Raises:
        UserError: something given is missing or wrong, or the data has other classes than the checkpoint.
    """
    from emotion import checkpoints, evaluation, machine, report
    from emotion.views import VIEWS

    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    subset, views = settings["subset"], settings["views"]
    if subset not in ("train", "val", "test"):
        raise UserError(f"subset={subset}: expected train, val or test.")
    if views not in VIEWS:
        raise UserError(f"views={views}: expected {', '.join(VIEWS)}.")
    loaded = checkpoints.load(settings["checkpoint"])
    data, trained_on = _data(settings, loaded)
    accelerator = settings["accelerator"]
    scores = evaluation.score_rows(
        loaded.classifier.to("cuda" if machine.on_gpu(accelerator) else "cpu"),
        data.faces.images,
        data.labels,
        getattr(data.split, subset),
        trained_on,
        views,
        machine.precision(settings["precision"], accelerator),
    )
    title = f"{subset} of {data.faces.source}, {loaded.path}"
    folder = Path(settings["output"] or loaded.path.parent.parent / "evaluation")
    report.print_scores(title, {views: scores})
    described = {"checkpoint": str(loaded.path), "epoch": loaded.epoch, "source": data.faces.source}
    asked = {"digest": data.faces.digest, "split": data.hparams["split"], "subset": subset}
    name = f"{data.hparams['split']['_target_'].rsplit('.', 1)[-1]}_{subset}_{views}"
    for path in report.save_scores(folder, name, described | asked | scores, data.classes, title):
        print(f"wrote {near(path.absolute())}")
    return scores


def _data(settings: dict[str, Any], loaded: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """The data to score, and the rows of it that the checkpoint was trained on."""
    from emotion import checkpoints
    from emotion.data.datamodule import EmotionDataModule
    from emotion.data.sources import locate

    asked = dict(loaded.data) | {"cache_dir": settings["cache_dir"], "overfit": 0}
    if "labels" in settings:
        asked["labels"] = settings["labels"]
    if "data" in settings:
        asked["source"] = locate(settings["data"]).reader
    trained = EmotionDataModule(**asked)
    checkpoints.check_classes(loaded.path, loaded.classifier.classes, trained.classes)
    trained.setup()
    if "split" not in settings:
        return trained, trained.split.train
    data = EmotionDataModule(**asked | {"split": settings["split"]})
    data.setup()
    return data, trained.split.train


@verb("evaluate")
def main(cfg: DictConfig) -> None:
    """Score and report."""
    evaluate(cfg)


if __name__ == "__main__":
    main()
