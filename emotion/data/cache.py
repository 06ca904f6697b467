"""Sources read once into memory-mapped arrays, so that the second start is quick; what becomes of them is told.

    <cache>/<key>/                 one prepared source, see `prepared_folder`
    <cache>/stamps/<place>.json    what was prepared last from a place: sizes and times of its files, key and digest

The key is a digest of the source's bytes, its reader and the reader's settings. A folder appears under its key by one
rename, after everything in it was written and synced: a preparation that is killed leaves only a folder whose name
ends in `.partial`, which the next one removes; two preparations at once wait for each other. A source that is not
what was last prepared from its place is said not to be, and what differs.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from emotion.config.instantiate import build
from emotion.data.faces import ORIGIN_BYTES, Faces, Part, Reading, Rows
from emotion.errors import UserError
from emotion.io.atomic import remove_partial, sync_folder, write_text
from emotion.io.digests import digest_of, read_json, write_json

FILES = ("images.u8", "labels.u8", "usage.u8", "origin.bytes")
VOTES = "votes.u8"
META = "meta.json"


def write(
    folder: Path, key: str, some: Iterable[Rows], described: dict[str, Any], progress: Callable[[int], None]
) -> None:
    """Make the folder of all rows, which is to be called `key`; `progress` is told how many are written."""
    folder.mkdir()
    done, shape, voted = 0, (), 0
    with ExitStack() as stack:
        files = [stack.enter_context((folder / name).open("wb")) for name in (*FILES, VOTES)]
        images, labels, usage, origin, votes = files
        for rows in some:
            images.write(np.ascontiguousarray(rows.images).data)
            labels.write(np.ascontiguousarray(rows.labels).data)
            usage.write(np.ascontiguousarray(rows.usage).data)
            origin.write(np.array([_kept(text) for text in rows.origin], f"S{ORIGIN_BYTES}").data)
            if rows.votes is not None:
                votes.write(np.ascontiguousarray(rows.votes).data)
                voted = rows.votes.shape[1]
            done, shape = done + len(rows.labels), rows.images.shape[1:]
            progress(done)
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    if not voted:
        (folder / VOTES).unlink()
    digests = {path.name: digest_of(path) for path in sorted(folder.iterdir())}
    meta = described | {"key": key, "rows": done, "shape": shape, "voted": voted, "arrays": digests}
    write_json(folder / META, meta)


def opened(folder: Path) -> Faces | None:
    """The faces of a prepared folder; None where there is none, or it is not as it was written."""
    try:
        meta = read_json(folder / META)
        if meta["key"] != folder.name:
            return None
        if any(digest_of(folder / name) != digest for name, digest in meta["arrays"].items()):
            return None
        return _mapped(folder, meta)
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return None


def _mapped(folder: Path, meta: dict[str, Any]) -> Faces:
    shapes = (meta["shape"], (), (), ())
    types = (np.dtype(np.uint8), np.dtype(np.uint8), np.dtype(np.uint8), np.dtype(f"S{ORIGIN_BYTES}"))
    images, labels, usage, origin = (
        # copy on write: the files cannot change, and torch.from_numpy takes the arrays without a warning
        np.memmap(folder / name, dtype, "c", shape=(meta["rows"], *shape))
        for name, dtype, shape in zip(FILES, types, shapes, strict=True)
    )
    votes = np.memmap(folder / VOTES, np.uint8, "c", shape=(meta["rows"], meta["voted"])) if meta["voted"] else None
    parts = tuple(Part(*part) for part in meta["parts"])
    return Faces(images, labels, usage, origin, tuple(meta["classes"]), meta["digest"], meta["source"], parts, votes)


def _kept(origin: str) -> bytes:
    return origin.encode(errors="backslashreplace")[-ORIGIN_BYTES:]  # a file's name may be no text


CHUNK = 4096  # rows at once
SHOWN = 3  # rows of which it is said what differs


def difference(before: Faces, now: Faces) -> str:
    """How the faces of a source differ from those that it had before; empty where they do not."""
    said = []
    for name, old, new in (
        ("classes", ", ".join(before.classes), ", ".join(now.classes)),
        ("faces", f"{len(before):,}", f"{len(now):,}"),
        ("pixels a side", str(before.images.shape[1:]), str(now.images.shape[1:])),
    ):
        if old != new:
            said.append(f"{new} {name}, formerly {old}")
    found: dict[int, list[str]] = {}
    for name, olds, news in _columns(before, now):
        for row in _differing(olds, news):
            found.setdefault(row, []).append(name)
    if found:
        first = ", ".join(f"row {row} ({', '.join(found[row])})" for row in sorted(found)[:SHOWN])
        more = ", ..." if len(found) > SHOWN else ""
        said.append(f"{len(found):,} of {min(len(before), len(now)):,} rows differ: {first}{more}")
    return "; ".join(said)


def _columns(before: Faces, now: Faces) -> Iterator[tuple[str, NDArray[np.generic], NDArray[np.generic]]]:
    if before.images.shape[1:] == now.images.shape[1:]:
        yield "pixels", before.images, now.images
    yield "label", before.labels, now.labels
    yield "usage", before.usage, now.usage
    yield "origin", before.origin, now.origin
    if before.votes is not None and now.votes is not None:
        yield "votes", before.votes, now.votes


def _differing(before: NDArray[np.generic], now: NDArray[np.generic]) -> Iterator[int]:
    """The rows that both have, and not alike."""
    for start in range(0, min(len(before), len(now)), CHUNK):
        olds, news = before[start : start + CHUNK], now[start : start + CHUNK]
        shared = min(len(olds), len(news))
        unlike = olds[:shared] != news[:shared]
        yield from (start + np.flatnonzero(unlike.reshape(shared, -1).any(1))).tolist()


FORMAT = 3  # of the folder's contents; another number makes every source be prepared anew
PLACES = ("path", "train", "val", "test", "root", "label_map", "votes")  # settings that only say where something lies

Config = Mapping[str, Any]
Progress = Callable[[int, int | None], None]


class Last(NamedTuple):
    """What was prepared last from a place."""

    place: str  # digest of where the source's files lie
    stamp: str  # of the files
    key: str
    digest: str


def prepare(reader: Config, cache_dir: str | Path, progress: Progress = lambda done, expected: None) -> Faces:
    """The source that `reader` ({_target_: a read function, path: ...}) describes, prepared if it is not yet.

    `progress` is told the rows read so far and the rows expected (None where unknown). Prints a line where faces are
    not those that were last prepared from that place, or a prepared folder is not whole and is made anew.

    Raises:
        UserError: from the reader; a file cannot be read, or changes meanwhile; or the cache folder cannot be written.
    """
    reading: Reading = build(reader)  # says what is missing before anything is made
    cache, place = Path(cache_dir), _md5(_settings(reader) + _places(reader))
    stamps, stamp = cache / "stamps", _stamp(reading)
    last = _last(stamps, place)
    if last and last.stamp == stamp and (faces := opened(cache / last.key)):
        return faces
    try:
        stamps.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / ".lock"):
            remove_partial(stamps)
            digest, parts = _identity(reader, reading)
            key = _md5(f"{FORMAT} {digest} {_settings(reader)}")
            faces = opened(cache / key)
            if faces is None:
                _remove(cache, key)
                described = {"digest": digest, "source": reading.name, "classes": list(reading.classes), "parts": parts}
                _write(reading, cache / key, described, stamp, progress)
                faces = opened(cache / key)
            assert faces is not None, "what was just written can be opened"
            _tell(_last(stamps, place), faces, cache)  # which another process may have written meanwhile
            write_text(stamps / f"{place}.json", json.dumps(Last(place, stamp, key, digest)._asdict()))
    except OSError as error:
        raise UserError(
            f"Prepared faces cannot be written to {cache}: {error.strerror or error}. "
            f"Make room, or name another folder: cache_dir=FOLDER."
        ) from error
    return faces


def _remove(cache: Path, key: str) -> None:
    """What is not whole: the folder of that name, and what preparations that were killed have left."""
    if (cache / key).exists():
        print(f"{cache / key} is not as it was written; the source is read again.", flush=True)
    for damaged in (cache / key, *cache.glob("*.partial")):
        if damaged.is_dir() and not damaged.is_symlink():
            shutil.rmtree(damaged)
        else:
            damaged.unlink(missing_ok=True)


def _write(reading: Reading, folder: Path, described: dict[str, Any], stamp: str, progress: Progress) -> None:
    partial = folder.with_suffix(".partial")
    try:
        rows = _readable(reading)
        write(partial, folder.name, rows, described, lambda done: progress(done, reading.expected))
        if _stamp(reading) != stamp:
            raise UserError(f"{reading.name} was changed while it was read; try again when it is whole.")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(folder)
    sync_folder(folder.parent)


def _tell(last: Last | None, now: Faces, cache: Path) -> None:
    """Say what differs from what was prepared from the same place before, if anything does."""
    if last is None or last.digest == now.digest:
        return
    before = opened(cache / last.key)
    found = difference(before, now) if before else "what was there is not kept any more, to compare them"
    if found:
        print(f"{now.source} is not what was prepared from there before: {found}. Is it meant to be?", flush=True)


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
            if not S_ISREG(stat.st_mode):
                raise UserError(f"{file} is no file; expected one of {reading.name}. Remove it, or bring it back.")
            digest.update(f"\n{file} {stat.st_size} {stat.st_mtime_ns}".encode(errors="backslashreplace"))
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
            digest.update(name.encode(errors="backslashreplace") + b"\0" + content)
    return digest.hexdigest() if few else ""


def _last(stamps: Path, place: str) -> Last | None:
    try:
        last = Last(**json.loads((stamps / f"{place}.json").read_text(encoding="utf-8")))
        return last if last.place == place and all(isinstance(value, str) for value in last) else None
    except (OSError, ValueError, TypeError, RecursionError):  # none, of another version, or damaged
        return None


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(errors="backslashreplace")).hexdigest()
