"""Matplotlib figures that show text as it is: the names of files, settings and classes may contain dollar signs."""

import matplotlib
from matplotlib.figure import Figure

__all__ = ["Figure"]

matplotlib.rcParams["text.parse_math"] = False
