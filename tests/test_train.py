"""Training from config to record, with the real Hydra, Lightning and TensorBoard."""

import json
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from emotion.checkpoints.load import load_checkpoint, read_checkpoint
from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.classifier import EmotionClassifier
from emotion.config.compose import compose
from emotion.config.instantiate import PLUGINS
from emotion.errors import Stopped, UserError
from emotion.loggers.csv_logger import read_metrics
from emotion.metrics.classification import EPOCH_METRICS
from emotion.records.predictions import read_predictions
from emotion.records.run_folder import CONFIG, find_finished, read_run
from emotion.records.run_record import RECORD, RunRecord
from emotion.reporting import figures
from emotion.runtime.signals import handle_signals
from emotion.train import train
from emotion.training.config import TrainConfig
from emotion.training.final_evaluation import summary
from emotion.training.first_run import use_first_run_recipe
from emotion.training.run import TrainingRun, fit, setup
from emotion.training.setup import METRICS, make_classifier, make_data, make_trainer, resolve
from tests.conftest import ROOT, SYSTEMS, options, record_of, representative, signal_at

Config = Callable[..., DictConfig]
RUN = Path("run")
FEW_FACES = ("data=synthetic", "data.training=20", "data.public_test=2", "data.private_test=2")


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    return small_run(RUN, "trainer.max_epochs=3")


def fitted(cfg: DictConfig, run_dir: Path = RUN) -> TrainingRun:
    """A run that was trained but not scored."""
    run = setup(resolve(cfg, run_dir), cfg)
    fit(run)
    return run


def test_a_run_writes_its_record_and_figures(run: Path) -> None:
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
        scores = record["scores"]["test"][tta]["all"]
        accuracy, lower, upper = scores["accuracy"]
        assert lower <= accuracy <= upper
        assert np.sum(scores["confusion"]) == scores["n"] == 48
    assert json.loads((run / "label_map.json").read_text())["fear"] == 5
    rows = read_metrics(run / "metrics.csv")
    assert sorted(rows) == [1, 2, 3]
    assert {"loss", "acc", "macro_f1"} <= set(EPOCH_METRICS)
    assert set(rows[3]) == {"lr", *METRICS}


def test_a_record_survives_reading_and_writing(run: Path) -> None:
    content = json.loads((run / "record.json").read_text())
    record = record_of(run)
    assert record.to_dict() == content
    assert (record.name, record.seed, record.is_synthetic) == ("v4_attention", 0, True)
    assert record.missing_fields() == []
    assert TrainConfig.from_dict(record.config).to_dict() == record.config


def test_tensorboard_shows_scalars_pictures_and_hyperparameters(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, titles, set_title = "emotion.callbacks.tensorboard_pictures.TensorBoardPictures", [], figures._set_title
    monkeypatch.setattr(figures, "_set_title", lambda figure, title: titles.append(title) or set_title(figure, title))
    train(small_config(f"+callbacks.tensorboard_pictures._target_={part}"), RUN.absolute())
    assert sum(title.startswith("v4_attention seed=0: V4Attention") for title in titles) == 4
    assert not [title for title in titles if str(RUN.absolute()) in title]
    board = EventAccumulator(str(RUN / "tensorboard")).Reload()
    tags = board.Tags()
    curves = {f"{metric}/{stage}" for metric in EPOCH_METRICS for stage in ("train", "val")}
    assert {name for name in tags["scalars"] if not name.startswith("test/")} == {"lr", *curves}
    assert "test/accuracy/flip" in tags["scalars"]
    assert set(tags["images"]) == {"val/confusion", "val/predictions"}
    assert "_hparams_/session_start_info" in board.summary_metadata
    shown = board.summary_metadata["_hparams_/experiment"].plugin_data.content
    names = sorted(info.name for info in HParamsPluginData.FromString(shown).experiment.hparam_infos)
    assert names[:5] == ["batch_size", "lr", "model", "name", "seed"]  # which TensorBoard shows


def test_a_run_with_tensorboard_alone_has_its_history(small_config: Config) -> None:
    assert list(small_config("logger=tensorboard").logger) == ["csv", "tensorboard"]


def test_the_best_checkpoint_is_the_epoch_in_the_record(run: Path) -> None:
    best = record_of(run).best
    rows = read_metrics(run / "metrics.csv")
    assert load_checkpoint(run).epoch + 1 == best["epoch"]
    assert (run / "metrics.csv").read_text().splitlines()[1].startswith("1,")
    assert rows[best["epoch"]]["val/acc"] == max(row["val/acc"] for row in rows.values()) == best["score"]


def test_records_of_former_versions_count_epochs_from_1_once_they_are_read() -> None:
    folder = ROOT / "outputs/records/simple_cnn/seed=0"
    record, rows = RunRecord.read(folder), read_metrics(folder / "metrics.csv")
    assert record is not None
    assert sorted(rows) == list(range(1, record.epochs + 1))
    assert rows[record.best["epoch"]]["val/acc"] == pytest.approx(record.best["score"])
    assert RunRecord.from_dict(record.to_dict()) == record


@pytest.mark.parametrize(("limit", "faces"), [("1", 7), ("0.5", 14), ("9", 28), ("1.0", 28), ("null", 28)])
def test_the_record_counts_the_faces_that_an_epoch_is_scored_on(limit: str, faces: int, small_config: Config) -> None:
    few = ("labels=seven", "split=official", "batch_size=2", "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    run = fitted(small_config(*few, f"trainer.limit_val_batches={limit}"))
    assert run.record.split["val"] == 28  # four batches of 8 at most
    assert run.classifier.val_scores.faces == run.record.num_validated == faces


def test_the_record_has_the_scores_of_the_predictions(run: Path) -> None:
    (finished,) = find_finished([str(run)])
    for tta in ("none", "flip"):
        predictions, confusion = read_predictions(finished, tta), np.zeros((6, 6), int)
        np.add.at(confusion, (predictions.labels, predictions.predicted), 1)
        assert confusion.tolist() == finished.record.test_scores[tta]["all"]["confusion"]
        with np.load(run / "rows.npz") as rows:
            assert predictions.rows.tolist() == rows["test"].tolist()


def test_the_best_checkpoint_has_the_recorded_accuracy_in_lightnings_test_loop(run: Path) -> None:
    record = record_of(run)
    classifier, config = load_checkpoint(run).classifier, TrainConfig.from_dict(record.config)
    data, _ = make_data(config)
    classifier.optimize_for_device(channels_last=True)
    (metrics,) = make_trainer(config).test(classifier, datamodule=data, verbose=False)
    assert metrics["test/acc"] == pytest.approx(record.test_scores["none"]["all"]["accuracy"][0])


@pytest.mark.parametrize("model", representative(SYSTEMS, "simple_cnn", "compact_cnn"))
def test_every_system_trains_by_its_recipe(model: str) -> None:
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.accelerator=cpu", "compile.cpu=false"]
    short += ["batch_size=8", "~callbacks.tensorboard_pictures"]
    train(compose("train", f"model={model}", *FEW_FACES, *short), RUN)
    record = record_of(RUN)
    assert record.name == model
    scores = record.test_scores["none"]["all"]
    assert list(scores["classes"]) == list(compose("train", f"model={model}").labels)
    assert 0 <= scores["ece"] <= 1
    nll, lower, upper = scores["nll"]
    assert lower < nll < upper


CHOICES = [
    *(f"loss={name}" for name in options("loss")),
    *(f"optimizer={name}" for name in options("optimizer")),
    *(f"scheduler={name}" for name in options("scheduler")),
    "sampler=weighted",
]


@pytest.mark.parametrize(
    "choice", representative(CHOICES, "loss=ldam", "optimizer=muon", "scheduler=one_cycle", "sampler=weighted")
)
def test_every_loss_optimizer_schedule_and_sampler_trains(choice: str, small_config: Config) -> None:
    fitted(small_config(choice, "trainer.max_epochs=2"))
    rows = read_metrics(RUN / "metrics.csv")
    assert len(rows) == 2
    assert rows[1]["train/loss"] > 0


def test_denormal_numbers_are_zero_in_training_alone(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """They slow a processor up to a hundred times, and the weights of inactive channels decay to them."""

    def product() -> float:
        return torch.tensor([1e-40]).mul(1).item()

    products, original = [], EmotionClassifier.training_step
    monkeypatch.setattr(
        EmotionClassifier, "training_step", lambda *arguments: products.append(product()) or original(*arguments)
    )
    train(small_config("trainer.max_epochs=1"), RUN)
    assert set(products) == {0}
    assert product() > 0


def test_runs_of_one_seed_are_equal_and_of_another_differ(small_config: Config) -> None:
    for name, seed in (("one", 0), ("other", 0), ("another", 1)):
        fitted(small_config("augment=full", "trainer.max_epochs=2", f"seed={seed}"), Path(name))
    one, other, another = (
        read_checkpoint(Path(name) / LAST_CHECKPOINT).state_dict for name in ("one", "other", "another")
    )
    assert all(one[name].equal(other[name]) for name in one)
    assert Path("one/metrics.csv").read_text() == Path("other/metrics.csv").read_text()
    assert not one["net.head.3.weight"].equal(another["net.head.3.weight"])


def test_a_finished_run_can_only_be_resumed_with_more_epochs(run: Path, small_config: Config) -> None:
    started = record_of(run)
    with pytest.raises(UserError, match=r"is finished after 3 epochs; to train longer, raise trainer.max_epochs"):
        train(small_config("trainer.max_epochs=3", f"resume={run}"), run)
    train(small_config("trainer.max_epochs=4", f"resume={run}"), run)
    fitted(small_config("trainer.max_epochs=4"), Path("straight"))
    longer, straight = (read_checkpoint(r / LAST_CHECKPOINT).state_dict for r in (run, Path("straight")))
    assert all(longer[name].equal(straight[name]) for name in longer)
    train(small_config("trainer.max_epochs=5", f"resume={run}"), run)
    record = record_of(run)
    assert (record.command, record.commit) == (started.command, started.commit)
    assert started.resumed == []
    assert [sorted(resume) for resume in record.resumed] == [["command", "commit"]] * 2


def test_a_finished_run_that_trains_longer_is_unfinished(
    run: Path, small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, "training_step", 1, signal.SIGTERM)
        with pytest.raises(Stopped), handle_signals():
            train(small_config("trainer.max_epochs=6", f"resume={run}"), run)
    assert (read_run(run).state, record_of(run).scores) == ("stopped", None)
    train(small_config("trainer.max_epochs=6", "resume=auto"), run)
    assert (read_run(run).state, record_of(run).epochs) == ("finished", 6)


def test_fewer_epochs_than_a_run_has_trained_are_refused_before_anything_is_written(
    run: Path, small_config: Config
) -> None:
    replace(record_of(run), scores=None, best={}).write(run)
    before = {name: (run / name).read_bytes() for name in (CONFIG, RECORD)}
    with pytest.raises(UserError, match=r"last\.ckpt has trained 3 epochs; found trainer\.max_epochs=2, expected no"):
        train(small_config("trainer.max_epochs=2", f"resume={run}"), run)
    assert {name: (run / name).read_bytes() for name in before} == before


def test_a_run_resumed_without_its_record_says_so(
    run: Path, small_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / RECORD).unlink()
    train(small_config("trainer.max_epochs=4", f"resume={run}"), run)
    assert "warning: run/record.json is missing, so the run's first command is unknown." in capsys.readouterr().out
    assert len(record_of(run).resumed) == 1
    assert record_of(run).wall_seconds is None


def test_a_run_stopped_before_its_first_checkpoint_cannot_be_resumed(small_config: Config) -> None:
    RUN.mkdir()
    with pytest.raises(UserError, match="stopped before its first checkpoint"):
        train(small_config(f"resume={RUN}"), RUN)


def test_a_folder_with_a_run_is_refused_without_resume(run: Path, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"run already contains a run. Resume it with resume=run, or choose another"):
        train(small_config(), run)


def test_a_moved_run_keeps_its_best_epoch_when_resumed(run: Path, small_config: Config) -> None:
    moved = run.rename("after")
    train(small_config("trainer.max_epochs=4", f"resume={moved}"), moved)
    rows = read_metrics(moved / "metrics.csv")
    assert record_of(moved).best["score"] == max(row["val/acc"] for row in rows.values())


def test_synthetic_faces_can_be_learned(small_config: Config) -> None:
    """Well above chance (1 in 6), but not perfectly."""
    cfg = small_config(
        "model.widths=[8,16,32]", "model.convs=[1,1,1]", "model.hidden=32", "data.training=150", "input.size=24",
        "batch_size=32", "optimizer.lr=1e-2", "scheduler=cosine", "trainer.max_epochs=6", "model.dropout=[0,0]",
        "loss.label_smoothing=0", "augment=none", "trainer.precision=32-true",
    )  # fmt: skip
    assert 0.33 < fitted(cfg).record.best["score"] < 0.99


@pytest.mark.parametrize("debug", representative(options("debug"), "fdr", "preflight", "profile"))
def test_every_debug_config_runs(debug: str) -> None:
    small = ["model.widths=[8,16]", "model.convs=[1,1]", "model.reduction=4", "input=grey48", "batch_size=4"]
    easy = ["preflight.steps=1", "preflight.accuracy=1e-9", "~callbacks.tensorboard_pictures"]
    train(compose("train", f"debug={debug}", *FEW_FACES, *small, *easy), RUN)
    assert (RUN / ("preflight.json" if debug == "preflight" else "record.json")).is_file()
    if debug == "profile":
        assert "optimizer_step" in (RUN / "fit-profile.txt").read_text()


def test_the_commands_printed_at_the_end_name_only_the_plugins_they_need(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLUGINS, "mynet,myloss,mydata")
    record = record_of(run)
    record.config["model"]["_target_"], record.config["data"]["_target_"] = "mynet.MyNet", "mydata.read"
    record.config["loss"]["_target_"] = "myloss.PolyLoss"
    text = summary(run, record, record.test_scores["none"]["all"])
    assert re.findall(r"python -m emotion\.(\w+) plugins=\[(\S+)\] ", text) == [
        ("evaluate", "mynet,mydata"), ("explain", "mynet,mydata"), ("predict", "mynet"),
    ]  # fmt: skip
    assert "plugins=" not in summary(run, record_of(run), record.test_scores["none"]["all"])


def test_without_fer2013_a_run_uses_synthetic_faces_says_so_and_completes_its_epochs(
    small_config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "experiment=first_run"])
    cfg = small_config("trainer.max_epochs=4")
    cfg.data = compose("train", "data=auto", "data.fallback.training=10").data
    train(cfg, RUN)
    output = capsys.readouterr().out
    assert "FER2013 was not found" in output
    assert "run: run\nThe settings are those of experiment=first_run, a short recipe for synthetic faces.\n" in output
    assert "4 epochs take at most" in output
    assert re.search(r"^test \(SYNTHETIC\): accuracy \S+ % \[", output, re.MULTILINE)
    record = json.loads((RUN / "record.json").read_text())
    assert record["data"]["synthetic"] is True
    assert record["epochs"] == 4


@pytest.mark.parametrize(
    ("arguments", "is_used"),
    [
        (["model=simple_cnn"], True),
        (["--cfg", "job", "seed=1"], True),
        (["data=auto", "trainer.max_epochs=2", "--cfg", "job"], True),
        (["data_dir=nowhere"], False),
        (["data=synthetic"], False),
        (["data_dir=found"], False),
        (["experiment=fast_cpu"], False),
        (["resume=auto"], True),
        (["-m", "seed=0,1"], True),
        (["sweep=seeds"], True),
        (["-m", "experiment=fast_cpu,cpu_best"], False),
        (["--config-path", "run/.hydra", "resume=run"], False),
        (["--help"], False),
        (["data=mistyped"], False),
    ],
)
def test_without_fer2013_the_recipe_is_short_unless_another_is_chosen(
    arguments: list[str], is_used: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("found").mkdir()
    Path("found/fer2013.csv").write_text("emotion,pixels,Usage\n")
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    use_first_run_recipe()
    assert sorted(sys.argv[1:]) == sorted(["experiment=first_run"] * is_used + arguments)
    assert sys.argv[-1] == arguments[-1]
    assert capsys.readouterr().out == "", "a setting may still be refused"


def test_settings_given_override_the_short_recipe() -> None:
    cfg = compose("train", "experiment=first_run", "model=fast_cnn", "trainer.max_epochs=2", "input=grey48")
    assert (cfg.trainer.max_epochs, cfg.input.size, cfg.optimizer._target_) == (2, 48, "torch.optim.Adam")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("monitor.metric=val/auc", r"expected a metric of val/loss, val/acc, .* and mode max or min"),
        ("monitor.mode=most", r"expected a metric of val/loss, val/acc, .* and mode max or min"),
        ("compile.cpu=quick", r"compile.cpu=quick: expected true, false, default, reduce-overhead, max"),
        ("tta=many", "tta=many: expected none, flip, shifted, ten_crop"),
        ("target=soft", "target=soft: expected majority, distribution, sampled"),
        ("seed=-1", "seed=-1: expected an integer from 0 to 4294967295"),
        ("seed=4294967296", "seed=4294967296: expected an integer from 0 to 4294967295"),
        ("batch_size=0", "batch_size=0: expected an integer of at least 1"),
        ("batch_size=2.5", "batch_size=2.5: expected an integer of at least 1"),
        ("patience=-1", "^patience=-1: expected an integer of at least 0"),
        ("freeze_epochs=true", "freeze_epochs=True: expected an integer of at least 0"),
        ("layer_decay=2", "layer_decay=2: expected a number above 0 and at most 1"),
        ("layer_decay=0", "layer_decay=0: expected a number above 0 and at most 1"),
        ("backbone_lr=-1", "backbone_lr=-1: expected a number of at least 0"),
        ("data.training=2.5", "data.training=2.5: expected an integer of at least 0"),
        ("split.fraction=2", "split.fraction=2: expected a number above 0 and below 1"),
        ("split.fraction=nan", "split.fraction=nan: expected a number above 0 and below 1"),
        ("split.seed=-1", "split.seed=-1: expected an integer of at least 0"),
        ("split=kfold split.fold=5", "split.folds=5 split.fold=5: expected 3 or more folds, and a fold below"),
        ("sampler=weighted sampler.power=-1", "sampler.power=-1: expected a number from 0 to 1"),
        ("input.std=[0]", r"input.std=\[0\]: expected a number above 0"),
        ("input.mean=[nan]", r"input.mean=\[nan\]: expected a number"),
        ("model.widths=[8,-1]", r"model.widths=\[8, -1\]: expected an integer of at least 1"),
        ("model.dropout=[0.5,2]", r"model.dropout=\[0.5, 2\]: expected a number from 0 to 1"),
        ("model.hidden=1.5", "model.hidden=1.5: expected an integer of at least 1"),
        ("model.reduction=9", "reduction=9: expected 1 to 8, the number of channels"),
        ("augment.flip.p=2", "augment.flip.p=2: expected a number from 0 to 1"),
        ("augment.blur.sigma=[2,1]", r"sigma=\[2, 1\]: expected \[LOW,HIGH\], each a number above 0"),
        ("augment=strong augment.gamma.p=2", "augment.gamma.p=2: expected a number from 0 to 1"),
        ("split.exclude=nowhere.csv", "split.exclude=nowhere.csv cannot be read: No such file"),
        (
            "distillation={temperature:4.0}",
            r"distillation.teacher is not given; .* distillation.teacher=RUN or .*\[RUN,RUN\]",
        ),
        ("distillation=2", "distillation=2: expected settings, distillation.KEY=VALUE"),
        ("mixup=mixup mixup.alpha=0", "mixup.alpha=0: expected a number above 0"),
        ("mixup=either mixup.transforms.1.alpha=0", r"mixup.transforms.1.alpha=0: expected a number above 0"),
        ("loss.label_smoothing=3", "loss.label_smoothing=3: expected a number from 0 to 1"),
        ("loss.balanced=3", "balanced=3; expected a power from 0 to 1"),
        ("loss=ldam loss.scale=0", "loss.scale=0: expected a number above 0"),
        ("optimizer.lr=-1", "optimizer.lr=-1: expected a number of at least 0"),
        ("optimizer.lr=inf", "optimizer.lr=inf: expected a number of at least 0"),
        ("+optimizer.betas=[2,2]", "Adam refuses its arguments: Invalid beta parameter"),
        ("scheduler.patience=1.5", "scheduler.patience=1.5: expected an integer of at least 0"),
        ("scheduler.min_lr=fast", "scheduler.min_lr=fast: expected a number of at least 0"),
        ("scheduler.factor=1", r"ReduceLROnPlateau refuses its arguments: Factor should be < 1\.0"),
        ("scheduler.interval=never", "scheduler.interval=never: expected epoch or step"),
        ("trainer.devices=true", "trainer.devices=True: expected auto, a number of devices, -1 for all"),
        ("trainer.devices=0", "trainer.devices=0: expected auto, a number of devices, -1 for all"),
        ("trainer.devices=[-1]", r"trainer.devices=\[-1\]: expected auto, a number of devices, -1 for all"),
        ("trainer.max_epochs=0", "max_epochs=0: expected an integer of at least 1"),
        ("trainer.accumulate_grad_batches=0", "accumulate_grad_batches=0: expected an integer of at least 1"),
        ("trainer.gradient_clip_val=-1", "gradient_clip_val=-1: expected a number of at least 0"),
        ("trainer.limit_train_batches=0", "limit_train_batches=0: expected a number of batches of at least 1, or"),
        ("trainer.limit_train_batches=2.5", "limit_train_batches=2.5: expected a number of batches of at least 1, or"),
        ("trainer.precision=7", "precision=7: expected auto, 32-true, 16-mixed, bf16-mixed"),
        ("trainer.precision=bf16-true", "precision=bf16-true: expected auto"),
        ("trainer.max_epochs=null", "max_epochs=null: expected an integer of at least 1"),
        ("trainer.accumulate_grad_batches=null", "accumulate_grad_batches=null: expected an integer of at least 1"),
        ("model.weights=null", "model.weights=null: expected pretrained, random"),
        ("optimizer.lr=null", "optimizer.lr is not set; expected a learning rate"),
        ("scheduler.interval=null", "scheduler.interval=null: expected epoch or step"),
        ("trainer.limit_val_batches=0", "limit_val_batches=0: callbacks.early_stopping needs val/acc"),
        ("callbacks.early_stopping.monitor=val/foo", "early_stopping.monitor=val/foo: expected one of val/loss, "),
        ("+trainer.check_val_every_n_epoch=2", "check_val_every_n_epoch=2: expected 1"),
        ("+trainer.overfit_batches=1", "use debug=overfit"),
        ("callbacks.early_stopping=null", "early_stopping=null: expected a callback's settings; ~callbacks.early"),
        ("+trainer.val_check_interval=2.5", "val_check_interval=2.5: expected 1.0"),
        ("+trainer.val_check_interval=1", "val_check_interval=1: expected 1.0"),
        ("trainer.accelerator=tpu", r"Trainer needs a package that is not installed: .*torch_xla"),
        ("trainer.accelerator=hpu", "invalid accelerator name"),
        ("+trainer.strategy=ddp_x", "invalid strategy name"),
        ("+trainer.max_time=00:01:00:00", "trainer.max_time would be ignored; set trainer.max_epochs"),
        ("+trainer.fast_dev_run=true", "debug=limit runs a few batches"),
        ("callbacks.early_stopping.patience=-1", "early_stopping.patience=-1: expected an integer of at least 0"),
        ("callbacks=[default,ema] ema_decay=1.5", "ema_decay=1.5: expected a number from 0 to 1"),
        (
            "callbacks=[default,explanations] callbacks.explanations.faces=0",
            "explanations.faces=0: expected an integer",
        ),
        ("preflight.steps=0", "preflight.steps=0: expected an integer of at least 1"),
        ("preflight.accuracy=90", "preflight.accuracy=90: expected a number from 0 to 1"),
    ],
)
def test_settings_are_checked_before_the_data_are_read(
    override: str, message: str, small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emotion.data.datamodule.prepare", lambda *_: pytest.fail("the data are read"))
    *choices, setting = OverridesParser.create().parse_overrides(override.split())
    cfg = small_config(*(str(choice.input_line) for choice in choices))
    OmegaConf.update(cfg, setting.key_or_group, setting.value(), force_add=True)  # faster than composing again
    with pytest.raises(UserError, match=message):
        train(cfg, RUN)
    assert not RUN.exists()


@pytest.mark.skipif(torch.accelerator.is_available(), reason="a GPU is there")
@pytest.mark.parametrize("override", ["trainer.accelerator=gpu", "trainer.accelerator=cuda"])
def test_a_gpu_that_is_not_there_is_answered_with_the_choices(override: str, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"finds no GPU on this machine; expected trainer=cpu, or trainer=auto"):
        train(small_config(override), RUN)
    assert not RUN.exists()


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_schedule_by_step_keeps_its_number_of_steps(
    epochs: int, small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, "training_step", 3)
        with pytest.raises(Stopped):
            train(small_config("scheduler=one_cycle", "data.training=20"), RUN)
    for setting in (f"trainer.max_epochs={epochs}", f"trainer.accumulate_grad_batches={epochs + 1}"):
        with pytest.raises(UserError, match=rf"was made for trainer\.\w+=\d, found {setting}; start another"):
            train(small_config("scheduler=one_cycle", setting, f"resume={RUN}"), RUN)


def test_a_run_stopped_during_scoring_is_scored_when_resumed(run: Path, small_config: Config) -> None:
    record = record_of(run)
    replace(record, scores=None).write(run)
    train(small_config("trainer.max_epochs=3", f"resume={run}"), run)
    assert record_of(run).scores == record.scores


def test_a_plateau_without_validation_is_refused(small_config: Config) -> None:
    with pytest.raises(UserError, match=r"monitor.metric=val/acc is not logged; expected one of"):
        train(small_config("trainer.limit_val_batches=0", "~callbacks.early_stopping"), RUN)


def test_callbacks_and_loggers_can_be_left_out(small_config: Config) -> None:
    train(small_config("logger=csv", "~callbacks.epoch_table", "~callbacks.best_checkpoint"), RUN)
    assert not (RUN / "tensorboard").exists()
    assert record_of(RUN).best["epoch"] == 2


def test_a_run_estimates_its_time_at_the_start(small_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    fitted(small_config("batch_size=8", "trainer.max_epochs=1"))
    output = capsys.readouterr().out
    assert "an epoch takes about" in output
    assert f"python -m emotion.train resume={RUN}" in output


def test_a_run_is_trained_and_scored_with_a_closed_standard_output(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", None)
    train(small_config("trainer.max_epochs=1"), RUN)
    assert record_of(RUN).test_scores


@pytest.mark.parametrize(("model", "names_a_faster_one"), [("simple_cnn", True), ("fast_cnn", False)])
def test_a_long_run_on_a_cpu_names_a_network_that_trains_in_minutes(
    capsys: pytest.CaptureFixture[str], model: str, names_a_faster_one: bool
) -> None:
    data = ("data=synthetic", "data.training=16", "data.public_test=4", "data.private_test=4", "batch_size=8")
    steps = ("trainer.max_epochs=10000000", "+trainer.max_steps=2", "trainer.limit_train_batches=2")
    fitted(compose("train", f"model={model}", *data, *steps))
    assert ("model=fast_cnn" in capsys.readouterr().out) == names_a_faster_one


def test_compiled_and_plain_networks_have_the_same_state(small_config: Config) -> None:
    config = resolve(small_config(), RUN)
    data, _ = make_data(config)
    plain, compiled = make_classifier(config, data), make_classifier(config, data)
    compiled.optimize_for_device(channels_last=True, compile_mode="default")
    assert list(plain.state_dict()) == list(compiled.state_dict())


def test_a_signal_lost_before_training_stops_it_after_a_batch(small_config: Config) -> None:
    with handle_signals():
        handler = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            handler(signal.SIGINT, None)  # type: ignore[operator,misc]
        with pytest.raises(Stopped):
            train(small_config(), RUN)
    assert read_checkpoint(RUN / LAST_CHECKPOINT).training_state["global_step"] == 1


@pytest.mark.parametrize(
    ("overrides", "moment"),
    [
        (("optimizer.lr=1e30", "trainer.precision=32-true"), "epoch 1, batch 2: the training loss is"),
        (("optimizer.lr=1e30", "trainer.limit_train_batches=1"), "epoch 1, validation: the validation loss is"),
        (("optimizer.lr=1e30", "callbacks=[transfer]", "freeze_epochs=1"), "epoch 1, batch 2: the training loss is"),
    ],
)
def test_a_loss_that_is_no_number_ends_the_run(
    overrides: tuple[str, ...], moment: str, small_config: Callable[..., DictConfig]
) -> None:
    with pytest.raises(UserError, match=f"{moment} (nan|inf); the learning rate is .*. Lower optimizer.lr") as error:
        train(small_config("logger=csv", *overrides), RUN)
    assert not list(RUN.rglob("*.ckpt"))
    run = read_run(RUN)
    assert (run.state, run.error) == ("failed", str(error.value))
    assert not run.record.best


def test_the_best_epoch_before_it_is_kept(small_config: Callable[..., DictConfig]) -> None:
    """Only the head trains in the first epoch, the backbone diverges in the second."""
    staged = ("callbacks=transfer", "freeze_epochs=1", "backbone_lr=1e30", "scheduler=staged_cosine")
    with pytest.raises(UserError, match="epoch 2, batch"):
        train(small_config("logger=csv", "trainer.precision=32-true", *staged), RUN)
    assert load_checkpoint(RUN).epoch == 0
    assert read_run(RUN).state == "failed"
