"""fer2013.csv, the file of the 2013 contest: emotion,pixels,Usage."""

from pathlib import Path

from emotion.data.faces import Reading
from emotion.data.pixel_csv import read_pixel_csv

PUBLISHED_MD5 = "f8428a1edbd21e88f42c73edd2a14f95"
"""Of the published file, 35,887 rows; torchvision.datasets.FER2013 checks the same."""


def read(path: str) -> Reading:
    """Rows keep file order, which the FER+ votes rely on. Raises UserError as `read_pixel_csv` does."""
    return read_pixel_csv(Path(path), ("emotion", "pixels", "Usage"))
