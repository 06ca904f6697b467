"""Sources of the web runtime; no test contacts a registry."""

import shutil
import tarfile
from pathlib import Path

import pytest

from emotion.errors import UserError
from emotion.exporting.web_runtime import ARCHIVE, FILES, NAME, VERSION, runtime_files


def write_package(folder: Path) -> None:
    for path, _ in FILES.values():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"of another version")


def test_folder_without_the_runtime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"does not contain {NAME}; expected {ARCHIVE}"):
        runtime_files(str(tmp_path))


@pytest.mark.parametrize("kind", ["folder", "archive", "no archive"])
def test_files_with_other_digests_are_refused(kind: str, tmp_path: Path) -> None:
    write_package(tmp_path / "node_modules" / NAME)
    if kind == "archive":
        with tarfile.open(tmp_path / ARCHIVE, "w:gz") as archive:
            archive.add(tmp_path / "node_modules" / NAME, "package")
    elif kind == "no archive":
        (tmp_path / ARCHIVE).write_bytes(b"something else")
    message = "cannot be read" if kind == "no archive" else f"does not contain the published files of {NAME} {VERSION}"
    with pytest.raises(UserError, match=message):
        runtime_files(str(tmp_path))


def test_missing_npm_is_reported_with_the_alternative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"npm, which is not installed\. Install it, or pass runtime=FOLDER"):
        runtime_files(None)


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_failure_of_npm_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")  # nothing listens there
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    with pytest.raises(UserError, match=rf"npm cannot download {NAME} {VERSION} \(.*; try again, or pass runtime="):
        runtime_files(None)
