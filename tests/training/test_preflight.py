"""A healthy recipe passes every check; each fault fails the check that is named after it."""

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
from emotion.training.preflight import ByClass, class_checks, class_table, counted, effective, preflight
from emotion.training.setup import decide_precision, make_classifier, make_data, resolve
from tests.conftest import SYSTEMS, options

Config = Callable[..., DictConfig]
RUN, CHOSEN = Path("run"), "debug=preflight"
QUICK = (CHOSEN, "optimizer.lr=1e-2", "model.dropout=[0,0]", "preflight.faces=8", "preflight.batch_size=4")


def checked(cfg: DictConfig, change: Callable[[EmotionClassifier], object] = id) -> float:
    """The preflight of a classifier that has been changed."""
    settings = resolve(cfg, RUN)
    data, _ = make_data(settings)
    classifier = make_classifier(settings, data)
    change(classifier)
    decide_precision(classifier, settings)
    return preflight(classifier, data, settings, RUN)


def failing() -> list[str]:
    return [check["name"] for check in json.loads((RUN / "preflight.json").read_text())["checks"] if not check["ok"]]


def test_a_healthy_recipe_passes_and_leaves_no_run(small_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(small_config(*QUICK), RUN) >= 0.9
    assert failing() == []
    assert [path.name for path in RUN.iterdir()] == ["preflight.json"]
    said = capsys.readouterr().out
    for word in ("overfit 8 faces", "forward: loss", "gradient: features", "gradient: head", "disgust"):
        assert word in said
    assert max(map(len, map(str.rstrip, said.splitlines()))) <= 80


def test_a_student_is_looked_at_alone(small_config: Config) -> None:
    assert train(small_config(*QUICK, "distillation={teacher:nowhere,temperature:4.0,weight:0.9}"), RUN) >= 0.9
    assert failing() == []


def test_nothing_leaks_into_the_classifier(small_config: Config) -> None:
    seen: list[EmotionClassifier] = []
    was: list[dict[str, Tensor]] = []

    def keep(classifier: EmotionClassifier) -> None:
        seen.append(classifier)
        was.append(copy.deepcopy(classifier.state_dict()))

    checked(small_config(*QUICK), keep)
    assert all(value.equal(was[0][name]) for name, value in seen[0].state_dict().items())
    assert all(p.grad is None for p in seen[0].parameters())
    assert seen[0].hparams["scheduler"]


@pytest.mark.parametrize("rate", [0, 100])
def test_a_rate_that_teaches_nothing_fails_overfit(rate: int, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"1 of \d+ checks failed: overfit 8 faces \(found .* after 20 steps"):
        train(small_config(*QUICK, f"optimizer.lr={rate}", "preflight.steps=20"), RUN)
    assert not (RUN / "record.json").exists()


def test_weights_that_are_not_numbers_fail_forward(small_config: Config) -> None:
    def spoil(classifier: EmotionClassifier) -> None:
        nn.init.constant_(classifier.net.get_parameter("head.7.weight"), float("nan"))

    with pytest.raises(UserError, match=r"forward: range \(found nan to nan; expected finite\)"):
        checked(small_config(*QUICK), spoil)
    assert {"forward: range", "forward: loss", "gradient: not finite"} <= set(failing())


def test_a_last_layer_far_from_equal_logits_fails_the_loss_unless_it_is_meant(small_config: Config) -> None:
    def enlarge(classifier: EmotionClassifier) -> None:
        nn.init.normal_(classifier.net.get_parameter("head.7.weight"), std=5)

    with pytest.raises(UserError, match=r"1 of \d+ checks failed: forward: loss"):
        checked(small_config(*QUICK), enlarge)
    checked(small_config(*QUICK, "preflight.loss=30", "preflight.accuracy=0.1"), enlarge)


class Constant(nn.Module):
    """Logits that depend on the classifier's own bias alone."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, features: Tensor) -> Tensor:
        return self.bias.expand(len(features), -1)


def test_a_head_that_looks_at_nothing_fails_the_gradients_of_the_features(small_config: Config) -> None:
    def disconnect(classifier: EmotionClassifier) -> None:
        classifier.net.head = Constant(len(classifier.classes))

    with pytest.raises(UserError, match=r"gradient: lacking \(found features\.0"):
        checked(small_config(*QUICK), disconnect)


def test_a_head_that_does_not_fit_fails_with_what_torch_says(small_config: Config) -> None:
    def misfit(classifier: EmotionClassifier) -> None:
        classifier.net.head[7] = nn.Linear(5, len(classifier.classes))

    with pytest.raises(UserError, match=r"forward and back \(found .*mat1 and mat2 shapes cannot be multiplied"):
        checked(small_config(*QUICK), misfit)


def test_pixels_that_are_not_normalised_fail(small_config: Config) -> None:
    with pytest.raises(UserError, match=r"forward: mean, std \(found 0\.\d+, 0\.\d+;"):
        train(small_config(*QUICK, "input.mean=[0]", "input.std=[1]"), RUN)


def test_clipping_is_foretold(small_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    train(small_config(*QUICK, "trainer.gradient_clip_val=0.01"), RUN)
    assert "clipped to 0.01" in capsys.readouterr().out


FOUR = ("a", "b", "c", "d")


def by_class(drawn: list[int], weights: list[float], faces: list[int] | None = None) -> ByClass:
    return ByClass(*(torch.tensor(values, dtype=torch.float64) for values in (faces or drawn, drawn, weights)))


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (by_class([100, 50, 25, 25], [1, 1, 1, 1]), []),
        (by_class([100, 50, 25, 25], [0.5, 1, 2, 2]), []),
        (by_class([50, 50, 50, 50], [1, 1, 1, 1.2]), []),
        (by_class([100, 50, 25, 0], [1, 1, 1, 1]), ["absent"]),
        (by_class([100, 50, 25, 25], [2, 1, 0.5, 0.5]), ["imbalance"]),  # counts themselves, not their inverse
        (by_class([50, 50, 50, 50], [0.5, 1, 2, 2], [100, 50, 25, 25]), ["imbalance"]),  # the sampler has done it
        (by_class([50, 50, 50, 50], [1, 1, 1, 0]), ["weights", "imbalance"]),
        (by_class([50, 50, 50, 50], [1, 1, 1, float("inf")]), ["weights", "imbalance"]),
        (by_class([50, 50, 50, 50], [1, 1, 1, float("nan")]), ["weights", "imbalance"]),
    ],
)
def test_weights_are_held_against_the_faces_that_are_drawn(found: ByClass, names: list[str]) -> None:
    failed = [check.name.removeprefix("classes: ") for check in class_checks(found, FOUR) if not check.ok]
    assert failed == names


def test_a_class_table_has_shares_of_the_loss() -> None:
    rows = class_table(by_class([60, 20, 10, 10], [0.5, 1, 2, 3], [600, 200, 100, 100]), FOUR)
    assert [row["faces"] for row in rows] == ["600", "200", "100", "100"]
    assert [row["share %"] for row in rows] == ["60.0", "20.0", "10.0", "10.0"]
    assert [row["of the loss %"] for row in rows] == ["30.0", "20.0", "20.0", "30.0"]


@pytest.mark.parametrize("loss", options("loss"))
def test_every_loss_shows_its_own_weights(loss: str, small_config: Config) -> None:
    for balanced in (False, True):
        settings = resolve(small_config(f"loss={loss}", f"loss.balanced={balanced}"), RUN)
        data, _ = make_data(settings)
        found = counted(make_classifier(settings, data), data)
        faces = torch.from_numpy(data.class_counts)
        expected = faces.sum() / (len(faces) * faces) if balanced else torch.ones(len(faces))
        assert found.weights == pytest.approx(expected.double(), rel=1e-6)
        assert found.faces.tolist() == np.bincount(data.labels[data.split.train]).tolist()


def test_few_heavy_faces_count_as_fewer() -> None:
    targets = torch.tensor([0, 0, 0, 1])
    assert effective(nn.CrossEntropyLoss(), targets) == 4
    assert effective(nn.CrossEntropyLoss(weight=torch.ones(2)), targets) == 4
    assert effective(nn.CrossEntropyLoss(weight=torch.tensor([1e-6, 1.0])), targets) == pytest.approx(1, abs=1e-4)


def test_a_class_that_is_absent_is_named(small_config: Config) -> None:
    with pytest.raises(UserError, match=r"classes: absent \(found [a-z, ]+; expected none\)"):
        train(small_config(*QUICK, "overfit=4"), RUN)


@pytest.mark.parametrize("wrong", ["faces=0", "steps=-1", "accuracy=90"])
def test_a_setting_out_of_range_is_named(wrong: str, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"preflight=.* expected faces, batch_size and steps from 1, accuracy above 0"):
        train(small_config(CHOSEN, f"preflight.{wrong}"), RUN)


def test_the_settings_say_nothing_else_than_the_defaults() -> None:
    assert compose("train", CHOSEN).preflight == {**compose("train").preflight, "run": True}


@pytest.mark.parametrize("model", SYSTEMS)
def test_every_recipe_passes(model: str) -> None:
    """On drawn faces; of learning, one step."""
    few = ("data=synthetic", "data.training=20", "data.public_test=2", "data.private_test=2", "trainer.accelerator=cpu")
    step = ("preflight.steps=1", "preflight.faces=4", "preflight.batch_size=4", "preflight.accuracy=1e-9")
    train(compose("train", f"model={model}", CHOSEN, "batch_size=32", *few, *step), RUN)
    assert failing() == []
