import numpy as np
import pytest

from emotion.data.faces import EMOTIONS, USAGES
from emotion.data.readers.synthetic import ALL_UNITS, CHUNK, UNITS, read, render_faces
from emotion.errors import UserError


def images(training: int, seed: int = 0) -> np.ndarray:
    return np.concatenate([chunk.images for chunk in read(training, 0, 0, seed).chunks])


def test_faces_per_class_and_usage_are_as_requested() -> None:
    (chunk,) = read(training=5, public_test=2, private_test=1).chunks
    table = [np.bincount(chunk.labels[chunk.usage == u], minlength=7).tolist() for u in range(len(USAGES))]
    assert table == [[5] * 7, [2] * 7, [1] * 7, [0] * 7, [0] * 7]
    assert (chunk.images.shape, chunk.images.dtype) == ((56, 48, 48), np.uint8)


def test_equal_seeds_give_equal_faces_and_all_others_differ() -> None:
    first, same, other = images(40, seed=3), images(40, seed=3), images(40, seed=4)
    assert len(first) > CHUNK
    np.testing.assert_array_equal(first, same)
    assert (first != other).any((1, 2)).all()
    assert len(np.unique(first.reshape(len(first), -1), axis=0)) == len(first)


def test_every_emotion_has_its_own_units() -> None:
    assert set(UNITS) == set(EMOTIONS)
    assert len(set(UNITS.values())) == len(EMOTIONS)
    assert UNITS["happy"] == (6, 12)
    assert set(ALL_UNITS) == {1, 2, 4, 5, 6, 7, 9, 12, 15, 20, 23, 26}


def test_mean_faces_of_two_emotions_differ_in_the_mouth() -> None:
    """Surprise drops the jaw: the mean mouth is darker than the neutral one."""
    rng = np.random.default_rng(0)
    labels = (np.full(400, EMOTIONS.index(emotion), np.uint8) for emotion in ("surprise", "neutral"))
    surprise, neutral = (render_faces(some, rng).mean(0) for some in labels)
    difference = np.abs(surprise - neutral)
    assert difference[32:42, 18:30].mean() > 3 * difference[:6].mean()


@pytest.mark.parametrize("counts", [(0, 0, 0), (-1, 1, 1)])
def test_counts_without_faces_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="at least one of them positive"):
        read(*counts)


def test_clear_faces_are_told_apart_by_their_pixels_and_varied_ones_are_not() -> None:
    """The nearest mean face of training is right for most test faces of every emotion."""
    rng = np.random.default_rng(0)
    labels = np.arange(840, dtype=np.uint8) % 7
    recall = {}
    for variation in (0.3, 1.0):
        train, test = (render_faces(labels, rng, variation).reshape(len(labels), -1).astype(float) for _ in range(2))
        means = np.stack([train[labels == label].mean(0) for label in range(7)])
        nearest = ((test[:, None] - means) ** 2).sum(-1).argmin(1)
        recall[variation] = np.array([(nearest[labels == label] == label).mean() for label in range(7)])
    assert recall[0.3].min() > recall[1.0].mean()
    assert recall[0.3].mean() > 1.5 * recall[1.0].mean()


@pytest.mark.parametrize("variation", [-0.1, 1.1])
def test_a_variation_out_of_range_is_refused(variation: float) -> None:
    with pytest.raises(UserError, match=r"variation=.*expected 0 to 1"):
        read(1, 1, 1, variation=variation)
