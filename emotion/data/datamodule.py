"""EmotionDataModule: any source x labels x split x input x augment, a batch at a time, on the network's device."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from emotion.config.instantiate import build
from emotion.data.cache import prepare
from emotion.data.dataloader import Pixels, RowBatch, RowLoader
from emotion.data.faces import MIXED, TRAINING, USAGES, Faces
from emotion.data.labels import LEFT_OUT, Targets, relabel, vote_shares
from emotion.data.readers.mixed import check_classes, drawn
from emotion.data.splits import Split, parted
from emotion.data.transforms.augment import augmentation
from emotion.data.transforms.preprocess import Preprocess
from emotion.errors import UserError
from emotion.io.atomic import write_atomically

Config = Mapping[str, Any]
Batch = tuple[Tensor, Tensor]
"""Faces (B, C, S, S), normalised, and targets: classes (B,), or shares of them (B, K) where voted or mixed; on the
device."""

SHUFFLED: Config = {"_target_": "emotion.data.dataloader.shuffled"}


class EmotionDataModule(L.LightningDataModule):
    """Faces in batches, described by plain config so that a checkpoint can say what it was trained on.

    Args:
        source: the reader: {_target_: a read function, path: ..., ...}.
        labels: the label scheme: class name -> the source's classes it takes in; empty, until `setup`, for all of them.
        split: a function of emotion.data.splits and its settings.
        input: size, channels, mean, std; see `Preprocess`.
        augment: the random parts of training batches by name, in order.
        batch_size: faces a step and process.
        seed: of the order of faces and of everything random that happens to a batch.
        cache_dir: where prepared sources live.
        sampler: which faces an epoch takes: a function of emotion.data.dataloader and its settings.
        overfit: so many training rows, unaugmented, unmixed and of one class each, are the training and the validation
            set; 0 for all.
        mixup: what blends the faces of a training batch and their targets: torchvision's MixUp, CutMix or a choice.
        mix: at most so many per cent of each class's training rows are added from a second source; see `data.mixed`.
        target: what faces with votes are trained to be taken for: majority, distribution or sampled; see `Targets`.

    Raises (from `setup`):
        UserError: from the reader, the label scheme or the split; or a part or class of the split is empty.
    """

    def __init__(
        self,
        source: Config,
        labels: Mapping[str, Sequence[str]],
        split: Config,
        input: Config,
        augment: Mapping[str, Config],
        batch_size: int,
        seed: int,
        cache_dir: str,
        sampler: Config = SHUFFLED,
        overfit: int = 0,
        mixup: Config | None = None,
        mix: float = 0,
        target: str = "majority",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.classes = tuple(labels)
        self.preprocess = Preprocess(**input)
        self.augment = augmentation({} if overfit else augment)
        self.mixup = build(mixup) if mixup and not overfit else None

    def setup(self, stage: str | None = None) -> None:
        """Read (or map) the source, relabel it, split it; a second call does nothing."""
        if hasattr(self, "faces"):
            return
        faces = prepare(self.hparams["source"], self.hparams["cache_dir"])
        scheme = self.hparams["labels"] or {name: [name] for name in faces.classes}
        self.hparams["labels"], self.classes = scheme, tuple(scheme)
        labels = relabel(faces.labels, faces.classes, scheme)
        if faces.parts:
            check_classes(faces, labels)
        split, self.dropped = parted(self.hparams["split"], faces.usage, labels)
        self.split = self._checked(split, faces, labels)
        self.votes = vote_shares(faces, labels, scheme)
        overfit = self.hparams["overfit"]
        self._targets = Targets(labels, self.votes, "majority" if overfit else self.hparams["target"])
        rows = np.flatnonzero((faces.usage == TRAINING) & (labels != LEFT_OUT))
        self.class_counts = self._targets.counts(rows, len(self.classes))
        if overfit:
            some = np.random.default_rng(self.hparams["seed"]).permutation(self.split.train)[:overfit]
            self.split = Split(some, some, self.split.test)
        elif self.hparams["mix"] != 0:
            mixed = drawn(faces, labels, self.split.train, self.classes, self.hparams["mix"], self.hparams["seed"])
            self.class_counts += self._targets.counts(mixed, len(self.classes))
            self.split = self.split._replace(train=np.concatenate([self.split.train, mixed]))
        self.faces, self.labels = faces, labels
        self._move(torch.device("cpu"))

    def _checked(self, split: Split, faces: Faces, labels: np.ndarray) -> Split:
        for part, rows in split._asdict().items():
            if len(rows) == 0:
                present = [u for u, n in zip(USAGES, faces.counts().sum(1), strict=True) if n]
                raise UserError(
                    f"{faces.source}: no {part} rows; the data has {', '.join(present)}. Choose split=NAME."
                )
        counts = np.bincount(labels[split.train], minlength=len(self.classes))
        if missing := [name for name, n in zip(self.classes, counts, strict=True) if n == 0]:
            raise UserError(
                f"{faces.source}: no training face of {', '.join(missing)} among {counts.sum()}; expected at least one "
                f"of each class. Choose labels=NAME without it, or data that has it."
            )
        return split

    def described(self) -> dict[str, Any]:
        """The source and its digest, for the record; of a composed one the main part's, and what the other one adds."""
        if len(self.faces.parts) < 2:
            return {"source": self.faces.source, "digest": self.faces.digest}
        main, extra = self.faces.parts
        mixed = self.split.train[self.faces.usage[self.split.train] == MIXED]
        counts = np.bincount(self.labels[mixed], minlength=len(self.classes)).tolist()
        mix = {"percent": self.hparams["mix"], "rows": dict(zip(self.classes, counts, strict=True))}
        share = {"share": len(mixed) / len(self.split.train)}
        return main._asdict() | {"mix": extra._asdict() | mix | share}

    def train_dataloader(self) -> RowLoader:
        """Drawn anew each epoch by the sampler, whole batches only."""
        labels = torch.from_numpy(self.labels[self.split.train])
        return self._loader(self.split.train, partial(build, self.hparams["sampler"], labels))

    def val_dataloader(self) -> RowLoader:
        """In order, every row once."""
        return self._loader(self.split.val)

    def test_dataloader(self) -> RowLoader:
        """In order, every row once."""
        return self._loader(self.split.test)

    def _loader(self, rows: np.ndarray, draw: Callable[[torch.Generator], Tensor] | None = None) -> RowLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        size = self.hparams["batch_size"] * (1 if draw else 4)  # without gradients there is room for more
        return RowLoader(torch.from_numpy(rows), size, self.hparams["seed"], draw, rank, world)

    def transfer_batch_to_device(self, batch: RowBatch, device: torch.device, dataloader_idx: int) -> Batch:
        """Rows to faces and targets; a training batch's seed rules its augmentation and the dropout that follows."""
        return self.fetch(batch, device)

    def state_dict(self) -> dict[str, str]:
        """What the rows are rows of, for the checkpoint: digests of the source and of the split."""
        rows = hashlib.md5(b"".join(part.tobytes() for part in self.split))
        return {"source": self.faces.digest, "split": rows.hexdigest()}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        """Refuse to go on with other faces than those that the checkpoint was trained with.

        Raises:
            UserError: naming what differs.
        """
        if differing := [name for name, value in self.state_dict().items() if state_dict.get(name) != value]:
            raise UserError(
                f"{self.faces.source} is not what the run began with: another {' and another '.join(differing)}. "
                f"Bring the former data back, or start a new run."
            )

    def save_rows(self, path: Path) -> None:
        """The row numbers of every part, as an .npz of train, val and test."""
        write_atomically(path, lambda temporary: np.savez_compressed(temporary, **self.split._asdict()))

    def fetch(self, batch: RowBatch, device: torch.device | None = None) -> Batch:
        """Gather, unpack, augment and blend where training, finish: on `device`, or else where `batch.rows` are.

        Faces are blended before `finish`, which is linear: blends are the same, of fewer numbers (an enlarged cut has a
        softer edge). The few draws come from the processor's generator, and an accelerator is not waited for.
        """
        device = device or batch.rows.device
        if self._pixels.device != device:
            self._move(device)
        rows = batch.rows.to(device, non_blocking=True)
        faces = self.preprocess.unpack(self._pixels.take(rows if self._pixels.resident else batch.rows))
        targets = self._targets.of(rows, batch.epoch_seed if batch.training else None)
        if batch.training:
            torch.manual_seed(batch.seed)
        faces = self.augment(faces) if batch.training and len(self.augment) else self.preprocess.centre(faces)
        if batch.training and self.mixup:
            if targets.ndim == 1:
                targets = faces.new_zeros(len(targets), len(self.classes)).scatter_(1, targets[:, None], 1.0)
            faces, targets = self.mixup(faces, targets)
        return self.preprocess.finish(faces), targets

    def _move(self, device: torch.device) -> None:
        """What a batch is made of to the device, once."""
        self.preprocess.to(device)
        self.augment.to(device)
        self._targets.to(device)
        self._pixels = Pixels(self.faces.images, device)
