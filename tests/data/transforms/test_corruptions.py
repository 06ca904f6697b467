import numpy as np
import pytest

from emotion.data.transforms.corruptions import BRIGHTNESS, CORRUPTIONS, NOISE, OCCLUSION, REGIONS, SEVERITIES, corrupt

SHAPES = {"fer2013": (12, 48, 48), "rgb": (12, 64, 64, 3), "not square": (12, 40, 56)}


def smooth(shape: tuple[int, ...]) -> np.ndarray:
    """Return images as smooth as faces."""
    down, across = np.mgrid[: shape[1], : shape[2]]
    waves = (
        128
        + 60 * np.sin(down / 7)[None] * np.cos(across / 9)[None]
        + np.random.default_rng(0).normal(0, 12, (shape[0], 1, 1))
    )
    return np.broadcast_to(waves[..., None] if len(shape) == 4 else waves, shape).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_faces_of_any_shape_get_worse_with_severity(corruption: str, shape: tuple[int, ...]) -> None:
    images, rows = smooth(shape), np.array([3, 7, 8])
    before = images.copy()
    corrupted = [corrupt(images, rows, corruption, severity) for severity in SEVERITIES]
    assert all(one.shape == images[rows].shape and one.dtype == np.uint8 for one in corrupted)
    distances = [np.abs(one.astype(float) - images[rows]).mean() for one in corrupted]
    assert distances[0] > 0
    assert distances == sorted(distances)
    assert (images == before).all()


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_row_is_corrupted_equally_in_any_batch(corruption: str) -> None:
    images = smooth((12, 48, 48))
    together = corrupt(images, np.arange(12), corruption, 3)
    alone = corrupt(images, np.array([5]), corruption, 3)
    assert (together[5] == alone[0]).all()


def test_noise_has_the_given_strength_and_differs_between_rows() -> None:
    images = np.full((2, 200, 200), 128, np.uint8)
    one, other = corrupt(images, np.array([0, 1]), "gaussian_noise", 5).astype(float)
    assert np.std(one - 128) == pytest.approx(255 * NOISE[4], rel=0.02)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


def test_brightness_is_added_up_to_white() -> None:
    images = np.array([[[0, 100], [200, 250]]], np.uint8)
    added = round(255 * BRIGHTNESS[3])
    assert corrupt(images, np.array([0]), "brightness", 4).tolist() == [[[added, 100 + added], [251, 255]]]


def test_contrast_scales_around_the_mean() -> None:
    images = np.tile(np.array([[50, 150], [150, 50]], np.uint8), (1, 24, 24))
    assert np.unique(corrupt(images, np.array([0]), "contrast", 2)).tolist() == [75, 125]


@pytest.mark.parametrize("region", ["eyes", "mouth"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_only_the_covered_region_changes_to_gray(region: str, severity: int, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (1, 100, 100), dtype=np.uint8)
    corrupted = corrupt(image, np.array([0]), f"{region}_covered", severity)[0]
    top, left, bottom, right = REGIONS[region]
    middle, share = ((top + bottom) / 2, (left + right) / 2), OCCLUSION[severity - 1]
    assert corrupted[round(100 * middle[0]), round(100 * middle[1])] == round(image.mean())
    changed = np.argwhere(corrupted != image[0])
    height, width = np.ptp(changed, 0) + 1
    assert height <= min(100, 100 * share * (bottom - top) + 1)
    assert width <= min(100, 100 * share * (right - left) + 1)
    assert np.abs((changed.max(0) + changed.min(0) + 1) / 200 - middle).max() < 0.07  # less at the border
