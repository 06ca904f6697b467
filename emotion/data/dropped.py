"""The rows that a file says to leave out: rows.csv of an audit, or any CSV file with a column `row`."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion.building import build
from emotion.data.faces import USAGES
from emotion.data.faults import FAULTS
from emotion.data.splits import Split
from emotion.errors import UserError
from emotion.limits import lines

NOTHING_DROPPED: Mapping[str, Any] = {"drop": None, "drop_faults": None, "drop_from": ["train"]}
"""A split's settings of what it leaves out, as they stand in conf/split."""


def parted(
    split: Mapping[str, Any], usage: NDArray[np.uint8], labels: NDArray[np.int64]
) -> tuple[Split, dict[str, Any] | None]:
    """The rows of the config `split` less those that its file `drop` lists, and for the record what was left out.

    Of `drop_faults` or of all faults, in the parts `drop_from`; nothing, and None, where no file is named.

    Raises:
        UserError: from the split's function or from `listed`; or parts that there are not.
    """
    settings = {**NOTHING_DROPPED, **split}
    drop, *given = (settings.pop(key) for key in NOTHING_DROPPED)
    faults, parts = ([one] if isinstance(one, str) else one for one in given)
    whole: Split = build(settings, usage, labels)
    if not drop:
        if faults:
            raise UserError(f"split.drop_faults={faults} chooses from split.drop, which names no file: give both.")
        return whole, None
    if not parts or not set(parts) <= set(Split._fields):
        raise UserError(f"split.drop_from={parts}: expected one or more of {', '.join(Split._fields)}.")
    rows = listed(drop, faults, usage)
    kept = whole._replace(**{part: np.setdiff1d(getattr(whole, part), rows) for part in parts})
    counts = {part: len(before) - len(after) for part, before, after in zip(Split._fields, whole, kept, strict=True)}
    return kept, {"file": drop, "digest": digest(drop), "rows": counts}


def digest(file: str) -> str:
    """MD5 of its bytes."""
    return hashlib.md5(Path(file).read_bytes()).hexdigest()


def listed(file: str, faults: Sequence[str] | None, usage: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Numbers of the rows that `file` lists under one of `faults`, or at all, sorted, each once.

    Raises:
        UserError: the file is missing or no list of rows, knows no such fault, or is of other data: a row is not there,
            or has another usage than where the file has a column `usage`.
    """
    try:
        with open(file, newline="", encoding="utf-8") as opened:
            table = csv.DictReader(lines(opened))
            columns, entries = table.fieldnames or [], list(table)
        if any(None in (*entry, *entry.values()) for entry in entries):
            raise ValueError("a line has more or fewer cells than the header")
        rows = np.array([int(entry["row"]) for entry in entries], np.int64)
    except OSError as error:
        raise UserError(
            f"split.drop={file} cannot be read: {error.strerror or error}. Give rows.csv of python -m emotion.audit, "
            f"or bring back the file that the run began with."
        ) from error
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise UserError(
            f"split.drop={file} is no list of rows ({type(error).__name__}: {error}); expected a CSV file with a "
            f"column row of row numbers from 0, and where faults are chosen a column fault."
        ) from error
    _check_rows(file, rows, [entry.get("usage") for entry in entries], usage)
    if faults is None:
        return np.unique(rows)
    if "fault" not in columns:
        raise UserError(f"split.drop_faults={faults}: {file} has no column fault, but {', '.join(columns)}.")
    known = {str(entry["fault"]) for entry in entries}
    if unknown := sorted(set(faults) - known - set(FAULTS)):
        raise UserError(
            f"split.drop_faults: {file} knows no {', '.join(unknown)}; expected some of {', '.join(sorted(known))}."
        )
    return np.unique(rows[[entry["fault"] in faults for entry in entries]])


def _check_rows(file: str, rows: NDArray[np.int64], named: Sequence[str | None], usage: NDArray[np.uint8]) -> None:
    if len(absent := rows[(rows < 0) | (rows >= len(usage))]):
        raise UserError(
            f"split.drop={file} names row {absent[0]}, and the data has {len(usage):,} rows, from 0: it is of other "
            f"data. Audit this data and give its rows.csv."
        )
    for row, name in zip(rows.tolist(), named, strict=True):
        if name is not None and name != USAGES[usage[row]]:
            raise UserError(
                f"split.drop={file} has row {row} as {name}, and in the data it is {USAGES[usage[row]]}: it is of "
                f"other data. Audit this data and give its rows.csv."
            )
