import math
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from emotion.data.transforms.corruptions import (
    BRIGHTNESS,
    CORRUPTIONS,
    NOISE,
    OCCLUSION,
    REGIONS,
    SEVERITIES,
    corrupt,
    region_mask,
)

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


def test_a_region_is_a_rectangle_of_the_face() -> None:
    expected = np.zeros((100, 200), bool)
    expected[30:46, 30:168] = True
    np.testing.assert_array_equal(region_mask("eyes", 100, 200), expected)


def test_strengths_are_those_of_cifar_10_c() -> None:
    assert SEVERITIES == (1, 2, 3, 4, 5)
    faces = smooth((1, 48, 48))
    planes, plane = torch.from_numpy(faces)[:, None], Image.fromarray(faces[0])
    for level, (noise, blur, offset, factor, quality) in enumerate(
        zip((0.04, 0.06, 0.08, 0.09, 0.10), (0.4, 0.6, 0.7, 0.8, 1.0), (0.05, 0.1, 0.15, 0.2, 0.3),
            (0.75, 0.5, 0.4, 0.3, 0.15), (80, 65, 58, 50, 40), strict=True), start=1
    ):  # fmt: skip
        found = {name: corrupt(faces, np.array([0]), name, level)[0].astype(float) for name in CORRUPTIONS}
        sigma = 48 / 32 * blur
        width = 2 * math.ceil(3 * sigma) + 1
        plane.save(file := BytesIO(), "JPEG", quality=quality)
        expected = {
            "gaussian_blur": functional.gaussian_blur(planes, [width, width], [sigma, sigma])[0, 0],
            "brightness": (faces[0] + 255 * offset).round().clip(0, 255),
            "contrast": functional.adjust_contrast(planes, factor)[0, 0],
            "jpeg": np.asarray(Image.open(file)),
        }
        for name, pixels in expected.items():
            assert np.abs(found[name] - np.asarray(pixels)).mean() < 0.01, name
        gray = np.full((1, 100, 100), 128, np.uint8)
        assert corrupt(gray, np.array([0]), "gaussian_noise", level).std() == pytest.approx(255 * noise, rel=0.03)


def test_the_covered_region_grows_to_1_4_times_the_region() -> None:
    image = np.zeros((1, 200, 200), np.uint8)
    image[0, ::2] = 200  # no pixel has the mean, 100
    for region in ("eyes", "mouth"):
        top, left, bottom, right = REGIONS[region]
        for level, share in enumerate((0.6, 0.8, 1.0, 1.2, 1.4), start=1):
            covered = np.argwhere(corrupt(image, np.array([0]), f"{region}_covered", level)[0] == 100)
            if share <= 1:  # larger ones can reach the border
                assert np.ptp(covered, 0) + 1 == pytest.approx(
                    200 * share * np.array([bottom - top, right - left]), abs=2
                )
                center = np.array([top + bottom, left + right]) / 2
                assert (covered.min(0) + covered.max(0) + 1) / 400 == pytest.approx(center, abs=0.01)
