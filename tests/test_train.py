"""The main job from config to record, on real Hydra, Lightning and TensorBoard."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from emotion.checkpoints.load import load_checkpoint, read_checkpoint
from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.config.compose import compose
from emotion.errors import Stopped, UserError
from emotion.loggers.csv_logger import read_metrics
from emotion.records import run_record
from emotion.runtime.signals import ending
from emotion.train import train
from emotion.training.setup import make_classifier, make_data, make_trainer, resolve
from tests.conftest import SYSTEMS, options, signal_at

Config = Callable[..., DictConfig]
RUN = Path("run")


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    return small_run(RUN, "trainer.max_epochs=3")


def test_a_run_leaves_its_record_and_all_that_people_look_at(run: Path) -> None:
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert names >= {
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "history.png",
        "label_map.json",
        "metrics.csv",
        "record.json",
        "rows.npz",
        "test.json",
        "test_confusion.png",
    }
    assert not [name for name in names if "partial" in name]
    for picture in ("history.png", "test_confusion.png"):
        with Image.open(run / picture) as image:
            assert min(image.size) > 400
    record = json.loads((run / "record.json").read_text())
    assert record["config"]["model"]["_target_"] == "emotion.models.v4_attention.V4Attention"
    assert record["epochs"] == 3
    assert record["split"] == {"train": 77, "val": 19, "test": 48}
    assert record["versions"]["torch"] == torch.__version__.split("+")[0] or torch.__version__
    assert record["best"]["metric"] == "val/acc"
    for tta in ("none", "flip"):
        found = record["scores"]["test"][tta]["all"]
        figure, lower, upper = found["accuracy"]
        assert lower <= figure <= upper
        assert np.sum(found["confusion"]) == found["n"] == 48
    assert json.loads((run / "label_map.json").read_text())["fear"] == 5


def test_table_has_a_row_an_epoch(run: Path) -> None:
    rows = read_metrics(run / "metrics.csv")
    assert sorted(rows) == [0, 1, 2]
    assert set(rows[2]) == {
        "lr", "train/loss", "train/acc", "train/macro_f1", "val/loss", "val/acc", "val/macro_f1",
    }  # fmt: skip


def test_tensorboard_shows_scalars_pictures_and_hyperparameters(small_config: Config) -> None:
    part = "emotion.callbacks.tensorboard_pictures.TensorBoardPictures"
    train(small_config(f"+callbacks.tensorboard_pictures._target_={part}"), RUN)
    board = EventAccumulator(str(RUN / "tensorboard")).Reload()
    tags = board.Tags()
    assert {"train/loss", "val/acc", "val/macro_f1", "lr", "test/accuracy/flip"} <= set(tags["scalars"])
    assert set(tags["images"]) == {"val/confusion", "val/predictions"}
    assert "_hparams_/session_start_info" in board.summary_metadata


def test_best_checkpoint_is_the_epoch_that_the_record_names(run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    loaded = load_checkpoint(run)
    rows = read_metrics(run / "metrics.csv")
    assert loaded.epoch == record["best"]["epoch"]
    assert rows[loaded.epoch]["val/acc"] == max(row["val/acc"] for row in rows.values()) == record["best"]["score"]


def test_predictions_are_those_that_the_record_scores(run: Path) -> None:
    (kept,) = run_record.find([str(run)])
    for tta in ("none", "flip"):
        found, confusion = run_record.read_predictions(kept, tta), np.zeros((6, 6), int)
        np.add.at(confusion, (found.labels, found.predicted), 1)
        assert confusion.tolist() == kept.record["scores"]["test"][tta]["all"]["confusion"]
        with np.load(run / "rows.npz") as rows:
            assert found.rows.tolist() == rows["test"].tolist()


@pytest.mark.parametrize("model", SYSTEMS)
def test_every_system_goes_from_its_recipe_to_its_record(model: str) -> None:
    few = ["data=synthetic", "data.training=20", "data.public_test=2", "data.private_test=2"]
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.accelerator=cpu", "compile.cpu=false"]
    short += ["batch_size=8", "~callbacks.tensorboard_pictures"]
    train(compose("train", f"model={model}", *few, *short), RUN)
    record = json.loads((RUN / "record.json").read_text())
    assert record["config"]["name"] == model
    scores = record["scores"]["test"]["none"]["all"]
    assert list(scores["classes"]) == list(compose("train", f"model={model}").labels)
    assert 0 <= scores["ece"] <= 1
    lower, upper = scores["nll"][1:]
    assert lower < scores["nll"][0] < upper


@pytest.mark.parametrize("choice", [*(f"loss={name}" for name in options("loss")), "sampler=weighted"])
def test_every_loss_and_sampler_trains(choice: str, small_config: Config) -> None:
    train(small_config(choice, "trainer.max_epochs=1"), RUN)
    assert read_metrics(RUN / "metrics.csv")[0]["train/loss"] > 0


def test_best_checkpoint_gives_the_recorded_scores(run: Path) -> None:
    """Lightning's own test loop, on the loaded checkpoint, finds the accuracy that the record states."""
    record = json.loads((run / "record.json").read_text())
    loaded = load_checkpoint(run)
    settings = record["config"]
    data, _ = make_data(settings)
    loaded.classifier.tune(channels_last=True)
    (found,) = make_trainer(settings, limited=False).test(loaded.classifier, datamodule=data, verbose=False)
    assert found["test/acc"] == pytest.approx(record["scores"]["test"]["none"]["all"]["accuracy"][0])


def test_two_runs_of_one_seed_are_equal_to_the_last_bit(small_config: Config) -> None:
    cfg = small_config("augment=full", "trainer.max_epochs=2")
    for name in ("one", "other"):
        train(cfg, Path(name))
    one, other = (read_checkpoint(Path(name) / LAST_CHECKPOINT)["state_dict"] for name in ("one", "other"))
    assert all(one[name].equal(other[name]) for name in one)
    assert Path("one/metrics.csv").read_text() == Path("other/metrics.csv").read_text()


def test_another_seed_gives_another_network(small_config: Config) -> None:
    for seed in (0, 1):
        train(small_config(f"seed={seed}", "trainer.max_epochs=1"), Path(str(seed)))
    one, other = (load_checkpoint(str(seed)).classifier.net.state_dict() for seed in (0, 1))
    assert not one["head.3.weight"].equal(other["head.3.weight"])


def test_a_finished_run_is_not_trained_again(run: Path, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"is finished after 3 epochs; to train on, raise trainer.max_epochs"):
        train(small_config("trainer.max_epochs=3", f"resume={run}"), run)


def test_a_finished_run_goes_on_with_more_epochs(run: Path, small_config: Config) -> None:
    train(small_config("trainer.max_epochs=4", f"resume={run}"), run)
    train(small_config("trainer.max_epochs=4"), Path("straight"))
    longer, straight = (read_checkpoint(r / LAST_CHECKPOINT)["state_dict"] for r in (run, Path("straight")))
    assert all(longer[name].equal(straight[name]) for name in longer)


def test_a_run_stopped_before_its_first_checkpoint_cannot_resume(small_config: Config) -> None:
    RUN.mkdir()
    with pytest.raises(UserError, match="stopped before its first checkpoint"):
        train(small_config(f"resume={RUN}"), RUN)


def test_a_moved_run_resumes_and_keeps_its_best_epoch(small_config: Config) -> None:
    train(small_config("trainer.max_epochs=2"), Path("before"))
    moved = Path("before").rename("after")
    train(small_config("trainer.max_epochs=3", f"resume={moved}"), moved)
    record = json.loads((moved / "record.json").read_text())
    rows = read_metrics(moved / "metrics.csv")
    assert record["best"]["score"] == max(row["val/acc"] for row in rows.values())


def test_drawn_faces_are_learnt(small_config: Config) -> None:
    """Well above chance (1 in 6), and not so easy that nothing is left to learn."""
    cfg = small_config(
        "model.widths=[16,32,64]", "model.convs=[1,1,1]", "model.hidden=32", "data.training=250",
        "data.private_test=30", "input.size=24",
        "batch_size=32", "optimizer.lr=3e-3", "scheduler=cosine", "trainer.max_epochs=9", "model.dropout=[0,0]",
        "loss.label_smoothing=0", "augment=none",
    )  # fmt: skip
    train(cfg, RUN)
    record = json.loads((RUN / "record.json").read_text())
    assert 0.4 < record["scores"]["test"]["none"]["all"]["accuracy"][0] < 0.99


@pytest.mark.parametrize("scheduler", options("scheduler"))
def test_every_schedule_runs_to_the_end(scheduler: str, small_config: Config) -> None:
    train(small_config(f"scheduler={scheduler}", "trainer.max_epochs=2"), RUN)
    assert len(read_metrics(RUN / "metrics.csv")) == 2


@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_every_optimiser_takes_the_recipe(optimizer: str, small_config: Config) -> None:
    train(small_config(f"optimizer={optimizer}", "trainer.max_epochs=1"), RUN)


@pytest.mark.parametrize("debug", options("debug"))
def test_every_debug_choice_runs(debug: str) -> None:
    few = ["data=synthetic", "data.training=20", "data.public_test=2", "data.private_test=2"]
    small = ["model.widths=[8,16]", "model.convs=[1,1]", "model.reduction=4", "input=grey48", "batch_size=4"]
    easy = ["preflight.steps=1", "preflight.accuracy=1e-9", "~callbacks.tensorboard_pictures"]
    train(compose("train", f"debug={debug}", *few, *small, *easy), RUN)
    assert (RUN / ("preflight.json" if debug == "preflight" else "record.json")).is_file()
    if debug == "profile":
        assert "optimizer_step" in (RUN / "fit-profile.txt").read_text()


def test_without_fer2013_drawn_faces_stand_in_and_everything_says_so(
    small_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = small_config("trainer.max_epochs=1")
    cfg.data = compose("train", "data=auto", "data.otherwise.training=10").data
    train(cfg, RUN)
    said = capsys.readouterr().out
    assert "FER2013 was not found" in said
    assert "SYNTHETIC" in said.split("by class")[0].split("chosen by")[0]
    assert json.loads((RUN / "record.json").read_text())["data"]["stand_in"] is True


def test_the_stand_in_stops_after_its_minutes(small_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = small_config("trainer.max_epochs=50", "demo_minutes=0.001")
    cfg.data = compose("train", "data=auto", "data.otherwise.training=10").data
    train(cfg, RUN)
    assert json.loads((RUN / "record.json").read_text())["epochs"] < 5
    assert "training ends with the epoch under way" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["monitor.metric=val/auc", "monitor.mode=most"])
def test_a_run_cannot_be_judged_by_what_it_does_not_log(wrong: str, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"expected a metric of val/loss, val/acc, .* and mode max or min"):
        train(small_config(wrong), RUN)


def test_views_and_compilation_are_checked_before_the_training(small_config: Config) -> None:
    with pytest.raises(UserError, match=r"compile.cpu=quick: expected true, false, default, reduce-overhead, max"):
        train(small_config("compile.cpu=quick"), RUN)
    with pytest.raises(UserError, match="tta=many: expected none, flip, ten_crop"):
        train(small_config("tta=many"), RUN)


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_schedule_by_step_keeps_its_number_of_epochs(
    epochs: int, small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, "training_step", 3)
        with pytest.raises(Stopped):
            train(small_config("scheduler=one_cycle", "data.training=20"), RUN)
    with pytest.raises(UserError, match=f"are laid out for 2 epochs, not for {epochs}; start another run"):
        train(small_config("scheduler=one_cycle", f"trainer.max_epochs={epochs}", f"resume={RUN}"), RUN)


def test_a_resumed_run_keeps_the_command_that_it_began_with(run: Path, small_config: Config) -> None:
    began = json.loads((run / "record.json").read_text())
    train(small_config("trainer.max_epochs=4", f"resume={run}"), run)
    train(small_config("trainer.max_epochs=5", f"resume={run}"), run)
    record = json.loads((run / "record.json").read_text())
    assert (record["command"], record["commit"]) == (began["command"], began["commit"])
    assert "resumed" not in began
    assert [sorted(again) for again in record["resumed"]] == [["command", "commit"]] * 2


def test_a_run_stopped_while_it_is_scored_is_scored_when_resumed(small_config: Config) -> None:
    cfg = small_config("scheduler=cosine", "trainer.max_epochs=1")
    train(cfg, RUN)
    record = json.loads((RUN / "record.json").read_text())
    run_record.write_record(RUN, record | {"scores": None})
    cfg.resume = str(RUN)
    train(cfg, RUN)
    assert json.loads((RUN / "record.json").read_text())["scores"] == record["scores"]


def test_a_plateau_without_validation_is_refused(small_config: Config) -> None:
    with pytest.raises(UserError, match=r"monitor.metric=val/acc is not logged; expected one of"):
        train(small_config("trainer.limit_val_batches=0", "~callbacks.early_stopping"), RUN)


def test_callbacks_and_loggers_can_be_left_out(small_config: Config) -> None:
    train(small_config("logger=csv", "~callbacks.epoch_table", "~callbacks.best_checkpoint"), RUN)
    assert not (RUN / "tensorboard").exists()
    assert json.loads((RUN / "record.json").read_text())["best"]["epoch"] == 1


def test_at_its_start_a_run_says_how_long_it_takes(small_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    train(small_config("batch_size=8"), RUN)
    said = capsys.readouterr().out
    assert "an epoch takes about" in said
    assert f"python -m emotion.train resume={RUN}" in said


def test_compiled_and_plain_networks_share_their_checkpoints(small_config: Config) -> None:
    settings = resolve(small_config(), RUN)
    data, _ = make_data(settings)
    plain, compiled = make_classifier(settings, data), make_classifier(settings, data)
    compiled.tune(channels_last=True, compile_mode="default")
    assert list(plain.state_dict()) == list(compiled.state_dict())


def test_a_signal_that_was_lost_before_training_ends_it_after_a_batch(small_config: Callable[..., DictConfig]) -> None:
    with ending():
        handler = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            handler(signal.SIGINT, None)  # type: ignore[operator,misc]
        with pytest.raises(Stopped):
            train(small_config(), Path("run"))
    assert read_checkpoint(Path("run") / LAST_CHECKPOINT)["global_step"] == 1
