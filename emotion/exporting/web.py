"""Export of a classifier as a static web page that runs in the browser."""

import json
import os
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from emotion.checkpoints.ensemble import Ensemble
from emotion.errors import UserError
from emotion.exporting.onnx import export_onnx
from emotion.exporting.web_runtime import VERSION, runtime_files
from emotion.inference import blazeface
from emotion.inference.annotate import css_colors
from emotion.inference.predictor import MIN_CONTRAST
from emotion.io.atomic import sync_folder
from emotion.records.run_record import is_synthetic

WEB = files("emotion") / "web"
PAGE = {
    **{name: name for name in ("style.css", "app.js", "start.js", "worker.js", "blazeface.js", "pixels.js")},
    "engine.js": "engine_local.js",
}
"""Names in the exported folder, and the source files in emotion/web."""

OWN = ("engine.js", "model.json")
"""Files by which an exported folder is recognized."""

DETECTOR_SETTINGS = (
    *("STRIDE", "SCALES", "FINE_SCALE", "LARGE", "CANDIDATE", "OVERLAP", "NESTED", "PATCH", "PATCH_SIDE"),
    *("SLOPE", "OFFSET", "SIDE", "DOWN", "LEVEL_FROM"),
)
"""Constants of `emotion.inference.blazeface` that blazeface.js needs."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; "
    "style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; form-action 'none'"
)
"""Set by the page itself, since a static host sends no such header: only own files are loaded, nothing is sent."""


def export_web(ensemble: Ensemble, folder: Path, runtime: str | None = None, tta: str = "none") -> list[Path]:
    """Write the page with its network, detector and runtime into `folder`, replacing an earlier page.

    `runtime` is a folder with onnxruntime-web; None downloads it with npm. The ensemble is moved to the CPU. The files
    are returned sorted by name.

    Raises:
        UserError: The folder contains something else, the runtime is not available, the network cannot be exported or
            the folder cannot be written; nothing is written.
    """
    others = folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())
    if others and not all((folder / name).is_file() for name in OWN):
        raise UserError(f"{folder} contains other files; expected a new or empty folder, or an earlier page.")
    contents: dict[str, bytes] = dict(runtime_files(runtime))
    contents |= {name: (WEB / source).read_bytes() for name, source in PAGE.items()}
    contents["index.html"] = _page((WEB / "index.html").read_text(encoding="utf-8")).encode()
    contents["detector.onnx"] = blazeface.MODEL.read_bytes()
    contents["model.json"] = json.dumps(model_description(ensemble)).encode()
    notice = (blazeface.MODEL.parent / "NOTICE").read_text(encoding="utf-8")
    for name, source in (("README.txt", "local_readme.txt"), ("LICENSES.txt", "local_licenses.txt")):
        text = (WEB / source).read_text(encoding="utf-8")
        contents[name] = text.format(version=VERSION, notice=notice).encode()
    with tempfile.TemporaryDirectory() as scratch:
        network = Path(scratch) / "model.onnx"
        export_onnx(ensemble, network, tta, cam=True, half=True)
        contents["model.onnx"] = network.read_bytes()
    return _write(folder, contents)


def model_description(ensemble: Ensemble) -> dict[str, Any]:
    """Return the content of model.json: what the page shows of the network, its input, and the detector's settings."""
    side, channels = ensemble.source_shape
    return {
        "name": ensemble.name,
        "classes": ensemble.classes,
        "colors": css_colors(ensemble.classes),
        "side": side,
        "channels": channels,
        "synthetic": is_synthetic(ensemble.loaded),
        "min_contrast": MIN_CONTRAST,
        "detector": {name.lower(): getattr(blazeface, name) for name in DETECTOR_SETTINGS}
        | {"threshold": blazeface.BlazeFace().threshold},
    }


def _page(page: str) -> str:
    """Add to the demo's page its security policy, and a script that reports why modules do not load."""
    charset, scripts = '<meta charset="utf-8">\n', '<script type="module" src="app.js"></script>'
    assert page.count(charset) == page.count(scripts) == 1
    policy = f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY_POLICY}">\n'
    return page.replace(charset, charset + policy).replace(scripts, f'<script src="start.js"></script>\n{scripts}')


def _write(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    """Write all files to disk before moving them into place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
            for name, content in contents.items():
                (Path(scratch) / name).write_bytes(content)
            for name in contents:
                os.replace(Path(scratch) / name, folder / name)
        sync_folder(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); expected a folder for the page.") from error
    return [folder / name for name in sorted(contents)]
