from pathlib import Path

from emotion.io.folders import expand, walk


def test_linked_folders_are_walked_once_and_by_their_own_path_first() -> None:
    for name in ("root/b/c", "outside/d"):
        Path(name).mkdir(parents=True)
    for link, target in {
        "root/a": "b",
        "root/b/cycle": "..",
        "root/x": "../outside",
        "outside/back": "../root",
    }.items():
        Path(link).symlink_to(target)
    assert sorted(map(str, walk(Path("root")))) == ["root", "root/b", "root/b/c", "root/x", "root/x/d"]
    assert list(walk(Path("nowhere"))) == []


def test_a_pattern_matches_folders_else_files() -> None:
    for name in ("a[1]", "a2"):
        Path(name).mkdir()
    Path("a.txt").touch()
    assert expand("a*") == ["a2", "a[1]"]
    assert expand("*.t*") == ["a.txt"]
    assert [expand(name) for name in ("a[1]", "b*", "hub:a/b")] == [["a[1]"], ["b*"], ["hub:a/b"]]
