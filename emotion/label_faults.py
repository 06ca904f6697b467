"""Labels that a trained network doubts, among faces that it was not trained on: confident learning.

Northcutt, Jiang, Chuang 2021, https://arxiv.org/abs/1911.00068, by cleanlab.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emotion import checkpoints, evaluation, machine
from emotion.data.datamodule import EmotionDataModule
from emotion.data.faces import Faces
from emotion.data.faults import Fault
from emotion.errors import UserError


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
    checkpoint: str | Path, reader: Mapping[str, Any], faces: Faces, cache_dir: str, views: str, accelerator: str
) -> tuple[Fault, dict[str, Any]]:
    """The held-out faces whose label the checkpoint doubts, the most doubtful first, and what was looked at.

    Held out are the validation and test rows of the checkpoint's own split whose pixels do not stand in its training
    rows. The suggestion is the class that it gives most probability.

    Raises:
        UserError: there is no such checkpoint, or it was trained on other data.
    """
    from cleanlab.filter import find_label_issues

    loaded = checkpoints.load(checkpoint)
    if loaded.digest != faces.digest:
        raise UserError(
            f"{loaded.path} was trained on other data than {faces.source} (digests {loaded.digest}, {faces.digest}): "
            f"which of these faces it knows is unknown. Give a run that was trained on this data and no other."
        )
    asked = loaded.data | {"source": dict(reader), "cache_dir": cache_dir, "overfit": 0, "mix": 0}
    data = EmotionDataModule(**asked)
    data.setup()
    rows = np.sort(np.concatenate([data.split.val, data.split.test]))
    rows = rows[~evaluation.stand_in(faces.images, rows, data.split.train)]
    labels = data.labels[rows]
    present = np.unique(labels)  # of a class without held-out faces nothing can be said
    if len(present) < 2:
        raise UserError(
            f"{loaded.path} leaves {len(rows)} faces of {len(present)} classes that it was not trained on; "
            f"expected some of two classes at least. Leave checkpoint= out, or give another run."
        )
    found = evaluation.probabilities(
        loaded.classifier.to("cuda" if machine.on_gpu(accelerator) else "cpu"),
        faces.images,
        rows,
        views,
        machine.precision("auto", accelerator),
    ).numpy()
    ranked = find_label_issues(
        np.searchsorted(present, labels),
        found[:, present] / found[:, present].sum(1, keepdims=True),
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    suggested = [data.classes[present[i]] for i in found[ranked][:, present].argmax(1)]
    looked_at = {
        "path": str(loaded.path),
        "epoch": loaded.epoch,
        "held_out": len(rows),
        "accuracy": float((found.argmax(1) == labels).mean()),
        "views": views,
    }
    return Fault(rows[ranked], suggested), looked_at
