import os
from pathlib import Path

import pytest

from emotion.io.atomic import write_atomically, write_text


def test_text_is_written_and_nothing_else_left(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "é")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "é"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_writer_that_fails_leaves_the_former_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "former")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "a.txt", fail)
    assert (tmp_path / "a.txt").read_text() == "former"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_temporary_file_lies_beside_its_target(tmp_path: Path) -> None:
    places: list[Path] = []

    def note(temporary: Path) -> None:
        places.append(temporary)
        temporary.write_text("x")

    write_atomically(tmp_path / "plot.png", note)
    assert places[0].parent == tmp_path
    assert places[0].suffix == ".png"


def test_file_and_folder_are_synced_before_and_after_the_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append("sync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append("move"), replace(a, b)))
    write_text(tmp_path / "a.txt", "x")
    assert seen == ["sync", "move", "sync"]
