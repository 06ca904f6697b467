"""Matplotlib figures that show text as it is: the names of files, settings and classes may contain dollar signs."""

import matplotlib
from matplotlib.figure import Figure

__all__ = ["Figure", "shortened"]

matplotlib.rcParams["text.parse_math"] = False


def shortened(text: str, length: int) -> str:
    """Return text for a narrow place: at most `length` characters, with an ellipsis in the middle if it is longer."""
    tail = (length - 1) // 2
    return text if len(text) <= length else f"{text[: length - 1 - tail]}…{text[-tail:]}"
