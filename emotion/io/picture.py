"""Pictures written atomically.

They are encoded in memory, since Pillow and Matplotlib do not report every full disk.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from emotion.io.atomic import write_bytes

if TYPE_CHECKING:
    from emotion.io.figure import Figure

QUALITY = 92  # of JPEG and WEBP


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image in the format of the file extension."""
    content = io.BytesIO()
    image.save(content, Image.registered_extensions()[path.suffix.lower()], quality=QUALITY)
    write_bytes(path, content.getvalue())


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure in the format of the file extension."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."), dpi=150)
    write_bytes(path, content.getvalue())
