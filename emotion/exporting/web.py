"""A classifier as a web page that computes in the browser: a folder of files for any static host."""

import json
import os
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from emotion.checkpoints.ensemble import Ensemble
from emotion.errors import UserError
from emotion.exporting.onnx import export_onnx
from emotion.exporting.web_runtime import VERSION, runtime_files
from emotion.inference.detectors import CASCADE, HAAR_LOWER, HAAR_SIDE, HAAR_STEP, Haar
from emotion.inference.onnx_backend import needed
from emotion.io.atomic import sync_folder
from emotion.io.digests import sealed_onnx

WEB = files("emotion") / "web"
PAGE = {
    "style.css": "style.css",
    "app.js": "app.js",
    "start.js": "start.js",
    "engine.js": "engine_local.js",
    "worker.js": "worker.js",
    "haar.js": "haar.js",
    "pixels.js": "pixels.js",
}
"""Names in the folder, and those in emotion/web."""

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; "
    "style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; form-action 'none'"
)
"""Of what a static host does not say, the page says it itself: nothing but its own files, nothing out."""

LARGE = 1024  # numbers, from which on weights are worth being halved


def export_web(
    ensemble: Ensemble, folder: Path, runtime: str | None = None, cache: Path | None = None, tta: str = "none"
) -> list[Path]:
    """Write the page with its network, detector and runtime into `folder`; what else lies there stays.

    Args:
        ensemble: one classifier or several; moved to the CPU.
        folder: is made where it is not there.
        runtime: a folder with onnxruntime-web, else npm fetches it once.
        cache: where it is kept then; None for nowhere.
        tta: test-time views that the network averages over.

    Returns:
        The files, in the order of their names.

    Raises:
        UserError: the runtime cannot be had, the network not as ONNX, or the folder not be made; nothing is written.
    """
    content: dict[str, bytes] = dict(runtime_files(runtime, cache))
    content |= {name: (WEB / source).read_bytes() for name, source in PAGE.items()}
    content["index.html"] = _page((WEB / "index.html").read_text(encoding="utf-8")).encode()
    content["cascade.json"] = _packed(cascade())
    content["model.json"] = _packed(described(ensemble))
    told = {"version": VERSION, "cascade": _licence()}
    for name, source in (("README.txt", "local_readme.txt"), ("LICENSES.txt", "local_licenses.txt")):
        content[name] = (WEB / source).read_text(encoding="utf-8").format(**told).encode()
    with tempfile.TemporaryDirectory() as scratch:
        network = Path(scratch) / "model.onnx"
        export_onnx(ensemble, network, tta, cam=True)
        content["model.onnx"] = halved(network.read_bytes())
    return _written(folder, content)


def cascade() -> dict[str, Any]:
    """The detector's trees: what haar.js makes of OpenCV's file.

    A node is [left, right, feature, threshold], left and right being nodes of its tree, or its leaves where they are 0
    or less; a feature is rectangles [left, top, width, height, weight]; a stage is the nodes of each of its trees, and
    what their leaves have to add up to.
    """
    found = ElementTree.parse(CASCADE).getroot()[0]
    stages, nodes, leaves = [], [], []
    for stage in found.iterfind("stages/_"):
        trees = []
        for tree in stage.iterfind("weakClassifiers/_"):
            numbers = [float(number) for number in tree.findtext("internalNodes", "").split()]
            own = [[*map(int, numbers[i : i + 3]), numbers[i + 3]] for i in range(0, len(numbers), 4)]
            trees.append(len(own))
            nodes += own
            leaves += [float(leaf) for leaf in tree.findtext("leafValues", "").split()]
        stages.append([trees, float(stage.findtext("stageThreshold", ""))])
    features = [
        [[int(float(number)) for number in (rectangle.text or "").split()] for rectangle in feature.iterfind("rects/_")]
        for feature in found.iterfind("features/_")
    ]
    side = int(found.findtext("width", ""))
    return {"side": side, "stages": stages, "nodes": nodes, "leaves": leaves, "features": features}


def described(ensemble: Ensemble) -> dict[str, Any]:
    """What the page has to know: the network's name, classes and faces, and the detector's settings."""
    side, channels = ensemble.stored
    haar = Haar()
    detector = {"longest": haar.longest, "smallest": haar.smallest, "neighbours": haar.neighbours}
    detector |= {"step": HAAR_STEP, "share": HAAR_SIDE, "lower": HAAR_LOWER}
    told = {"name": ensemble.name, "classes": ensemble.classes, "side": side, "channels": channels}
    return told | {"detector": detector}


def halved(network: bytes) -> bytes:
    """A file of ONNX whose weights stand in half precision wherever nothing is lost by it; it computes as before.

    Those of weights that came as .safetensors all do, since they were halved then.
    """
    onnx = needed("onnx")
    model = onnx.load_from_string(network)
    casts = []
    for weights in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weights)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16) if values.dtype == np.float32 else values
        if values.dtype != np.float32 or values.size < LARGE or not np.array_equal(half.astype(np.float32), values):
            continue
        name = weights.name
        weights.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [weights.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return sealed_onnx(model.SerializeToString())


def _page(page: str) -> str:
    """The demo's page with a policy of its own, and with a script that says why the others do not load."""
    charset, scripts = '<meta charset="utf-8">\n', '<script type="module" src="app.js"></script>'
    assert all(page.count(part) == 1 for part in (charset, scripts)), "that is the page which is made here"
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    return page.replace(charset, charset + policy).replace(scripts, f'<script src="start.js"></script>\n{scripts}')


def _licence() -> str:
    """That of the cascade, which heads its file."""
    return CASCADE.read_text(encoding="utf-8").partition("<!--")[2].partition("-->")[0].rstrip()


def _packed(told: dict[str, Any]) -> bytes:
    return json.dumps(told, separators=(",", ":")).encode()


def _written(folder: Path, content: dict[str, bytes]) -> list[Path]:
    """Every file put in its place, once all of them are on the disk."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
            for name, text in content.items():
                (Path(scratch) / name).write_bytes(text)
            for name in content:
                os.replace(Path(scratch) / name, folder / name)
        sync_folder(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); expected a folder for the page.") from error
    return [folder / name for name in sorted(content)]
