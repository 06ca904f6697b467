"""Drawn faces: 48x48 grey portraits whose brows, eyes and mouth move by facial action units.

The units of each emotion are those of FACS (Ekman, Friesen and Hager 2002; EMFACS prototypes); how far a unit moves,
who the face is, how it is held and lit and what covers it vary at random, from the seed. Coordinates are those of the
face: x to the right, y down, the face about one unit wide and high around (0, 0).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from emotion.data.faces import EMOTIONS, USAGES, Reading, Rows
from emotion.errors import UserError

SIDE = 48
CHUNK = 256
AT_ONCE = 12  # so that what is drawn on stays in the processor's cache: half as fast again as 256 at once

Field = NDArray[np.float32]  # (B, h, 48) one value a pixel, or (B, 1, 1) one a face

UNITS: Mapping[str, tuple[int, ...]] = {
    "angry": (4, 5, 7, 23),
    "disgust": (9, 15),
    "fear": (1, 2, 4, 5, 20, 26),
    "happy": (6, 12),
    "sad": (1, 4, 15),
    "surprise": (1, 2, 5, 26),
    "neutral": (),
}
"""Action units: 1 inner and 2 outer brow raiser, 4 brow lowerer, 5 upper lid raiser, 6 cheek raiser, 7 lid tightener,
9 nose wrinkler, 12 lip corner puller, 15 lip corner depressor, 20 lip stretcher, 23 lip tightener, 26 jaw drop."""

ALL_UNITS = sorted({unit for units in UNITS.values() for unit in units})


def read(training: int = 300, public_test: int = 50, private_test: int = 50, seed: int = 0) -> Reading:
    """So many faces of each of the seven classes in each usage, in random order; equal seeds draw equal faces.

    Raises:
        UserError: a negative number, or no face at all.
    """
    counts = (training, public_test, private_test)
    if min(counts) < 0 or sum(counts) == 0:
        raise UserError(
            f"Synthetic faces: training={training} public_test={public_test} private_test={private_test} per class; "
            f"expected none below 0 and at least one above."
        )
    rng = np.random.default_rng(seed)
    usage = np.repeat(np.arange(3, dtype=np.uint8), [n * len(EMOTIONS) for n in counts])
    labels = np.concatenate([rng.permutation(np.repeat(np.arange(7, dtype=np.uint8), n)) for n in counts])
    return Reading("synthetic faces", EMOTIONS, [], len(labels), _rows(labels, usage, seed))


def _rows(labels: NDArray[np.uint8], usage: NDArray[np.uint8], seed: int) -> Iterator[Rows]:
    for start in range(0, len(labels), CHUNK):
        part = slice(start, start + CHUNK)
        images = draw(labels[part], np.random.default_rng([seed, start]))
        origin = [f"synthetic {USAGES[use]} {start + i}" for i, use in enumerate(usage[part])]
        yield Rows(images, labels[part], usage[part], origin)


def draw(labels: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """Faces (B, 48, 48) that show the emotions `labels` (B,), indices into EMOTIONS."""
    return np.concatenate([_draw(labels[i : i + AT_ONCE], rng) for i in range(0, len(labels), AT_ONCE)])


def _draw(labels: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    units = _units(labels, rng)
    who = _Identity.random(len(labels), rng)
    x, y = _pose(len(labels), rng)
    image = _head(x, y, who, units)
    for part, rows in PARTS:
        part(image[:, rows], x[:, rows], y[:, rows], who, units)
    _occlude(image, x, y, who, rng)
    return _photograph(image, x, y, rng)


def _units(labels: NDArray[np.uint8], rng: Generator) -> dict[int, Field]:
    """How far each unit moves, 0 to 1: clearly or faintly where the emotion has it, a twitch where not."""
    shown = np.array([[unit in UNITS[emotion] for unit in ALL_UNITS] for emotion in EMOTIONS])[labels]
    strength = rng.uniform(0.35, 1.0, (len(labels), 1)) * rng.uniform(0.6, 1.0, shown.shape)
    twitch = np.abs(rng.normal(0, 0.12, shown.shape))
    moved = np.where(shown, strength, twitch).astype(np.float32)
    return {unit: moved[:, i, None, None] for i, unit in enumerate(ALL_UNITS)}


@dataclass
class _Identity:
    """What stays the same while a face moves; each (B, 1, 1)."""

    skin: Field  # brightness 0 to 1
    feature: Field  # brightness of brows, lashes, lips
    hair: Field
    width: Field
    height: Field
    eye_x: Field
    eye_y: Field
    eye_width: Field
    brow_y: Field
    brow_thickness: Field
    nose_y: Field
    mouth_y: Field
    mouth_width: Field
    lip: Field

    def of(self, some: NDArray[np.intp]) -> "_Identity":
        """The identities of some of the faces."""
        return _Identity(*(getattr(self, field.name)[some] for field in fields(self)))

    @classmethod
    def random(cls, count: int, rng: Generator) -> "_Identity":
        def between(low: float, high: float) -> Field:
            return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)

        skin = between(0.45, 0.85)
        return cls(
            skin=skin,
            feature=skin * between(0.2, 0.5),
            hair=between(0.05, 0.6),
            width=between(0.68, 0.84),
            height=between(0.9, 1.02),
            eye_x=between(0.3, 0.38),
            eye_y=between(-0.2, -0.12),
            eye_width=between(0.14, 0.19),
            brow_y=between(-0.43, -0.36),
            brow_thickness=between(0.025, 0.055),
            nose_y=between(0.12, 0.22),
            mouth_y=between(0.44, 0.54),
            mouth_width=between(0.24, 0.33),
            lip=between(0.035, 0.065),
        )


def _pose(count: int, rng: Generator) -> tuple[Field, Field]:
    """Face coordinates (B, 48, 48) of every pixel: turned, tilted, near or far, off centre."""
    line = np.linspace(-1, 1, SIDE, dtype=np.float32)
    rows, columns = line[None, :, None], line[None, None, :]
    roll, yaw, zoom, right, down = (
        rng.normal(0, spread, (count, 1, 1)).astype(np.float32) for spread in (0.11, 0.22, 0.06, 0.06, 0.05)
    )
    zoom = np.exp(zoom)
    x = (np.cos(roll) * (columns - right) + np.sin(roll) * (rows - down)) / zoom
    y = (np.cos(roll) * (rows - down) - np.sin(roll) * (columns - right)) / zoom
    return x + yaw * (0.3 - 0.35 * x * x), y


def _head(x: Field, y: Field, who: _Identity, units: dict[int, Field]) -> Field:
    """Background, hair, and the bare face, lit from the front; the jaw drops with unit 26."""
    jaw = who.height * (1 + 0.12 * units[26])
    long = np.where(y > 0, y / jaw, y / who.height)
    radius = (x / who.width) ** 2 + long**2
    crown = (x / (who.width * 1.16)) ** 2 + ((y + 0.12) / (who.height * 1.08)) ** 2
    image = np.broadcast_to(1 - who.hair * 0.7 - 0.2, x.shape).copy()
    _paint(image, who.hair, (1 - crown) * 4)
    _paint(image, who.hair, (1 - radius) * 5)  # the shade under the chin and along the cheeks
    skin = who.skin * (1.04 - 0.22 * radius)
    _paint(image, skin, np.minimum((1 - radius) * 8, (y + who.height * 0.72) * 12))
    return image


def _eyes(image: Field, x: Field, y: Field, who: _Identity, units: dict[int, Field]) -> None:
    above = 0.075 * (1 + 0.75 * units[5] - 0.3 * units[7] - 0.1 * units[4])
    below = 0.055 * (1 + 0.2 * units[5] - 0.75 * units[6] - 0.6 * units[7])
    for side in (-1, 1):
        across = (x - side * who.eye_x) / who.eye_width
        down = y - who.eye_y
        bow = 1 - across * across
        open_ = np.minimum(down + above * bow, below * bow - down)  # > 0 inside
        socket = 1 - across * across - (down / 0.17) ** 2
        _paint(image, who.skin * 0.85, socket * 0.8)
        _paint(image, np.minimum(who.skin * 1.35, 1), open_ * 28)
        iris = 0.075**2 - (across * who.eye_width) ** 2 - (down + 0.01) ** 2
        _paint(image, who.feature * 0.5, np.minimum(iris * 350, open_ * 28))
        lash = 0.02 - np.abs(down + above * bow)
        _paint(image, who.feature * 0.7, np.minimum(lash * 40, bow * 6))
        crease = units[6] * (0.022 - np.abs(down - below * bow - 0.06 - 0.03 * across * side))
        _paint(image, who.skin * 0.7, np.minimum(crease * 40, bow * 4))


def _brows(image: Field, x: Field, y: Field, who: _Identity, units: dict[int, Field]) -> None:
    inner = 0.14 - 0.05 * units[4]
    for side in (-1, 1):
        along = (side * x - inner) / 0.4  # 0 at the inner end, 1 at the outer
        line = (
            who.brow_y
            - 0.13 * units[1] * (1 - along)
            - 0.13 * units[2] * along
            + units[4] * (0.14 - 0.11 * along)
            + 0.03 * units[9]
            - 0.16 * along * (1 - along)
            + 0.03
        )
        hair = who.brow_thickness * (1.25 - 0.5 * along) - np.abs(y - line)
        _paint(image, who.feature, np.minimum(hair * 40, np.minimum(along, 1 - along) * 14 + 0.5))
    frown = units[4] * (0.018 - np.abs(np.abs(x) - 0.055)) * 40
    _paint(image, who.skin * 0.68, np.minimum(frown, 0.7 - np.abs(y - who.brow_y - 0.08) * 8))


def _nose(image: Field, x: Field, y: Field, who: _Identity, units: dict[int, Field]) -> None:
    tip = who.nose_y - 0.06 * units[9]
    ridge = (0.05 - np.abs(np.abs(x) - 0.09 - 0.05 * (y - tip + 0.2))) * 6
    _paint(image, who.skin * 0.86, np.minimum(ridge, np.minimum(tip - y, y + 0.2) * 6))
    for side in (-1, 1):
        nostril = 0.045**2 - (x - side * 0.075) ** 2 - ((y - tip) * 1.4) ** 2
        _paint(image, who.feature * 0.8, nostril * 500)
        fold = np.maximum(units[12], 0.9 * units[9]) * (0.02 - np.abs(side * x - 0.19 - 0.45 * (y - tip))) * 40
        _paint(image, who.skin * 0.74, np.minimum(fold, np.minimum(y - tip + 0.02, who.mouth_y - y) * 10))


def _wrinkles(image: Field, x: Field, y: Field, who: _Identity, units: dict[int, Field]) -> None:
    """Two lines across the root of the nose, with unit 9."""
    lines = 0.022 - np.abs(np.abs(y - who.nose_y + 0.06 * units[9] + 0.22) - 0.055)
    _paint(image, who.skin * 0.66, np.minimum(units[9] * lines * 40, (0.16 - np.abs(x)) * 14))


def _mouth(image: Field, x: Field, y: Field, who: _Identity, units: dict[int, Field]) -> None:
    half = who.mouth_width * (1 + 0.28 * units[12] + 0.38 * units[20] - 0.22 * units[23] - 0.15 * units[26])
    along = x / half
    bow = 1 - along * along
    corner = 0.15 * units[15] - 0.16 * units[12] + 0.03 * units[20]
    line = who.mouth_y - 0.05 * units[9] + 0.06 * units[26] + corner * (along * along - 0.35)
    gap = 0.17 * units[26] + 0.035 * units[20] + 0.045 * units[12]
    lip = who.lip * (1 - 0.65 * units[23])
    lips = (gap + lip) * bow - np.abs(y - line)
    inside = gap * bow - np.abs(y - line)
    _paint(image, who.skin * 0.62, np.minimum(lips * 30, bow * 10))
    _paint(image, who.feature * 0.35, inside * 30)
    teeth = np.minimum(inside, line - y + 0.02) * np.maximum(units[12], units[20]) * 40
    _paint(image, np.float32(0.92), teeth)
    seam = 0.016 - np.abs(y - line)
    _paint(image, who.feature * 0.5, np.minimum(seam * 50, bow * 8) - gap * 12)
    _paint(image, who.skin * 0.8, np.minimum((0.02 - np.abs(y - line - gap - 0.14)) * 20, bow))


def _occlude(image: Field, x: Field, y: Field, who: _Identity, rng: Generator) -> None:
    """Now and then glasses, a fringe, or something held before the face."""
    for share, cover in ((0.1, _glasses), (0.12, _fringe), (0.12, _block)):
        some = np.flatnonzero(rng.random(len(image)) < share)
        covered = image[some]
        cover(covered, x[some], y[some], who.of(some), rng)
        image[some] = covered


def _glasses(image: Field, x: Field, y: Field, who: _Identity, rng: Generator) -> None:
    rings = np.abs(np.hypot(np.abs(x) - who.eye_x, (y - who.eye_y) * 1.2) - 0.22)
    _paint(image, np.float32(0.12), (0.03 - rings) * 40)


def _fringe(image: Field, x: Field, y: Field, who: _Identity, rng: Generator) -> None:
    edge: Field = rng.uniform(-0.75, -0.4, (len(image), 1, 1)).astype(np.float32)
    waves: Field = np.sin(9 * x)
    _paint(image, who.hair, (edge + 0.1 * waves - y) * 12)


def _block(image: Field, x: Field, y: Field, who: _Identity, rng: Generator) -> None:
    left, top = rng.uniform(-1, 1, (2, len(image), 1, 1)).astype(np.float32)
    width, height = rng.uniform(0.12, 0.4, (2, len(image), 1, 1)).astype(np.float32)
    shade = rng.uniform(0, 1, (len(image), 1, 1)).astype(np.float32)
    _paint(image, shade, np.minimum(width - np.abs(x - left), height - np.abs(y - top)) * 12)


def _photograph(image: Field, x: Field, y: Field, rng: Generator) -> NDArray[np.uint8]:
    """Light from one side, exposure, a soft lens and a noisy sensor; pixels 0 to 255."""
    count = len(image)

    def normal(spread: float) -> Field:
        return rng.normal(0, spread, (count, 1, 1)).astype(np.float32)

    light = 1 + normal(0.22) * x + normal(0.15) * y
    image = 0.5 + (image * light - 0.5) * np.exp(normal(0.2)) + normal(0.07)
    soft = image.copy()
    soft[:, 1:-1] += image[:, :-2] + image[:, 2:]
    soft[:, 1:-1] /= 3
    soft[:, :, 1:-1] = (soft[:, :, :-2] + soft[:, :, 1:-1] + soft[:, :, 2:]) / 3
    image += rng.uniform(0, 1, (count, 1, 1)).astype(np.float32) * (soft - image)
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.abs(normal(0.025))
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _paint(image: Field, shade: Field | np.float32, inside: Field) -> None:
    """Lay `shade` over `image` where `inside` is above 0, in full from 1 on: its slope is the edge's sharpness."""
    image += np.clip(inside, 0, 1) * (shade - image)


PARTS = (  # and the rows of pixels that each can reach in any pose
    (_eyes, slice(9, 30)),
    (_brows, slice(5, 26)),
    (_wrinkles, slice(13, 30)),
    (_nose, slice(16, 40)),
    (_mouth, slice(24, 48)),
)
