"""Sources of the web runtime; no test contacts a registry."""

import shutil
from pathlib import Path

import pytest

from emotion.errors import UserError
from emotion.exporting.web_runtime import ARCHIVE, FILES, NAME, VERSION, runtime_files


def test_folder_without_the_runtime_or_with_another_version_is_refused(tmp_path: Path) -> None:
    message = rf"does not contain the published {NAME} {VERSION}; expected {ARCHIVE}"
    with pytest.raises(UserError, match=message):
        runtime_files(str(tmp_path), None)
    folder = tmp_path / "node_modules" / NAME / "dist"
    folder.mkdir(parents=True)
    for path, _ in FILES.values():
        (folder / Path(path).name).write_bytes(b"of another version")
    with pytest.raises(UserError, match=message):
        runtime_files(str(tmp_path), None)


def test_archive_with_another_digest_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / ARCHIVE).write_bytes(b"something else")
    with pytest.raises(UserError, match=rf"{ARCHIVE} is not the published package \(14 bytes"):
        runtime_files(str(tmp_path), None)


def test_missing_npm_is_reported_with_the_alternative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"npm, which is not installed\. Install it, or pass runtime=FOLDER"):
        runtime_files(None, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_failure_of_npm_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")  # nothing listens there
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    with pytest.raises(UserError, match=rf"npm cannot download {NAME} {VERSION} \(.*; try again, or pass runtime="):
        runtime_files(None, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
