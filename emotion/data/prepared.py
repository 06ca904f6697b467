"""Sources read once into memory-mapped arrays, so that the second start is instant.

    <cache>/<key>/images.u8 labels.u8 usage.u8 origin.bytes meta.json     one prepared source; with votes.u8, if any
    <cache>/stamps/<name>.json                                            sizes and times of a source's files -> its key

The key is a digest of the source's bytes, its reader and the reader's settings. A folder appears under its key by one
rename, after everything in it was written and synced: a preparation that is killed leaves only a folder whose name
ends in `.partial`, which the next one removes; two preparations at once wait for each other.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from emotion.building import build
from emotion.data.faces import ORIGIN_BYTES, Faces, Part, Reading, Rows
from emotion.errors import UserError
from emotion.files import sync_folder, write_text

FORMAT = 2  # of the folder's contents; another number makes every source be prepared anew
FILES = ("images.u8", "labels.u8", "usage.u8", "origin.bytes")
VOTES = "votes.u8"
PLACES = ("path", "train", "val", "test", "root", "label_map", "votes")  # settings that only say where something lies

Config = Mapping[str, Any]
Progress = Callable[[int, int | None], None]


def prepare(reader: Config, cache_dir: str | Path, progress: Progress = lambda done, expected: None) -> Faces:
    """The source that `reader` ({_target_: a read function, path: ...}) describes, prepared if it is not yet.

    `progress` is told the rows read so far and the rows expected (None where unknown).

    Raises:
        UserError: from the reader; or the cache folder cannot be written.
    """
    reading: Reading = build(reader)  # says what is missing before anything is made
    cache = Path(cache_dir)
    stamp_file = cache / "stamps" / f"{_md5(_settings(reader) + _places(reader))}.json"
    stamp = _stamp(reading)
    if (key := _remembered(stamp_file, stamp)) and (faces := _open(cache / key)):
        return faces
    try:
        stamp_file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / ".lock"):
            digest, parts = _identity(reader, reading)
            key = _md5(f"{FORMAT} {digest} {_settings(reader)}")
            faces = _open(cache / key)
            if faces is None:
                shutil.rmtree(cache / key, ignore_errors=True)
                for leftover in cache.glob("*.partial"):
                    shutil.rmtree(leftover)
                partial = cache / f"{key}.partial"
                try:
                    _write(reading, partial, {"digest": digest, "source": reading.name, "parts": parts}, progress)
                except BaseException:
                    shutil.rmtree(partial, ignore_errors=True)
                    raise
                partial.rename(cache / key)
                sync_folder(cache)
                faces = _open(cache / key)
            write_text(stamp_file, json.dumps({"stamp": stamp, "key": key}))
    except OSError as error:
        raise UserError(
            f"Prepared faces cannot be written to {cache}: {error.strerror or error}. "
            f"Make room, or name another folder: cache_dir=FOLDER."
        ) from error
    assert faces is not None, "what was just written can be opened"
    return faces


def _write(reading: Reading, folder: Path, meta: dict[str, Any], progress: Progress) -> None:
    folder.mkdir()
    done, shape, voted = 0, (), 0
    with ExitStack() as stack:
        files = [stack.enter_context((folder / name).open("wb")) for name in (*FILES, VOTES)]
        images, labels, usage, origin, votes = files
        for rows in _readable(reading):
            images.write(np.ascontiguousarray(rows.images).data)
            labels.write(np.ascontiguousarray(rows.labels).data)
            usage.write(np.ascontiguousarray(rows.usage).data)
            origin.write(np.array([text.encode()[-ORIGIN_BYTES:] for text in rows.origin], f"S{ORIGIN_BYTES}").data)
            if rows.votes is not None:
                votes.write(np.ascontiguousarray(rows.votes).data)
                voted = rows.votes.shape[1]
            done, shape = done + len(rows.labels), rows.images.shape[1:]
            progress(done, reading.expected)
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    if not voted:
        (folder / VOTES).unlink()
    meta |= {"rows": done, "shape": shape, "classes": list(reading.classes), "voted": voted}
    write_text(folder / "meta.json", json.dumps(meta))


def _readable(reading: Reading) -> Iterator[Rows]:
    with _reading_of(reading):
        yield from reading.rows


@contextmanager
def _reading_of(reading: Reading) -> Iterator[None]:
    """What the system refuses while a source is read is the source's fault, not the cache's."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or reading.name} cannot be read: {error.strerror or error}.") from error


def _open(folder: Path) -> Faces | None:
    """The faces of a prepared folder; None where there is none, or it is not whole."""
    try:
        return _mapped(folder, json.loads((folder / "meta.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mapped(folder: Path, meta: dict[str, Any]) -> Faces:
    shapes = (meta["shape"], (), (), ())
    types = (np.dtype(np.uint8), np.dtype(np.uint8), np.dtype(np.uint8), np.dtype(f"S{ORIGIN_BYTES}"))
    images, labels, usage, origin = (
        # copy on write: the files cannot change, and torch.from_numpy takes the arrays without a warning
        np.memmap(folder / name, dtype, "c", shape=(meta["rows"], *shape))
        for name, dtype, shape in zip(FILES, types, shapes, strict=True)
    )
    voted = meta.get("voted", 0)  # which folders from before there were votes do not say
    votes = np.memmap(folder / VOTES, np.uint8, "c", shape=(meta["rows"], voted)) if voted else None
    parts = tuple(Part(*part) for part in meta["parts"])
    return Faces(images, labels, usage, origin, tuple(meta["classes"]), meta["digest"], meta["source"], parts, votes)


def _settings(reader: Config) -> str:
    """The reader and its settings; of a place only whether it is given: of the source, only the content counts."""
    return json.dumps(_placeless(reader), sort_keys=True)


def _placeless(reader: Config) -> dict[str, Any]:
    kept = {key: value for key, value in reader.items() if key != "path"}
    for key, value in kept.items():
        if key in PLACES:
            kept[key] = value is not None
        elif isinstance(value, Mapping):
            kept[key] = _placeless(value)
    return kept


def _places(reader: Config) -> str:
    """Where everything lies."""
    own = [str(Path(value).absolute()) for key, value in reader.items() if key in PLACES and value is not None]
    return " ".join([*own, *(_places(value) for value in reader.values() if isinstance(value, Mapping))])


def _stamp(reading: Reading) -> str:
    """Changes when the files do, or FORMAT, and is had without reading them."""
    digest = hashlib.md5(str(FORMAT).encode())
    with _reading_of(reading):
        for file in _files(reading):
            stat = file.stat()
            digest.update(f"\n{file} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def _files(reading: Reading) -> Iterator[Path]:
    """A source's own and its parts', at any depth."""
    yield from reading.files
    for part in reading.parts:
        yield from _files(part)


def _identity(reader: Config, reading: Reading) -> tuple[str, list[Part]]:
    """The digest of a source, and of its parts where it has some: theirs, the settings and its own files make it.

    So the settings do where files' names say nothing: they tell which list trains and which tests.
    """
    if not reading.parts:
        digest = _digest(reading)
        return (digest if digest and reading.named else _md5(_settings(reader) + digest)), []
    readers = [value for value in reader.values() if isinstance(value, Mapping) and "_target_" in value]
    parts = [Part(part.name, _identity(own, part)[0]) for own, part in zip(readers, reading.parts, strict=True)]
    return _md5(_settings(reader) + _digest(reading) + "".join(part.digest for part in parts)), parts


def _digest(reading: Reading) -> str:
    """MD5 of one file's bytes, or of several files' bytes and names (part/class/name); empty where there are none."""
    digest = hashlib.md5()
    with _reading_of(reading):
        files = iter(reading.files)
        few = list(islice(files, 2))
        if len(few) == 1:
            with few[0].open("rb") as whole:
                return hashlib.file_digest(whole, "md5").hexdigest()
        for file in chain(few, files):
            content = file.read_bytes()
            name = "/".join(file.parts[-3:]) if reading.named else str(len(content))
            digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest() if few else ""


def _remembered(stamp_file: Path, stamp: str) -> str | None:
    try:
        found = json.loads(stamp_file.read_text())
        return str(found["key"]) if found["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()
