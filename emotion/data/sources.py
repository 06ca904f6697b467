"""Which source a run takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

Config = Mapping[str, Any]


class Source(NamedTuple):
    """The reader that was decided on, and whether it is a stand-in for data that was not found."""

    reader: dict[str, Any]
    stand_in: bool
    mix: float  # per cent of training that a second source may add, 0 where there is none


def locate(data: Config) -> Source:
    """`data` itself where it names a reader; of data=auto the first form of FER2013 that is there, else drawn faces.

    With `data.mix`, the two composed.
    """
    mix = data.get("mix")
    reader, stand_in = _main({key: value for key, value in data.items() if key != "mix"})
    if not mix:
        return Source(reader, stand_in, 0)
    composed = {"_target_": "emotion.data.readers.mixed.read", "source": reader, "extra": dict(mix["source"])}
    return Source(composed, stand_in, mix["percent"])


def _main(data: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    if "first_of" not in data:
        return data, False
    for name, reader in data["first_of"].items():
        if Path(data["known_by"][name]).exists():
            return dict(reader), False
    return dict(data["otherwise"]), True


def stored(reader: Config) -> tuple[int, int]:
    """Side and channels of the faces that a reader gives: its settings, else FER2013's 48 and grey."""
    while isinstance(reader.get("source"), Mapping):  # of a composed one, which has its main part's
        reader = reader["source"]
    return int(reader.get("size", 48)), int(reader.get("channels", 1))


def not_found(data: Config) -> str:
    """What to say of a stand-in."""
    places = ", ".join(str(place) for place in data["known_by"].values())
    return (
        f"FER2013 was not found ({places}): this run uses SYNTHETIC faces, drawn by the package. Its figures say "
        f"nothing about real ones. With FER2013 elsewhere: data_dir=FOLDER or EMOTION_DATA=FOLDER."
    )
