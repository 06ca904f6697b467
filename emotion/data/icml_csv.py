"""icml_face_data.csv, the same rows under Kaggle's other header: emotion, Usage, pixels (with leading spaces)."""

from pathlib import Path

from emotion.data.faces import Reading
from emotion.data.pixel_csv import read_pixel_csv


def read(path: str) -> Reading:
    """Rows keep file order, which the FER+ votes rely on. Raises UserError as `read_pixel_csv` does."""
    return read_pixel_csv(Path(path), ("emotion", " Usage", " pixels"))
