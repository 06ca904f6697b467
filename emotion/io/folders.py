"""Find folders: by a pattern, and those below a folder."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path


def expand(name: str) -> list[str]:
    """Return the folders that a pattern matches, else the files, sorted; the name itself if it exists or has none."""
    matches = [] if os.path.exists(name) else sorted(glob.glob(name))
    return [match for match in matches if os.path.isdir(match)] or matches or [name]


def walk(root: Path) -> Iterator[Path]:
    """Yield a folder and all folders below it, each once; those behind links after those that are not."""
    roots, seen = [root], set[Path]()
    for start in roots:  # which grows
        for name, children, _ in os.walk(start):
            folder = Path(name)
            if (place := folder.resolve()) in seen:
                children.clear()
                continue
            seen.add(place)
            roots += [folder / child for child in sorted(children) if (folder / child).is_symlink()]
            yield folder
