"""The faces that are explained, and what each method made of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotion.checkpoints.ensemble import Ensemble
from emotion.checkpoints.training_data import data_of, training_rows
from emotion.config.compose import listed
from emotion.data.datamodule import EmotionDataModule
from emotion.data.readers.images import SUFFIXES, read_images
from emotion.data.transforms.preprocess import values
from emotion.errors import UserError
from emotion.explainers.faithfulness import Truth
from emotion.metrics.statistics import mean_of


class Subjects(NamedTuple):
    """N faces, where they come from, and what they are labelled, if they are."""

    faces: Tensor  # (N, 1 or 3, H, W) from 0 to 1
    rows: NDArray[np.int64]  # (N,) of the source, or the number of the file
    names: Sequence[str]  # for people
    labels: Tensor | None  # (N,)
    classes: tuple[str, ...]
    source: str
    digest: str | None

    def described(self) -> dict[str, Any]:
        """For the record."""
        return {"source": self.source, "digest": self.digest, "n": len(self.rows), "rows": self.rows.tolist()}


class Explained(NamedTuple):
    """One method's maps of one network."""

    network: str
    method: str
    signed: bool
    maps: Tensor  # (N, H, W)
    targets: Tensor  # (N,) the classes that they explain
    probabilities: Tensor  # (N, K) of the network
    seconds: float
    truth: Truth | None
    unknowing: Mapping[str, Truth]  # of maps that know nothing, by name

    def described(self) -> dict[str, Any]:
        """For the record: every measure as [mean, lower, upper], Student's 95 % intervals over faces.

        A blank map has no sensitivity, shares or likeness, and is ranked at random; a network that shuffled weights
        have silenced makes blank maps, which are like nothing.
        """
        said = {
            "network": self.network,
            "method": self.method,
            "seconds": round(self.seconds, 3),
            "blank": self.blank,
        }
        if self.truth is None:
            return said
        return said | {
            "measures": _means(self.truth),
            "n": {name: int((~found.isnan()).sum()) for name, found in self.truth.measures.items()},
            "unknowing": {whose: _means(truth) for whose, truth in self.unknowing.items()},
            "truer_than_middle": {name: _mean(self._beyond(name)) for name in RANKED},
        }

    @property
    def blank(self) -> int:
        """Maps in which nothing speaks for or against the class."""
        return int((self.maps.abs().amax((1, 2)) == 0).sum())

    def _beyond(self, name: str) -> Tensor:
        """How much truer than a blob in the middle, face by face."""
        assert self.truth is not None
        more = self.truth.measures[name] - self.unknowing["middle"].measures[name]
        return -more if name == "deletion" else more

    def table(self) -> tuple[str, list[dict[str, str]]]:
        """A title, and a line for each measure."""
        assert self.truth is not None
        lines = []
        for name, found in self.truth.measures.items():
            by_unknowing = {
                whose: f"{_mean(truth.measures[name])[0]:.3f}" if name in truth.measures else "-"
                for whose, truth in self.unknowing.items()
            }
            beyond = _spread(self._beyond(name)) if name in RANKED else "-"
            lines.append(
                {"measure": MEASURES.get(name, f"share on {name}"), self.method: _spread(found)}
                | by_unknowing
                | {"truer than the middle by": beyond, "faces": str(int((~found.isnan()).sum()))}
            )
        blank = f" ({self.blank} of {len(self.maps)} are blank)" if self.blank else ""
        return f"{self.network}, {self.method}: are its maps true?{blank}", lines


MEASURES: Mapping[str, str] = {
    "deletion": "deletion, lower is truer",
    "insertion": "insertion, higher is truer",
    "road": "ROAD, higher is truer",
    "sensitivity": "sensitivity, lower is steadier",
    "shuffled head": "alike with the head shuffled",
    "shuffled later half": "alike with the later half shuffled",
    "shuffled all": "alike with all shuffled, 0 is best",
    "elsewhere": "share elsewhere",
}


RANKED = ("deletion", "insertion", "road")
"""Measures by which a method is held, face by face, against the blob in the middle."""


def _means(truth: Truth) -> dict[str, list[float | None]]:
    return {name: _mean(found) for name, found in truth.measures.items()}


def _mean(found: Tensor) -> list[float | None]:
    """With its interval, of the faces of which something is known; of fewer than two, none."""
    known = found[~found.isnan()].tolist()
    if len(known) < 2:
        return [known[0] if known else None, None, None]
    mean = mean_of(known)
    return [mean.figure, mean.figure - mean.half, mean.figure + mean.half]


def _spread(found: Tensor) -> str:
    known = [f"{value:.3f}" for value in _mean(found) if value is not None]
    return "{} [{}, {}]".format(*known) if len(known) == 3 else "".join(known) or "-"


def subjects_of(ensembles: Sequence[Ensemble], settings: Mapping[str, Any]) -> Subjects:
    """The faces that `images`, `rows`, or `subset` and `faces` name; says how many of them a network was trained on.

    Raises:
        UserError: they are missing, or cannot be had.
    """
    if settings["images"] is not None:
        return _pictures(ensembles, listed(settings["images"]))
    data = data_of(ensembles[0].loaded[0], settings)
    if settings["rows"] is not None:
        rows = np.array(settings["rows"])
        if rows.min() < 0 or rows.max() >= len(data.faces):
            raise UserError(f"rows={settings['rows']}: expected numbers from 0 to {len(data.faces) - 1}.")
        if (left_out := rows[data.labels[rows] >= len(data.classes)]).size:
            raise UserError(f"rows={left_out.tolist()} are of none of {', '.join(data.classes)}; choose others.")
    else:
        rows = balanced(getattr(data.split, settings["subset"]), data.labels, settings["faces"], settings["seed"])
    for one in (one for ensemble in ensembles for one in ensemble.loaded):
        known = training_rows(one, data.hparams["source"], data.faces, settings["cache_dir"])
        if known is not None and (both := int(np.isin(rows, known).sum())):
            print(f"{one.path} was trained on {both} of these {len(rows)} faces.")
    return of_rows(data, rows)


def of_rows(data: EmotionDataModule, rows: NDArray[np.int64]) -> Subjects:
    """The faces of some of a source's rows."""
    faces = values(torch.from_numpy(data.faces.images[rows]))
    labels = torch.from_numpy(data.labels[rows].astype(np.int64))
    names = [f"row {row}" for row in rows]
    return Subjects(faces, rows, names, labels, data.classes, data.faces.source, data.faces.digest)


def balanced(rows: NDArray[np.int64], labels: NDArray[np.integer], count: int, seed: int) -> NDArray[np.int64]:
    """`count` of the rows at random, as many of each class as there are, the classes in turn."""
    drawn = np.random.default_rng(seed).permutation(rows)
    turn = np.empty(len(drawn), int)
    for label in np.unique(labels[drawn]):
        own = labels[drawn] == label
        turn[own] = np.arange(own.sum())
    return drawn[np.lexsort((labels[drawn], turn))][:count]


def targets_of(target: str | bool, probabilities: Tensor, subjects: Subjects) -> Tensor:
    """The classes (N,) to explain; `target=true` reaches us as a truth value.

    Raises:
        UserError: it is none of the classes, or the faces have no true one.
    """
    target = "true" if target is True else str(target)
    if target == "predicted":
        return probabilities.argmax(1)
    if target == "true" and subjects.labels is not None:
        return subjects.labels
    if target in subjects.classes:
        return torch.full((len(probabilities),), subjects.classes.index(target))
    true = "" if subjects.labels is None else "true, "
    raise UserError(f"target={target}: expected predicted, {true}{', '.join(subjects.classes)}.")


def _pictures(ensembles: Sequence[Ensemble], images: Sequence[str]) -> Subjects:
    named = [Path(name) for name in images]
    files = [
        file
        for name in named
        for file in (sorted(f for f in name.rglob("*") if f.suffix.lower() in SUFFIXES) if name.is_dir() else [name])
    ]
    if missing := [str(name) for name in files if not name.is_file()]:
        raise UserError(f"images={', '.join(missing)}: not there; expected picture files or folders of them.")
    if not files:
        raise UserError(
            f"images={', '.join(images)}: found no {', '.join(sorted(SUFFIXES))}; expected pictures of faces."
        )
    takes = [member.preprocess for ensemble in ensembles for member in ensemble.members]
    size, channels = max(one.zoomed for one in takes), max(one.channels for one in takes)
    source = ", ".join(images)
    read = read_images(files, size, channels, lambda place: str(files[place]), source)
    pixels = np.concatenate([some.copy() for _, some in read])
    names = [file.name for file in files]
    numbers = np.arange(len(files))
    return Subjects(values(torch.from_numpy(pixels)), numbers, names, None, ensembles[0].classes, source, None)
