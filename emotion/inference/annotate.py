"""Draw the box, label and probabilities of faces on their image, legible at any image size."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from emotion.data.crop import Box, RGBImage
from emotion.data.names import UNCLEAR
from emotion.inference.images import MAX_SIDE
from emotion.inference.predictor import Face

Color = tuple[int, int, int]

EMOTION_COLORS: dict[str, Color] = {
    "ang": (229, 72, 77),
    "disg": (86, 160, 60),
    "fear": (142, 78, 198),
    "happ": (250, 176, 5),
    "sad": (50, 120, 220),
    "surp": (18, 181, 190),
    "neut": (172, 178, 188),
    "cont": (173, 127, 88),
}
"""Colors by prefix of the class name, so that angry and anger get the same."""

OTHER_COLORS: tuple[Color, ...] = ((214, 64, 159), (0, 144, 120), (240, 110, 40), (90, 98, 220), (120, 140, 20))
UNCLEAR_COLOR: Color = (120, 124, 130)
DARK, WHITE = (20, 22, 26), (255, 255, 255)
SHADE, TRACK = (18, 20, 24, 175), (255, 255, 255, 34)  # of a panel, and of a bar's full length on it
MIN_SIDE = 360  # pixels of the shorter side; smaller images are enlarged by an integer to make text legible
CROP_SIDE, PAPER = 180, 235  # pixels of a face that is shown alone, and gray of what surrounds it
MAX_BARS = 8
MAX_PANELS = 6  # images of more faces get the bars as a strip along each box


class Rect(NamedTuple):
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def distance(self, other: "Rect") -> float:
        """Return the larger of the gaps across and down; negative if the rectangles overlap."""
        across = max(self.left - other.right, other.left - self.right)
        return max(across, self.top - other.bottom, other.top - self.bottom)

    def overlaps(self, other: "Rect") -> bool:
        """Whether the rectangles share an area."""
        return self.distance(other) < 0

    def is_within(self, other: "Rect") -> bool:
        """Whether the other rectangle contains this one."""
        return (
            self.left >= other.left
            and self.top >= other.top
            and self.right <= other.right
            and self.bottom <= other.bottom
        )


def class_colors(classes: Sequence[str]) -> list[Color]:
    """Return the color of each class as red, green and blue, 0 to 255."""
    num_others = 0
    colors = []
    for name in classes:
        color = next((color for prefix, color in EMOTION_COLORS.items() if name.lower().startswith(prefix)), None)
        if color is None:
            color, num_others = OTHER_COLORS[num_others % len(OTHER_COLORS)], num_others + 1
        colors.append(color)
    return colors


def css_colors(classes: Sequence[str]) -> list[str]:
    """Return `class_colors` as #rrggbb."""
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in class_colors(classes)]


def annotate(image: RGBImage, faces: Sequence[Face], face_ids: Sequence[int] = (), *, extend: bool = False) -> RGBImage:
    """Return a copy with each face's box and label, and its probabilities as bars where they fit.

    Args:
        image: (H, W, 3); a small one is enlarged.
        faces: Its faces.
        face_ids: Numbers to show in the labels, if any.
        extend: Whether to add a margin at the right for the bars of a single face that leaves no room for them.
    """
    height, width = image.shape[:2]
    factor = max(1, min(-(-MIN_SIDE // min(height, width)), MAX_SIDE // max(height, width)))
    original = image
    if factor > 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas, "RGBA")
    frame = Rect(0, 0, *canvas.size)
    boxes = [_rect(face, factor) for face in faces]
    sizes = [_font_size(box, frame) for box in boxes]
    occupied = list(boxes)
    for i, (face, box, size) in enumerate(zip(faces, boxes, sizes, strict=True)):
        color = UNCLEAR_COLOR if face.label == UNCLEAR else class_colors(face.classes)[int(face.probs.argmax())]
        width = max(2, round(size / 7))
        if face.box.angle:
            draw.polygon(_corners(face, factor), outline=color, width=width)
        else:
            draw.rounded_rectangle(box, radius=size * 0.5, outline=color, width=width)
        text = f"{face_ids[i]}  {face.caption}" if face_ids else face.caption
        occupied.append(_draw_label(draw, text, box, size, color, occupied))
    for face, box, size in zip(faces, boxes, sizes, strict=True):
        if len(faces) > MAX_PANELS:
            _draw_strip(draw, face, box, size)
            continue
        others = [other for other in boxes if other is not box]
        for panel_size in (max(10, round(share * size)) for share in (0.8, 0.6)):
            if panel := _place_panel(face, box, panel_size, frame, occupied, others):
                occupied.append(panel)
                _draw_bars(draw, face, panel, panel_size)
                break
        else:
            if extend and len(faces) == 1:
                margin = math.ceil((_panel_size(face, round(0.8 * size))[0] + size) / factor)
                wider = np.pad(original, ((0, 0), (0, margin), (0, 0)), constant_values=PAPER)
                return annotate(wider, faces, face_ids)
            _draw_strip(draw, face, box, size)
    return np.asarray(canvas)


def annotate_crop(face: Face, values: NDArray[np.float32] | None = None) -> RGBImage:
    """Return the face as the network saw it beside its probabilities, and under its map (h, w), if one is passed.

    For a map of NaN the words "no map" take its place.
    """
    margin = CROP_SIDE // 5
    crop = cv2.resize(face.pixels, (CROP_SIDE, CROP_SIDE), interpolation=cv2.INTER_CUBIC)
    crop = crop if crop.ndim == 3 else np.repeat(crop[..., None], 3, 2)
    canvas = np.full((CROP_SIDE + margin, CROP_SIDE * (2 if values is None else 3), 3), PAPER, np.uint8)
    canvas[margin:, :CROP_SIDE] = crop
    if values is not None and np.isnan(values).any():
        image = Image.fromarray(canvas)
        center = canvas.shape[1] - CROP_SIDE / 2, margin + CROP_SIDE / 2
        ImageDraw.Draw(image).text(center, "no map", fill=DARK, font=_font(margin // 2), anchor="mm")
        canvas = np.asarray(image)
    elif values is not None:
        shade = cv2.resize(values - values.min(), crop.shape[:2], interpolation=cv2.INTER_CUBIC).clip(0)[..., None]
        shade = shade / max(shade.max(), 1e-7)
        heat, alpha = 255 * matplotlib.colormaps["inferno"](shade[..., 0])[..., :3], 0.75 * shade**0.7
        canvas[margin:, -CROP_SIDE:] = (1 - alpha) * crop + alpha * heat
    return annotate(canvas, [replace(face, box=Box(0, margin, CROP_SIDE, face.box.score))])


def heat_legend(width: int) -> RGBImage:
    """Return the scale of the maps that `annotate_crop` shows in the last third of an image (H, width, 3)."""
    side, margin = width // 3, width // 60
    canvas = np.full((5 * margin, width, 3), PAPER, np.uint8)
    canvas[margin : 2 * margin, -side:] = 255 * matplotlib.colormaps["inferno"](np.linspace(0, 1, side))[:, :3]
    image = Image.fromarray(canvas)
    draw, font = ImageDraw.Draw(image), _font(round(1.3 * margin))
    draw.text((width - side, 2.4 * margin), "no evidence", fill=DARK, font=font)
    draw.text((width, 2.4 * margin), "most", fill=DARK, font=font, anchor="ra")
    return np.asarray(image)


def _corners(face: Face, factor: float) -> list[tuple[float, float]]:
    """Return the corners of the face's square, turned clockwise by its angle, in an image enlarged by `factor`."""
    left, top, side, _, angle = face.box.scaled(factor)
    x, y, half = left + side / 2, top + side / 2, side / 2
    cos, sin = half * math.cos(math.radians(angle)), half * math.sin(math.radians(angle))
    return [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]


def _rect(face: Face, factor: float) -> Rect:
    """Return the upright rectangle around the face's square."""
    x, y = zip(*_corners(face, factor), strict=True)
    return Rect(min(x), min(y), max(x), max(y))


def _font_size(box: Rect, frame: Rect) -> int:
    """Return the font size in pixels: proportional to the face, within limits that depend on the image."""
    longest = max(frame.right, frame.bottom)
    smallest = max(12.0, longest / 64)
    return round(min(max(0.11 * (box.right - box.left), smallest), max(smallest, longest / 40)))


def _draw_label(
    draw: ImageDraw.ImageDraw, text: str, box: Rect, size: int, color: Color, occupied: Sequence[Rect]
) -> Rect:
    """Draw a label above or below the box, where it hides nothing, else inside; return its rectangle."""
    font = _font(size, bold=True)
    width, height = font.getlength(text) + 0.9 * size, 1.45 * size
    frame = Rect(0, 0, *draw.im.size)
    lefts = [min(max(0, left), max(0, frame.right - width)) for left in (box.left, box.right - width)]
    tops = (box.top - height - size * 0.15, box.bottom + size * 0.15)
    rects = [Rect(left, top, left + width, top + height) for top in tops for left in lefts]
    free = (rect for rect in rects if rect.is_within(frame) and not any(map(rect.overlaps, occupied)))
    top = max(0, box.top) + size * 0.25
    rect = next(free, Rect(lefts[0], top, lefts[0] + width, top + height))
    draw.rounded_rectangle(rect, radius=size * 0.35, fill=color)
    red, green, blue = color
    text_color = DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else WHITE
    middle = rect.left + 0.45 * size, (rect.top + rect.bottom) / 2
    draw.text(middle, text, fill=text_color, font=font, anchor="lm")
    return rect


def _place_panel(
    face: Face, box: Rect, size: int, frame: Rect, occupied: Sequence[Rect], others: Sequence[Rect]
) -> Rect | None:
    """Find room for the bars: beside the box, below or above; None if they would hide anything, or touch `others`."""
    width, height = _panel_size(face, size)
    gap = 0.4 * size
    x = min(max(box.left, gap), frame.right - width - gap)
    y = min(max(box.top, gap), frame.bottom - height - gap)
    corners = [(box.right + gap, y), (box.left - gap - width, y), (x, box.bottom + gap), (x, box.top - gap - height)]
    for left, top in corners:
        rect = Rect(left, top, left + width, top + height)
        is_next_to_others = any(rect.distance(other) < 3 * gap for other in others)
        if rect.is_within(frame) and not is_next_to_others and not any(map(rect.overlaps, occupied)):
            return rect
    return None


def _panel_size(face: Face, size: int) -> tuple[float, float]:
    """Return width and height of the bars of a font size, in pixels."""
    return _names_width(face, size) + 5.4 * size, (1.3 * len(_shown_classes(face)) + 0.8) * size


def _draw_bars(draw: ImageDraw.ImageDraw, face: Face, panel: Rect, size: int) -> None:
    font = _font(size)
    draw.rounded_rectangle(panel, radius=0.5 * size, fill=SHADE)
    left, right = round(panel.left + _names_width(face, size) + 1.2 * size), round(panel.right - 0.6 * size)
    colors = class_colors(face.classes)
    for row, index in enumerate(_shown_classes(face)):
        middle = panel.top + 0.4 * size + 1.3 * size * (row + 0.5)
        draw.text((left - 0.6 * size, middle), face.classes[index], fill=WHITE, font=font, anchor="rm")
        top, bottom = round(middle - 0.32 * size), round(middle + 0.32 * size)
        draw.rounded_rectangle((left, top, right, bottom), radius=round(0.3 * size), fill=TRACK)
        end = left + (right - left) * float(face.probs[index])
        if end - left >= 1:
            draw.rounded_rectangle((left, top, end, bottom), radius=0.3 * size, fill=colors[index])


def _draw_strip(draw: ImageDraw.ImageDraw, face: Face, box: Rect, size: int) -> None:
    """Draw all probabilities as one stacked bar along the box's lower edge, for faces without room for bars."""
    margin = max(3, round(size / 4))
    left, width = box.left + margin, box.right - box.left - 2 * margin
    bottom = box.bottom - margin
    for probability, color in zip(face.probs.tolist(), class_colors(face.classes), strict=True):
        if width * probability >= 1:
            draw.rectangle((left, bottom - 0.4 * size, left + width * probability, bottom), fill=color)
        left += width * probability


def _shown_classes(face: Face) -> list[int]:
    """Return the indices of the `MAX_BARS` most likely classes in class order, so that bars keep their places."""
    return sorted(np.argsort(-face.probs)[:MAX_BARS].tolist())


def _names_width(face: Face, size: int) -> float:
    return max(_font(size).getlength(face.classes[index]) for index in _shown_classes(face))


@lru_cache(maxsize=64)
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans, which comes with Matplotlib and covers most languages."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
