"""onnxruntime-web, the runtime of the web page: from a folder or npm, and verified against pinned digests."""

import base64
import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from emotion.errors import UserError
from emotion.io.atomic import write_atomically

NAME, VERSION = "onnxruntime-web", "1.30.0"
ARCHIVE = f"{NAME}-{VERSION}.tgz"
ARCHIVE_DIGEST = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""SHA-512 in base64 of the archive that npm pack makes."""

FILES = {
    "ort.js": (
        "dist/ort.wasm.bundle.min.mjs",
        "1KcF8CWAZeqtTcvLgKPtOMXIbkWeh++LDCQpDhQ5ARVxHAL1VNL5rr0OI+MxTbmNIANldE/A/q+O4gSKgSMjWQ==",
    ),
    "ort.wasm": (
        "dist/ort-wasm-simd-threaded.wasm",
        "Gt7e1iIDIZ/PXEhM/OVleqWHVom0kEI/hs8cod0crXcV9jDGM39B23HuQnlOOgDOC3x4k5pxIgtdgzaL9up3MA==",
    ),
}
"""Path in the package and SHA-512 of each file of the page, by its name there; some hosts do not know .mjs."""

DOWNLOAD_TIMEOUT = 600  # seconds, for 33 MB


def runtime_files(runtime: str | None, cache: Path | None) -> dict[str, bytes]:
    """Return the contents of FILES by name.

    Args:
        runtime: Folder with the package: node_modules, the package itself or its archive; None to download it.
        cache: Folder to keep a download in; None not to keep it.

    Raises:
        UserError: The folder does not contain the package, the package is damaged, or it cannot be downloaded.
    """
    if runtime is not None:
        return _read_runtime(Path(runtime))
    if cache is None:
        return _unpack(_download())
    cached = cache / f"{NAME}-{VERSION}"
    if contents := _read_files(cached):
        return contents
    contents = _unpack(_download())
    cached.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        path = cached / Path(FILES[name][0]).name
        write_atomically(path, lambda temporary: temporary.write_bytes(content))  # noqa: B023
    return contents


def _read_runtime(folder: Path) -> dict[str, bytes]:
    if (folder / ARCHIVE).is_file():
        return _unpack((folder / ARCHIVE).read_bytes())
    for package in (folder / "node_modules" / NAME, folder / NAME, folder / "package", folder):
        if contents := _read_files(package / "dist"):
            return contents
    raise UserError(
        f"runtime={folder} does not contain the published {NAME} {VERSION}; expected {ARCHIVE} (npm pack "
        f"{NAME}@{VERSION}) or node_modules with that version."
    )


def _read_files(folder: Path) -> dict[str, bytes] | None:
    """Return the contents of FILES in a folder, or None if one is missing or differs."""
    contents = {}
    for name, (path_in_package, digest) in FILES.items():
        path = folder / Path(path_in_package).name
        if not path.is_file() or _digest(content := path.read_bytes()) != digest:
            return None
        contents[name] = content
    return contents


def _unpack(archive: bytes) -> dict[str, bytes]:
    if _digest(archive) != ARCHIVE_DIGEST:
        raise UserError(
            f"{ARCHIVE} is not the published package ({len(archive)} bytes with another SHA-512) and is not used. "
            f"Download it again: npm pack {NAME}@{VERSION}."
        )
    contents = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for name, (path, _) in FILES.items():
            file = members.extractfile(f"package/{path}")
            assert file is not None, "the digest is that of a package with these files"
            contents[name] = file.read()
    return contents


def _download() -> bytes:
    """Return the archive from the registry that npm is configured for."""
    npm = shutil.which("npm")
    alternative = f"pass runtime=FOLDER with {ARCHIVE} (npm pack {NAME}@{VERSION}) or node_modules"
    if npm is None:
        raise UserError(
            f"{NAME} {VERSION} is downloaded with npm, which is not installed. Install it, or {alternative}."
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{NAME}@{VERSION}", "--pack-destination", folder, "--ignore-scripts"]
        try:
            subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=DOWNLOAD_TIMEOUT)
            return (Path(folder) / ARCHIVE).read_bytes()
        except (subprocess.SubprocessError, OSError) as error:
            lines = str(getattr(error, "stderr", None) or error).strip().splitlines() or ["no reason given"]
            reason = next((line for line in lines if "error" in line.lower()), lines[-1])
            raise UserError(f"npm cannot download {NAME} {VERSION} ({reason}); try again, or {alternative}.") from error


def _digest(content: bytes) -> str:
    return base64.b64encode(hashlib.sha512(content).digest()).decode()
