import os
from pathlib import Path

import pytest

from emotion.io.atomic import write_atomically, write_text


def test_text_is_written_without_leftovers(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "é")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "é"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_leaves_the_previous_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "previous")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "a.txt", fail)
    assert (tmp_path / "a.txt").read_text() == "previous"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_replaced_file_can_be_kept(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "first")
    write_atomically(tmp_path / "a.txt", lambda path: path.write_text("second"), previous=tmp_path / "b.txt")
    assert ((tmp_path / "a.txt").read_text(), (tmp_path / "b.txt").read_text()) == ("second", "first")


def test_the_temporary_file_is_in_the_same_folder_with_the_same_suffix(tmp_path: Path) -> None:
    paths: list[Path] = []

    def write(temporary: Path) -> None:
        paths.append(temporary)
        temporary.write_text("x")

    write_atomically(tmp_path / "plot.png", write)
    assert (paths[0].parent, paths[0].suffix) == (tmp_path, ".png")


@pytest.mark.parametrize("stem", ["a" * 251, "表" * 83])
def test_a_file_may_have_the_longest_name(stem: str, tmp_path: Path) -> None:
    write_text(tmp_path / f"{stem}.png", "x")
    assert [path.stem for path in tmp_path.iterdir()] == [stem]


def test_file_and_folder_are_synced_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("sync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    write_text(tmp_path / "a.txt", "x")
    assert calls == ["sync", "rename", "sync"]
