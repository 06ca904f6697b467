"""Distillation: known values of its loss, and runs that learn from a trained run."""

import copy
import hashlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.functional import cross_entropy

from emotion.checkpoints.load import LoadedCheckpoint, load_checkpoint, read_checkpoint
from emotion.checkpoints.locate import BEST_CHECKPOINT, LAST_CHECKPOINT
from emotion.classifier import EmotionClassifier
from emotion.data.transforms.preprocess import Preprocess
from emotion.errors import UserError
from emotion.loggers.csv_logger import read_metrics
from emotion.train import train
from emotion.training.distillation import Teacher, load_teacher
from emotion.training.run import fit, setup
from emotion.training.setup import make_classifier, make_data, resolve, set_teacher
from tests.conftest import record_of

Config = Callable[..., DictConfig]
STUDENT = Path("student")
FACES, TARGETS = torch.rand(6, 1, 48, 48, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
WHOLE = Preprocess(48, 1, [0.0], [1.0])
"""Of a student that sees the whole face, from 0 to 1."""


def classifier(size: int = 48, channels: int = 1, zoom: float = 1.0, seed: int = 0) -> EmotionClassifier:
    """A small classifier of three classes, with its own batch statistics."""
    torch.manual_seed(seed)
    model = {"_target_": "emotion.models.baseline_cnn.BaselineCNN", "widths": [4, 8], "hidden": 8, "dropout": 0.5}
    made = EmotionClassifier(
        model=model,
        input={"size": size, "channels": channels, "mean": [0.4] * channels, "std": [0.3] * channels, "zoom": zoom},
        classes=["a", "b", "c"],
        class_counts=[1, 1, 1],
        loss={"_target_": "emotion.optim.losses.cross_entropy"},
        optimizer={},
        scheduler={},
    )
    for _ in range(3):
        made(torch.randn(8, channels, size, size))
    return made


def teacher(*classifiers: EmotionClassifier, temperature: float = 4.0, weight: float = 0.5) -> Teacher:
    return Teacher([LoadedCheckpoint(Path("x"), one, {}, {}, 0) for one in classifiers], temperature, weight)


def logits_of(one: EmotionClassifier) -> Tensor:
    with torch.no_grad():
        logits: Tensor = one.eval()(one.preprocess.normalize(FACES))
    return logits


def test_with_weight_0_the_loss_is_that_of_the_labels() -> None:
    logits, label_loss = torch.randn(6, 3), torch.tensor(1.25)
    assert teacher(classifier(), weight=0).loss(label_loss, logits, FACES, WHOLE) == label_loss


def test_a_student_equal_to_its_teacher_has_no_divergence() -> None:
    one = classifier()
    loss = teacher(one, weight=1).loss(torch.tensor(1.25), logits_of(one) + 7, FACES, WHOLE)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert teacher(one, weight=0.25).loss(torch.tensor(1.0), logits_of(one), FACES, WHOLE).item() == pytest.approx(0.75)


def test_the_loss_of_known_probabilities() -> None:
    class Known(Teacher):
        def probabilities(self, faces: Tensor, student: Preprocess) -> Tensor:
            return torch.tensor([[0.8, 0.2]])

    # at temperature 2 the student's logits 2 ln 3 and 0 give 3/4 and 1/4
    loss = Known([], 2.0, 0.5).loss(torch.tensor(1.0), torch.tensor([[2 * math.log(3), 0.0]]), FACES[:1], WHOLE)
    divergence = 0.8 * math.log(0.8 / 0.75) + 0.2 * math.log(0.2 / 0.25)
    assert loss.item() == pytest.approx(0.5 * 1.0 + 0.5 * 4 * divergence, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_gradient_is_t_times_the_difference_of_probabilities(temperature: float) -> None:
    one, logits = classifier(), torch.randn(6, 3, requires_grad=True)
    teacher(one, temperature=temperature, weight=1).loss(torch.tensor(0.0), logits, FACES, WHOLE).backward()
    difference = (logits / temperature).softmax(1) - (logits_of(one) / temperature).softmax(1)
    torch.testing.assert_close(logits.grad, temperature * difference.detach() / 6)


def test_at_a_high_temperature_the_gradient_matches_logits() -> None:
    """Hinton et al. 2015, section 2.1: (z - v) / (B K) for centerd logits."""
    one, logits = classifier(), torch.randn(6, 3, requires_grad=True)
    teacher(one, temperature=1e3, weight=1).loss(torch.tensor(0.0), logits, FACES, WHOLE).backward()
    difference = logits.detach() - logits_of(one)
    torch.testing.assert_close(
        logits.grad, (difference - difference.mean(1, keepdim=True)) / (6 * 3), atol=1e-3, rtol=1e-2
    )


def test_several_teachers_give_the_mean_of_their_probabilities() -> None:
    one, other = classifier(seed=1), classifier(seed=2)
    softened = [(logits_of(each) / 4).softmax(1) for each in (one, other)]
    torch.testing.assert_close(teacher(one, other).probabilities(FACES, WHOLE), (softened[0] + softened[1]) / 2)


@pytest.mark.parametrize("student", [(48, 1), (48, 3), (64, 3), (40, 1, 1.2)])
@pytest.mark.parametrize("own", [(48, 1), (64, 3), (32, 1), (40, 1, 1.2), (32, 3, 1.5)])
def test_a_teacher_applies_its_own_preprocessing(student: tuple[Any, ...], own: tuple[Any, ...]) -> None:
    preprocess, one = classifier(*student).preprocess, classifier(*own)
    pixels = torch.randint(0, 256, (6, 48, 48), dtype=torch.uint8)
    faces = preprocess(pixels)
    assert faces.shape == (6, student[1], student[0], student[0])
    probabilities = teacher(one, temperature=1).probabilities(faces, preprocess)
    if student[0] == 48 or student == own:  # has all pixels that the teacher sees
        torch.testing.assert_close(probabilities, one.probabilities(pixels), atol=1e-4, rtol=1e-3)


def test_a_teacher_is_not_part_of_its_student() -> None:
    student, one = classifier(seed=1), classifier(seed=2)
    names, parameters = list(student.state_dict()), len(list(student.parameters()))
    student.train().teacher = teacher(one)
    assert list(student.state_dict()) == names
    assert len(list(student.parameters())) == parameters
    assert copy.deepcopy(student).teacher is student.teacher
    state = copy.deepcopy(one.state_dict())
    student.training_step((student.preprocess.normalize(FACES), TARGETS), 0).backward()
    assert not one.training
    assert all(parameter.grad is None for parameter in one.parameters())
    assert all(value.equal(state[name]) for name, value in one.state_dict().items())


def test_only_training_uses_the_teacher() -> None:
    student, faces = classifier(seed=1), FACES
    student.teacher = teacher(classifier(seed=2))
    normal = student.preprocess.normalize(faces)
    student.eval().validation_step((normal, TARGETS), 0)
    plain = cross_entropy(logits_of(student), TARGETS)
    assert student.val_scores.compute()["loss"].allclose(plain)
    student.train().training_step((normal, TARGETS), 0)
    assert not student.train_scores.compute()["loss"].allclose(plain)


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0}, {"temperature": -1}, {"weight": 1.5}, {"temperature": float("nan")}, {"alpha": 1}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], trained: Path) -> None:
    with pytest.raises(UserError, match=r"Teacher refuses its arguments"):
        load_teacher({"teacher": str(trained), **wrong}, load_checkpoint(trained).classifier.classes)


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("teacher") / "run"


@pytest.fixture
def trained(teacher_folder: Path, small_config: Config) -> Path:
    """A run with other widths, input size and channels than its student's; trained once for the module."""
    if not teacher_folder.exists():
        train(small_config("input=rgb64", "model.widths=[8,8]", "trainer.max_epochs=1", "tta=none"), teacher_folder)
    return teacher_folder


def fitted(cfg: DictConfig, run_dir: Path) -> Path:
    """Train a run for an epoch without scoring it."""
    cfg.trainer.max_epochs = 1
    fit(setup(resolve(cfg, run_dir), cfg))
    return run_dir


def by(*teachers: Path, weight: float = 0.5) -> str:
    return f"distillation={{teacher:[{','.join(map(str, teachers))}],temperature:4.0,weight:{weight}}}"


def test_a_distilled_run_does_not_need_its_teacher_and_records_it(trained: Path, small_config: Config) -> None:
    own = Path(shutil.copytree(trained, "teacher"))
    train(small_config(by(own), "mixup=either", "trainer.max_epochs=1"), STUDENT)
    best = own / BEST_CHECKPOINT
    digest = hashlib.sha256(best.read_bytes()).hexdigest()
    assert record_of(STUDENT).distillation == {
        "temperature": 4.0, "weight": 0.5, "teachers": [{"path": str(best), "epoch": 1, "sha256": digest}],
    }  # fmt: skip
    shutil.rmtree(own)
    assert load_checkpoint(STUDENT).classifier.teacher is None
    config = resolve(small_config(), Path("x"))
    plain = make_classifier(config, make_data(config)[0])
    assert set(torch.load(STUDENT / BEST_CHECKPOINT, weights_only=True)["state_dict"]) == set(plain.state_dict())


def test_the_logged_loss_is_linear_in_the_teachers_weight(trained: Path, small_config: Config) -> None:
    """For one step from the same initial weights."""
    losses = []
    for weight in (0.0, 0.5, 1.0):
        run = fitted(small_config(by(trained, weight=weight), "trainer.limit_train_batches=1"), Path(str(weight)))
        losses.append(read_metrics(run / "metrics.csv")[1]["train/loss"])
    assert losses[1] == pytest.approx((losses[0] + losses[2]) / 2, rel=1e-4)
    assert losses[0] != pytest.approx(losses[2], rel=1e-2)


def test_a_teacher_with_weight_0_changes_nothing(trained: Path, small_config: Config) -> None:
    precision = "trainer.precision=32-true"  # "auto" also asks the teacher's network
    alone, taught = small_config(precision), small_config(precision, by(trained, weight=0.0))
    runs = [fitted(alone, Path("plain")), fitted(taught, STUDENT)]
    one, other = (read_checkpoint(run / LAST_CHECKPOINT).state_dict for run in runs)
    assert all(one[name].equal(other[name]) for name in one)
    assert Path("plain/metrics.csv").read_text() == (STUDENT / "metrics.csv").read_text()


def test_two_teachers_are_two_entries(trained: Path, small_config: Config) -> None:
    config = resolve(small_config(by(trained, trained / LAST_CHECKPOINT)), Path("x"))
    description = set_teacher(make_classifier(config, make_data(config)[0]), config)
    assert description is not None
    assert [Path(teacher["path"]).name for teacher in description["teachers"]] == ["best.ckpt", "last.ckpt"]


def test_a_teacher_with_other_classes_is_refused(trained: Path, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"best.ckpt was trained on .*happiness, .* data has happy, neutral, sad"):
        train(small_config("labels=four", by(trained)), STUDENT)
    with pytest.raises(UserError, match=r"was trained on"):
        load_teacher({"teacher": str(trained)}, load_checkpoint(trained).classifier.classes[::-1])


def test_a_finished_run_is_recognized_by_the_digest_of_its_teacher(trained: Path, small_config: Config) -> None:
    """As in a sweep that is resumed."""
    own = Path(shutil.copytree(trained, "teacher"))
    train(small_config(by(own), "trainer.max_epochs=1", "resume=auto"), STUDENT)
    own.rename("moved")
    train(small_config(by(Path("moved")), "trainer.max_epochs=1", "resume=auto"), STUDENT)
    other = fitted(small_config("input=rgb64", "seed=1"), Path("other"))
    with pytest.raises(UserError, match=r"found other/.* \(epoch 1\); the run started with .*another SHA-256"):
        train(small_config(by(other), "trainer.max_epochs=1", "resume=auto"), STUDENT)


def test_a_run_is_only_resumed_with_the_teacher_it_started_with(trained: Path, small_config: Config) -> None:
    own = Path(shutil.copytree(trained, "teacher"))
    fitted(small_config(by(own)), STUDENT)
    longer = ("trainer.max_epochs=2", f"resume={STUDENT}")
    own.rename("moved")
    with pytest.raises(UserError, match=r"^distillation.teacher: teacher .*; (give|expected) a run folder"):
        train(small_config(by(own), *longer), STUDENT)
    with pytest.raises(UserError, match=r"found none; the run started with teacher/checkpoints/best.ckpt \(epoch 1\)"):
        train(small_config(*longer), STUDENT)
    fitted(small_config("input=rgb64", "seed=1"), own)
    with pytest.raises(
        UserError, match=r"found teacher/.* \(epoch 1\); the run started with teacher/.*another SHA-256"
    ):
        train(small_config(by(own), *longer), STUDENT)
    train(small_config(by(Path("moved")), *longer), STUDENT)
    assert record_of(STUDENT).epochs == 2
