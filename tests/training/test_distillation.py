"""Distillation: known answers of its loss, and runs that learn from a trained run."""

import copy
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.functional import cross_entropy

from emotion.checkpoints.load import LoadedCheckpoint, load_checkpoint, read_checkpoint
from emotion.checkpoints.locate import BEST_CHECKPOINT, LAST_CHECKPOINT
from emotion.classifier import EmotionClassifier
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.loggers.csv_logger import read_metrics
from emotion.train import train
from emotion.training.distillation import Teacher, teacher_of
from emotion.training.setup import make_classifier, make_data, resolve, teach

Config = Callable[..., DictConfig]
TAUGHT = Path("taught")
FACES, TARGETS = torch.rand(6, 1, 48, 48, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


def classifier(size: int = 48, channels: int = 1, seed: int = 0) -> EmotionClassifier:
    """A small one of three classes, with batch statistics of its own."""
    torch.manual_seed(seed)
    model = {"_target_": "emotion.models.baseline_cnn.BaselineCNN", "widths": [4, 8], "hidden": 8, "dropout": 0.5}
    made = EmotionClassifier(
        model=model,
        input={"size": size, "channels": channels, "mean": [0.4] * channels, "std": [0.3] * channels},
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
    return Teacher([LoadedCheckpoint(Path("x"), one, {}, "", 0) for one in classifiers], temperature, weight)


def logits_of(one: EmotionClassifier) -> Tensor:
    with torch.no_grad():
        logits: Tensor = one.eval()(one.preprocess.normalize(FACES))
    return logits


def test_without_weight_the_loss_is_the_labels() -> None:
    logits, of_labels = torch.randn(6, 3), torch.tensor(1.25)
    assert teacher(classifier(), weight=0).loss(of_labels, logits, FACES) == of_labels


def test_who_knows_what_the_teacher_knows_learns_nothing_of_it() -> None:
    one = classifier()
    loss = teacher(one, weight=1).loss(torch.tensor(1.25), logits_of(one) + 7, FACES)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert teacher(one, weight=0.25).loss(torch.tensor(1.0), logits_of(one), FACES).item() == pytest.approx(0.75)


def test_loss_of_known_probabilities() -> None:
    class Known(Teacher):
        def probabilities(self, faces: Tensor) -> Tensor:
            return torch.tensor([[0.8, 0.2]])

    # temperature 2: student's logits 2 ln 3 and 0 become 3/4 and 1/4
    loss = Known([], 2.0, 0.5).loss(torch.tensor(1.0), torch.tensor([[2 * math.log(3), 0.0]]), FACES[:1])
    divergence = 0.8 * math.log(0.8 / 0.75) + 0.2 * math.log(0.2 / 0.25)
    assert loss.item() == pytest.approx(0.5 * 1.0 + 0.5 * 4 * divergence, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradient_is_t_times_the_difference_of_probabilities(temperature: float) -> None:
    one, logits = classifier(), torch.randn(6, 3, requires_grad=True)
    teacher(one, temperature=temperature, weight=1).loss(torch.tensor(0.0), logits, FACES).backward()
    difference = (logits / temperature).softmax(1) - (logits_of(one) / temperature).softmax(1)
    torch.testing.assert_close(logits.grad, temperature * difference.detach() / 6)


def test_gradient_of_a_hot_teacher_is_that_of_matched_logits() -> None:
    """Hinton et al. 2015, section 2.1: for a high temperature, of centred logits, (z - v) / (B K)."""
    one, logits = classifier(), torch.randn(6, 3, requires_grad=True)
    teacher(one, temperature=1e3, weight=1).loss(torch.tensor(0.0), logits, FACES).backward()
    gaps = logits.detach() - logits_of(one)
    torch.testing.assert_close(logits.grad, (gaps - gaps.mean(1, keepdim=True)) / (6 * 3), atol=1e-3, rtol=1e-2)


def test_an_ensemble_teaches_the_mean_of_its_probabilities() -> None:
    one, other = classifier(seed=1), classifier(seed=2)
    softened = [(logits_of(each) / 4).softmax(1) for each in (one, other)]
    torch.testing.assert_close(teacher(one, other).probabilities(FACES), (softened[0] + softened[1]) / 2)


@pytest.mark.parametrize("student", [(48, 1), (48, 3), (64, 3)])
@pytest.mark.parametrize("knows", [(48, 1), (64, 3), (32, 1)])
def test_a_teacher_sees_the_students_faces_by_its_own_preprocessing(
    student: tuple[int, int], knows: tuple[int, int]
) -> None:
    pupil, one = classifier(*student).preprocess, classifier(*knows)
    pixels = torch.randint(0, 256, (6, 48, 48), dtype=torch.uint8)
    shown = pupil.denormalize(pupil(pixels))
    assert shown.shape == (6, student[1], student[0], student[0])
    seen = teacher(one, temperature=1).probabilities(shown)
    if student[0] == 48:  # else it was enlarged in between
        torch.testing.assert_close(seen, one.probabilities(pixels), atol=1e-4, rtol=1e-3)


def test_a_teacher_has_no_part_in_its_student() -> None:
    student, one = classifier(seed=1), classifier(seed=2)
    names, parameters = list(student.state_dict()), len(list(student.parameters()))
    student.train().set_teacher(teacher(one))
    assert list(student.state_dict()) == names
    assert len(list(student.parameters())) == parameters
    assert copy.deepcopy(student).teacher is student.teacher
    state = copy.deepcopy(one.state_dict())
    student.training_step((student.preprocess.normalize(FACES), TARGETS), 0).backward()
    assert not one.training
    assert all(parameter.grad is None for parameter in one.parameters())
    assert all(value.equal(state[name]) for name, value in one.state_dict().items())


def test_only_training_is_taught() -> None:
    student, faces = classifier(seed=1), FACES
    student.set_teacher(teacher(classifier(seed=2)))
    normal = student.preprocess.normalize(faces)
    student.eval().validation_step((normal, TARGETS), 0)
    plain = cross_entropy(logits_of(student), TARGETS)
    assert student.val_scores.compute()["loss"].allclose(plain)
    student.train().training_step((normal, TARGETS), 0)
    assert not student.train_scores.compute()["loss"].allclose(plain)


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0}, {"temperature": -1}, {"weight": 1.5}, {"temperature": float("nan")}, {"alpha": 1}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], elder: Path) -> None:
    with pytest.raises(UserError, match=r"Teacher refuses its arguments"):
        teacher_of({"teacher": str(elder), **wrong}, load_checkpoint(elder).classifier.classes)


@pytest.fixture(scope="module")
def kept_elder(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the first test that needs a trained run leaves it to the others."""
    return {"run": tmp_path_factory.mktemp("elder") / "run"}


@pytest.fixture
def elder(kept_elder: dict[str, Path], small_config: Config) -> Path:
    """A trained run of other widths, size and channels than its student's."""
    if not kept_elder["run"].exists():
        train(small_config("input=rgb64", "model.widths=[8,8]", "trainer.max_epochs=1"), kept_elder["run"])
    return kept_elder["run"]


def by(*teachers: Path, weight: float = 0.5) -> str:
    return f"distillation={{teacher:[{','.join(map(str, teachers))}],temperature:4.0,weight:{weight}}}"


def test_a_taught_run_stands_alone_and_says_who_taught_it(elder: Path, small_config: Config) -> None:
    own = Path(shutil.copytree(elder, "elder"))
    train(small_config(by(own), "mixup=either", "trainer.max_epochs=1"), TAUGHT)
    record = json.loads((TAUGHT / "record.json").read_text())
    best = own / BEST_CHECKPOINT
    digest = hashlib.sha256(best.read_bytes()).hexdigest()
    assert record["distillation"] == {
        "temperature": 4.0, "weight": 0.5, "teachers": [{"path": str(best), "epoch": 0, "sha256": digest}],
    }  # fmt: skip
    shutil.rmtree(own)
    loaded = load_checkpoint(TAUGHT)
    assert loaded.classifier.teacher is None
    plain = make_classifier(settings := resolve(small_config(), Path("x")), make_data(settings)[0])
    assert set(torch.load(TAUGHT / BEST_CHECKPOINT, weights_only=True)["state_dict"]) == set(plain.state_dict())


def test_train_loss_is_the_whole_loss(elder: Path, small_config: Config) -> None:
    """Of one step from the same beginning, the logged loss is linear in the weight."""
    found = []
    for weight in (0.0, 0.5, 1.0):
        train(
            small_config(by(elder, weight=weight), "trainer.max_epochs=1", "trainer.limit_train_batches=1"),
            run := Path(str(weight)),
        )
        found.append(read_metrics(run / "metrics.csv")[0]["train/loss"])
    assert found[1] == pytest.approx((found[0] + found[2]) / 2, rel=1e-4)
    assert found[0] != pytest.approx(found[2], rel=1e-2)


def test_a_teacher_without_weight_changes_nothing(elder: Path, small_config: Config) -> None:
    train(small_config("trainer.max_epochs=1"), Path("plain"))
    train(small_config(by(elder, weight=0.0), "trainer.max_epochs=1"), TAUGHT)
    one, other = (read_checkpoint(run / LAST_CHECKPOINT).state_dict for run in (Path("plain"), TAUGHT))
    assert all(one[name].equal(other[name]) for name in one)
    assert Path("plain/metrics.csv").read_text() == (TAUGHT / "metrics.csv").read_text()


def test_two_teachers_are_two_entries(elder: Path, small_config: Config) -> None:
    settings = resolve(small_config(by(elder, elder / LAST_CHECKPOINT)), Path("x"))
    student = make_classifier(settings, make_data(settings)[0])
    said = teach(student, settings)
    assert said is not None
    assert [Path(one["path"]).name for one in said["teachers"]] == ["best.ckpt", "last.ckpt"]


def test_a_teacher_of_other_classes_is_refused(elder: Path, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"best.ckpt tells apart happiness, .*; the data has happy, neutral, sad"):
        train(small_config("labels=four", by(elder)), TAUGHT)
    with pytest.raises(UserError, match=r"tells apart"):
        teacher_of({"teacher": str(elder)}, load_checkpoint(elder).classifier.classes[::-1])


def test_a_run_goes_on_with_the_teacher_that_it_began_with_alone(elder: Path, small_config: Config) -> None:
    own = Path(shutil.copytree(elder, "elder"))
    train(small_config(by(own), "trainer.max_epochs=1"), TAUGHT)
    longer = ("trainer.max_epochs=2", f"resume={TAUGHT}")
    own.rename("moved")
    with pytest.raises(UserError, match=r"^distillation.teacher: elder is not there; give a run folder"):
        train(small_config(by(own), *longer), TAUGHT)
    with pytest.raises(UserError, match=r"found none; the run began with elder/checkpoints/best.ckpt \(epoch 1\)"):
        train(small_config(*longer), TAUGHT)
    train(small_config("input=rgb64", "trainer.max_epochs=1", "seed=1"), own)
    with pytest.raises(UserError, match=r"found elder/.* \(epoch 1\); the run began with elder/.*not with the same"):
        train(small_config(by(own), *longer), TAUGHT)
    train(small_config(by(Path("moved")), *longer), TAUGHT)
    assert json.loads((TAUGHT / "record.json").read_text())["epochs"] == 2


def test_an_experiment_without_its_teacher_says_what_to_give() -> None:
    with pytest.raises(UserError, match=r"names no teacher; expected .* distillation.teacher=RUN or .*\[RUN,RUN\]"):
        train(compose("train", "experiment=distill", "data=synthetic", "data.training=20"), TAUGHT)
    assert not TAUGHT.exists()
