"""The rows that a file says to leave out: rows.csv of an audit, or any CSV file with a column `row`."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion.data.faces import USAGES
from emotion.data.faults import FAULTS
from emotion.errors import UserError


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
            table = csv.DictReader(opened)
            columns, lines = table.fieldnames or [], list(table)
        rows = np.array([int(line["row"]) for line in lines], np.int64)
    except OSError as error:
        raise UserError(
            f"split.drop={file} cannot be read: {error.strerror or error}. Give rows.csv of python -m emotion.audit, "
            f"or bring back the file that the run began with."
        ) from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"split.drop={file} is no list of rows ({type(error).__name__}: {error}); expected a CSV file with a "
            f"column row of row numbers from 0, and where faults are chosen a column fault."
        ) from error
    _check_rows(file, rows, [line.get("usage") for line in lines], usage)
    if faults is None:
        return np.unique(rows)
    if "fault" not in columns:
        raise UserError(f"split.drop_faults={faults}: {file} has no column fault, but {', '.join(columns)}.")
    known = {line["fault"] for line in lines}
    if unknown := sorted(set(faults) - known - set(FAULTS)):
        raise UserError(
            f"split.drop_faults: {file} knows no {', '.join(unknown)}; expected some of {', '.join(sorted(known))}."
        )
    return np.unique(rows[[line["fault"] in faults for line in lines]])


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
