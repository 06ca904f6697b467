"""Small real parts for the tests: drawn faces in every source's format, a network small enough to train in a second."""

import hashlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image

from emotion.classifier import EmotionClassifier
from emotion.config.compose import CONF, compose
from emotion.data.faces import EMOTIONS, USAGES, Rows
from emotion.data.readers.ferplus import HEADER, VOTED
from emotion.data.readers.synthetic import read
from emotion.train import train
from tests.counted import pytest_addoption, pytest_terminal_summary, tally

__all__ = ["pytest_addoption", "pytest_terminal_summary", "tally"]

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks anybody for anything
os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side: one thread each, here and in what they start
torch.set_num_threads(1)

SMALL = (
    "model.widths=[8,16]",
    "model.convs=[1,1]",
    "model.reduction=4",
    "model.hidden=8",
    "input=grey48",
    "compile.cpu=false",
    "trainer.accelerator=cpu",
    "~callbacks.tensorboard_pictures",  # which take longer to draw than such an epoch
)
"""Overrides that leave V4's recipe as it is but for its size."""


ROOT = Path(__file__).parent.parent
"""The clone that the tests stand in."""


def options(group: str) -> list[str]:
    """The choices of a config group: the files of its folder."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


BACKBONES = [
    name for name in options("model") if "defaults:\n  - timm_backbone" in (CONF / f"model/{name}.yaml").read_text()
]
"""Choices of model that are the document's recipe around a backbone of timm."""

SYSTEMS = [name for name in options("model") if name not in (*BACKBONES, "timm_backbone")]
"""Those with a network of their own."""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in an empty folder and finds no data but what it makes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMOTION_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("EMOTION_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def small_config(tmp_path: Path) -> Callable[..., DictConfig]:
    """A train config of the small network on a few drawn faces; further overrides may follow."""

    def make(*overrides: str) -> DictConfig:
        data = ("data=synthetic", "data.training=16", "data.public_test=4", "data.private_test=4", "batch_size=16")
        return compose("train", *SMALL, *data, "trainer.max_epochs=2", *overrides)

    return make


@pytest.fixture(scope="session")
def kept_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs lie that several tests begin with."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def small_run(small_config: Callable[..., DictConfig], kept_runs: Path) -> Callable[..., Path]:
    """Trains what `small_config` makes of overrides into a folder; whoever wants the same again gets a copy."""

    def make(folder: Path, *overrides: str) -> Path:
        kept = kept_runs / hashlib.md5(repr((folder, overrides)).encode()).hexdigest()
        if kept.exists():
            return Path(shutil.copytree(kept, folder))
        train(small_config(*overrides), folder)
        shutil.copytree(folder, kept)
        return folder

    return make


@pytest.fixture(scope="session")
def few_faces() -> Rows:
    """Three drawn faces of each class in each usage."""
    rows = list(read(training=3, public_test=3, private_test=3).rows)
    return Rows(
        np.concatenate([r.images for r in rows]),
        np.concatenate([r.labels for r in rows]),
        np.concatenate([r.usage for r in rows]),
        [origin for r in rows for origin in r.origin],
    )


def csv_lines(faces: Rows, layout: str = "emotion,pixels,Usage") -> list[str]:
    """The faces as lines of fer2013.csv or icml_face_data.csv, header first."""
    lines = [layout]
    for image, label, usage, _ in zip(*faces[:4], strict=True):
        cell = {"emotion": str(label), "pixels": " ".join(map(str, image.ravel())), "Usage": USAGES[usage]}
        lines.append(",".join(cell[column.strip()] for column in layout.split(",")))
    return lines


@pytest.fixture
def fer_csv(tmp_path: Path, few_faces: Rows) -> Path:
    """A small fer2013.csv in the data folder."""
    path = tmp_path / "data" / "fer2013.csv"
    path.parent.mkdir()
    path.write_text("\n".join(csv_lines(few_faces)) + "\n")
    return path


def made_votes(faces: Rows) -> NDArray[np.uint8]:
    """Ten votes for each face (n, 10): seven for its emotion, two for neutral (or sadness), one unknown."""
    order = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    votes = np.zeros((len(faces.labels), len(VOTED)), np.uint8)
    for row, label in zip(votes, faces.labels, strict=True):
        row[VOTED.index(order[label])] += 7
        row[VOTED.index("sadness" if EMOTIONS[label] == "neutral" else "neutral")] += 2
        row[VOTED.index("unknown")] += 1
    return votes


def write_votes(path: Path, votes: NDArray[np.uint8], usage: NDArray[np.uint8], header: str = ",".join(HEADER)) -> None:
    """FER+'s file; a face that nine voted to be none has no name, and no number is left out for it."""
    lines, named = [header], 0
    for row, use in zip(votes, usage, strict=True):
        name = "" if row[-1] > 8 else f"fer{named:07d}.png"
        named += bool(name)
        lines.append(",".join([USAGES[use], name, *map(str, row)]))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def fer_votes(fer_csv: Path, few_faces: Rows) -> Path:
    """The votes on `fer_csv`'s faces, beside it: in each usage one for contempt, one for no face, one undecided."""
    votes = made_votes(few_faces)
    for usage in range(3):
        first, second, third = np.flatnonzero(few_faces.usage == usage)[[0, 4, 8]]
        votes[first] = votes[second] = votes[third] = 0
        votes[first, VOTED.index("contempt")] = votes[second, VOTED.index("NF")] = 10
        votes[third, [VOTED.index("anger"), VOTED.index("fear")]] = 5
    path = fer_csv.parent / "ferplus_votes.csv"
    write_votes(path, votes, few_faces.usage)
    return path


@pytest.fixture
def fer_folder(tmp_path: Path, few_faces: Rows) -> Path:
    """The same faces as Kaggle's image folder."""
    root = tmp_path / "data"
    for index, (image, label, usage, _) in enumerate(zip(*few_faces[:4], strict=True)):
        place = root / ("train" if usage == 0 else "test") / EMOTIONS[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{USAGES[usage]}_{index:08d}.png")
    return root


def signal_at(monkeypatch: pytest.MonkeyPatch, step: str, number: int, signum: int = signal.SIGINT) -> None:
    """Send ourselves a signal in the `number`-th call of a step."""
    original, calls = getattr(EmotionClassifier, step), [0]

    def counted(*args: object) -> object:
        calls[0] += 1
        if calls[0] == number:
            os.kill(os.getpid(), signum)
        return original(*args)

    monkeypatch.setattr(EmotionClassifier, step, counted)


REAL_DATA = os.environ.get("EMOTION_DATA", "")


@pytest.fixture
def fer2013(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real fer2013.csv, prepared once for all; a test is skipped where EMOTION_DATA does not lead to it."""
    path = Path(REAL_DATA) / "fer2013.csv"
    if not REAL_DATA or not path.is_file():
        pytest.skip("needs the real fer2013.csv: set EMOTION_DATA to its folder")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # of all workers
    monkeypatch.setenv("EMOTION_CACHE", str(shared / "fer2013"))
    return path.absolute()


@pytest.fixture
def project() -> Path:
    """The clone that the tests stand in."""
    return ROOT
