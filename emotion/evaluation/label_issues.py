"""Labels that a trained network doubts, among faces that it was not trained on: confident learning.

Northcutt, Jiang, Chuang 2021, https://arxiv.org/abs/1911.00068, by cleanlab.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion.checkpoints import ensemble
from emotion.checkpoints.load import Loaded
from emotion.checkpoints.training_data import training_rows
from emotion.data.datamodule import EmotionDataModule
from emotion.data.faces import Faces
from emotion.data.issues import Fault
from emotion.data.splits import RowNumbers
from emotion.errors import UserError
from emotion.evaluation.score import BATCH, probabilities, stand_in
from emotion.runtime.hardware import device
from emotion.runtime.precision import precision_of


def require_cleanlab() -> None:
    """Raises UserError where cleanlab is missing."""
    try:
        import cleanlab.filter  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"checkpoint= looks for label faults with cleanlab, which is missing ({error}): "
            f"pip install 'emotion[audit]'. Without checkpoint= the other faults are found."
        ) from error


def label_faults(
    checkpoint: str | Path | Sequence[object],
    reader: Mapping[str, Any],
    faces: Faces,
    cache_dir: str,
    tta: str,
    precision: str,
    accelerator: str,
) -> tuple[Fault, dict[str, Any]]:
    """The held-out faces whose label the checkpoint doubts, the most doubtful first, and what was looked at.

    Held out are the validation and test rows of the (first) checkpoint's own split whose pixels do not stand in its
    training rows; of several checkpoints, which are asked as one, in none of theirs. The suggestion is the class that
    they give most probability.

    Raises:
        UserError: there is no such checkpoint, or it was trained on other data.
    """
    from cleanlab.filter import find_label_issues

    judge = ensemble.load(checkpoint)
    seen = np.unique(np.concatenate([_training_rows(one, reader, faces, cache_dir) for one in judge.loaded]))
    asked = {"source": dict(reader), "cache_dir": cache_dir, "overfit": 0, "target": "majority"}
    data = EmotionDataModule(**judge.loaded[0].data | asked)
    data.setup()
    rows = np.sort(np.concatenate([data.split.val, data.split.test]))
    rows = rows[~stand_in(faces.images, rows, seen)]
    labels = data.labels[rows]
    present = np.unique(labels)  # of a class without held-out faces nothing can be said
    if len(present) < 2:
        raise UserError(
            f"{' and '.join(judge.paths)}: of {len(rows)} faces that were not trained on, {len(present)} classes; "
            f"expected some of two classes at least. Leave checkpoint= out, or give another run."
        )
    found = probabilities(
        judge.to(device(accelerator)),
        faces.images,
        rows,
        tta,
        precision_of(judge.members, precision, BATCH, accelerator, cache_dir),
    ).numpy()
    ranked = find_label_issues(
        np.searchsorted(present, labels),
        found[:, present] / found[:, present].sum(1, keepdims=True),
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    suggested = [data.classes[present[i]] for i in found[ranked][:, present].argmax(1)]
    looked_at = {
        "path": ", ".join(judge.paths),
        "epochs": [one.epoch for one in judge.loaded],
        "held_out": len(rows),
        "accuracy": float((found.argmax(1) == labels).mean()),
        "tta": tta,
    }
    return Fault(rows[ranked], suggested), looked_at


def _training_rows(loaded: Loaded, reader: Mapping[str, Any], faces: Faces, cache_dir: str) -> RowNumbers:
    rows = training_rows(loaded, reader, faces, cache_dir) if loaded.digest == faces.digest else None
    if rows is None:
        raise UserError(
            f"{loaded.path} was trained on other data than {faces.source} (digests {loaded.digest}, {faces.digest}): "
            f"which of these faces it knows is unknown. Give a run that was trained on this data and no other."
        )
    return rows
