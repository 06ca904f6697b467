"""Fixtures: synthetic faces in every source format, and a network that trains within a second."""

import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image

from emotion.classifier import EmotionClassifier
from emotion.config.compose import CONF, compose
from emotion.data.cache import prepare
from emotion.data.faces import EMOTIONS, USAGES, FaceChunk, Faces
from emotion.data.readers.ferplus import HEADER, VOTE_COLUMNS
from emotion.data.readers.synthetic import read
from emotion.records.run_record import RunRecord
from emotion.train import train
from tests.counted import pytest_addoption, pytest_terminal_summary, tally

__all__ = ["pytest_addoption", "pytest_terminal_summary", "tally"]

os.environ["HF_HUB_OFFLINE"] = "1"  # no test uses the network
os.environ["OMP_NUM_THREADS"] = "1"  # one thread per test process and its children: tests run in parallel
torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent
"""The repository."""

REAL_DATA = os.environ.get("EMOTION_DATA", "")

SMALL = (
    "model.widths=[8,16]",
    "model.convs=[1,1]",
    "model.reduction=4",
    "model.hidden=8",
    "input=grey48",
    "compile.cpu=false",
    "trainer.accelerator=cpu",
    "~callbacks.tensorboard_pictures",  # rendering them takes longer than an epoch here
)
"""Overrides that shrink V4 and leave its recipe unchanged."""


def options(group: str) -> list[str]:
    """Return the choices of a config group: the files of its folder."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


BACKBONES = [
    name for name in options("model") if "defaults:\n  - timm_backbone" in (CONF / f"model/{name}.yaml").read_text()
]
"""Choices of model that are a timm backbone with the common recipe."""

SYSTEMS = [name for name in options("model") if name not in (*BACKBONES, "timm_backbone")]
"""Choices of model with their own network."""


def representative(choices: Iterable[str], *names: str) -> list[Any]:
    """Return test parameters for all choices; those not in `names` are marked as exhaustive."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.exhaustive) for name in choices]


def record_of(run: Path) -> RunRecord:
    """Return the record of a run that must have one."""
    record = RunRecord.read(run)
    assert record is not None
    return record


@pytest.fixture
def project() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test in an empty folder without data, with the same random numbers in any order."""
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMOTION_DATA", raising=False)  # so that the data folder is data/, which nobody named
    monkeypatch.setenv("EMOTION_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of its own for each test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder shared by all xdist workers of a test session."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def composed() -> dict[tuple[str, ...], DictConfig]:
    """Composed configs by their overrides: composing takes as long as some tests."""
    return {}


@pytest.fixture
def small_config(composed: dict[tuple[str, ...], DictConfig]) -> Callable[..., DictConfig]:
    """Compose a train config of the small network on a few synthetic faces, with further overrides."""

    def make(*overrides: str) -> DictConfig:
        data = ("data=synthetic", "data.training=16", "data.public_test=4", "data.private_test=4", "batch_size=16")
        if overrides not in composed:
            composed[overrides] = compose("train", *SMALL, *data, "trainer.max_epochs=2", *overrides)
        return deepcopy(composed[overrides])

    return make


@pytest.fixture(scope="session")
def kept_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for files that several tests of one worker start from."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def small_run(small_config: Callable[..., DictConfig], shared_folder: Path) -> Callable[..., Path]:
    """Train `small_config` with overrides into a folder; equal runs are trained once per session and then copied."""

    def make(folder: Path, *overrides: str) -> Path:
        kept = shared_folder / f"run_{hashlib.md5(repr((folder, overrides)).encode()).hexdigest()}"
        with FileLock(f"{kept}.lock"):
            if not kept.exists():
                train(small_config(*overrides), folder)
                shutil.copytree(folder, kept)
                return folder
        return Path(shutil.copytree(kept, folder))

    return make


@pytest.fixture(scope="session")
def few_faces() -> FaceChunk:
    """Three synthetic faces of each class in each usage, 63 rows."""
    (chunk,) = read(training=3, public_test=3, private_test=3).chunks
    return chunk


def csv_lines(faces: FaceChunk, layout: str = "emotion,pixels,Usage") -> list[str]:
    """Return the lines of fer2013.csv or icml_face_data.csv, header first."""
    lines = [layout]
    for image, label, usage, _ in zip(*faces[:4], strict=True):
        cell = {"emotion": str(label), "pixels": " ".join(map(str, image.ravel())), "Usage": USAGES[usage]}
        lines.append(",".join(cell[column.strip()] for column in layout.split(",")))
    return lines


@pytest.fixture
def fer_csv(tmp_path: Path, few_faces: FaceChunk) -> Path:
    """A small fer2013.csv in the data folder."""
    path = tmp_path / "data" / "fer2013.csv"
    path.parent.mkdir()
    path.write_text("\n".join(csv_lines(few_faces)) + "\n")
    return path


def made_votes(faces: FaceChunk) -> NDArray[np.uint8]:
    """Return ten votes per face (n, 10): seven for its emotion, two for neutral (or sadness), one unknown."""
    order = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    votes = np.zeros((len(faces.labels), len(VOTE_COLUMNS)), np.uint8)
    for row, label in zip(votes, faces.labels, strict=True):
        row[VOTE_COLUMNS.index(order[label])] += 7
        row[VOTE_COLUMNS.index("sadness" if EMOTIONS[label] == "neutral" else "neutral")] += 2
        row[VOTE_COLUMNS.index("unknown")] += 1
    return votes


def write_votes(path: Path, votes: NDArray[np.uint8], usage: NDArray[np.uint8], header: str = ",".join(HEADER)) -> None:
    """Write FER+'s file; as there, rows with more than eight votes for "not a face" have no image name or number."""
    lines, named = [header], 0
    for row, index in zip(votes, usage, strict=True):
        name = "" if row[-1] > 8 else f"fer{named:07d}.png"
        named += bool(name)
        lines.append(",".join([USAGES[index], name, *map(str, row)]))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def fer_votes(fer_csv: Path, few_faces: FaceChunk) -> Path:
    """Votes beside `fer_csv`: per usage, one face has contempt, one is not a face and one has no majority."""
    votes = made_votes(few_faces)
    for usage in range(3):
        first, second, third = np.flatnonzero(few_faces.usage == usage)[[0, 4, 8]]
        votes[first] = votes[second] = votes[third] = 0
        votes[first, VOTE_COLUMNS.index("contempt")] = votes[second, VOTE_COLUMNS.index("NF")] = 10
        votes[third, [VOTE_COLUMNS.index("anger"), VOTE_COLUMNS.index("fear")]] = 5
    path = fer_csv.parent / "ferplus_votes.csv"
    write_votes(path, votes, few_faces.usage)
    return path


@pytest.fixture
def fer_folder(tmp_path: Path, few_faces: FaceChunk) -> Path:
    """The same faces as Kaggle's image folder."""
    root = tmp_path / "data"
    for index, (image, label, usage, _) in enumerate(zip(*few_faces[:4], strict=True)):
        folder = root / ("train" if usage == 0 else "test") / EMOTIONS[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{USAGES[usage]}_{index:08d}.png")
    return root


def signal_at(monkeypatch: pytest.MonkeyPatch, step: str, number: int, signum: int = signal.SIGINT) -> None:
    """Send a signal to this process in the `number`-th call of a step."""
    original, calls = getattr(EmotionClassifier, step), [0]

    def counted(*args: object) -> object:
        calls[0] += 1
        if calls[0] == number:
            os.kill(os.getpid(), signum)
        return original(*args)

    monkeypatch.setattr(EmotionClassifier, step, counted)


@pytest.fixture(scope="session")
def fer2013_faces(shared_folder: Path) -> Faces:
    """The real FER2013, prepared once per session for all workers; skips where EMOTION_DATA does not contain it."""
    path = Path(REAL_DATA).absolute() / "fer2013.csv"
    if not REAL_DATA or not path.is_file():
        pytest.skip("needs the real fer2013.csv: set EMOTION_DATA to its folder")
    with FileLock(shared_folder / "fer2013.lock"):
        source = {"_target_": "emotion.data.readers.fer2013.read_csv", "path": str(path)}
        return prepare(source, shared_folder / "fer2013")


@pytest.fixture
def fer2013(fer2013_faces: Faces, shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the real fer2013.csv, whose faces are in the cache."""
    monkeypatch.setenv("EMOTION_CACHE", str(shared_folder / "fer2013"))
    return Path(fer2013_faces.source)
