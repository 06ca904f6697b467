"""Cache of data sources as memory-mapped arrays, so that only the first start reads and decodes them.

    <cache>/<key>/                  the arrays of one source and meta.json
    <cache>/stamps/<location>.json  the last source prepared from a location: sizes and times of its files, and its key

The key is a digest of the source's bytes, its reader, the reader's settings and the classes that it finds. A folder
gets its name by one rename after all its files were written and synced. A killed preparation leaves a folder that ends
in `.partial`, which the next preparation removes; concurrent preparations wait for each other.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from emotion.config.instantiate import instantiate
from emotion.config.migrate import first_target
from emotion.data.faces import ORIGIN_BYTES, Component, DataSource, Faces, read_errors
from emotion.data.names import describe_without_face, part_word
from emotion.data.packed import open_unpacked
from emotion.data.readers.fer2013 import PUBLISHED_MD5
from emotion.data.readers.ferplus import VOTES_MD5
from emotion.errors import UserError
from emotion.io.atomic import remove_partial, sync_folder, write_json
from emotion.io.bounded import read_json_object
from emotion.io.digests import file_digest
from emotion.runtime.announce import announce

Config = Mapping[str, Any]
Progress = Callable[[int, int | None], None]
"""Called with the number of rows read so far and the number expected, None if unknown."""

FORMAT = 4  # of the folder's contents; a new number makes every source be prepared again
IMAGES, LABELS, USAGE, ORIGIN, VOTES = "images.u8", "labels.u8", "usage.u8", "origin.bytes", "votes.u8"
META = "meta.json"
LOCATIONS = ("path", "train", "val", "test", "root", "label_map", "votes")  # reader settings that are file locations


def prepare(source: Config, cache_dir: str | Path, progress: Progress = lambda done, expected: None) -> Faces:
    """Return the faces of a source, reading it into the cache if it is not there.

    The source is a reader function as _target_, and its arguments. Prints a line if it differs from the one last
    prepared from the same location, or if a damaged cache folder is rebuilt.

    Raises:
        UserError: From the reader; a file cannot be read or changes meanwhile; or the cache cannot be written.
    """
    with read_errors(str(next(locations(source), source["_target_"]))):
        data: DataSource = instantiate(source)  # reports missing files before anything is created
    own_locations = " ".join(str(path.absolute()) for path in locations(source))
    cache, place = Path(cache_dir), _md5(f"{FORMAT} {_settings_text(source)}{own_locations}")
    stamp_file, stamp = cache / "stamps" / f"{place}.json", _stamp(data)
    last = _read_stamp(stamp_file)
    if (last.get("place"), last.get("stamp")) == (place, stamp) and (faces := _open(cache / last["key"])):
        return _described(faces, data)
    announce(f"reading {data.name}")
    try:
        stamp_file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / ".lock"):
            remove_partial(stamp_file.parent)
            digest, components = _identify(source, data)
            key = _md5(f"{FORMAT} {digest} {_settings_text(source)} {' '.join(data.classes)}{_part(data)}")
            faces = _open(cache / key)
            if faces is None:
                _remove_incomplete(cache, key)
                meta = {"digest": digest, "source": data.name, "classes": list(data.classes), "parts": components}
                _write(data, cache / key, meta, stamp, progress)
                faces = _open(cache / key)
            assert faces is not None, "a folder that was just written can be opened"
            last = _read_stamp(stamp_file)  # another process may have written it meanwhile
            if last.get("key", key) != key:
                print(f"{data.name} has changed since it was last prepared.", flush=True)
            write_json(stamp_file, {"place": place, "stamp": stamp, "key": key})
    except OSError as error:
        raise UserError(
            f"The cache {cache} cannot be written: {error.strerror or error}. "
            f"Free some space, or choose another folder: cache_dir=FOLDER."
        ) from error
    return _described(faces, data)


def locations(source: Config) -> Iterator[Path]:
    """Yield the files and folders of a source, those of the main source of a composed one first."""
    for key, value in source.items():
        if isinstance(value, Mapping):
            yield from locations(value)
        elif key in LOCATIONS and value is not None:
            yield Path(str(value))


def _described(faces: Faces, data: DataSource) -> Faces:
    """Return the faces with the present names and notes of their source, which may have been prepared elsewhere."""
    parts = zip(data.components, faces.components, strict=True)
    components = tuple(Component(own.name, component.digest) for own, component in parts)
    return replace(faces, source=data.name, components=components, notes=(*_notes(data), *faces.notes))


def _notes(data: DataSource) -> Iterator[str]:
    yield from data.notes
    for component in data.components:
        yield from _notes(component)


def _write(data: DataSource, folder: Path, meta: dict[str, Any], stamp: str, progress: Progress) -> None:
    """Read the source into `folder`, which appears only when it is complete."""
    partial = folder.with_suffix(".partial")
    try:
        partial.mkdir()
        arrays = _write_arrays(data, partial, progress)
        digests = {path.name: file_digest(path) for path in sorted(partial.iterdir())}
        write_json(partial / META, meta | {"key": folder.name} | arrays | {"arrays": digests})
        if _stamp(data) != stamp:
            raise UserError(f"{data.name} changed while it was read; try again when it is complete.")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(folder)
    sync_folder(folder.parent)


def _write_arrays(data: DataSource, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the files of all rows; return what meta.json states about them."""
    rows, shape, num_votes, without_face = 0, (), 0, list[str]()
    with ExitStack() as stack:
        names = (IMAGES, LABELS, USAGE, ORIGIN, VOTES)
        files = [stack.enter_context((folder / name).open("wb")) for name in names]
        images, labels, usage, origin, votes = files
        for chunk in data.read():
            images.write(np.ascontiguousarray(chunk.images).data)
            labels.write(np.ascontiguousarray(chunk.labels).data)
            usage.write(np.ascontiguousarray(chunk.usage).data)
            # a file name need not be valid text
            encoded = [text.encode(errors="backslashreplace")[-ORIGIN_BYTES:] for text in chunk.origin]
            origin.write(np.array(encoded, f"S{ORIGIN_BYTES}").data)
            if chunk.votes is not None:
                votes.write(np.ascontiguousarray(chunk.votes).data)
                num_votes = chunk.votes.shape[1]
            without_face += [encoded[row].decode(errors="ignore") for row in chunk.without_face]
            rows, shape = rows + len(chunk.labels), chunk.images.shape[1:]
            progress(rows, data.num_faces)
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    if not num_votes:
        (folder / VOTES).unlink()
    return {"rows": rows, "shape": shape, "voted": num_votes, "notes": describe_without_face(without_face)}


def _open(folder: Path) -> Faces | None:
    """Map the faces of a cache folder; None if it is missing, or if a file differs from the one written."""
    try:
        meta = read_json_object(folder / META)
        if meta["key"] != folder.name:
            return None
        if any(file_digest(folder / name) != digest for name, digest in meta["arrays"].items()):
            return None

        def mapped(name: str, shape: Sequence[int] = (), dtype: str = "u1") -> NDArray[Any]:
            # copy-on-write: the files cannot change, and torch.from_numpy accepts the array without a warning
            return np.memmap(folder / name, np.dtype(dtype), "c", shape=(meta["rows"], *shape))

        return Faces(
            images=mapped(IMAGES, meta["shape"]),
            labels=mapped(LABELS),
            usage=mapped(USAGE),
            origin=mapped(ORIGIN, dtype=f"S{ORIGIN_BYTES}"),
            classes=tuple(meta["classes"]),
            digest=meta["digest"],
            source=meta["source"],
            components=tuple(Component(*component) for component in meta["parts"]),
            votes=mapped(VOTES, [meta["voted"]]) if meta["voted"] else None,
            notes=tuple(meta.get("notes", ())),
        )
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return None


def _remove_incomplete(cache: Path, key: str) -> None:
    """Remove a damaged folder and what killed preparations left."""
    if (cache / key).exists():
        print(f"{cache / key} is damaged; reading the source again.", flush=True)
    for path in (cache / key, *cache.glob("*.partial")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _read_stamp(path: Path) -> dict[str, Any]:
    """Return the place, stamp and key of the last source prepared from a location; empty if missing or damaged."""
    try:
        last = read_json_object(path)
    except UserError:
        return {}
    return last if isinstance(last.get("key"), str) else {}


def _stamp(data: DataSource) -> str:
    """Return a digest of the classes, and of the files' names, sizes and times."""
    digest = hashlib.md5("\n".join(data.classes).encode(errors="backslashreplace"))
    with read_errors(data.name):
        for file in _all_files(data):
            stat = file.stat()
            if not S_ISREG(stat.st_mode):
                raise UserError(f"{file} is not a regular file; expected a file of {data.name}. Remove or restore it.")
            digest.update(f"\n{file} {stat.st_size} {stat.st_mtime_ns}".encode(errors="backslashreplace"))
    return digest.hexdigest()


def _all_files(data: DataSource) -> Iterator[Path]:
    yield from data.files
    for component in data.components:
        yield from _all_files(component)


def _identify(source: Config, data: DataSource) -> tuple[str, list[Component]]:
    """Return the digest of a source and its components.

    The digest covers the content of the files, and the settings where the files alone do not determine the faces: for a
    path list, the settings state which file is for training and which for testing.
    """
    if not data.components:
        digest = _content_digest(data)
        return (digest if digest and data.names_matter else _md5(_settings_text(source) + digest)), []
    configs = [value for value in source.values() if isinstance(value, Mapping) and "_target_" in value]
    components = [
        Component(component.name, _identify(config, component)[0])
        for config, component in zip(configs, data.components, strict=True)
    ]
    digests = "".join(component.digest for component in components)
    return _md5(_settings_text(source) + _content_digest(data) + digests), components


def published_digest(source: Config) -> str:
    """Return the digest of a source that reads the published fer2013.csv, with FER+'s votes if it names votes."""
    return _md5(_settings_text(source) + VOTES_MD5 + PUBLISHED_MD5) if source.get("votes") else PUBLISHED_MD5


def _content_digest(data: DataSource) -> str:
    """Return the MD5 of one file's bytes, or of several files' bytes and names; empty without files."""
    digest = hashlib.md5()
    with read_errors(data.name):
        files = iter(data.files)
        first = list(islice(files, 2))
        if len(first) == 1:
            with open_unpacked(first[0]) as file:
                return hashlib.file_digest(file, "md5").hexdigest()  # type: ignore[arg-type]
        for path in chain(first, files):
            content = path.read_bytes()
            name = path.relative_to(data.root).as_posix() if data.names_matter else str(len(content))
            digest.update(name.encode(errors="backslashreplace") + b"\0" + content)
    return digest.hexdigest() if first else ""


def _part(data: DataSource) -> str:
    """Return the parts that the names of single files state, which their digests do not cover; empty if none."""
    files = list(islice(data.files, 2))
    own = part_word(files[0]) if len(files) == 1 and data.names_matter else ""
    return " ".join(filter(None, [own, *map(_part, data.components)]))


def _settings_text(source: Config) -> str:
    """Return the reader and its settings as text, without file locations: only the content of the files counts."""
    return json.dumps(_without_locations(source), sort_keys=True)


def _without_locations(source: Config) -> dict[str, Any]:
    """Return the settings with locations replaced by whether they are given, and the reader's first name."""
    settings = {key: value for key, value in source.items() if key != "path"}
    for key, value in settings.items():
        if key == "_target_":
            settings[key] = first_target(value)  # renaming a reader must not change digests
        elif key in LOCATIONS:
            settings[key] = value is not None
        elif isinstance(value, Mapping):
            settings[key] = _without_locations(value)
    return settings


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(errors="backslashreplace")).hexdigest()
