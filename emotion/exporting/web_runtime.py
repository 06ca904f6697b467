"""onnxruntime-web, the runtime of the web page: from a folder or npm, and verified against pinned digests."""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from emotion.errors import UserError

NAME, VERSION = "onnxruntime-web", "1.30.0"
ARCHIVE = f"{NAME}-{VERSION}.tgz"
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


def runtime_files(runtime: str | None) -> dict[str, bytes]:
    """Return the contents of FILES by name.

    `runtime` is a folder with the package: node_modules, the package itself or its archive. None downloads it with npm,
    which keeps downloads in its own cache.

    Raises:
        UserError: The folder does not contain the package, a file is damaged, or npm cannot download the package.
    """
    if runtime is None:
        with tempfile.TemporaryDirectory() as download:
            _download(Path(download))
            return _read_archive(Path(download) / ARCHIVE)
    folder = Path(runtime)
    if (folder / ARCHIVE).is_file():
        return _read_archive(folder / ARCHIVE)
    for package in (folder / "node_modules" / NAME, folder / NAME, folder / "package", folder):
        if all((package / path).is_file() for path, _ in FILES.values()):
            return _verified({name: (package / path).read_bytes() for name, (path, _) in FILES.items()}, package)
    raise UserError(
        f"runtime={folder} does not contain {NAME}; expected {ARCHIVE} (npm pack {NAME}@{VERSION}) or node_modules "
        f"with that version."
    )


def _read_archive(archive: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(archive) as members:
            files = {name: members.extractfile(f"package/{path}") for name, (path, _) in FILES.items()}
            return _verified({name: file.read() for name, file in files.items() if file}, archive)
    except (tarfile.TarError, EOFError, KeyError) as error:
        raise UserError(f"{archive} cannot be read ({error}). Download it again: npm pack {NAME}@{VERSION}.") from error


def _verified(contents: dict[str, bytes], source: Path) -> dict[str, bytes]:
    """Return the contents if their digests are those of the published files."""
    digests = {name: base64.b64encode(hashlib.sha512(content).digest()).decode() for name, content in contents.items()}
    if digests != {name: digest for name, (_, digest) in FILES.items()}:
        raise UserError(
            f"{source} does not contain the published files of {NAME} {VERSION} and is not used. Download it again: "
            f"npm pack {NAME}@{VERSION}."
        )
    return contents


def _download(folder: Path) -> None:
    """Write the archive from the registry that npm is configured for."""
    npm = shutil.which("npm")
    alternative = f"pass runtime=FOLDER with {ARCHIVE} (npm pack {NAME}@{VERSION}) or node_modules"
    if npm is None:
        raise UserError(f"{NAME} {VERSION} is downloaded by npm, which is not installed. Install it, or {alternative}.")
    options = ("--ignore-scripts", "--prefer-offline", "--pack-destination", str(folder))
    command = [npm, "pack", f"{NAME}@{VERSION}", *options]
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=DOWNLOAD_TIMEOUT)
    except (subprocess.SubprocessError, OSError) as error:
        lines = str(getattr(error, "stderr", None) or error).strip().splitlines() or ["no reason given"]
        reason = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise UserError(f"npm cannot download {NAME} {VERSION} ({reason}); try again, or {alternative}.") from error
