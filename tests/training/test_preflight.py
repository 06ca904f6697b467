"""A sound recipe passes every check of the preflight; each fault fails the check that is named after it."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from emotion.classifier import EmotionClassifier
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.train import train
from emotion.training.preflight import (
    ClassCounts,
    check_run,
    class_checks,
    class_table,
    count_classes,
    effective_size,
)
from emotion.training.setup import make_classifier, make_data, resolve, resolve_precision
from tests.conftest import SYSTEMS, options, representative

Config = Callable[..., DictConfig]
RUN, CHOSEN = Path("run"), "debug=preflight"
QUICK = (
    CHOSEN, "optimizer.lr=1e-2", "model.dropout=[0,0]", "preflight.faces=8", "preflight.batch_size=4",
    "trainer.precision=32-true",
)  # fmt: skip
ONE_STEP = (*QUICK, "preflight.steps=1", "preflight.accuracy=1e-9")


def checked(cfg: DictConfig, change: Callable[[EmotionClassifier], object]) -> float:
    """Check the run of a classifier that has been changed."""
    config = resolve(cfg, RUN)
    data, _ = make_data(config)
    classifier = make_classifier(config, data)
    change(classifier)
    return check_run(classifier, data, resolve_precision(config, classifier))


def failed_checks() -> list[str]:
    return [check["name"] for check in json.loads((RUN / "preflight.json").read_text())["checks"] if not check["ok"]]


def test_a_sound_recipe_passes_and_leaves_no_run(small_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(small_config(*QUICK), RUN) >= 0.9
    assert failed_checks() == []
    assert [path.name for path in RUN.iterdir()] == ["preflight.json"]
    output = capsys.readouterr().out
    for word in ("overfit 8 faces", "forward: loss", "gradient: features", "gradient: head", "disgust"):
        assert word in output
    assert max(map(len, map(str.rstrip, output.splitlines()))) <= 80


def test_a_student_is_checked_without_its_teacher(small_config: Config) -> None:
    train(small_config(*ONE_STEP, "distillation={teacher:nowhere,temperature:4.0,weight:0.9}"), RUN)
    assert failed_checks() == []


def test_the_classifier_is_not_changed(small_config: Config) -> None:
    kept: list[tuple[EmotionClassifier, dict[str, Tensor]]] = []

    def keep(classifier: EmotionClassifier) -> None:
        kept.append((classifier, copy.deepcopy(classifier.state_dict())))

    checked(small_config(*ONE_STEP), keep)
    ((classifier, before),) = kept
    assert all(value.equal(before[name]) for name, value in classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert classifier.hparams["scheduler"]


@pytest.mark.parametrize("rate", [0, 100])
def test_a_useless_learning_rate_fails_overfitting(rate: int, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"1 of \d+ checks failed: overfit 8 faces \(found .* after 20 steps"):
        train(small_config(*QUICK, f"optimizer.lr={rate}", "preflight.steps=20"), RUN)
    assert not (RUN / "record.json").exists()


class Constant(nn.Module):
    """Logits that depend on the classifier's own bias only."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        return self.bias.expand(len(features), -1)


def set_nan(classifier: EmotionClassifier) -> None:
    nn.init.constant_(classifier.net.get_parameter("head.7.weight"), float("nan"))


def enlarge(classifier: EmotionClassifier) -> None:
    nn.init.normal_(classifier.net.get_parameter("head.7.weight"), std=5)


def disconnect(classifier: EmotionClassifier) -> None:
    classifier.net.head = Constant(len(classifier.classes))


def misfit(classifier: EmotionClassifier) -> None:
    classifier.net.head[7] = nn.Linear(5, len(classifier.classes))


@pytest.mark.parametrize(
    ("change", "failing", "message"),
    [
        (
            set_nan,
            {"forward: range", "forward: loss", "gradient: not finite"},
            r"forward: range \(found nan to nan; expected finite\).* Learning was not tried",
        ),
        (enlarge, {"forward: loss"}, r"1 of \d+ checks failed: forward: loss"),
        (disconnect, {"gradient: lacking"}, r"gradient: lacking \(found features\.0"),
        (misfit, {"forward and back"}, r"forward and back \(found .*mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_a_broken_network_fails_its_check(
    change: Callable[[EmotionClassifier], None], failing: set[str], message: str, small_config: Config
) -> None:
    with pytest.raises(UserError, match=message):
        checked(small_config(*ONE_STEP), change)
    assert failing <= set(failed_checks())


def test_a_larger_loss_is_accepted_if_configured(small_config: Config) -> None:
    checked(small_config(*ONE_STEP, "preflight.loss=30"), enlarge)


def test_pixels_that_are_not_normalized_fail(small_config: Config) -> None:
    with pytest.raises(UserError, match=r"forward: mean, std \(found 0\.\d+, 0\.\d+;"):
        train(small_config(*QUICK, "input.mean=[0]", "input.std=[1]"), RUN)


def test_gradient_clipping_is_predicted(small_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    train(small_config(*ONE_STEP, "trainer.gradient_clip_val=0.01"), RUN)
    assert "clipped to 0.01" in capsys.readouterr().out


FOUR = ("a", "b", "c", "d")


def counts(sampled: list[int], weights: list[float], faces: list[int] | None = None) -> ClassCounts:
    return ClassCounts(*(torch.tensor(values, dtype=torch.float64) for values in (faces or sampled, sampled, weights)))


@pytest.mark.parametrize(
    ("by_class", "names"),
    [
        (counts([100, 50, 25, 25], [1, 1, 1, 1]), []),
        (counts([100, 50, 25, 25], [0.5, 1, 2, 2]), []),
        (counts([50, 50, 50, 50], [1, 1, 1, 1.2]), []),
        (counts([100, 50, 25, 0], [1, 1, 1, 1]), ["absent"]),
        (counts([100, 50, 25, 25], [2, 1, 0.5, 0.5]), ["imbalance"]),  # the counts instead of their inverse
        (counts([50, 50, 50, 50], [0.5, 1, 2, 2], [100, 50, 25, 25]), ["imbalance"]),  # the sampler balances already
        (counts([50, 50, 50, 50], [1, 1, 1, 0]), ["weights", "imbalance"]),
        (counts([50, 50, 50, 50], [1, 1, 1, float("inf")]), ["weights", "imbalance"]),
        (counts([50, 50, 50, 50], [1, 1, 1, float("nan")]), ["weights", "imbalance"]),
    ],
)
def test_class_weights_are_checked_against_the_sampled_faces(by_class: ClassCounts, names: list[str]) -> None:
    failed = [check.name.removeprefix("classes: ") for check in class_checks(by_class, FOUR) if not check.ok]
    assert failed == names


def test_the_class_table_has_shares_of_the_loss() -> None:
    rows = class_table(counts([60, 20, 10, 10], [0.5, 1, 2, 3], [600, 200, 100, 100]), FOUR)
    assert [row["faces"] for row in rows] == ["600", "200", "100", "100"]
    assert [row["share %"] for row in rows] == ["60.0", "20.0", "10.0", "10.0"]
    assert [row["share of loss %"] for row in rows] == ["30.0", "20.0", "20.0", "30.0"]


@pytest.mark.parametrize("loss", representative(options("loss"), "cross_entropy"))
def test_every_loss_shows_its_own_weights(loss: str, small_config: Config) -> None:
    for balanced in (False, True):
        config = resolve(small_config(f"loss={loss}", f"loss.balanced={balanced}"), RUN)
        data, _ = make_data(config)
        by_class = count_classes(make_classifier(config, data), data)
        faces = torch.from_numpy(data.class_counts)
        expected = faces.sum() / (len(faces) * faces) if balanced else torch.ones(len(faces))
        assert by_class.weights == pytest.approx(expected.double(), rel=1e-6)
        assert by_class.faces.tolist() == np.bincount(data.labels[data.split.train]).tolist()


def test_a_few_heavy_faces_count_as_fewer() -> None:
    targets = torch.tensor([0, 0, 0, 1])
    assert effective_size(nn.CrossEntropyLoss(), targets) == 4
    assert effective_size(nn.CrossEntropyLoss(weight=torch.ones(2)), targets) == 4
    assert effective_size(nn.CrossEntropyLoss(weight=torch.tensor([1e-6, 1.0])), targets) == pytest.approx(1, abs=1e-4)


def test_an_absent_class_is_named(small_config: Config) -> None:
    with pytest.raises(UserError, match=r"classes: absent \(found [a-z, ]+; expected none\)"):
        train(small_config(*QUICK, "overfit=4"), RUN)


def test_the_debug_config_has_the_default_settings() -> None:
    assert compose("train", CHOSEN).preflight == {**compose("train").preflight, "run": True}


@pytest.mark.parametrize(
    "model",
    [name if name == "simple_cnn" else pytest.param(name, marks=pytest.mark.exhaustive) for name in SYSTEMS],
)
def test_every_recipe_passes(model: str) -> None:
    """On synthetic faces, with one step of learning."""
    few = ("data=synthetic", "data.training=20", "data.public_test=2", "data.private_test=2", "trainer.accelerator=cpu")
    step = ("preflight.steps=1", "preflight.faces=4", "preflight.batch_size=4", "preflight.accuracy=1e-9")
    train(compose("train", f"model={model}", CHOSEN, "batch_size=32", *few, *step), RUN)
    assert failed_checks() == []
