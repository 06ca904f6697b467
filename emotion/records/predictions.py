"""The predictions that a run leaves on its test faces: predictions.npz."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion.config.migrate import migrate
from emotion.errors import UserError
from emotion.evaluation.score import EvaluationResult
from emotion.io import bounded, digests
from emotion.io.atomic import write_atomically
from emotion.records.run_folder import Run

PREDICTIONS = "predictions.npz"


class Predictions(NamedTuple):
    """Predictions on a run's test faces, (N,) each."""

    rows: NDArray[np.integer]  # in the source
    labels: NDArray[np.integer]
    deduplicated: NDArray[np.bool_]  # whether the pixels are not those of a training face
    predicted: NDArray[np.integer]

    def select(self, chosen: NDArray[Any]) -> "Predictions":
        """Return the faces of a mask or of indices."""
        return Predictions(*(column[chosen] for column in self))


def write_predictions(run_dir: Path, results: Mapping[str, EvaluationResult]) -> Path:
    """Write rows, labels, deduplicated, and the predicted classes under the name of each TTA."""
    first = next(iter(results.values()))
    columns: dict[str, Any] = {
        "rows": first.rows,
        "labels": first.labels.astype(np.uint8),
        "deduplicated": first.deduplicated,
        **{tta: result.predicted.astype(np.uint8) for tta, result in results.items()},
    }
    path = run_dir / PREDICTIONS
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, **columns))
    return path


def read_predictions(run: Run, tta: str, rows: str = "all") -> Predictions:
    """Return a run's predictions with one TTA, on all test faces or on the deduplicated ones.

    Raises:
        UserError: The file is missing or damaged, or is not what `write_predictions` writes.
    """
    path, num_classes = run.folder / PREDICTIONS, len(run.record.labels)
    expected = f"expected the predictions with tta={tta} that a finished run leaves beside its record"
    try:
        digests.check_recorded_digest(path)
        columns: dict[str, Any] = migrate(bounded.read_arrays(path))
        found = Predictions(*(columns[name] for name in ("rows", "labels", "deduplicated", tta)))
    except bounded.READ_ERRORS as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}); {expected}.") from error
    is_valid = all(
        column.ndim == 1 and column.shape == found.rows.shape and column.dtype.kind in "iub" for column in found
    )
    if not is_valid or max(found.labels.max(initial=0), found.predicted.max(initial=0)) >= num_classes:
        raise UserError(f"{path} has columns that do not fit together or to {num_classes} classes; {expected}.")
    return found.select(found.deduplicated) if rows == "deduplicated" else found
