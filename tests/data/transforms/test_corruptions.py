import numpy as np
import pytest

from emotion.data.transforms.corruptions import BRIGHTNESS, CORRUPTIONS, NOISE, REGIONS, SEVERITIES, WIDTH, corrupt

rng = np.random.default_rng(0)
SHAPES = {"fer2013": (12, 48, 48), "rgb": (12, 64, 64, 3), "not square": (12, 40, 56)}


def smooth(shape: tuple[int, ...]) -> np.ndarray:
    """Pictures that are not all edges, as faces are not."""
    down, across = np.mgrid[: shape[1], : shape[2]]
    waves = 128 + 60 * np.sin(down / 7)[None] * np.cos(across / 9)[None] + rng.normal(0, 12, (shape[0], 1, 1))
    return np.broadcast_to(waves[..., None] if len(shape) == 4 else waves, shape).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_faces_of_any_size_stay_what_they_are_and_get_worse(corruption: str, shape: tuple[int, ...]) -> None:
    images, rows = smooth(shape), np.array([3, 7, 8])
    before = images.copy()
    worse = [corrupt(images, rows, corruption, severity) for severity in SEVERITIES]
    assert all(one.shape == images[rows].shape and one.dtype == np.uint8 for one in worse)
    away = [np.abs(one.astype(float) - images[rows]).mean() for one in worse]
    assert away[0] > 0
    assert away == sorted(away)
    assert (images == before).all()


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_row_is_corrupted_alike_wherever_it_stands(corruption: str) -> None:
    images = smooth((12, 48, 48))
    together = corrupt(images, np.arange(12), corruption, 3)
    alone = corrupt(images, np.array([5]), corruption, 3)
    assert (together[5] == alone[0]).all()


def test_noise_is_as_strong_as_it_says_and_of_each_row_its_own() -> None:
    images = np.full((2, 200, 200), 128, np.uint8)
    one, other = corrupt(images, np.array([0, 1]), "gaussian_noise", 5).astype(float)
    assert np.std(one - 128) == pytest.approx(255 * NOISE[4], rel=0.02)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


def test_brightness_is_added_and_ends_at_white() -> None:
    images = np.array([[[0, 100], [200, 250]]], np.uint8)
    added = round(255 * BRIGHTNESS[3])
    assert corrupt(images, np.array([0]), "brightness", 4).tolist() == [[[added, 100 + added], [251, 255]]]


def test_contrast_is_what_is_left_around_the_mean() -> None:
    images = np.tile(np.array([[50, 150], [150, 50]], np.uint8), (1, 24, 24))
    assert np.unique(corrupt(images, np.array([0]), "contrast", 2)).tolist() == [75, 125]


@pytest.mark.parametrize("region", ["eyes", "mouth"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_covered_region_is_grey_and_all_else_as_it_was(region: str, severity: int) -> None:
    image = rng.integers(0, 256, (1, 100, 100), dtype=np.uint8)
    worse = corrupt(image, np.array([0]), f"{region}_covered", severity)[0]
    top, left, bottom, right = REGIONS[region]
    middle, share = ((top + bottom) / 2, (left + right) / 2), WIDTH[severity - 1]
    assert worse[round(100 * middle[0]), round(100 * middle[1])] == round(image.mean())
    changed = np.argwhere(worse != image[0])
    height, width = np.ptp(changed, 0) + 1
    assert height <= min(100, 100 * share * (bottom - top) + 1)
    assert width <= min(100, 100 * share * (right - left) + 1)
    assert np.abs((changed.max(0) + changed.min(0) + 1) / 200 - middle).max() < 0.07  # less at the border
