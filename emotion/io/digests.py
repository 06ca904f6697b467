"""SHA-256 of files. The record of a finished run lists the digests of the run's other files."""

import hashlib
from pathlib import Path
from typing import Any

from emotion.errors import UserError
from emotion.io.bounded import read_json

RECORD = "record.json"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_recorded_digest(path: Path) -> None:
    """Check a file of a run against the digest in the run's record, if the record lists one.

    Raises:
        UserError: The digests differ.
    """
    for folder in list(path.parents)[:2]:
        if (record := folder / RECORD).is_file():
            expected = _recorded_digests(record).get(path.relative_to(folder).as_posix())
            if expected and expected != file_digest(path):
                raise UserError(
                    f"{path} does not match the SHA-256 in {record}: it is damaged or belongs to another run. "
                    f"Restore it from a copy."
                )
            return


def _recorded_digests(record: Path) -> dict[str, Any]:
    try:
        files = read_json(record)["files"]  # type: ignore[index]
    except (OSError, ValueError, KeyError, TypeError):  # reported by the code that reads the record
        return {}
    return files if isinstance(files, dict) else {}
