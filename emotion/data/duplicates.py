"""Faces that stand in a source twice: to the pixel, or nearly (scaled, recompressed, relit, cropped, mirrored).

Near ones are found by the signs of the 64 lowest frequencies of the picture's cosine transform (after Zauner 2010,
Implementation and benchmarking of perceptual image hash functions), which differ in few bits, and confirmed by the
correlation of their pixels: aligned faces are too alike for the bits alone.
"""

import hashlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Groups = NDArray[np.int64]
"""For each of N faces the first face of its group: its own number where it is alone."""

Pairs = NDArray[np.int64]
"""(P, 2) numbers of faces."""

BITS = 64
FREQUENCIES = [(u, sum_ - u) for sum_ in range(1, 11) for u in range(sum_ + 1)][:BITS]
"""Vertical and horizontal, in half periods over the picture, without the mean."""
MIRRORED = np.uint64(sum(1 << bit for bit, (_, v) in enumerate(FREQUENCIES) if v % 2))
"""The bits that a mirrored picture has the other way round."""

BATCH = 1024


def fingerprint(image: NDArray[np.uint8]) -> bytes:
    """Equal for equal pixels."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def exact(images: NDArray[np.uint8]) -> Groups:
    """Groups of faces (N, H, W) or (N, H, W, 3) with equal pixels."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(fingerprint(image), row) for row, image in enumerate(images)], np.int64)


def near(
    images: NDArray[np.uint8], rows: NDArray[np.int64], bits: int, correlation: float, *, mirrored: bool = True
) -> Pairs:
    """Pairs of `rows`, smaller number first, whose hashes differ in at most `bits` and whose pixels correlate so much.

    A face of one colour is near none. With `mirrored`, a face is also near another one's mirror image.
    """
    hashes = perceptual_hashes(images, rows)
    found = [(alike(hashes, bits), False)]
    if mirrored:
        found.append((alike(hashes, bits, hashes ^ MIRRORED), True))
    confirmed = [pairs[_correlations(images, rows[pairs], flip=flip) >= correlation] for pairs, flip in found]
    return rows[np.unique(np.concatenate(confirmed), axis=0)]


def perceptual_hashes(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(n,) of the faces `images[rows]`: brightness, contrast and scale leave them as they are."""
    down, across = (_cosines(side) for side in images.shape[1:3])
    u, v = np.array(FREQUENCIES).T
    powers = np.uint64(1) << np.arange(BITS, dtype=np.uint64)
    hashes = np.empty(len(rows), np.uint64)
    for start in range(0, len(rows), BATCH):
        grey = _grey(images[rows[start : start + BATCH]])
        low = down @ (grey - grey.mean((1, 2), keepdims=True)) @ across.T  # (b, 11, 11)
        hashes[start : start + BATCH] = ((low[:, u, v] > 0) * powers).sum(1, dtype=np.uint64)
    return hashes


def alike(hashes: NDArray[np.uint64], bits: int, others: NDArray[np.uint64] | None = None) -> Pairs:
    """Pairs (i, j), i < j, where hash i and hash j, or `others` j, differ in at most `bits`.

    Hashes that differ in at most `bits` are equal in one at least of `bits` + 1 bands: only those that share a band are
    compared.
    """
    other = hashes if others is None else others
    found = [np.empty((0, 2), np.int64)]
    edges = np.linspace(0, BITS, bits + 2).astype(int)
    for low, high in pairwise(edges.tolist()):
        mask = np.uint64((1 << high) - (1 << low))
        for ours, theirs in _sharing(hashes & mask, other & mask):
            close = np.bitwise_count(hashes[ours][:, None] ^ other[theirs]) <= bits
            i, j = np.nonzero(close & (ours[:, None] < theirs))
            found.append(np.stack([ours[i], theirs[j]], 1))
    return np.unique(np.concatenate(found), axis=0)


def _sharing(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """Numbers of the keys of `one` and of `other` that are equal, at most BATCH of `one` at a time."""
    ours, theirs = np.argsort(one, kind="stable"), np.argsort(other, kind="stable")
    keys = np.intersect1d(one, other)
    begins, ends = (np.searchsorted(one[ours], keys, side) for side in ("left", "right"))
    firsts, lasts = (np.searchsorted(other[theirs], keys, side) for side in ("left", "right"))
    for begin, end, first, last in zip(begins, ends, firsts, lasts, strict=True):
        for start in range(begin, end, BATCH):
            yield ours[start : min(start + BATCH, end)], theirs[first:last]


def joined(pairs: Pairs, groups: Groups) -> Groups:
    """`groups` with those joined, however indirectly, that a pair stands across."""
    first = groups.copy()

    def root(face: int) -> int:
        while first[face] != face:
            first[face] = first[first[face]]
            face = int(first[face])
        return face

    for i, j in pairs.tolist():
        low, high = sorted((root(i), root(j)))
        first[high] = low
    return np.array([root(face) for face in range(len(first))], np.int64)


def _cosines(side: int) -> NDArray[np.float32]:
    """(11, side): the lowest frequencies of the DCT-II."""
    return np.cos(np.pi * np.outer(np.arange(11), np.arange(side) + 0.5) / side).astype(np.float32)


def _correlations(images: NDArray[np.uint8], pairs: Pairs, *, flip: bool) -> NDArray[np.float32]:
    found = np.zeros(len(pairs), np.float32)
    for start in range(0, len(pairs), BATCH):
        one, other = (_grey(images[side]) for side in pairs[start : start + BATCH].T)
        a, b = (_standardised(side) for side in (one, other[:, :, ::-1] if flip else other))
        found[start : start + BATCH] = (a * b).mean(1)
    return found


def _standardised(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """(b, H * W) of mean 0 and variance 1; all 0 where a face is of one colour."""
    flat = grey.reshape(len(grey), -1)
    centred = flat - flat.mean(1, keepdims=True)
    spread = centred.std(1, keepdims=True)
    return np.asarray(centred / np.where(spread > 0, spread, 1), np.float32)


def _grey(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(b, H, W) from grey or RGB."""
    return images.mean(-1, dtype=np.float32) if images.ndim == 4 else images.astype(np.float32)
