"""Parquet files with encoded images and labels, as data sets of the Hugging Face Hub have them.

The part of a file is in its name or its folder's: train-00000-of-00001.parquet, test/0.parquet, split=test/0.parquet.
"""

import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emotion.data.discovery import describe
from emotion.data.faces import USAGES, DataSource, FaceChunk
from emotion.data.names import describe_renamed, is_litter, part_usages, part_word, resolve_classes
from emotion.data.readers.images import ImageFormat, read_images
from emotion.errors import REFUSALS, UserError, counted, first_line, missing_extra

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from emotion.data.crop import Detector

IMAGE_COLUMNS = ("image", "img", "img_bytes", "bytes")
LABEL_COLUMNS = ("label", "labels", "emotion")
BATCH = 256  # rows
EXPECTED = "expected a column image with encoded images, and a column label with numbers or class names"


def read(path: str, size: int = 48, channels: int = 1, detector: "Detector | None" = None) -> DataSource:
    """Read a file or a folder of files, by name, with images converted as in `ImageFormat`.

    Labels are names, or indices of the names in their own file's metadata; without such names, indices are FER2013's.

    Raises:
        UserError: pyarrow is not installed; there is no file, or one is damaged or has other columns; only some have
            class names; while reading: images or labels cannot be read.
    """
    form = ImageFormat(size, channels, detector).check()
    root = Path(path)
    files = [root] if root.is_file() else sorted(file for file in root.rglob("*") if _is_data(file, root))
    if not files:
        raise UserError(f"{root} contains no .parquet file. {describe(root)} Set its location: data.path=FILE.")
    tables = {file: _open(file) for file in files}
    names = {file: _label_names(file, table) for file, table in tables.items()}
    labels = {file: names[file] or sorted(_labels_in(file)) for file in files}
    is_number = re.compile(r"-?\d+").fullmatch
    unnamed = [file for file in files if not names[file] and any(map(is_number, labels[file]))]
    if unnamed and any(names.values()):
        named = next(file for file in files if names[file])
        raise UserError(
            f"{unnamed[0]} has numbers without class names, but {named} has the names {', '.join(names[named])}; "
            f"expected names in all files or none. Read them one by one: data.path=FILE."
        )
    classes, class_of = resolve_classes(chain.from_iterable(labels.values()))
    codes = {}
    for file in files:
        by_name = {name: classes.index(class_of[name]) for name in labels[file]}
        codes[file] = {**by_name, **{str(index): by_name[name] for index, name in enumerate(names[file])}}
    usages = part_usages({file: part_word(file) for file in files})
    notes = [
        f"{file.name}: {counted(tables[file].metadata.num_rows, 'row')} as {USAGES[usages[file]]}" for file in usages
    ]
    num_faces = sum(table.metadata.num_rows for table in tables.values())
    chunks = _chunks(usages, codes, form)
    return DataSource(str(root), classes, files, num_faces, chunks, root=root, notes=notes + describe_renamed(class_of))


def _is_data(file: Path, root: Path) -> bool:
    return file.suffix.lower() == ".parquet" and not any(map(is_litter, file.relative_to(root).parts))


def _open(file: Path) -> "pq.ParquetFile":
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("data=parquet", "pyarrow", "parquet") from error
    try:
        table = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)  # else whole row groups stay in memory
    except (OSError, pa.ArrowException, *REFUSALS) as error:
        raise UserError(f"{file} cannot be read ({first_line(error)}); expected a parquet file.") from error
    _columns(file, table)
    return table


def _columns(file: Path, table: "pq.ParquetFile") -> tuple[str, str]:
    """Return the names of the columns of images and labels."""
    columns = {name.lower(): name for name in table.schema_arrow.names}
    image = next((columns[name] for name in IMAGE_COLUMNS if name in columns), None)
    label = next((columns[name] for name in LABEL_COLUMNS if name in columns), None)
    if image is None or label is None:
        raise UserError(f"{file} has the columns {', '.join(columns.values())}; {EXPECTED}.")
    return image, label


def _label_names(file: Path, table: "pq.ParquetFile") -> list[str]:
    """Return the class names in the description that the library `datasets` writes; empty if there are none."""
    _, column = _columns(file, table)
    try:
        features = json.loads((table.schema_arrow.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (ValueError, LookupError, AttributeError, TypeError):
        return []


def _labels_in(file: Path) -> set[str]:
    table = _open(file)
    _, column = _columns(file, table)
    labels = (value for batch in _batches(file, table, [column]) for value in batch[column])
    return {_text(value) for value in labels if not _is_null(value)}


def _batches(file: Path, table: "pq.ParquetFile", columns: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
    try:
        for batch in table.iter_batches(BATCH, columns=list(columns), use_threads=False):
            yield batch.to_pydict()
    except (OSError, *REFUSALS) as error:  # pyarrow's own exceptions are subclasses of these
        raise UserError(f"{file} cannot be read ({first_line(error)}); is it complete?") from error


def _is_null(label: object) -> bool:
    return label is None or (isinstance(label, float) and math.isnan(label))


def _text(label: object) -> str:
    if _is_null(label):
        return "null"
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _chunks(
    usages: Mapping[Path, int], codes: Mapping[Path, Mapping[str, int]], form: ImageFormat
) -> Iterator[FaceChunk]:
    for file, usage in usages.items():
        table = _open(file)
        image_column, label_column = _columns(file, table)
        row = 0
        for batch in _batches(file, table, [image_column, label_column]):
            labels = [_text(label) for label in batch[label_column]]
            if unknown := [label for label in labels if label not in codes[file]]:
                at = row + labels.index(unknown[0])
                known = ", ".join(codes[file])
                raise UserError(f"{file}, row {at}: found label {unknown[0][:40]!r}, expected one of {known}.")
            files = [io.BytesIO(_content(file, row + i, image)) for i, image in enumerate(batch[image_column])]
            names = [f"{file.name} row {row + i}" for i in range(len(files))]
            for rows, images, without_face in read_images(files, form, names.__getitem__, str(file)):
                part = slice(rows.start, rows.stop)
                code = np.array([codes[file][label] for label in labels[part]], np.uint8)
                yield FaceChunk(images, code, np.full(len(rows), usage, np.uint8), names[part], None, without_face)
            row += len(files)


def _content(file: Path, row: int, image: object) -> bytes:
    content = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(content, bytes):
        raise UserError(f"{file}, row {row}: found no image but {type(content).__name__}; {EXPECTED}.")
    return content
