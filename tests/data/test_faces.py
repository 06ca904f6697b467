"""A source is read completely and in range, or refused in one message, whatever its reader does."""

import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from emotion.data.faces import EMOTIONS, DataSource, FaceChunk
from emotion.data.readers import concat
from emotion.errors import UserError

FACES = FaceChunk(
    np.zeros((2, 4, 4), np.uint8), np.array([0, 6], np.uint8), np.array([0, 4], np.uint8), ["row 0", "row 1"]
)


def source(*chunks: FaceChunk) -> DataSource:
    return DataSource("faces.npz", EMOTIONS, [], None, iter(chunks))


@pytest.mark.parametrize("chunks", [[], [FaceChunk(FACES.images[:0], FACES.labels[:0], FACES.usage[:0], [])]])
def test_a_source_without_rows_is_refused(chunks: list[FaceChunk]) -> None:
    with pytest.raises(UserError, match=r"faces.npz has no rows; expected one row per face"):
        list(source(*chunks).read())


def test_faces_in_range_are_yielded_unchanged() -> None:
    (chunk,) = source(FACES).read()
    assert chunk is FACES


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.array([0, 7], np.uint8)}, r"row 1: found label 7, expected 0 to 6 \(angry, .*, neutral\)"),
        ({"labels": np.array([-1, 0])}, "row 0: found label -1, expected 0 to 6"),
        ({"usage": np.array([0, 5], np.uint8)}, r"row 1: found usage 5, expected 0 to 4 \(Training, .*, Mixed\)"),
        ({"labels": np.array([0, 6])}, r"labels \(2,\) of int64, expected \(2,\) of uint8"),
        ({"labels": np.array([0], np.uint8)}, r"labels \(1,\) of uint8, expected \(2,\) of uint8"),
        ({"images": np.zeros((2, 4, 4))}, r"images \(2, 4, 4\) of float64, expected \(2, 4, 4\) of uint8"),
        ({"images": np.zeros((2, 5, 5), np.uint8)}, r"images \(2, 5, 5\) of uint8, expected \(2, 4, 4\) of uint8"),
    ],
)
def test_a_chunk_out_of_range_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^faces.npz.*{message}"):
        list(source(FACES, FACES._replace(**changed)).read())


def test_a_label_out_of_range_is_refused_in_a_composed_source() -> None:
    wrong = FACES._replace(labels=np.array([0, 9], np.uint8))
    for chunks in (concat.read(source(wrong), source(FACES)), concat.read(source(FACES), source(wrong))):
        with pytest.raises(UserError, match=r"faces\.npz, row 1: found label 9, expected 0 to 6"):
            list(chunks.read())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (zipfile.BadZipFile("File is not a zip file"), r"^faces.npz cannot be read \(BadZipFile: File is not a zip"),
        (ValueError("cannot reshape array\nfrom shape"), r"^faces.npz cannot be read \(ValueError: cannot reshape arr"),
        (KeyError("labels"), r"^faces.npz cannot be read \(KeyError: 'labels'\); is it complete"),
        (zlib.error("Error -3"), r"^faces.npz cannot be read \(error: Error -3"),
        (OSError(5, "Input/output error", "part.npz"), "^part.npz cannot be read: Input/output error"),
        (UserError("faces.npz is empty; expected faces."), "^faces.npz is empty; expected faces.$"),
    ],
)
def test_what_a_library_raises_is_one_message(error: Exception, message: str) -> None:
    def chunks() -> Iterator[FaceChunk]:
        yield FACES
        raise error

    with pytest.raises(UserError, match=message):
        list(DataSource("faces.npz", EMOTIONS, [], None, chunks()).read())


def test_a_mistake_in_a_reader_keeps_its_traceback() -> None:
    def chunks() -> Iterator[FaceChunk]:
        yield FACES
        raise AttributeError("'NoneType' object has no attribute 'shape'")

    with pytest.raises(AttributeError, match="no attribute"):
        list(DataSource("faces.npz", EMOTIONS, [], None, chunks()).read())
