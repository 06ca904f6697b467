"""Label schemes: the classes of a run, in order, and the source classes that each of them merges."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotion.data.faces import Faces
from emotion.data.names import CODES, KNOWN_CLASSES, UNCLEAR, class_key
from emotion.errors import UserError

LabelScheme = Mapping[str, Sequence[str]]
"""Class name -> the source classes it merges. Rows of other source classes have no class.

The empty scheme (labels=source) stands for all classes of the source, unchanged.
"""

NO_CLASS = -1

TARGET_KINDS = ("majority", "distribution", "sampled")


def relabel(labels: NDArray[np.uint8], source_classes: Sequence[str], scheme: LabelScheme) -> NDArray[np.int64]:
    """Map the source's labels (N,) to the scheme's, `NO_CLASS` where it has none.

    Classes are matched by name, in any case and with the synonyms of emotion.data.names. A source that has only
    known classes, such as a small test set, may lack other known ones.

    Raises:
        UserError: The scheme names a class that the source does not have, names one twice, or has no lists.
    """
    scheme = {name: list(map(str, _members(name, members))) for name, members in scheme.items()}
    table = np.full(len(source_classes), NO_CLASS, np.int64)
    names = [class_key(name) for name in source_classes]
    keys = {member: class_key(member) for members in scheme.values() for member in members}
    keys |= {member: CODES.get(key, key) for member, key in keys.items() if key not in names}
    wanted = keys.values()
    others = [source_classes[row] for row, name in enumerate(names) if name not in (*wanted, *KNOWN_CLASSES)]
    missing = [(name, member) for name, members in scheme.items() for member in members if keys[member] not in names]
    unknown = any(keys[member] not in KNOWN_CLASSES for _, member in missing)
    if missing and (others or unknown or not set(names) & set(wanted)):
        overrides = " ".join(f"'labels.{name}=[CLASS]'" for name in dict(missing))
        raise UserError(
            f"Label scheme: the data does not have {', '.join(repr(member) for _, member in missing)}; its classes are "
            f"{', '.join(source_classes)}. Name the data's class for each, labels=NAME {overrides} ([] for none), or "
            f"choose another labels=NAME, such as labels=source."
        )
    for index, (name, members) in enumerate(scheme.items()):
        for member in members:
            found = [row for row, one in enumerate(names) if one == keys[member]]
            if any(table[row] != NO_CLASS for row in found):
                raise UserError(f"Label scheme: {member!r} occurs in two classes, one of them {name}; list it once.")
            table[found] = index
    return table[labels]


def _members(name: str, members: object) -> Sequence[object]:
    if isinstance(members, str) or not isinstance(members, Sequence) or None in members:
        raise UserError(
            f"labels.{name}={members}: expected a list of the data's classes, such as 'labels.{name}=[sad]'."
        )
    return members


def check_class_names(classes: Iterable[str]) -> None:
    """Raise UserError if a class has the name that prediction gives faces without a clear expression."""
    for name in classes:
        if class_key(name) == UNCLEAR:
            raise UserError(
                f"Label scheme: found a class {name}, the label of blank and unsure faces; expected another name. "
                f"Rename it in the label scheme or, for labels=source, in the data, or choose labels=NAME without it."
            )


def describe_unused(faces: Faces, labels: NDArray[np.int64]) -> list[str]:
    """Return a sentence that counts the faces without a class by source class; an empty list if there are none."""
    unused = np.bincount(faces.labels[labels == NO_CLASS], minlength=len(faces.classes))
    counts = ", ".join(f"{n:,} {name}" for name, n in zip(faces.classes, unused, strict=True) if n)
    return [f"left out by labels=: {counts}"] if counts else []


def vote_shares(faces: Faces, labels: NDArray[np.int64], scheme: LabelScheme) -> NDArray[np.float32] | None:
    """Return the share (N, K) of each row's votes per class of the scheme; None if the source has no votes.

    Votes for other classes do not count. A row without votes has share 1 for its label; a row without a class is all 0.
    """
    if faces.votes is None:
        return None
    table = relabel(np.arange(faces.votes.shape[1], dtype=np.uint8), faces.classes, scheme)
    shares = np.zeros((len(labels), len(scheme)), np.float32)
    for column, label in enumerate(table):
        if label != NO_CLASS:
            shares[:, label] += faces.votes[:, column]
    without_votes = np.flatnonzero((labels != NO_CLASS) & ~shares.any(1))
    shares[without_votes, labels[without_votes]] = 1
    return np.asarray(shares / np.maximum(shares.sum(1, keepdims=True), 1) * (labels != NO_CLASS)[:, None], np.float32)


class Targets:
    """Training and evaluation targets by row; evaluation targets are always the labels.

    Args:
        labels: (N,), `NO_CLASS` for rows that are never requested.
        shares: Vote shares (N, K), None without votes.
        kind: The training targets: majority (the labels), distribution (the shares) or sampled (one class per row and
            epoch, sampled from its shares: the probabilistic label drawing of Barsoum et al. 2016).

    Raises:
        UserError: The kind needs votes and there are none.
    """

    def __init__(self, labels: NDArray[np.int64], shares: NDArray[np.float32] | None, kind: str) -> None:
        if kind != "majority" and shares is None:
            raise UserError(f"target={kind} needs annotators' votes, but this data has none. Use data=ferplus.")
        self._labels, self._shares = labels, None if kind == "majority" else shares
        self._is_sampled, self._sampled_epoch = kind == "sampled", -1
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        """Move the tensors that `gather` indexes."""
        self._hard, self._device = torch.from_numpy(self._labels).to(device), device
        if self._shares is not None:
            self._training = torch.from_numpy(self._shares).to(device)
            self._sampled_epoch = -1

    def gather(self, rows: Tensor, epoch_seed: int | None = None) -> Tensor:
        """Return classes (B,) or shares (B, K) of `rows` (B,) on the device: for training if an epoch seed is given."""
        if epoch_seed is None or self._shares is None:
            return self._hard[rows]
        if self._is_sampled and epoch_seed != self._sampled_epoch:
            self._training, self._sampled_epoch = sample_labels(self._shares, epoch_seed).to(self._device), epoch_seed
        return self._training[rows]

    def class_counts(self, rows: NDArray[np.int64], classes: int) -> NDArray[np.float64] | NDArray[np.int64]:
        """Return the training faces per class (K,) among `rows`; expected counts for soft and sampled targets."""
        if self._shares is None:
            return np.bincount(self._labels[rows], minlength=classes)
        return np.asarray(self._shares[rows].sum(0, dtype=np.float64))


def sample_labels(shares: NDArray[np.float32], seed: int) -> Tensor:
    """Sample a class (N,) from each row's shares (N, K); a row's class depends on the seed and its index alone."""
    bounds = torch.from_numpy(shares).double().cumsum(1)
    draws = torch.rand(len(shares), 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (bounds <= draws * bounds[:, -1:]).sum(1).clamp_(max=shares.shape[1] - 1)  # rows without a class are all 0
