"""The statistics are those of the tensors, and a stopped and resumed run writes the same file as any other."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from emotion.callbacks.ema import ExponentialMovingAverage
from emotion.callbacks.weight_statistics import statistics
from emotion.checkpoints.load import read_checkpoint
from emotion.classifier import EmotionClassifier
from emotion.errors import Stopped, UserError
from emotion.train import train
from emotion.training.setup import make_classifier, make_data, make_trainer, resolve, resolve_precision
from tests.conftest import signal_at

Config = Callable[..., DictConfig]
Section = dict[tuple[str, str], list[float] | None]
RUN, STATISTICS = Path("run"), "callbacks=[default,weight_statistics]"
ALL = "callbacks.weight_statistics.only=all"
PLAIN_SGD = ("optimizer=sgd", "optimizer.lr=1", "optimizer.momentum=0", "optimizer.nesterov=false",
             "optimizer.weight_decay=0")  # fmt: skip


def read_dump(path: Path) -> dict[int, Section]:
    """By epoch: (parameter, weight or gradient) to its statistics, None for dashes."""
    sections: dict[int, Section] = {}
    name = ""
    for line in path.read_text().splitlines():
        words = line.split()
        if words[0] == "epoch":
            section = sections.setdefault(int(words[1].split("/")[0]), {})
        elif words[0] != "parameter":
            name = words.pop(0) if len(words) == 7 else name
            section[name, words[0]] = None if words[1] == "-" else [float(word) for word in words[1:]]
    return sections


def fit(cfg: DictConfig, *callbacks: object, change: Callable[[EmotionClassifier], object] = id) -> tuple[Tensor, ...]:
    """Fit the parts of a run; return the parameters before it."""
    settings = resolve(cfg, RUN)
    data, _ = make_data(settings)
    classifier = make_classifier(settings, data)
    change(classifier)
    before = copy.deepcopy(tuple(classifier.net.parameters()))
    trainer = make_trainer(resolve_precision(settings, classifier))
    trainer.callbacks[:0] = callbacks
    trainer.fit(classifier, datamodule=data)
    return before


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_weights_are_those_of_the_checkpoint(precision: str, small_config: Config) -> None:
    train(small_config(STATISTICS, ALL, f"trainer.precision={precision}"), RUN)
    state = read_checkpoint(RUN / "checkpoints" / "last.ckpt").state_dict
    weights = {name.removeprefix("net."): w for name, w in state.items() if name.startswith("net.")}
    sections = read_dump(RUN / "weights.txt")
    assert sorted(sections) == [1, 2]
    dumped = {name: values for (name, kind), values in sections[2].items() if kind == "weight"}
    assert set(dumped) <= set(weights)
    assert len(dumped) > 20
    for name, values in dumped.items():
        w = weights[name].double()
        expected = torch.stack([w.mean(), w.std(correction=0), w.min(), w.max(), w.norm()]).tolist()
        assert values == pytest.approx(expected, rel=1e-4, abs=1e-6), name


def test_gradients_are_of_the_last_step_before_clipping(small_config: Config) -> None:
    """With plain SGD of rate 1 the only step of the epoch is the clipped gradient."""
    one_step = ("trainer.limit_train_batches=1", "trainer.max_epochs=1", "trainer.precision=32-true")
    before = fit(small_config(STATISTICS, ALL, *PLAIN_SGD, *one_step, "trainer.gradient_clip_val=0.01"))
    state = read_checkpoint(RUN / "checkpoints" / "last.ckpt").state_dict
    sections = read_dump(RUN / "weights.txt")[1]
    gradients = {name: values for (name, kind), values in sections.items() if kind == "gradient"}
    total = sum(values[4] ** 2 for values in gradients.values() if values) ** 0.5
    assert total > 0.1
    for (name, values), was in zip(gradients.items(), before, strict=True):
        step = (was.detach() - state[f"net.{name}"]) * total / 0.01
        assert values is not None
        assert values[4] == pytest.approx(float(step.norm()), rel=0.02, abs=1e-3), name


@pytest.mark.parametrize("batches", [3, pytest.param(4, marks=pytest.mark.exhaustive)])
def test_accumulated_gradients_are_of_the_epochs_last_step(batches: int, small_config: Config) -> None:
    accumulated = ("trainer.accumulate_grad_batches=2", f"trainer.limit_train_batches={batches}")
    train(small_config(STATISTICS, *accumulated, "batch_size=8"), RUN)
    assert all(values for section in read_dump(RUN / "weights.txt").values() for values in section.values())


def test_a_run_limited_in_steps_has_the_gradients_of_the_last(small_config: Config) -> None:
    unvalidated = ("scheduler=none", "~callbacks.early_stopping", "~callbacks.best_checkpoint")
    fit(small_config(STATISTICS, "+trainer.max_steps=2", "batch_size=8", *unvalidated))
    text = (RUN / "weights.txt").read_text()
    assert text.startswith("epoch 1/2, step 2\n")
    assert all(read_dump(RUN / "weights.txt")[1].values())


def test_a_frozen_parameter_shows_a_dash(small_config: Config) -> None:
    fit(small_config(STATISTICS, ALL), change=lambda classifier: classifier.net.features.requires_grad_(False))
    for (name, kind), values in read_dump(RUN / "weights.txt")[2].items():
        assert (values is None) == (kind == "gradient" and name.startswith("features.")), name


@pytest.mark.parametrize(
    "moment", [("training_step", 8), pytest.param(("validation_step", 2), marks=pytest.mark.exhaustive)]
)
def test_a_resumed_run_writes_the_same_file(
    moment: tuple[str, int], small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = small_config(STATISTICS, "trainer.max_epochs=3", "data.training=20")
    cfg.batch_size = 16 if "validation" not in moment[0] else 4
    train(cfg, Path("uninterrupted"))
    with monkeypatch.context() as patch:
        signal_at(patch, *moment)
        with pytest.raises(Stopped):
            train(cfg, RUN)
    cfg.resume = str(RUN)
    train(cfg, RUN)
    assert sorted(read_dump(RUN / "weights.txt")) == [1, 2, 3]
    assert (RUN / "weights.txt").read_text() == Path("uninterrupted/weights.txt").read_text()


def test_a_repeated_epoch_has_one_section(small_config: Config) -> None:
    cfg = small_config(STATISTICS)
    for _ in range(2):
        fit(cfg)
    assert re.findall(r"^epoch (\d)", (RUN / "weights.txt").read_text(), re.MULTILINE) == ["1", "2"]


def test_ema_does_not_change_the_statistics(small_config: Config) -> None:
    texts = []
    for callbacks in ([], [ExponentialMovingAverage(decay=0.5)]):
        torch.manual_seed(0)
        fit(small_config(STATISTICS, ALL, "trainer.max_epochs=3"), *callbacks)
        texts.append((RUN / "weights.txt").read_text())
    assert texts[0] == texts[1]


def test_values_that_are_not_finite_are_shown_and_named(
    small_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    class Spoil(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            assert isinstance(pl_module, EmotionClassifier)
            with torch.no_grad():
                pl_module.net.get_parameter("head.3.bias")[0] = float("nan")

    fit(small_config(STATISTICS, "trainer.max_epochs=1"), Spoil())
    printed = capsys.readouterr().out
    assert re.search(r"\*\*\* epoch 1: not finite: weights of head.3.bias", printed)
    assert "nan" in printed.partition("not finite")[0]


def test_tensorboard_has_histograms(small_config: Config) -> None:
    train(small_config(STATISTICS, "callbacks.weight_statistics.only=head.3"), RUN)
    board = EventAccumulator(str(RUN / "tensorboard"), size_guidance={"histograms": 0}).Reload()
    parts = ("head.3.weight", "head.3.bias")
    assert set(board.Tags()["histograms"]) == {f"{kind}/{part}" for kind in ("weights", "gradients") for part in parts}
    steps = {tag: [event.step for event in board.Histograms(tag)] for tag in board.Tags()["histograms"]}
    assert set(map(tuple, steps.values())) == {(4, 8)}
    last = read_dump(RUN / "weights.txt")[2]["head.3.weight", "weight"]
    histogram = board.Histograms("weights/head.3.weight")[-1].histogram_value
    assert last is not None
    assert (histogram.min, histogram.max) == pytest.approx(last[2:4], rel=1e-5)


def test_epochs_and_parameters_can_be_selected(small_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("every_n_epochs=2", "only='bias$'", "table=false")
    train(
        small_config(STATISTICS, "trainer.max_epochs=3", *(f"callbacks.weight_statistics.{s}" for s in settings)), RUN
    )
    sections = read_dump(RUN / "weights.txt")
    assert sorted(sections) == [2]
    assert {name.rsplit(".", 1)[-1] for name, _ in sections[2]} == {"bias"}
    assert "Weights after" not in capsys.readouterr().out


def test_the_table_is_printed_without_a_file_and_tensorboard(
    small_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small_config(STATISTICS, "callbacks.weight_statistics.dump=null", "logger=csv"), RUN)
    assert not (RUN / "weights.txt").exists()
    table = capsys.readouterr().out.split("Weights after epoch 2/2, step 8\n")[1].split("\n\n")[0].splitlines()
    assert table[1].split()[:2] == ["head.3.weight", "weight"]
    assert max(map(len, table)) <= 80


def test_the_standard_deviation_is_the_populations() -> None:
    values = {"two": torch.tensor([[1.0], [-3.0]]), "one": torch.tensor([2.0], dtype=torch.bfloat16)}
    assert statistics(values)["two"] == pytest.approx([-1.0, 2.0, -3.0, 1.0, 10**0.5])
    assert statistics(values)["one"] == [2.0, 0.0, 2.0, 2.0, 2.0]
    assert statistics({}) == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("only=backbone", r"only=backbone matches no parameter; expected head, all, .* features\.0"),
     ("only='('", r"only=\(: .* expected a regular expression")],
)  # fmt: skip
def test_an_invalid_setting_is_refused(wrong: str, message: str, small_config: Config) -> None:
    with pytest.raises(UserError, match=message):
        train(small_config(STATISTICS, f"callbacks.weight_statistics.{wrong}"), RUN)
