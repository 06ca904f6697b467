"""Where the parts of a face lie in FER2013's pictures."""

from collections.abc import Mapping

REGIONS: Mapping[str, tuple[float, float, float, float]] = {
    "brows": (0.16, 0.12, 0.30, 0.88),
    "eyes": (0.26, 0.12, 0.46, 0.88),
    "nose": (0.40, 0.33, 0.68, 0.67),
    "mouth": (0.66, 0.24, 0.92, 0.76),
}
"""Top, left, bottom and right of each, in shares of the side."""
