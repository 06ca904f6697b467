"""EmotionDataModule: any source, labels, split, input and augmentation, in batches on the network's device."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from emotion.config.instantiate import instantiate
from emotion.data.cache import prepare
from emotion.data.dataloader import EVALUATION_FACTOR, PixelStore, RowBatch, RowLoader
from emotion.data.faces import MIXED, TRAINING, USAGES
from emotion.data.labels import NO_CLASS, Targets, check_class_names, describe_unused, relabel, vote_shares
from emotion.data.readers.concat import check_classes, sample_extra_rows
from emotion.data.splits import RowNumbers, Split, split_with_exclusions
from emotion.data.transforms.augment import build_augmentation
from emotion.data.transforms.preprocess import Preprocess, to_float
from emotion.errors import UserError
from emotion.io.atomic import write_atomically

Config = Mapping[str, Any]
Batch = tuple[Tensor, Tensor]
"""Normalized faces (B, C, S, S) and targets on the device: classes (B,), or class shares (B, K) with votes or mixup."""

SHUFFLED: Config = {"_target_": "emotion.data.dataloader.shuffled"}


class EmotionDataModule(L.LightningDataModule):
    """Batches of faces, described by plain config so that a checkpoint records its training data.

    Args:
        source: The source: a reader function as _target_, and its arguments.
        labels: The label scheme: class name -> source classes. Empty for all source classes, which `setup` fills in.
        split: A function of emotion.data.splits and its arguments, and the settings of `NO_EXCLUSIONS`.
        input: The arguments of `Preprocess`.
        augment: The random transforms of training batches by name, in order.
        batch_size: Faces per step and process.
        seed: Of the order of faces and of each batch's randomness.
        cache_dir: The folder of the cache.
        sampler: The order of an epoch: a function of emotion.data.dataloader and its arguments.
        overfit: Train and validate on this many training rows, without augmentation and mixup; 0 for all rows.
        mixup: torchvision's MixUp, CutMix or a choice of both; None for neither.
        mix: Upper limit of rows added to training from a second source, in percent of each class's own rows.
        target: The training targets of faces with votes: majority, distribution or sampled; see `Targets`.

    Raises (from `setup`):
        UserError: From the reader, the label scheme or the split.
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
        self.augment = build_augmentation({} if overfit else augment)
        self.has_resized_crop = any("ResizedCrop" in type(transform).__name__ for transform in self.augment)
        self.mixup = instantiate(mixup) if mixup and not overfit else None

    def setup(self, stage: str | None = None) -> None:
        """Read or map the source, relabel it and split it; later calls do nothing."""
        if hasattr(self, "faces"):
            return
        seed, overfit, mix_percent = (self.hparams[name] for name in ("seed", "overfit", "mix"))
        faces = prepare(self.hparams["source"], self.hparams["cache_dir"])
        scheme = self.hparams["labels"] or {name: [name] for name in faces.classes}
        self.hparams["labels"], self.classes = scheme, tuple(scheme)
        labels = relabel(faces.labels, faces.classes, scheme)
        if faces.components:
            check_classes(faces, labels)
        self.split, self.exclusions = split_with_exclusions(self.hparams["split"], faces, labels)
        self.votes = vote_shares(faces, labels, scheme)
        self._targets = Targets(labels, self.votes, "majority" if overfit else self.hparams["target"])
        self._train_counts = np.bincount(labels[self.split.train], minlength=len(self.classes))
        sampled = self.split.val[faces.usage[self.split.val] == TRAINING]
        rows = np.union1d(self.split.train, sampled)
        self.class_counts = self._targets.class_counts(rows, len(self.classes))
        if overfit:
            selected = np.random.default_rng(seed).permutation(self.split.train)[:overfit]
            self.split = Split(selected, selected, self.split.test)
        elif mix_percent != 0:
            mixed = sample_extra_rows(faces, labels, self.split.train, self.classes, mix_percent, seed)
            self.class_counts += self._targets.class_counts(mixed, len(self.classes))
            self.split = self.split._replace(train=np.concatenate([self.split.train, mixed]))
        self.faces, self.labels = faces, labels
        for note in (*faces.notes, *describe_unused(faces, labels)):
            _print_once(f"{faces.source}: {note}")
        self._move_to(torch.device("cpu"))

    def rows(self, part: str) -> RowNumbers:
        """Return the row numbers of train, val or test, or those of all faces; raise UserError if there are none."""
        every = np.flatnonzero((self.labels != NO_CLASS) & (self.faces.usage != MIXED))
        rows: RowNumbers = every if part == "all" else getattr(self.split, part)
        if len(rows) == 0:
            counts = zip(USAGES, self.faces.counts().sum(1), strict=True)
            present = ", ".join(f"{n:,} {usage}" for usage, n in counts if n)
            parts = {name: len(rows) for name, rows in self.split._asdict().items() if len(rows)}
            sizes = ", ".join(f"{name} {n:,}" for name, n in parts.items())
            raise UserError(
                f"{self.faces.source}: no {part} rows; the data has {present}, and the split {sizes or 'no rows'}. "
                f"Choose split=NAME (stratified_80_10_10 and kfold take all three parts from all rows)"
                + (" or, to evaluate all of them, subset=all." if parts else ".")
            )
        return rows

    def check_training(self) -> None:
        """Raise UserError if a class has a reserved name, a part no rows, or a class no training rows."""
        check_class_names(self.classes)
        for part in Split._fields:
            self.rows(part)
        counts = self._train_counts
        if missing := [name for name, n in zip(self.classes, counts, strict=True) if n == 0]:
            raise UserError(
                f"{self.faces.source}: no training face of {', '.join(missing)} among {counts.sum()}; expected at "
                f"least one per class. Choose labels=NAME without it, or other data."
            )

    def description(self) -> dict[str, Any]:
        """Return source and digest for the run record; with a second source, the main one's and what was added."""
        if len(self.faces.components) < 2:
            return {"source": self.faces.source, "digest": self.faces.digest}
        main, extra = self.faces.components
        mixed = self.split.train[self.faces.usage[self.split.train] == MIXED]
        counts = np.bincount(self.labels[mixed], minlength=len(self.classes)).tolist()
        mix = {
            "percent": self.hparams["mix"],
            "rows": dict(zip(self.classes, counts, strict=True)),
            "share": len(mixed) / len(self.split.train),
        }
        return main._asdict() | {"mix": extra._asdict() | mix}

    def train_dataloader(self) -> RowLoader:
        """Complete batches in the sampler's order, which changes every epoch."""
        labels = torch.from_numpy(self.labels[self.split.train])
        return self._loader(self.split.train, partial(instantiate, self.hparams["sampler"], labels))

    def val_dataloader(self) -> RowLoader:
        """Every row once, in order."""
        return self._loader(self.split.val)

    def test_dataloader(self) -> RowLoader:
        """Every row once, in order."""
        return self._loader(self.split.test)

    def _loader(self, rows: RowNumbers, sampler: Callable[[torch.Generator], Tensor] | None = None) -> RowLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        size = self.hparams["batch_size"] * (1 if sampler else EVALUATION_FACTOR)
        return RowLoader(torch.from_numpy(rows), size, self.hparams["seed"], sampler, rank, world_size)

    def transfer_batch_to_device(self, batch: RowBatch, device: torch.device, dataloader_idx: int) -> Batch:
        """Fetch a batch for Lightning."""
        return self.fetch(batch, device)

    def state_dict(self) -> dict[str, str]:
        """Return the digests of source and split for the checkpoint."""
        rows = hashlib.md5(b"".join(part.tobytes() for part in self.split))
        return {"source": self.faces.digest, "split": rows.hexdigest()}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        """Raise UserError if the source or the split is not that of a checkpoint."""
        if differing := [name for name, value in self.state_dict().items() if state_dict.get(name) != value]:
            raise UserError(
                f"{self.faces.source} is not the data that the run started with: different {' and '.join(differing)}. "
                f"Restore the original data or set its location (data_dir=FOLDER), or start a new run."
            )

    def save_rows(self, path: Path) -> None:
        """Write the row numbers of train, val and test to an .npz file."""
        write_atomically(path, lambda temporary: np.savez_compressed(temporary, **self.split._asdict()))

    def fetch(self, batch: RowBatch, device: torch.device | None = None) -> Batch:
        """Gather the pixels and targets of a batch, augment and mix them for training, and normalize them.

        Training faces that no transform has cropped are cropped as in evaluation, so that both have the same scale.
        Mixing precedes `Preprocess.normalize`, which is linear, so it works on fewer pixels with the same result (but a
        CutMix edge that is enlarged becomes softer). A training batch's seed also determines the dropout that follows.
        The result is on `device`, by default that of `batch.rows`.
        """
        device = device or batch.rows.device
        if self._pixels.device != device:
            self._move_to(device)
        rows = batch.rows.to(device, non_blocking=True)
        pixels = self._pixels.gather(rows if self._pixels.resident else batch.rows)
        faces = self.preprocess.shrink(to_float(pixels))
        whole = faces.shape
        targets = self._targets.gather(rows, batch.epoch_seed if batch.training else None)
        if batch.training:
            torch.manual_seed(batch.seed)
            faces = self.augment(faces)
        if faces.shape == whole and not (batch.training and self.has_resized_crop):
            faces = self.preprocess.center_crop(faces)
        if batch.training and self.mixup:
            if targets.ndim == 1:
                targets = faces.new_zeros(len(targets), len(self.classes)).scatter_(1, targets[:, None], 1.0)
            faces, targets = self.mixup(faces, targets)
        return self.preprocess.normalize(faces), targets

    def _move_to(self, device: torch.device) -> None:
        self.preprocess.to(device)
        self.augment.to(device)
        self._targets.to(device)
        self._pixels = PixelStore(self.faces.images, device)


@functools.cache
def _print_once(line: str) -> None:
    """Print a line unless this process has printed it, as several verbs set up the same data more than once."""
    print(line, flush=True)
