"""A prepared source's folder: arrays that are memory-mapped, and digests by which they are known to be whole.

    images.u8 labels.u8 usage.u8 origin.bytes votes.u8    the last one where there are votes
    meta.json                                             shapes, classes, where they are from, the arrays' digests

meta.json holds its own digest as well, and the folder's name, so that no part of another folder passes for one of this.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from emotion.data.faces import ORIGIN_BYTES, Faces, Part, Rows
from emotion.errors import UserError
from emotion.seals import digest_of, read_json, write_json

FILES = ("images.u8", "labels.u8", "usage.u8", "origin.bytes")
VOTES = "votes.u8"
META = "meta.json"


def write(
    folder: Path, key: str, some: Iterable[Rows], described: dict[str, Any], progress: Callable[[int], None]
) -> None:
    """Make the folder of all rows, which is to be called `key`; `progress` is told how many are written."""
    folder.mkdir()
    done, shape, voted = 0, (), 0
    with ExitStack() as stack:
        files = [stack.enter_context((folder / name).open("wb")) for name in (*FILES, VOTES)]
        images, labels, usage, origin, votes = files
        for rows in some:
            images.write(np.ascontiguousarray(rows.images).data)
            labels.write(np.ascontiguousarray(rows.labels).data)
            usage.write(np.ascontiguousarray(rows.usage).data)
            origin.write(np.array([_kept(text) for text in rows.origin], f"S{ORIGIN_BYTES}").data)
            if rows.votes is not None:
                votes.write(np.ascontiguousarray(rows.votes).data)
                voted = rows.votes.shape[1]
            done, shape = done + len(rows.labels), rows.images.shape[1:]
            progress(done)
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    if not voted:
        (folder / VOTES).unlink()
    digests = {path.name: digest_of(path) for path in sorted(folder.iterdir())}
    meta = described | {"key": key, "rows": done, "shape": shape, "voted": voted, "arrays": digests}
    write_json(folder / META, meta)


def opened(folder: Path) -> Faces | None:
    """The faces of a prepared folder; None where there is none, or it is not as it was written."""
    try:
        meta = read_json(folder / META)
        if meta["key"] != folder.name:
            return None
        if any(digest_of(folder / name) != digest for name, digest in meta["arrays"].items()):
            return None
        return _mapped(folder, meta)
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return None


def _mapped(folder: Path, meta: dict[str, Any]) -> Faces:
    shapes = (meta["shape"], (), (), ())
    types = (np.dtype(np.uint8), np.dtype(np.uint8), np.dtype(np.uint8), np.dtype(f"S{ORIGIN_BYTES}"))
    images, labels, usage, origin = (
        # copy on write: the files cannot change, and torch.from_numpy takes the arrays without a warning
        np.memmap(folder / name, dtype, "c", shape=(meta["rows"], *shape))
        for name, dtype, shape in zip(FILES, types, shapes, strict=True)
    )
    votes = np.memmap(folder / VOTES, np.uint8, "c", shape=(meta["rows"], meta["voted"])) if meta["voted"] else None
    parts = tuple(Part(*part) for part in meta["parts"])
    return Faces(images, labels, usage, origin, tuple(meta["classes"]), meta["digest"], meta["source"], parts, votes)


def _kept(origin: str) -> bytes:
    return origin.encode(errors="backslashreplace")[-ORIGIN_BYTES:]  # a file's name may be no text
