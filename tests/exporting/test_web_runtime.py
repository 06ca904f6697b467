"""Where the page's runtime comes from; none of these asks a registry."""

import shutil
from pathlib import Path

import pytest

from emotion.errors import UserError
from emotion.exporting.web_runtime import FILES, NAME, VERSION, runtime_files

PACKED = f"{NAME}-{VERSION}.tgz"


def test_a_folder_without_the_runtime_says_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"does not hold {NAME} {VERSION} as it was published; expected {PACKED}"):
        runtime_files(str(tmp_path), None)


def test_another_package_than_the_published_one_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / PACKED).write_bytes(b"something else")
    with pytest.raises(UserError, match=rf"{PACKED} is not the package that was published \(14 bytes"):
        runtime_files(str(tmp_path), None)


def test_files_of_another_version_in_node_modules_are_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "node_modules" / NAME / "dist"
    folder.mkdir(parents=True)
    for place, _ in FILES.values():
        (folder / Path(place).name).write_bytes(b"of another version")
    with pytest.raises(UserError, match="does not hold"):
        runtime_files(str(tmp_path), None)


def test_without_npm_one_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"npm, which is not installed\. Install it, or give runtime=FOLDER"):
        runtime_files(None, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_what_npm_stumbles_over_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")  # nobody answers there
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    with pytest.raises(UserError, match=rf"npm could not fetch {NAME} {VERSION} \(.*; try again, or give runtime="):
        runtime_files(None, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
