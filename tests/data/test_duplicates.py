from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from emotion.data.duplicates import (
    BITS,
    MIRRORED,
    exact_groups,
    merge_groups,
    near_duplicate_pairs,
    perceptual_hashes,
    similar_pairs,
)
from emotion.data.faces import FaceChunk

Images = NDArray[np.uint8]


def pairs(images: Images, *, mirrored: bool = True) -> list[list[int]]:
    found = near_duplicate_pairs(images, np.arange(len(images)), bits=10, correlation=0.93, mirrored=mirrored)
    rows: list[list[int]] = found.tolist()
    return rows


def jpeg(image: Images) -> Images:
    Image.fromarray(image).save(file := BytesIO(), "JPEG", quality=40)
    return np.asarray(Image.open(file))


def scaled(image: Images) -> Images:
    return np.asarray(Image.fromarray(image).resize((31, 31)).resize(image.shape[1::-1]))


def brighter(image: Images) -> Images:
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(1.2))


def cropped(image: Images) -> Images:
    return np.asarray(Image.fromarray(image).crop((1, 1, 47, 47)).resize(image.shape[1::-1]))


def test_groups_of_identical_pixels_have_the_number_of_their_first_face() -> None:
    images = np.arange(3, dtype=np.uint8)[[2, 0, 2, 1, 0], None, None] * np.ones((4, 4), np.uint8)
    assert exact_groups(images).tolist() == [0, 1, 0, 3, 1]


@pytest.mark.parametrize("change", [jpeg, scaled, brighter, cropped])
@pytest.mark.parametrize("color", [False, True])
def test_a_slightly_changed_face_is_a_near_duplicate(
    few_faces: FaceChunk, change: Callable[[Images], Images], color: bool
) -> None:
    face = few_faces.images[0]
    face = np.stack([face, face // 2, face], -1) if color else face
    changed = change(face)
    assert pairs(np.stack([face, changed])) == [[0, 1]]
    assert (face != changed).any()


def test_mirrored_faces_are_near_duplicates_on_request(few_faces: FaceChunk) -> None:
    face = few_faces.images[0]
    both = np.stack([face, face[:, ::-1]])
    assert pairs(both) == [[0, 1]]
    assert pairs(both, mirrored=False) == []


def test_mirroring_flips_the_bits_of_odd_horizontal_frequencies(few_faces: FaceChunk) -> None:
    images = few_faces.images
    hashes, mirrored = (perceptual_hashes(some, np.arange(len(images))) for some in (images, images[:, :, ::-1]))
    assert np.bitwise_count(hashes ^ MIRRORED ^ mirrored).max() <= 1  # of a frequency with amplitude 0


def test_blank_faces_have_no_near_duplicates() -> None:
    assert pairs(np.full((3, 8, 8), 7, np.uint8) * np.arange(3, dtype=np.uint8)[:, None, None]) == []


@pytest.mark.parametrize("bits", [0, 1, 7, 31])
def test_bands_find_the_same_pairs_as_comparing_all(bits: int) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 100, np.uint64)
    flipped = (rng.random((100, BITS)) < 0.05) * (np.uint64(1) << np.arange(BITS, dtype=np.uint64))
    hashes = np.concatenate([hashes, hashes ^ flipped.sum(1, dtype=np.uint64)])
    for others in (hashes, hashes ^ MIRRORED):
        close = np.triu(np.bitwise_count(hashes[:, None] ^ others) <= bits, 1)
        np.testing.assert_array_equal(similar_pairs(hashes, bits, others), np.argwhere(close))


def test_pairs_merge_groups_directly_or_indirectly() -> None:
    groups = np.array([0, 1, 2, 1, 4, 5])
    assert merge_groups(np.array([[2, 4], [3, 4]]), groups).tolist() == [0, 1, 1, 1, 1, 5]
    assert merge_groups(np.empty((0, 2), np.int64), groups).tolist() == groups.tolist()
