"""Label schemes: which classes a run tells apart, in which order, and which of the source's classes each is made of."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotion.data.faces import Faces
from emotion.errors import UserError

LabelScheme = Mapping[str, Sequence[str]]
"""Class name -> the source's classes that it takes in; a source's class that stands nowhere is left out.

An empty one, labels=source, is every class of the source as it is.
"""

LEFT_OUT = -1


def relabel(labels: NDArray[np.uint8], source_classes: Sequence[str], scheme: LabelScheme) -> NDArray[np.int64]:
    """Labels (N,) of the source as labels of the scheme, LEFT_OUT where it has no place for them.

    Raises:
        UserError: the scheme names a class that the source does not have, or names one twice.
    """
    table = np.full(len(source_classes), LEFT_OUT, np.int64)
    for index, (name, members) in enumerate(scheme.items()):
        for member in members:
            if member not in source_classes:
                raise UserError(
                    f"Label scheme: {name} takes in {member!r}, which the data does not have; "
                    f"its classes are {', '.join(source_classes)}. labels=source takes them as they are; "
                    f"labels=NAME is another scheme."
                )
            if table[source_classes.index(member)] != LEFT_OUT:
                raise UserError(f"Label scheme: {member!r} stands under two classes, one of them {name}.")
            table[source_classes.index(member)] = index
    return table[labels]


CHOICES = ("majority", "distribution", "sampled")


def vote_shares(faces: Faces, labels: NDArray[np.int64], scheme: LabelScheme) -> NDArray[np.float32] | None:
    """Shares (N, K) of a row's votes for each class of the scheme, the others' votes left out; None without votes.

    A row that nobody voted on is wholly of its label, one that is left out of nothing.
    """
    if faces.votes is None:
        return None
    table = relabel(np.arange(faces.votes.shape[1], dtype=np.uint8), faces.classes, scheme)
    shares = np.zeros((len(labels), len(scheme)), np.float32)
    for column, label in enumerate(table):
        if label != LEFT_OUT:
            shares[:, label] += faces.votes[:, column]
    bare = np.flatnonzero((labels != LEFT_OUT) & ~shares.any(1))
    shares[bare, labels[bare]] = 1
    return np.asarray(shares / np.maximum(shares.sum(1, keepdims=True), 1) * (labels != LEFT_OUT)[:, None], np.float32)


class Targets:
    """Targets of rows: to train, those of `choice`; else their labels.

    Args:
        labels: (N,), LEFT_OUT where a row is never asked for.
        shares: of the votes (N, K), None where there are none.
        choice: majority, the labels; distribution, the shares; or sampled, which is Barsoum et al.'s probabilistic
            label drawing: one of the shares' classes, drawn by the epoch and the row alone.

    Raises:
        UserError: no such choice, or one that needs votes where there are none.
    """

    def __init__(self, labels: NDArray[np.int64], shares: NDArray[np.float32] | None, choice: str) -> None:
        if choice not in CHOICES:
            raise UserError(f"target={choice}: expected {', '.join(CHOICES)}.")
        if choice != "majority" and shares is None:
            raise UserError(f"target={choice} needs taggers' votes, and this data has none. Take data=ferplus.")
        self._labels, self._shares = labels, None if choice == "majority" else shares
        self._sampled, self._drawn_for = choice == "sampled", -1
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        """What `of` gathers from to the device."""
        self._hard, self._device = torch.from_numpy(self._labels).to(device), device
        if self._shares is not None:
            self._to_train = torch.from_numpy(self._shares).to(device)
            self._drawn_for = -1

    def of(self, rows: Tensor, epoch_seed: int | None = None) -> Tensor:
        """Classes (B,) or shares (B, K) of `rows`, both on the device; with an epoch's seed, to train in that epoch."""
        if epoch_seed is None or self._shares is None:
            return self._hard[rows]
        if self._sampled and epoch_seed != self._drawn_for:
            self._to_train, self._drawn_for = drawn(self._shares, epoch_seed).to(self._device), epoch_seed
        return self._to_train[rows]

    def counts(self, rows: NDArray[np.int64], classes: int) -> NDArray[np.float64] | NDArray[np.int64]:
        """Faces of each class (K,) to train among `rows`; of soft and of sampled targets the expected number."""
        if self._shares is None:
            return np.bincount(self._labels[rows], minlength=classes)
        return np.asarray(self._shares[rows].sum(0, dtype=np.float64))


def drawn(shares: NDArray[np.float32], seed: int) -> Tensor:
    """A class (N,) of each row's shares (N, K), the same for a row wherever and how often it is asked for."""
    bounds = torch.from_numpy(shares).double().cumsum(1)
    draws = torch.rand(len(shares), 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (bounds <= draws * bounds[:, -1:]).sum(1).clamp_(max=shares.shape[1] - 1)  # rows left out have no bounds
