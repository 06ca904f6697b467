"""Probable label errors among faces that a classifier was not trained on: confident learning with cleanlab.

Northcutt, Jiang, Chuang 2021, https://arxiv.org/abs/1911.00068.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion.checkpoints.ensemble import load_ensemble
from emotion.checkpoints.load import LoadedCheckpoint
from emotion.checkpoints.training_data import NOT_TRAINING, training_rows
from emotion.data.datamodule import EmotionDataModule
from emotion.data.faces import Faces
from emotion.data.issues import Issue
from emotion.data.splits import RowNumbers
from emotion.errors import UserError, counted
from emotion.evaluation.score import BATCH_SIZE, duplicated_in, predict_probabilities
from emotion.runtime.hardware import torch_device
from emotion.runtime.precision import evaluation_precision


def find_label_issues(
    checkpoint: str | Path | Sequence[object],
    reader: Mapping[str, Any],
    faces: Faces,
    cache_dir: str,
    tta: str,
    precision: str,
    accelerator: str,
) -> tuple[Issue, dict[str, Any]]:
    """Return held-out rows with probable label errors, the least likely label first, and a summary for the audit.

    Held out are the validation and test rows of the first checkpoint's split whose pixels no checkpoint was trained on.
    The suggestion for a row is the class with the largest probability.

    Args:
        checkpoint: A checkpoint trained on the data, or a list of them, as an ensemble.
        reader: Config of the reader of `faces`.
        faces: The faces of the data.
        cache_dir: Folder of the cache.
        tta: Name of the test-time augmentation.
        precision: auto, 32-true or bf16-mixed.
        accelerator: auto, cpu or gpu.

    Raises:
        UserError: A checkpoint is missing or was trained on other data, or fewer than two classes are held out.
    """
    from cleanlab.filter import find_label_issues as rank_label_issues

    ensemble = load_ensemble(checkpoint)
    trained_on = np.unique(
        np.concatenate([_training_rows(loaded, reader, faces, cache_dir) for loaded in ensemble.loaded])
    )
    overrides = {**NOT_TRAINING, "source": dict(reader), "cache_dir": cache_dir}
    data = EmotionDataModule(**ensemble.loaded[0].data | overrides)
    data.setup()
    rows = np.sort(np.concatenate([data.rows("val"), data.rows("test")]))
    rows = rows[~duplicated_in(faces.images, rows, trained_on)]
    labels = data.labels[rows]
    present = np.unique(labels)  # cleanlab takes classes that occur
    if len(present) < 2:
        raise UserError(
            f"{' and '.join(ensemble.paths)}: found {counted(len(rows), 'held-out face')} of "
            f"{counted(len(present), 'class')}; expected at least two classes. Omit checkpoint=, or give another run."
        )
    ensemble.to(torch_device(accelerator))
    precision = evaluation_precision(ensemble.members, precision, BATCH_SIZE, accelerator, cache_dir)
    probabilities = predict_probabilities(ensemble, faces.images, rows, tta, precision, "faces").numpy()
    of_present = probabilities[:, present]
    ranked = rank_label_issues(
        np.searchsorted(present, labels),
        of_present / of_present.sum(1, keepdims=True),
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    suggestions = [data.classes[present[index]] for index in of_present[ranked].argmax(1)]
    summary = {
        "path": ", ".join(ensemble.paths),
        "epochs": [loaded.epoch + 1 for loaded in ensemble.loaded],
        "held_out": len(rows),
        "accuracy": float((probabilities.argmax(1) == labels).mean()),
        "tta": tta,
    }
    return Issue(rows[ranked], suggestions), summary


def _training_rows(loaded: LoadedCheckpoint, reader: Mapping[str, Any], faces: Faces, cache_dir: str) -> RowNumbers:
    rows = training_rows(loaded, reader, faces, cache_dir) if loaded.digest == faces.digest else None
    if rows is None:
        raise UserError(
            f"{loaded.path} was trained on other data than {faces.source}, so its training rows are unknown. Give a "
            f"run that was trained on this data only, or omit checkpoint=."
        )
    return rows
