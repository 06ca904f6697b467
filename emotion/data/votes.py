"""FER+'s votes: what ten people saw in each face of FER2013 (Barsoum et al. 2016, https://arxiv.org/abs/1608.01041)."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion.data.faces import USAGES, Faces
from emotion.errors import UserError

SEEN = {
    "neutral": "neutral", "happiness": "happy", "surprise": "surprise", "sadness": "sad", "anger": "angry",
    "disgust": "disgust", "fear": "fear", "contempt": "contempt", "unknown": "unknown", "NF": "not a face",
}  # fmt: skip
"""The columns of votes, and FER2013's names for what they stand for."""

NOT_A_FACE = list(SEEN).index("NF")
UNDECIDED = -1


class Votes(NamedTuple):
    """Of N faces, in fer2013.csv's row order."""

    votes: NDArray[np.int64]  # (N, 10) in the order of SEEN
    usage: NDArray[np.int64]  # (N,) index into USAGES

    def majority(self) -> NDArray[np.int64]:
        """(N,) index into SEEN of what has more votes than anything else, UNDECIDED where two have as many."""
        second, most = np.sort(self.votes, 1)[:, -2:].T
        return np.where(most > second, self.votes.argmax(1), UNDECIDED)


def read(path: Path, faces: Faces) -> Votes:
    """ferplus_votes.csv (Usage, Image name, ten columns of votes), whose rows are those of `faces`.

    Raises:
        UserError: the file is missing or another one, or its rows are not those of the faces.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        usage = np.array([USAGES.index(row["Usage"]) for row in rows], np.int64)
        votes = np.array([[int(row[column]) for column in SEEN] for row in rows], np.int64).reshape(-1, len(SEEN))
    except OSError as error:
        raise UserError(f"votes={path} cannot be read: {error.strerror or error}. Give FER+'s file.") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"votes={path} is not FER+'s file of votes ({type(error).__name__}: {error}); "
            f"expected the columns Usage, Image name, {', '.join(SEEN)}, usages of FER2013 and whole numbers."
        ) from error
    if len(votes) != len(faces):
        raise UserError(
            f"votes={path} does not fit: it has {len(votes):,} rows and {faces.source} has {len(faces):,}. "
            f"FER+ goes with fer2013.csv or icml_face_data.csv, row by row; leave votes= out for other data."
        )
    if len(differing := np.flatnonzero(usage != faces.usage)):
        row = int(differing[0])
        raise UserError(
            f"votes={path} does not fit: row {row} is {USAGES[usage[row]]} there and {USAGES[faces.usage[row]]} in "
            f"{faces.source}, and so with {len(differing):,} rows. FER+ goes with fer2013.csv or icml_face_data.csv, "
            f"in their row order."
        )
    return Votes(votes, usage)
