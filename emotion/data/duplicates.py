"""Duplicate faces in a source: identical pixels, or nearly so (scaled, recompressed, relit, cropped, mirrored).

Candidates for near duplicates have perceptual hashes that differ in few bits: the signs of the 64 lowest frequencies of
the image's cosine transform (after Zauner 2010, Implementation and benchmarking of perceptual image hash functions).
The correlation of their pixels confirms them, because aligned faces are too similar for the hash alone.
"""

import hashlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Groups = NDArray[np.int64]
"""For each of N faces the first face of its group; a face without duplicates has its own number."""

Pairs = NDArray[np.int64]
"""(P, 2) face numbers."""

BITS = 64
FREQUENCIES = [(u, total - u) for total in range(1, 11) for u in range(total + 1)][:BITS]
"""Vertical and horizontal frequency of each bit in half periods per image; the mean is not included."""
MIRRORED = np.uint64(sum(1 << bit for bit, (_, v) in enumerate(FREQUENCIES) if v % 2))
"""The bits that mirroring the image flips."""

BATCH = 1024


def fingerprint(image: NDArray[np.uint8]) -> bytes:
    """Return a digest of the pixels."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def exact_groups(images: NDArray[np.uint8]) -> Groups:
    """Group the faces (N, H, W) or (N, H, W, 3) with identical pixels."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(fingerprint(image), row) for row, image in enumerate(images)], np.int64)


def near_duplicate_pairs(
    images: NDArray[np.uint8], rows: NDArray[np.int64], bits: int, correlation: float, *, mirrored: bool = True
) -> Pairs:
    """Return pairs of `rows` with similar pixels, smaller number first; constant images have no pair.

    Args:
        images: All faces (N, H, W) or (N, H, W, 3).
        rows: The faces to compare.
        bits: Largest difference of their hashes.
        correlation: Smallest correlation of their pixels.
        mirrored: Whether to compare with mirror images as well.
    """
    hashes = perceptual_hashes(images, rows)
    candidates = [(similar_pairs(hashes, bits), False)]
    if mirrored:
        candidates.append((similar_pairs(hashes, bits, hashes ^ MIRRORED), True))
    confirmed = [pairs[_correlations(images, rows[pairs], flip=flip) >= correlation] for pairs, flip in candidates]
    return rows[np.unique(np.concatenate(confirmed), axis=0)]


def perceptual_hashes(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the hashes (n,) of `images[rows]`, which brightness, contrast and scale do not change."""
    down, across = (_cosines(side) for side in images.shape[1:3])
    u, v = np.array(FREQUENCIES).T
    powers = np.uint64(1) << np.arange(BITS, dtype=np.uint64)
    hashes = np.empty(len(rows), np.uint64)
    for start in range(0, len(rows), BATCH):
        gray = _to_gray(images[rows[start : start + BATCH]])
        low = down @ (gray - gray.mean((1, 2), keepdims=True)) @ across.T  # (b, 11, 11)
        hashes[start : start + BATCH] = ((low[:, u, v] > 0) * powers).sum(1, dtype=np.uint64)
    return hashes


def similar_pairs(hashes: NDArray[np.uint64], bits: int, others: NDArray[np.uint64] | None = None) -> Pairs:
    """Return pairs (i, j), i < j, for which hash i and hash j (of `others` if given) differ in at most `bits` bits.

    Such hashes are equal in at least one of `bits` + 1 bands; only hashes with an equal band are compared.
    """
    other = hashes if others is None else others
    pairs = [np.empty((0, 2), np.int64)]
    edges = np.linspace(0, BITS, bits + 2).astype(int)
    for low, high in pairwise(edges.tolist()):
        mask = np.uint64((1 << high) - (1 << low))
        for left, right in _equal_keys(hashes & mask, other & mask):
            close = np.bitwise_count(hashes[left][:, None] ^ other[right]) <= bits
            i, j = np.nonzero(close & (left[:, None] < right))
            pairs.append(np.stack([left[i], right[j]], 1))
    return np.unique(np.concatenate(pairs), axis=0)


def merge_groups(pairs: Pairs, groups: Groups) -> Groups:
    """Merge the groups that pairs connect, directly or indirectly."""
    faces = np.arange(len(groups))
    edges = np.concatenate([pairs, np.stack([faces, groups], 1)])
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(len(groups), len(groups)))
    _, component = connected_components(graph, directed=False)
    _, first, own = np.unique(component, return_index=True, return_inverse=True)
    return np.asarray(first[own], np.int64)


def _equal_keys(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """Yield the indices of equal keys in `left` (at most BATCH at a time) and in `right`."""
    left_order, right_order = np.argsort(left, kind="stable"), np.argsort(right, kind="stable")
    keys = np.intersect1d(left, right)
    left_begins, left_ends = (np.searchsorted(left[left_order], keys, side) for side in ("left", "right"))
    right_begins, right_ends = (np.searchsorted(right[right_order], keys, side) for side in ("left", "right"))
    for begin, end, first, last in zip(left_begins, left_ends, right_begins, right_ends, strict=True):
        for start in range(begin, end, BATCH):
            yield left_order[start : min(start + BATCH, end)], right_order[first:last]


def _cosines(side: int) -> NDArray[np.float32]:
    """Return the lowest frequencies of the DCT-II, (11, side)."""
    return np.cos(np.pi * np.outer(np.arange(11), np.arange(side) + 0.5) / side).astype(np.float32)


def _correlations(images: NDArray[np.uint8], pairs: Pairs, *, flip: bool) -> NDArray[np.float32]:
    result = np.zeros(len(pairs), np.float32)
    for start in range(0, len(pairs), BATCH):
        left, right = (_to_gray(images[side]) for side in pairs[start : start + BATCH].T)
        a, b = (_standardize(side) for side in (left, right[:, :, ::-1] if flip else right))
        result[start : start + BATCH] = (a * b).mean(1)
    return result


def _standardize(gray: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale to mean 0 and variance 1, (b, H * W); constant images become 0."""
    flat = gray.reshape(len(gray), -1)
    centerd = flat - flat.mean(1, keepdims=True)
    deviation = centerd.std(1, keepdims=True)
    return np.asarray(centerd / np.where(deviation > 0, deviation, 1), np.float32)


def _to_gray(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert gray or RGB images to (b, H, W)."""
    return images.mean(-1, dtype=np.float32) if images.ndim == 4 else images.astype(np.float32)
