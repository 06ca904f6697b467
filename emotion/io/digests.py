"""Digests by which a file of ours is known to be as it was written: in the file itself, and in its run's record.

A checkpoint (.ckpt) and arrays (.npz) are zip archives and end in `sha256:<64 digits>`, a comment to whoever else reads
them, of all that stands before it; an ONNX file, a protocol buffer, ends in one as a last property. A text ends (.json:
as its last entry) or begins (.yaml: as a comment) with one. The record of a finished run lists the digests of its other
files besides, so that one of another run is known as well.
"""

import hashlib
import json
import os
from mmap import mmap
from pathlib import Path
from typing import Any

from emotion.errors import UserError
from emotion.io.atomic import write_text
from emotion.io.bounded import json_of, text_of

MARK = b"sha256:"
LENGTH = len(MARK) + 64
KEY, COMMENT = "sha256", "# sha256:"
PROPERTY = b"r\x4a\n\x06sha256\x12\x40"  # of ModelProto: its field 14, 74 bytes: a key, and 64 bytes of value
RECORD = "record.json"
RESTORE = "Restore it from a copy."
CHUNK = 1 << 20


def seal(archive: Path) -> None:
    """Give a zip archive that has no comment its digest as one."""
    with archive.open("rb+") as file:
        file.seek(-2, os.SEEK_END)  # the comment's length ends an archive
        file.write(LENGTH.to_bytes(2, "little"))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(MARK + digest.encode())


def is_sealed(archive: Path) -> bool:
    """Whether an archive ends in a digest, right or wrong."""
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - LENGTH))
        return file.read(len(MARK)) == MARK


def check(archive: Path) -> None:
    """Refuse an archive of ours that is not as it was written, or not what its run's record lists.

    Raises:
        UserError: naming the file.
    """
    if check_listed(archive):
        return
    digest, left = hashlib.sha256(), archive.stat().st_size - LENGTH
    with archive.open("rb") as file:
        while left > 0 and (part := file.read(min(left, CHUNK))):
            digest.update(part)
            left -= len(part)
        end = file.read()
    if end != MARK + digest.hexdigest().encode():
        raise UserError(f"{archive} is damaged: its content is not of the digest that it was written with. {RESTORE}")


def check_listed(path: Path) -> bool:
    """Whether the record of a finished run lists this file; if so, it is what is listed.

    Raises:
        UserError: it is not, naming both.
    """
    for folder in list(path.parents)[:2]:
        if (record := folder / RECORD).is_file():
            listed = _files_of(record).get(path.relative_to(folder).as_posix())
            if listed and listed != digest_of(path):
                raise UserError(f"{path} is not what {record} lists: damaged, or of another run. {RESTORE}")
            return bool(listed)
    return False


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files_of(record: Path) -> dict[str, Any]:
    try:
        files = json_of(record)["files"]  # type: ignore[index]
    except (OSError, ValueError, KeyError, TypeError):  # whoever reads the record says what is wrong with it
        return {}
    return files if isinstance(files, dict) else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace `path` by an object, whose last entry is the digest of the others."""
    write_text(path, json.dumps(sealed(content), indent=2) + "\n")


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """An object, and as its last entry the digest of the others."""
    kept = {key: value for key, value in content.items() if key != KEY}
    return kept | {KEY: _digest(kept)}


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote.

    Raises:
        UserError: it is no such object, or not as it was written.
    """
    try:
        content = json_of(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}. {RESTORE}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: found {type(content).__name__}, expected an object. {RESTORE}")
    return opened(path, content)


def opened(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """What was sealed.

    Raises:
        UserError: it is not as it was.
    """
    kept = {key: value for key, value in content.items() if key != KEY}
    if content.get(KEY) != _digest(kept):
        raise UserError(f"{path} is not as it was written: its digest is of something else. {RESTORE}")
    return kept


def sealed_onnx(model: bytes) -> bytes:
    """A model's bytes, and as their last property the digest of the others."""
    return model + PROPERTY + hashlib.sha256(model).hexdigest().encode()


def check_onnx(model: bytes | mmap, name: str) -> None:
    """Refuse a model that ends in a digest of something else.

    Raises:
        UserError: naming the file.
    """
    end = len(model) - len(PROPERTY) - 64
    if model[max(0, end) : end + len(PROPERTY)] != PROPERTY:  # another's, or cut short: it lacks what we ask for
        return
    with memoryview(model) as view, view[:end] as before:
        found = hashlib.sha256(before).hexdigest()
    if model[end + len(PROPERTY) :] != found.encode():
        raise UserError(f"{name} is damaged: its content is not of the digest that it was written with. {RESTORE}")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, indent=2).encode()).hexdigest()


def write_yaml(path: Path, text: str) -> None:
    """Replace `path` by a text, whose first line is a comment with the digest of the others."""
    write_text(path, f"{COMMENT}{hashlib.sha256(text.encode()).hexdigest()}\n{text}")


def check_yaml(path: Path) -> None:
    """Raises UserError where a file is not what `write_yaml` wrote."""
    try:
        first, _, text = text_of(path).partition("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}. {RESTORE}") from error
    if first != f"{COMMENT}{hashlib.sha256(text.encode()).hexdigest()}":
        raise UserError(f"{path} is not as it was written: its digest is of something else. {RESTORE}")
