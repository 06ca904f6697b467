"""Ways to damage files, each with a random generator."""

import io
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Random = np.random.Generator
Content = Callable[[Random, bytes], bytes]
Place = Callable[[Random, list[Path]], None]


def _at(rng: Random, content: bytes) -> int:
    return int(rng.integers(len(content))) if content else 0


def _span(rng: Random, content: bytes) -> tuple[int, int]:
    start = _at(rng, content)
    return start, min(len(content), start + int(rng.integers(1, 40)))


def _flip(rng: Random, content: bytes) -> bytes:
    changed, at = bytearray(content), _at(rng, content)
    changed[at : at + 1] = bytes(byte ^ 1 << rng.integers(8) for byte in changed[at : at + 1])
    return bytes(changed)


def _delete(rng: Random, content: bytes) -> bytes:
    start, stop = _span(rng, content)
    return content[:start] + content[stop:]


def _insert(rng: Random, content: bytes) -> bytes:
    at = _at(rng, content)
    return content[:at] + rng.bytes(int(rng.integers(1, 9))) + content[at:]


def _repeat(rng: Random, content: bytes) -> bytes:
    start, stop = _span(rng, content)
    return content[:stop] + content[start:]


def _exchange(rng: Random, content: bytes) -> bytes:
    changed, one, other = bytearray(content), _at(rng, content), _at(rng, content)
    changed[one : one + 1], changed[other : other + 1] = changed[other : other + 1], changed[one : one + 1]
    return bytes(changed)


def _truncate(rng: Random, content: bytes) -> bytes:
    return content[: _at(rng, content)]


def _blank_block(rng: Random, content: bytes) -> bytes:
    """Like an interrupted write of a disk."""
    start = _at(rng, content)
    return content[:start] + bytes(min(512, len(content) - start)) + content[start + 512 :]


def _empty(rng: Random, content: bytes) -> bytes:
    return b""


ANY: dict[str, Content] = {
    "a bit flipped": _flip, "bytes gone": _delete, "bytes more": _insert, "bytes twice": _repeat,
    "bytes exchanged": _exchange, "cut short": _truncate, "a block of zeros": _blank_block, "emptied": _empty,
}  # fmt: skip
"""Damage to any file."""


def _of_lines(change: Callable[[Random, list[bytes]], None]) -> Content:
    def changed(rng: Random, content: bytes) -> bytes:
        lines = content.split(b"\n")
        change(rng, lines)
        return b"\n".join(lines)

    return changed


def _line_gone(rng: Random, lines: list[bytes]) -> None:
    del lines[rng.integers(len(lines))]


def _line_twice(rng: Random, lines: list[bytes]) -> None:
    at = int(rng.integers(len(lines)))
    lines.insert(int(rng.integers(len(lines))), lines[at])


def _lines_exchanged(rng: Random, lines: list[bytes]) -> None:
    one, other = rng.integers(len(lines), size=2)
    lines[one], lines[other] = lines[other], lines[one]


def _line_blank(rng: Random, lines: list[bytes]) -> None:
    lines.insert(int(rng.integers(len(lines) + 1)), b" " * int(rng.integers(3)))


def _cells_exchanged(rng: Random, lines: list[bytes]) -> None:
    at = int(rng.integers(len(lines)))
    cells = lines[at].split(b",")
    lines[at] = b",".join(rng.permutation(np.array(cells, object)))


def _columns_exchanged(rng: Random, lines: list[bytes]) -> None:
    one, other = rng.integers(lines[0].count(b",") + 1, size=2)
    for at, line in enumerate(lines):
        cells = line.split(b",")
        if max(one, other) < len(cells):
            cells[one], cells[other] = cells[other], cells[one]
        lines[at] = b",".join(cells)


def _column_gone(rng: Random, lines: list[bytes]) -> None:
    column = int(rng.integers(lines[0].count(b",") + 1))
    for at, line in enumerate(lines):
        cells = line.split(b",")
        lines[at] = b",".join(cells[:column] + cells[column + 1 :])


def _number(*choices: bytes) -> Content:
    def changed(rng: Random, content: bytes) -> bytes:
        at = next((i for i in range(_at(rng, content), len(content)) if content[i : i + 1].isdigit()), 0)
        return content[:at] + choices[rng.integers(len(choices))] + content[at + 1 :]

    return changed


TEXT: dict[str, Content] = {
    "a line gone": _of_lines(_line_gone),
    "a line twice": _of_lines(_line_twice),
    "lines exchanged": _of_lines(_lines_exchanged),
    "a line blank": _of_lines(_line_blank),
    "cells exchanged": _of_lines(_cells_exchanged),
    "columns exchanged": _of_lines(_columns_exchanged),
    "a column gone": _of_lines(_column_gone),
    "another digit": _number(*(str(digit).encode() for digit in range(10))),
    "no number": _number(b"-1", b"256", b"1e3", b"0x1", b"nan", b"7.5", b"\xd9\xa3", b"9" * 30, b"9" * 5000),
    "an odd character": _number(b"\0", b'"', b",", b"'", b"\t", b"\xff", b"\xe2\x80\xa8", b"\xed\xa0\x80"),
    "Windows line ends": lambda rng, content: content.replace(b"\n", b"\r\n"),
    "old Mac line ends": lambda rng, content: content.replace(b"\n", b"\r"),
    "a byte order mark": lambda rng, content: b"\xef\xbb\xbf" + content,
    "UTF-16": lambda rng, content: content.decode(errors="replace").encode("utf-16"),
    "Latin-1": lambda rng, content: content.replace(b"a", "\xe4".encode("latin-1"), int(rng.integers(1, 9))),
    "capitals": lambda rng, content: content.swapcase(),
    "a tail": lambda rng, content: content + rng.bytes(50),
    "something else": lambda rng, content: rng.bytes(len(content)),
} | ANY  # fmt: skip
"""Damage to a text file."""


def _picture(rng: Random, size: tuple[int, int], mode: str, kind: str, **settings: object) -> bytes:
    pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(file := io.BytesIO(), kind, **settings)
    return file.getvalue()


def _change_png_header(rng: Random, content: bytes) -> bytes:
    """Change width, height, depth or color type in a PNG's header, with a valid checksum or not."""
    from zlib import crc32

    header = bytearray(content[12:29])
    at = int(rng.integers(4, 17))
    header[at] = int(rng.integers(256))
    checksum = crc32(header).to_bytes(4, "big") if rng.integers(4) else content[29:33]
    return content[:12] + bytes(header) + checksum + content[33:]


PICTURE: dict[str, Content] = {
    "a JPEG instead": lambda rng, content: _picture(rng, (48, 48), "L", "JPEG"),
    "a GIF instead": lambda rng, content: _picture(rng, (48, 48), "P", "GIF"),
    "a WEBP of another size instead": lambda rng, content: _picture(rng, (31, 77), "RGB", "WEBP"),
    "a PNG of 16 bits instead": lambda rng, content: _picture(rng, (9, 9), "I;16", "PNG"),
    "a picture of one pixel instead": lambda rng, content: _picture(rng, (1, 1), "1", "PNG"),
    "a TIFF instead": lambda rng, content: _picture(rng, (48, 48), "L", "TIFF"),
    "a JPEG with a bit flipped": lambda rng, content: _flip(rng, _picture(rng, (48, 48), "RGB", "JPEG")),
    "a BMP cut short": lambda rng, content: _truncate(rng, _picture(rng, (48, 48), "RGB", "BMP")),
    "a false header": _change_png_header,
    "bits flipped": lambda rng, content: _flip(rng, _flip(rng, _flip(rng, content))),
    "text instead": lambda rng, content: b"no picture",
} | ANY  # fmt: skip
"""Damage to an image file."""


def _some(rng: Random, files: Sequence[Path]) -> Path:
    return files[rng.integers(len(files))]


def _gone(rng: Random, files: list[Path]) -> None:
    _some(rng, files).unlink()


def _renamed(rng: Random, files: list[Path]) -> None:
    file = _some(rng, files)
    names = [f"a{file.name}", file.stem, f"{file.stem}.gif", f"{file.stem}.PNG", "\udcff.png", "x" * 200 + ".png"]
    file.rename(file.with_name(names[rng.integers(len(names))]))


def _moved(rng: Random, files: list[Path]) -> None:
    file = _some(rng, files)
    file.rename(_some(rng, files).with_name(f"moved_{file.name}"))


def _swapped(rng: Random, files: list[Path]) -> None:
    one, other = _some(rng, files), _some(rng, files)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def _copied(rng: Random, files: list[Path]) -> None:
    file = _some(rng, files)
    shutil.copy(file, _some(rng, files).with_name(f"copy_of_{file.name}"))


def _replaced(make: Callable[[Path], object]) -> Place:
    def changed(rng: Random, files: list[Path]) -> None:
        file = _some(rng, files)
        file.unlink()
        make(file)

    return changed


def _folder_gone(rng: Random, files: list[Path]) -> None:
    shutil.rmtree(_some(rng, files).parent)


def _folder_renamed(rng: Random, files: list[Path]) -> None:
    folder = _some(rng, files).parent
    folder.rename(folder.with_name(f"{folder.name}_old"))


def _folder_replaced(rng: Random, files: list[Path]) -> None:
    folder = _some(rng, files).parent
    shutil.rmtree(folder)
    folder.write_text("a file")


def _locked(rng: Random, files: list[Path]) -> None:
    _some(rng, files).chmod(0)


PLACES: dict[str, Place] = {
    "a file gone": _gone,
    "a file renamed": _renamed,
    "a file moved": _moved,
    "two files swapped": _swapped,
    "a file copied": _copied,
    "a folder for a file": _replaced(Path.mkdir),
    "a link to nowhere": _replaced(lambda file: file.symlink_to("nowhere")),
    "a link to itself": _replaced(lambda file: file.symlink_to(file.name)),
    "a link to a folder": _replaced(lambda file: file.symlink_to(".")),
    "a pipe": _replaced(os.mkfifo),
    "a folder gone": _folder_gone,
    "a folder renamed": _folder_renamed,
    "a file for a folder": _folder_replaced,
    "a file that may not be read": _locked,
}  # fmt: skip
"""Changes to the files of a folder."""


def damage_content(kinds: dict[str, Content], number: int, rng: Random, files: list[Path]) -> str:
    """Damage one of the files and return the kind of damage."""
    kind, file = list(kinds)[number % len(kinds)], _some(rng, files)
    file.write_bytes(kinds[kind](rng, file.read_bytes()))
    return f"{kind} in {file.name}"


def damage_folder(number: int, rng: Random, files: list[Path]) -> str:
    """Remove, rename or replace one of the files and return the kind of change."""
    kind = list(PLACES)[number % len(PLACES)]
    PLACES[kind](rng, files)
    return kind
