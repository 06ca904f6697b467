"""Faces drawn into their picture: box, label and probabilities, legible whatever the picture's size."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emotion.inference.images import LONGEST, Picture
from emotion.inference.predictor import Face

Colour = tuple[int, int, int]

OF_EMOTIONS: dict[str, Colour] = {
    "ang": (229, 72, 77),
    "disg": (86, 160, 60),
    "fear": (142, 78, 198),
    "happ": (250, 176, 5),
    "sad": (50, 120, 220),
    "surp": (18, 181, 190),
    "neut": (140, 145, 155),
    "cont": (173, 127, 88),
}
"""By how their names begin: angry and anger, happy and happiness are the same."""

OF_OTHERS: tuple[Colour, ...] = ((214, 64, 159), (0, 144, 120), (240, 110, 40), (90, 98, 220), (120, 140, 20))


def colours_of(classes: Sequence[str]) -> list[Colour]:
    """Red, green and blue of each class, 0 to 255."""
    others = 0
    found = []
    for name in classes:
        own = next((colour for start, colour in OF_EMOTIONS.items() if name.lower().startswith(start)), None)
        if own is None:
            own, others = OF_OTHERS[others % len(OF_OTHERS)], others + 1
        found.append(own)
    return found


LEAST = 360  # pixels of the shorter side that letters need; a smaller picture is enlarged by a whole number, if it can
MOST_BARS = 8
DARK, GROOVE, WHITE, SHADE = (20, 22, 26), (84, 87, 93), (255, 255, 255), (18, 20, 24, 165)


class Area(NamedTuple):
    """A rectangle of a picture, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Area") -> bool:
        """Whether they have something in common."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def within(self, other: "Area") -> bool:
        """Whether it reaches nowhere beyond the other."""
        return (
            self.left >= other.left
            and self.top >= other.top
            and self.right <= other.right
            and self.bottom <= other.bottom
        )


def annotated(picture: Picture, faces: Sequence[Face], numbers: Sequence[int] = ()) -> Picture:
    """The picture, or an enlarged one, with each face's box, label, and bars where there is room for them.

    Args:
        picture: (H, W, 3); it is left as it is.
        faces: in pixels of the picture.
        numbers: of the faces, where they are to be said.
    """
    height, width = picture.shape[:2]
    factor = max(1, min(-(-LEAST // min(height, width)), LONGEST // max(height, width)))
    if factor > 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
    image = Image.fromarray(picture)
    drawing = ImageDraw.Draw(image, "RGBA")
    whole = Area(0, 0, *image.size)
    boxes = [face.box.enlarged(factor) for face in faces]
    taken = [Area(b.left, b.top, b.left + b.side, b.top + b.side) for b in boxes]
    areas = tuple(taken)
    sizes = [_letters(area, whole) for area in areas]
    for place, (face, area, size) in enumerate(zip(faces, areas, sizes, strict=True)):
        colour = colours_of(face.classes)[int(face.shares.argmax())]
        drawing.rounded_rectangle(area, radius=size * 0.5, outline=colour, width=max(2, round(size / 7)))
        said = f"{numbers[place]}  " if numbers else ""
        said += f"{face.label} {100 * face.probability:.0f} %"
        taken.append(_label(drawing, said, area, size, colour, taken))
    for face, area, size in zip(faces, areas, sizes, strict=True):
        letters = (max(10, round(share * size)) for share in (0.8, 0.6))
        places = ((_panel_place(face, area, size, whole, taken), size) for size in letters)
        room, smaller = next((found for found in places if found[0]), (None, 0))
        if room:
            taken.append(room)
            _bars(drawing, face, room, smaller)
        else:
            _strip(drawing, face, area, size)
    return np.asarray(image)


def _letters(area: Area, whole: Area) -> int:
    """Pixels of a line of letters beside a face: by its size, but neither lost in the picture nor all over it."""
    longest = max(whole.right, whole.bottom)
    least = max(12.0, longest / 64)
    return round(min(max(0.11 * (area.right - area.left), least), max(least, longest / 40)))


def _label(
    drawing: ImageDraw.ImageDraw, text: str, area: Area, size: int, colour: Colour, taken: Sequence[Area]
) -> Area:
    """On the box's upper edge, under its lower one, or inside: the first place that is within and free."""
    font = _font(size, bold=True)
    width, height = font.getlength(text) + 0.9 * size, 1.45 * size
    most = drawing.im.size
    left = min(max(0, area.left), max(0, most[0] - width))
    places = [
        Area(left, top, left + width, top + height)
        for top in (area.top - height - size * 0.15, area.bottom + size * 0.15, max(0, area.top) + size * 0.25)
    ]
    free = (p for p in places if p.within(Area(0, 0, *most)) and not any(p.meets(other) for other in taken))
    place = next(free, places[-1])
    drawing.rounded_rectangle(place, radius=size * 0.35, fill=colour)
    middle = place.left + 0.45 * size, (place.top + place.bottom) / 2
    drawing.text(middle, text, fill=_on(colour), font=font, anchor="lm")
    return place


def _panel_place(face: Face, area: Area, size: int, whole: Area, taken: Sequence[Area]) -> Area | None:
    """Beside the box, below or above it, inside a large one; None where bars would hide something else."""
    font = _font(size)
    names = max(font.getlength(face.classes[index]) for index in _shown(face))
    width, height = names + 5.4 * size, (1.3 * len(_shown(face)) + 0.8) * size
    gap = 0.4 * size
    middle = min(max(area.left, gap), whole.right - width - gap)
    upper = min(max(area.top, gap), whole.bottom - height - gap)
    corners = [(area.right + gap, upper), (area.left - gap - width, upper)]
    corners += [(middle, area.bottom + gap), (middle, area.top - gap - height)]
    for left, top in corners:
        place = Area(left, top, left + width, top + height)
        if place.within(whole) and not any(place.meets(other) for other in taken):
            return place
    if area.bottom - area.top > 1.9 * height and area.right - area.left > 1.3 * width:
        left, bottom = max(area.left, 0) + gap, min(area.bottom, whole.bottom) - gap
        return Area(left, bottom - height, left + width, bottom)
    return None


def _bars(drawing: ImageDraw.ImageDraw, face: Face, place: Area, size: int) -> None:
    font = _font(size)
    drawing.rounded_rectangle(place, radius=0.5 * size, fill=SHADE)
    shown = _shown(face)
    names = max(font.getlength(face.classes[index]) for index in shown)
    left, right = place.left + names + 1.2 * size, place.right - 0.6 * size
    colours = colours_of(face.classes)
    for line, index in enumerate(shown):
        middle = place.top + 0.4 * size + 1.3 * size * (line + 0.5)
        share = float(face.shares[index])
        drawing.text((left - 0.6 * size, middle), face.classes[index], fill=WHITE, font=font, anchor="rm")
        upper, lower = middle - 0.32 * size, middle + 0.32 * size
        drawing.rounded_rectangle((left, upper, right, lower), radius=0.3 * size, fill=GROOVE)
        end = left + (right - left) * share
        if end - left >= 1:
            drawing.rounded_rectangle((left, upper, end, lower), radius=0.3 * size, fill=colours[index])


def _strip(drawing: ImageDraw.ImageDraw, face: Face, area: Area, size: int) -> None:
    """All classes in one bar along the box's lower edge, where there is no room for a bar each."""
    edge = max(3, round(size / 4))
    left, width = area.left + edge, area.right - area.left - 2 * edge
    lower = area.bottom - edge
    for share, colour in zip(face.shares.tolist(), colours_of(face.classes), strict=True):
        if width * share >= 1:
            drawing.rectangle((left, lower - 0.4 * size, left + width * share, lower), fill=colour)
        left += width * share


def _shown(face: Face) -> list[int]:
    """All classes where they are few, else the likeliest, in the order of the classes: bars that stay in place."""
    if len(face.classes) <= MOST_BARS:
        return list(range(len(face.classes)))
    return sorted(np.argsort(-face.shares)[:MOST_BARS].tolist())


def _on(colour: Colour) -> Colour:
    """Black or white, whichever is read better on a colour."""
    red, green, blue = colour
    return DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else WHITE


@lru_cache(maxsize=64)
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Letters of most languages, which come with Matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
