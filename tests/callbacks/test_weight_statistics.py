"""The statistics are those of the tensors themselves, and a stopped run's file is that of one that was not."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from emotion.callbacks.ema import ExponentialMovingAverage
from emotion.callbacks.weight_statistics import WeightStatistics, statistics
from emotion.checkpoints.load import read_checkpoint
from emotion.classifier import EmotionClassifier
from emotion.errors import Stopped, UserError
from emotion.train import train
from emotion.training.setup import decide_precision, make_classifier, make_data, make_trainer, resolve
from tests.conftest import signal_at

Config = Callable[..., DictConfig]
Section = dict[tuple[str, str], list[float] | None]
RUN, CHOSEN = Path("run"), "callbacks=[default,weight_statistics]"
ALL = "callbacks.weight_statistics.only=all"
PLAIN_SGD = ("optimizer=sgd", "optimizer.lr=1", "optimizer.momentum=0", "optimizer.nesterov=false",
             "optimizer.weight_decay=0")  # fmt: skip


def dumped(path: Path) -> dict[int, Section]:
    """By epoch: (parameter, weight or gradient) to five figures, None for dashes."""
    found: dict[int, Section] = {}
    name = ""
    for line in path.read_text().splitlines():
        words = line.split()
        if words[0] == "epoch":
            section = found.setdefault(int(words[1].split("/")[0]), {})
        elif words[0] != "parameter":
            name = words.pop(0) if len(words) == 7 else name
            section[name, words[0]] = None if words[1] == "-" else [float(word) for word in words[1:]]
    return found


def fitted(cfg: DictConfig, *more: object, change: Callable[[EmotionClassifier], object] = id) -> tuple[Tensor, ...]:
    """A run's parts, fitted; the parameters before it."""
    settings = resolve(cfg, RUN)
    data, _ = make_data(settings)
    classifier = make_classifier(settings, data)
    change(classifier)
    before = copy.deepcopy(tuple(classifier.net.parameters()))
    decide_precision(classifier, settings)
    trainer = make_trainer(settings, limited=False)
    trainer.callbacks[:0] = more
    trainer.fit(classifier, datamodule=data)
    return before


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_weights_are_those_of_the_epochs_checkpoint(precision: str, small_config: Config) -> None:
    train(small_config(CHOSEN, ALL, f"trainer.precision={precision}"), RUN)
    state = read_checkpoint(RUN / "checkpoints" / "last.ckpt")["state_dict"]
    weights = {name.removeprefix("net."): w for name, w in state.items() if name.startswith("net.")}
    sections = dumped(RUN / "weights.txt")
    assert sorted(sections) == [1, 2]
    found = {name: figures for (name, kind), figures in sections[2].items() if kind == "weight"}
    assert set(found) <= set(weights)
    assert len(found) > 20
    for name, figures in found.items():
        w = weights[name].double()
        expected = torch.stack([w.mean(), w.std(correction=0), w.min(), w.max(), w.norm()]).tolist()
        assert figures == pytest.approx(expected, rel=1e-4, abs=1e-6), name


def test_gradients_are_of_the_last_step_before_clipping(small_config: Config) -> None:
    """With plain SGD of rate 1 the one step of an epoch is the clipped gradient."""
    one_step = ("trainer.limit_train_batches=1", "trainer.max_epochs=1", "trainer.precision=32-true")
    before = fitted(small_config(CHOSEN, ALL, *PLAIN_SGD, *one_step, "trainer.gradient_clip_val=0.01"))
    state = read_checkpoint(RUN / "checkpoints" / "last.ckpt")["state_dict"]
    sections = dumped(RUN / "weights.txt")[1]
    gradients = {name: figures for (name, kind), figures in sections.items() if kind == "gradient"}
    total = sum(figures[4] ** 2 for figures in gradients.values() if figures) ** 0.5
    assert total > 0.1
    for (name, figures), was in zip(gradients.items(), before, strict=True):
        step = (was.detach() - state[f"net.{name}"]) * total / 0.01
        assert figures is not None
        assert figures[4] == pytest.approx(float(step.norm()), rel=0.02, abs=1e-3), name


@pytest.mark.parametrize("batches", [3, 4])
def test_accumulated_gradients_are_of_the_epochs_last_step(batches: int, small_config: Config) -> None:
    accumulated = ("trainer.accumulate_grad_batches=2", f"trainer.limit_train_batches={batches}")
    train(small_config(CHOSEN, *accumulated, "batch_size=8"), RUN)
    assert all(figures for section in dumped(RUN / "weights.txt").values() for figures in section.values())


def test_a_run_ended_by_its_steps_has_the_last_ones_gradients(small_config: Config) -> None:
    unvalidated = ("scheduler=none", "~callbacks.early_stopping", "~callbacks.best_checkpoint")
    fitted(small_config(CHOSEN, "+trainer.max_steps=2", "batch_size=8", *unvalidated))
    text = (RUN / "weights.txt").read_text()
    assert text.startswith("epoch 1/2, step 2\n")
    assert all(dumped(RUN / "weights.txt")[1].values())


def test_a_frozen_parameter_shows_a_dash(small_config: Config) -> None:
    fitted(small_config(CHOSEN, ALL), change=lambda classifier: classifier.net.features.requires_grad_(False))
    for (name, kind), figures in dumped(RUN / "weights.txt")[2].items():
        assert (figures is None) == (kind == "gradient" and name.startswith("features.")), name


@pytest.mark.parametrize("moment", [("training_step", 8), ("validation_step", 2)])
def test_a_resumed_run_arrives_at_the_same_file(
    moment: tuple[str, int], small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = small_config(CHOSEN, "trainer.max_epochs=3", "data.training=20")
    cfg.batch_size = 16 if "validation" not in moment[0] else 4
    train(cfg, Path("straight"))
    with monkeypatch.context() as patch:
        signal_at(patch, *moment)
        with pytest.raises(Stopped):
            train(cfg, RUN)
    cfg.resume = str(RUN)
    train(cfg, RUN)
    assert sorted(dumped(RUN / "weights.txt")) == [1, 2, 3]
    assert (RUN / "weights.txt").read_text() == Path("straight/weights.txt").read_text()


def test_an_epoch_that_is_trained_again_has_one_section(small_config: Config) -> None:
    cfg = small_config(CHOSEN)
    for _ in range(2):
        fitted(cfg)
    assert re.findall(r"^epoch (\d)", (RUN / "weights.txt").read_text(), re.MULTILINE) == ["1", "2"]


def test_an_average_that_validates_changes_nothing(small_config: Config) -> None:
    texts = []
    for more in ([], [ExponentialMovingAverage(decay=0.5)]):
        torch.manual_seed(0)
        fitted(small_config(CHOSEN, ALL, "trainer.max_epochs=3"), *more)
        texts.append((RUN / "weights.txt").read_text())
    assert texts[0] == texts[1]


def test_what_is_not_finite_is_shown_and_named(small_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    def spoil(classifier: EmotionClassifier) -> None:
        with torch.no_grad():
            classifier.net.get_parameter("head.3.bias")[0] = float("nan")

    fitted(small_config(CHOSEN, "trainer.max_epochs=1"), change=spoil)
    said = capsys.readouterr().out
    assert re.search(r"\*\*\* epoch 1: not finite: weights of head.3.*, head.7.weight and 1 more; gradients of", said)
    assert " nan " in said


def test_tensorboard_has_a_histogram_of_each(small_config: Config) -> None:
    train(small_config(CHOSEN, "callbacks.weight_statistics.only=head.3"), RUN)
    board = EventAccumulator(str(RUN / "tensorboard"), size_guidance={"histograms": 0}).Reload()
    parts = ("head.3.weight", "head.3.bias")
    assert set(board.Tags()["histograms"]) == {f"{kind}/{part}" for kind in ("weights", "gradients") for part in parts}
    steps = {tag: [event.step for event in board.Histograms(tag)] for tag in board.Tags()["histograms"]}
    assert set(map(tuple, steps.values())) == {(4, 8)}
    last = dumped(RUN / "weights.txt")[2]["head.3.weight", "weight"]
    histogram = board.Histograms("weights/head.3.weight")[-1].histogram_value
    assert last is not None
    assert (histogram.min, histogram.max) == pytest.approx(last[2:4], rel=1e-5)


def test_only_some_epochs_and_parameters_are_looked_at(
    small_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    some = ("every=2", "only='bias$'", "table=false")
    train(small_config(CHOSEN, "trainer.max_epochs=3", *(f"callbacks.weight_statistics.{s}" for s in some)), RUN)
    sections = dumped(RUN / "weights.txt")
    assert sorted(sections) == [2]
    assert {name.rsplit(".", 1)[-1] for name, _ in sections[2]} == {"bias"}
    assert "Weights after" not in capsys.readouterr().out


def test_without_a_file_and_tensorboard_there_is_the_table(
    small_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small_config(CHOSEN, "callbacks.weight_statistics.dump=null", "logger=csv"), RUN)
    assert not (RUN / "weights.txt").exists()
    table = capsys.readouterr().out.split("Weights after epoch 2/2, step 8\n")[1].split("\n\n")[0].splitlines()
    assert table[1].split()[:2] == ["head.3.weight", "weight"]
    assert max(map(len, table)) <= 80


def test_the_deviation_is_of_all_values_and_one_value_has_none() -> None:
    values = {"two": torch.tensor([[1.0], [-3.0]]), "one": torch.tensor([2.0], dtype=torch.bfloat16)}
    assert statistics(values)["two"] == pytest.approx([-1.0, 2.0, -3.0, 1.0, 10**0.5])
    assert statistics(values)["one"] == [2.0, 0.0, 2.0, 2.0, 2.0]
    assert statistics({}) == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("only=backbone", r"only=backbone is in the name of no parameter; expected head, all, .* features\.0"),
     ("only='('", r"only=\(: .* expected a regular expression"),
     ("every=0", r"every=0; expected 1 or more epochs")],
)  # fmt: skip
def test_a_wrong_setting_is_named(wrong: str, message: str, small_config: Config) -> None:
    with pytest.raises(UserError, match=message):
        train(small_config(CHOSEN, f"callbacks.weight_statistics.{wrong}"), RUN)


def test_it_is_a_part_like_the_others(small_config: Config) -> None:
    assert small_config(CHOSEN).callbacks.weight_statistics.only == "head"
    assert WeightStatistics().state_dict() == {"gradients": {}}
