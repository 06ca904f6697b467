"""Files that lists name, a hundred thousand of them in a few megabytes."""

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion.data.faces import ORIGIN_BYTES


class Listed:
    """The rows of all lists at some bytes each, where a Path and a name for every row took half a kilobyte."""

    def __init__(self, files: Sequence[Path], root: str | None) -> None:
        self.files = files
        self.lists, self.lines, self.labels = array("B"), array("L"), array("L")
        self._folders = [*(str(file.parent) for file in files), *([root] if root else [])]
        self._folder, self._paths, self._ends, self._hashes = array("B"), bytearray(), array("Q", [0]), array("q")

    def append(self, number: int, line: int, path: str, label: int) -> bool:
        """Add a row of the list `number`; whether its image is there."""
        for folder in (number, *range(len(self.files), len(self._folders))):
            if os.path.isfile(place := os.path.join(self._folders[folder], path)):
                self._paths += path.encode()
                for column, value in (
                    (self.lists, number), (self.lines, line), (self.labels, label),
                    (self._folder, folder), (self._ends, len(self._paths)), (self._hashes, hash(place)),
                ):  # fmt: skip
                    column.append(value)
                return True
        return False

    def __len__(self) -> int:
        return len(self.lists)

    def __getitem__(self, row: int) -> Path:
        return Path(self._folders[self._folder[row]], self._path(row))

    def _path(self, row: int) -> str:
        return self._paths[self._ends[row] : self._ends[row + 1]].decode()

    def where(self, row: int) -> str:
        """For a message."""
        return f"{self.files[self.lists[row]]} line {self.lines[row]}: {self._path(row)}"

    def origin(self, row: int) -> str:
        """train.csv line 17: happy/a.png, the path's end where it is too long."""
        where, path = f"{self.files[self.lists[row]].name[-32:]} line {self.lines[row]}: ", self._path(row)
        room = ORIGIN_BYTES - len(where.encode())
        return where + (path if len(path.encode()) <= room else path.encode()[-room:].decode(errors="ignore"))

    def distinct(self) -> NDArray[np.intp]:
        """The first row of each image, in order; two whose names share a 64-bit hash count as one."""
        return np.sort(np.unique(np.array(self._hashes), return_index=True)[1])


class Content:
    """What the source consists of: the lists, the label map and each image once."""

    def __init__(self, lists: Sequence[Path], images: Listed) -> None:
        self._lists, self._images, self._distinct = lists, images, images.distinct()

    def __iter__(self) -> Iterator[Path]:
        yield from self._lists
        yield from (self._images[row] for row in self._distinct)
