"""Synthetic faces: 48x48 gray portraits whose brows, eyes and mouth follow facial action units.

Each emotion's units are those of FACS (Ekman, Friesen and Hager 2002; EMFACS prototypes). The intensity of the units,
identity, pose, lighting and occlusion are sampled from the seed. Face coordinates: x to the right, y down, the face
about one unit wide and high around (0, 0).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from emotion.data.faces import EMOTIONS, SYNTHETIC, USAGES, DataSource, FaceChunk
from emotion.errors import UserError

SIDE = 48
CHUNK = 256
BATCH = 12  # fits into the CPU cache: 1.5 times as fast as 256

Field = NDArray[np.float32]  # (B, h, 48) one value per pixel, or (B, 1, 1) one per face

UNITS: Mapping[str, tuple[int, ...]] = {
    "angry": (4, 5, 7, 23),
    "disgust": (9, 15),
    "fear": (1, 2, 4, 5, 20, 26),
    "happy": (6, 12),
    "sad": (1, 4, 15),
    "surprise": (1, 2, 5, 26),
    "neutral": (),
}
"""Action units of each emotion: 1 inner and 2 outer brow raiser, 4 brow lowerer, 5 upper lid raiser, 6 cheek raiser,
7 lid tightener, 9 nose wrinkler, 12 lip corner puller, 15 lip corner depressor, 20 lip stretcher, 23 lip tightener,
26 jaw drop."""

ALL_UNITS = sorted({unit for units in UNITS.values() for unit in units})


def read(
    training: int = 300, public_test: int = 50, private_test: int = 50, seed: int = 0, variation: float = 1.0
) -> DataSource:
    """Generate faces of the seven emotions in random order; equal seeds give equal faces.

    `training`, `public_test` and `private_test` are the numbers of faces per class with these usages. `variation`, from
    0 (clear examples) to 1, is that of expression, pose, light and focus, and the probability of covered faces.

    Raises:
        UserError: A number is negative, all are 0, or the variation is out of range.
    """
    counts = (training, public_test, private_test)
    if min(counts) < 0 or sum(counts) == 0:
        raise UserError(
            f"Synthetic faces: training={training} public_test={public_test} private_test={private_test} per class; "
            f"expected non-negative numbers, at least one of them positive."
        )
    if not 0 <= variation <= 1:
        raise UserError(f"Synthetic faces: variation={variation}; expected 0 to 1.")
    rng = np.random.default_rng(seed)
    usage = np.repeat(np.arange(3, dtype=np.uint8), [n * len(EMOTIONS) for n in counts])
    labels = np.concatenate([rng.permutation(np.repeat(np.arange(7, dtype=np.uint8), n)) for n in counts])
    return DataSource(SYNTHETIC, EMOTIONS, [], len(labels), _chunks(labels, usage, seed, variation))


def _chunks(labels: NDArray[np.uint8], usage: NDArray[np.uint8], seed: int, variation: float) -> Iterator[FaceChunk]:
    for start in range(0, len(labels), CHUNK):
        part = slice(start, start + CHUNK)
        images = render_faces(labels[part], np.random.default_rng([seed, start]), variation)
        origin = [f"synthetic {USAGES[index]} {start + i}" for i, index in enumerate(usage[part])]
        yield FaceChunk(images, labels[part], usage[part], origin)


def render_faces(labels: NDArray[np.uint8], rng: Generator, variation: float = 1.0) -> NDArray[np.uint8]:
    """Return faces (B, 48, 48) that show the emotions `labels` (B,), indices into EMOTIONS."""
    batches = [_render_batch(labels[i : i + BATCH], rng, variation) for i in range(0, len(labels), BATCH)]
    return np.concatenate(batches)


def _render_batch(labels: NDArray[np.uint8], rng: Generator, variation: float) -> NDArray[np.uint8]:
    units = _sample_units(labels, rng, variation)
    identity = _Identity.sample(len(labels), rng)
    x, y = _sample_pose(len(labels), rng, variation)
    image = _head(x, y, identity, units)
    for part, rows in PARTS:
        part(image[:, rows], x[:, rows], y[:, rows], identity, units)
    _occlude(image, x, y, identity, rng, variation)
    return _photograph(image, x, y, rng, variation)


def _sample_units(labels: NDArray[np.uint8], rng: Generator, variation: float) -> dict[int, Field]:
    """Return the intensity of each unit, 0 to 1: at least 0.21 for those of the emotion, near 0 for others."""
    active = np.array([[unit in UNITS[emotion] for unit in ALL_UNITS] for emotion in EMOTIONS])[labels]
    strength = rng.uniform(1 - 0.65 * variation, 1.0, (len(labels), 1))
    strength = strength * rng.uniform(1 - 0.4 * variation, 1.0, active.shape)
    noise = np.abs(rng.normal(0, 0.12 * variation, active.shape))
    intensity = np.where(active, strength, noise).astype(np.float32)
    return {unit: intensity[:, i, None, None] for i, unit in enumerate(ALL_UNITS)}


@dataclass
class _Identity:
    """Parameters of a face that expressions do not change; each (B, 1, 1)."""

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

    def select(self, indices: NDArray[np.intp]) -> "_Identity":
        """Return the identities of some of the faces."""
        return _Identity(*(getattr(self, field.name)[indices] for field in fields(self)))

    @classmethod
    def sample(cls, count: int, rng: Generator) -> "_Identity":
        def uniform(low: float, high: float) -> Field:
            return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)

        skin = uniform(0.45, 0.85)
        return cls(
            skin=skin,
            feature=skin * uniform(0.2, 0.5),
            hair=uniform(0.05, 0.6),
            width=uniform(0.68, 0.84),
            height=uniform(0.9, 1.02),
            eye_x=uniform(0.3, 0.38),
            eye_y=uniform(-0.2, -0.12),
            eye_width=uniform(0.14, 0.19),
            brow_y=uniform(-0.43, -0.36),
            brow_thickness=uniform(0.025, 0.055),
            nose_y=uniform(0.12, 0.22),
            mouth_y=uniform(0.44, 0.54),
            mouth_width=uniform(0.24, 0.33),
            lip=uniform(0.035, 0.065),
        )


def _sample_pose(count: int, rng: Generator, variation: float) -> tuple[Field, Field]:
    """Return the face coordinates (B, 48, 48) of every pixel under random yaw, roll, zoom and shift."""
    line = np.linspace(-1, 1, SIDE, dtype=np.float32)
    rows, columns = line[None, :, None], line[None, None, :]
    roll, yaw, zoom, right, down = (
        rng.normal(0, spread * variation, (count, 1, 1)).astype(np.float32) for spread in (0.11, 0.22, 0.06, 0.06, 0.05)
    )
    zoom = np.exp(zoom)
    x = (np.cos(roll) * (columns - right) + np.sin(roll) * (rows - down)) / zoom
    y = (np.cos(roll) * (rows - down) - np.sin(roll) * (columns - right)) / zoom
    return x + yaw * (0.3 - 0.35 * x * x), y


def _head(x: Field, y: Field, identity: _Identity, units: dict[int, Field]) -> Field:
    """Render background, hair and skin, lit from the front; unit 26 drops the jaw."""
    jaw = identity.height * (1 + 0.12 * units[26])
    long = np.where(y > 0, y / jaw, y / identity.height)
    radius = (x / identity.width) ** 2 + long**2
    crown = (x / (identity.width * 1.16)) ** 2 + ((y + 0.12) / (identity.height * 1.08)) ** 2
    image = np.broadcast_to(1 - identity.hair * 0.7 - 0.2, x.shape).copy()
    _paint(image, identity.hair, (1 - crown) * 4)
    _paint(image, identity.hair, (1 - radius) * 5)  # shade below the chin and along the cheeks
    skin = identity.skin * (1.04 - 0.22 * radius)
    _paint(image, skin, np.minimum((1 - radius) * 8, (y + identity.height * 0.72) * 12))
    return image


def _eyes(image: Field, x: Field, y: Field, identity: _Identity, units: dict[int, Field]) -> None:
    above = 0.075 * (1 + 0.75 * units[5] - 0.3 * units[7] - 0.1 * units[4])
    below = 0.055 * (1 + 0.2 * units[5] - 0.75 * units[6] - 0.6 * units[7])
    for side in (-1, 1):
        across = (x - side * identity.eye_x) / identity.eye_width
        down = y - identity.eye_y
        bow = 1 - across * across
        open_ = np.minimum(down + above * bow, below * bow - down)  # > 0 inside
        socket = 1 - across * across - (down / 0.17) ** 2
        _paint(image, identity.skin * 0.85, socket * 0.8)
        _paint(image, np.minimum(identity.skin * 1.35, 1), open_ * 28)
        iris = 0.075**2 - (across * identity.eye_width) ** 2 - (down + 0.01) ** 2
        _paint(image, identity.feature * 0.5, np.minimum(iris * 350, open_ * 28))
        lash = 0.02 - np.abs(down + above * bow)
        _paint(image, identity.feature * 0.7, np.minimum(lash * 40, bow * 6))
        crease = units[6] * (0.022 - np.abs(down - below * bow - 0.06 - 0.03 * across * side))
        _paint(image, identity.skin * 0.7, np.minimum(crease * 40, bow * 4))


def _brows(image: Field, x: Field, y: Field, identity: _Identity, units: dict[int, Field]) -> None:
    inner = 0.14 - 0.05 * units[4]
    for side in (-1, 1):
        along = (side * x - inner) / 0.4  # 0 at the inner end, 1 at the outer
        line = (
            identity.brow_y
            - 0.13 * units[1] * (1 - along)
            - 0.13 * units[2] * along
            + units[4] * (0.14 - 0.11 * along)
            + 0.03 * units[9]
            - 0.16 * along * (1 - along)
            + 0.03
        )
        hair = identity.brow_thickness * (1.25 - 0.5 * along) - np.abs(y - line)
        _paint(image, identity.feature, np.minimum(hair * 40, np.minimum(along, 1 - along) * 14 + 0.5))
    frown = units[4] * (0.018 - np.abs(np.abs(x) - 0.055)) * 40
    _paint(image, identity.skin * 0.68, np.minimum(frown, 0.7 - np.abs(y - identity.brow_y - 0.08) * 8))


def _nose(image: Field, x: Field, y: Field, identity: _Identity, units: dict[int, Field]) -> None:
    tip = identity.nose_y - 0.06 * units[9]
    ridge = (0.05 - np.abs(np.abs(x) - 0.09 - 0.05 * (y - tip + 0.2))) * 6
    _paint(image, identity.skin * 0.86, np.minimum(ridge, np.minimum(tip - y, y + 0.2) * 6))
    for side in (-1, 1):
        nostril = 0.045**2 - (x - side * 0.075) ** 2 - ((y - tip) * 1.4) ** 2
        _paint(image, identity.feature * 0.8, nostril * 500)
        fold = np.maximum(units[12], 0.9 * units[9]) * (0.02 - np.abs(side * x - 0.19 - 0.45 * (y - tip))) * 40
        _paint(image, identity.skin * 0.74, np.minimum(fold, np.minimum(y - tip + 0.02, identity.mouth_y - y) * 10))


def _wrinkles(image: Field, x: Field, y: Field, identity: _Identity, units: dict[int, Field]) -> None:
    """Render two lines across the root of the nose, by unit 9."""
    lines = 0.022 - np.abs(np.abs(y - identity.nose_y + 0.06 * units[9] + 0.22) - 0.055)
    _paint(image, identity.skin * 0.66, np.minimum(units[9] * lines * 40, (0.16 - np.abs(x)) * 14))


def _mouth(image: Field, x: Field, y: Field, identity: _Identity, units: dict[int, Field]) -> None:
    half = identity.mouth_width * (1 + 0.28 * units[12] + 0.38 * units[20] - 0.22 * units[23] - 0.15 * units[26])
    along = x / half
    bow = 1 - along * along
    corner = 0.15 * units[15] - 0.16 * units[12] + 0.03 * units[20]
    line = identity.mouth_y - 0.05 * units[9] + 0.06 * units[26] + corner * (along * along - 0.35)
    gap = 0.17 * units[26] + 0.035 * units[20] + 0.045 * units[12]
    lip = identity.lip * (1 - 0.65 * units[23])
    lips = (gap + lip) * bow - np.abs(y - line)
    inside = gap * bow - np.abs(y - line)
    _paint(image, identity.skin * 0.62, np.minimum(lips * 30, bow * 10))
    _paint(image, identity.feature * 0.35, inside * 30)
    teeth = np.minimum(inside, line - y + 0.02) * np.maximum(units[12], units[20]) * 40
    _paint(image, np.float32(0.92), teeth)
    seam = 0.016 - np.abs(y - line)
    _paint(image, identity.feature * 0.5, np.minimum(seam * 50, bow * 8) - gap * 12)
    _paint(image, identity.skin * 0.8, np.minimum((0.02 - np.abs(y - line - gap - 0.14)) * 20, bow))


def _occlude(image: Field, x: Field, y: Field, identity: _Identity, rng: Generator, variation: float) -> None:
    """Cover some faces by glasses, a fringe or a block."""
    for probability, cover in ((0.1, _glasses), (0.12, _fringe), (0.12, _block)):
        selected = np.flatnonzero(rng.random(len(image)) < probability * variation)
        covered = image[selected]
        cover(covered, x[selected], y[selected], identity.select(selected), rng)
        image[selected] = covered


def _glasses(image: Field, x: Field, y: Field, identity: _Identity, rng: Generator) -> None:
    rings = np.abs(np.hypot(np.abs(x) - identity.eye_x, (y - identity.eye_y) * 1.2) - 0.22)
    _paint(image, np.float32(0.12), (0.03 - rings) * 40)


def _fringe(image: Field, x: Field, y: Field, identity: _Identity, rng: Generator) -> None:
    edge: Field = rng.uniform(-0.75, -0.4, (len(image), 1, 1)).astype(np.float32)
    waves: Field = np.sin(9 * x)
    _paint(image, identity.hair, (edge + 0.1 * waves - y) * 12)


def _block(image: Field, x: Field, y: Field, identity: _Identity, rng: Generator) -> None:
    left, top = rng.uniform(-1, 1, (2, len(image), 1, 1)).astype(np.float32)
    width, height = rng.uniform(0.12, 0.4, (2, len(image), 1, 1)).astype(np.float32)
    shade = rng.uniform(0, 1, (len(image), 1, 1)).astype(np.float32)
    _paint(image, shade, np.minimum(width - np.abs(x - left), height - np.abs(y - top)) * 12)


def _photograph(image: Field, x: Field, y: Field, rng: Generator, variation: float) -> NDArray[np.uint8]:
    """Apply side light, exposure, lens blur and sensor noise; return pixels from 0 to 255."""
    count = len(image)

    def normal(spread: float) -> Field:
        return rng.normal(0, spread * variation, (count, 1, 1)).astype(np.float32)

    light = 1 + normal(0.22) * x + normal(0.15) * y
    image = 0.5 + (image * light - 0.5) * np.exp(normal(0.2)) + normal(0.07)
    soft = image.copy()
    soft[:, 1:-1] += image[:, :-2] + image[:, 2:]
    soft[:, 1:-1] /= 3
    soft[:, :, 1:-1] = (soft[:, :, :-2] + soft[:, :, 1:-1] + soft[:, :, 2:]) / 3
    image += rng.uniform(0, variation, (count, 1, 1)).astype(np.float32) * (soft - image)
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.abs(normal(0.025))
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _paint(image: Field, shade: Field | np.float32, inside: Field) -> None:
    """Blend `shade` into `image` where `inside` is positive, fully from 1: its slope sets the edge's sharpness."""
    image += np.clip(inside, 0, 1) * (shade - image)


PARTS = (  # with the rows of pixels that each can reach in any pose
    (_eyes, slice(9, 30)),
    (_brows, slice(5, 26)),
    (_wrinkles, slice(13, 30)),
    (_nose, slice(16, 40)),
    (_mouth, slice(24, 48)),
)
