import numpy as np
import pytest

from emotion.data.faces import EMOTIONS, USAGES
from emotion.data.readers.synthetic import ALL_UNITS, UNITS, read, render_faces
from emotion.errors import UserError


def test_counts_are_those_asked_for() -> None:
    rows = list(read(training=5, public_test=2, private_test=1).rows)
    labels = np.concatenate([r.labels for r in rows])
    usage = np.concatenate([r.usage for r in rows])
    table = [np.bincount(labels[usage == u], minlength=7).tolist() for u in range(len(USAGES))]
    assert table == [[5] * 7, [2] * 7, [1] * 7, [0] * 7, [0] * 7]


def test_faces_are_48_by_48_bytes() -> None:
    (rows,) = read(training=2, public_test=0, private_test=0).rows
    assert rows.images.shape == (14, 48, 48)
    assert rows.images.dtype == np.uint8


def test_equal_seeds_draw_equal_faces_and_others_do_not() -> None:
    one, two, other = (np.concatenate([r.images for r in read(40, 0, 0, seed=s).rows]) for s in (3, 3, 4))
    assert len(one) > 256  # more than one chunk
    np.testing.assert_array_equal(one, two)
    assert (one != other).any((1, 2)).all()


def test_no_two_faces_are_alike() -> None:
    images = np.concatenate([r.images for r in read(50, 0, 0).rows])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_every_emotion_moves_its_own_units() -> None:
    assert set(UNITS) == set(EMOTIONS)
    assert len(set(UNITS.values())) == len(EMOTIONS)
    assert UNITS["happy"] == (6, 12)
    assert set(ALL_UNITS) == {1, 2, 4, 5, 6, 7, 9, 12, 15, 20, 23, 26}


def test_averages_of_two_emotions_differ_where_the_face_moves() -> None:
    """Surprise drops the jaw: its mean mouth is darker than a neutral one; brows and mouths carry the difference."""
    rng = np.random.default_rng(0)
    surprise, neutral = (
        render_faces(np.full(400, EMOTIONS.index(e), np.uint8), rng).mean(0) for e in ("surprise", "neutral")
    )
    difference = np.abs(surprise - neutral)
    assert difference[32:42, 18:30].mean() > 3 * difference[:6].mean()


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(UserError, match="at least one above"):
        read(0, 0, 0)
