"""Export a trained classifier: python -m emotion.export checkpoint=RUN [target=onnx|weights|web]."""

from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from emotion.checkpoints.locate import BEST_CHECKPOINT, PORTABLE_SUFFIX, announce_default, locate_all
from emotion.cli import verb
from emotion.config.typed import check_choices, typed
from emotion.errors import UserError, require_extra
from emotion.io.atomic import make_folder
from emotion.reporting.text import format_size, relative_path, wrapped
from emotion.runtime.announce import announce

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emotion.checkpoints.ensemble import Ensemble
    from emotion.data.datamodule import EmotionDataModule

COMPARED_FACES = 100  # validation faces on which the export must match the checkpoint
SNIPPET = """With plain ONNX Runtime:
    import numpy as np, onnxruntime
    from PIL import Image
    classes = {classes}
    face = Image.open("face.png")  # the square of an upright face, from the brows to the chin
    pixels = np.array(face.convert("{mode}").resize(({side}, {side})))
    session = onnxruntime.InferenceSession("{file}")
    (probabilities,) = session.run(["probabilities"], {{"faces": pixels[None]}})
    print(dict(zip(classes, probabilities[0].tolist())))"""
MAX_ROUNDING_DIFFERENCE = 0.02  # of a probability, caused by half precision


@dataclass(frozen=True)
class ExportConfig:
    """The settings of conf/export.yaml."""

    data_dir: str
    cache_dir: str
    checkpoint: Any
    target: str
    tta: str
    grad_cam: bool
    int8: bool
    name: str | None
    runtime: str | None
    output: str | None


Exported = tuple[list[Path], dict[str, Any]]
"""The files of an export, and further entries of its record."""


def export(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Export a checkpoint or an ensemble; write NAME.TARGET.export.json next to the files and return its content.

    `folder` is the output folder of checkpoints that do not belong to a single run.

    Raises:
        UserError: A setting is invalid, or the export would not match the checkpoint.
    """
    config = typed(cfg, ExportConfig)
    names = locate_all(config.checkpoint)
    announce_default("export", config.checkpoint)
    _check(config)

    from emotion.checkpoints.ensemble import load_ensemble
    from emotion.inference.backends import SYNTHETIC_WARNING
    from emotion.io.atomic import write_json
    from emotion.records.run_record import is_synthetic, provenance

    announce(f"reading {' and '.join(names)}")
    ensemble = load_ensemble(config.checkpoint).eval()
    if is_synthetic(ensemble.loaded):
        print(wrapped(SYNTHETIC_WARNING.format(name=ensemble.name)))
    output = Path(config.output or _default_folder(ensemble, folder))
    path = output / (config.name or _default_name(ensemble))
    files, report = TARGETS[config.target](ensemble, path, config, cfg)
    record = {
        **provenance("onnx", "onnxruntime", "onnxscript"),
        "target": config.target,
        **ensemble.summary(),
        **report,
        "files": {path.relative_to(output).as_posix(): path.stat().st_size for path in files},
    }
    described = _record_path(path, config.target)
    write_json(described, record)
    for file in (*(files if config.target != "web" else ()), described):
        print(f"wrote {relative_path(file.absolute())}, {format_size(file.stat().st_size)}")
    return record


def _record_path(path: Path, target: str) -> Path:
    return path.with_name(f"{path.name}.{target}.export.json")


def _export_onnx(ensemble: "Ensemble", path: Path, config: ExportConfig, cfg: DictConfig) -> Exported:
    """Write an ONNX file and, if `int8` and worth it, a quantized one."""
    import shutil
    import tempfile

    import torch

    from emotion.exporting.int8 import export_int8, median_milliseconds
    from emotion.exporting.onnx import export_onnx
    from emotion.inference.onnx_backend import OnnxBackend
    from emotion.io.atomic import write_atomically
    from emotion.runtime.hardware import single_thread

    data = _load_data(ensemble, config, cfg)
    faces, source = _comparison_faces(ensemble, data)
    fp32, int8 = path.with_name(f"{path.name}.onnx"), path.with_name(f"{path.name}_int8.onnx")
    announce("converting to ONNX, and comparing it with PyTorch")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, fp32.name)
        parity, opset = export_onnx(ensemble, file, config.tta, config.grad_cam, half=not config.int8, faces=faces)

        def write(temporary: Path) -> None:
            shutil.copyfile(file, temporary)
            _discard_earlier(path, int8, config)

        make_folder(path.parent)
        write_atomically(fp32, write)
    print(wrapped(f"opset {opset}; on {parity.faces} {source}, {parity}"))
    with single_thread():
        backend = OnnxBackend(fp32, threads=1)
        pixels = torch.from_numpy(faces[:1])
        milliseconds = median_milliseconds(
            {
                "onnx": lambda: backend.probabilities(faces[:1]),
                "torch": lambda: ensemble.probabilities(pixels, config.tta),
            }
        )
    print(f"one face on one thread: {milliseconds['onnx']:.2f} ms, in PyTorch {milliseconds['torch']:.2f} ms")
    mode = "RGB" if faces.ndim == 4 else "L"
    print(SNIPPET.format(file=fp32, side=faces.shape[1], mode=mode, classes=list(ensemble.classes)))
    report: dict[str, Any] = {"tta": config.tta, "opset": opset, "milliseconds": milliseconds}
    report["parity"] = parity._asdict() | {"source": source}
    if not config.int8:
        return [fp32], report
    assert data is not None, "_load_data raises instead"
    announce("quantizing to int8, and comparing it on validation and test faces")
    quantized = export_int8(fp32, int8, data)
    quantized.print()
    return [fp32, int8] if quantized.kept else [fp32], report | {"int8": asdict(quantized)}


def _discard_earlier(path: Path, int8: Path, config: ExportConfig) -> None:
    """Delete the record of an earlier export to ONNX, which must not describe other files, and its quantized file."""
    described = _record_path(path, "onnx")
    is_recorded = described.is_file() and f'"{int8.name}"' in described.read_text()
    if int8.exists() and (is_recorded or config.int8):
        int8.unlink()
        if not config.int8:
            print(f"deleted {relative_path(int8.absolute())} of an earlier export; int8=true writes it again")
    described.unlink(missing_ok=True)


def _export_weights(ensemble: "Ensemble", path: Path, config: ExportConfig, cfg: DictConfig) -> Exported:
    """Write half-precision weights as .safetensors and their description as JSON, the format of emotion/zoo."""
    import tempfile

    from emotion.checkpoints import portable
    from emotion.checkpoints.ensemble import load_ensemble
    from emotion.checkpoints.load import read_checkpoint
    from emotion.exporting.onnx import compare_probabilities, torch_probabilities
    from emotion.records.run_record import record_of_checkpoint

    if len(ensemble.loaded) > 1:
        raise UserError(
            f"target=weights exports one checkpoint; found {len(ensemble.loaded)}. Export each of them separately."
        )
    (loaded,) = ensemble.loaded
    checkpoint, run = read_checkpoint(loaded.path), record_of_checkpoint(loaded)
    record = run.to_dict() if run else None
    faces, source = _comparison_faces(ensemble, _load_data(ensemble, config, cfg))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.safetensors"
        portable.write(copy, copy.with_suffix(".json"), checkpoint, record)
        probabilities = (torch_probabilities(each, faces) for each in (ensemble, load_ensemble(copy)))
        parity = compare_probabilities(*probabilities)
    if not parity.max_difference <= MAX_ROUNDING_DIFFERENCE:
        raise UserError(
            f"{loaded.path}: half precision changes a probability by {parity.max_difference:.3f}; expected at most "
            f"{MAX_ROUNDING_DIFFERENCE}."
        )
    print(wrapped(f"on {parity.faces} {source}, {parity}"))
    weights, description = path.with_name(f"{path.name}.safetensors"), path.with_name(f"{path.name}.json")
    make_folder(path.parent)
    portable.write(weights, description, checkpoint, record)
    _record_path(path, "weights").unlink(missing_ok=True)  # of an earlier export
    return [weights, description], {"parity": parity._asdict() | {"source": source}}


def _export_web(ensemble: "Ensemble", path: Path, config: ExportConfig, cfg: DictConfig) -> Exported:
    """Write a folder of static files, web/."""
    from emotion.exporting.web import export_web

    announce("converting to ONNX, and collecting the page's files")
    folder = path.parent / "web"
    files = export_web(ensemble, folder, config.runtime, config.tta)
    root, size = relative_path(folder.absolute()), sum(path.stat().st_size for path in files)
    print(f"wrote {root}/, {len(files)} files, {size / 1e6:,.2f} MB. To open it at http://127.0.0.1:8000/:")
    print(f"  python -m http.server --bind 127.0.0.1 --directory {quote(str(root))}")
    return files, {}


TARGETS = {"onnx": _export_onnx, "weights": _export_weights, "web": _export_web}


def _load_data(ensemble: "Ensemble", config: ExportConfig, cfg: DictConfig) -> "EmotionDataModule | None":
    """Load the training data of the (first) checkpoint; None if it is missing, not named and not needed."""
    from emotion.checkpoints.training_data import DATA_VARIABLE, load_data, named_folder

    try:
        return load_data(ensemble.loaded[0], cfg)
    except UserError as error:
        if not (named_folder(cfg) or DATA_VARIABLE).startswith(DATA_VARIABLE):
            raise
        if config.int8:
            raise UserError(f"int8=true needs the data that the checkpoint was trained on: {error}") from error
        return None


def _comparison_faces(ensemble: "Ensemble", data: "EmotionDataModule | None") -> tuple["NDArray[np.uint8]", str]:
    """Return validation faces if available, otherwise synthetic faces, and their name."""
    import numpy as np

    from emotion.data.faces import face_shape
    from emotion.exporting.onnx import synthetic_faces

    side, channels = ensemble.source_shape
    if data is None or data.faces.images.shape[1:] != face_shape(side, channels):
        return synthetic_faces(side, channels), "synthetic faces"
    rows = np.random.default_rng(0).permutation(data.rows("val"))[:COMPARED_FACES]
    return data.faces.images[np.sort(rows)], f"validation faces of {data.faces.source}"


def _default_folder(ensemble: "Ensemble", folder: Path) -> Path:
    path = ensemble.loaded[0].path
    in_run = len(ensemble.loaded) == 1 and path.parent.name == BEST_CHECKPOINT.parent.name
    return path.parent.parent / "export" if in_run else folder


def _default_name(ensemble: "Ensemble") -> str:
    """Return the name of the run, of portable weights, or of the network."""
    from emotion.records.run_record import record_of_checkpoint

    if len(ensemble.loaded) > 1:
        return "ensemble"
    path, record = ensemble.loaded[0].path, record_of_checkpoint(ensemble.loaded[0])
    if path.suffix == PORTABLE_SUFFIX and path.stem != "model":  # all weights on the Hub are called model
        return path.stem
    return record.name if record else ensemble.name.lower()


def _check(config: ExportConfig) -> None:
    if config.target in ("onnx", "web"):
        require_extra(f"target={config.target}", "export", "onnx", "onnxscript", "onnxruntime")
    from emotion.data.transforms.tta import TTA

    check_choices(config, target=tuple(TARGETS), tta=tuple(TTA))
    for key, default, targets in (
        ("tta", "none", ("onnx", "web")),
        ("grad_cam", False, ("onnx",)),
        ("int8", False, ("onnx",)),
        ("runtime", None, ("web",)),
    ):
        if getattr(config, key) != default and config.target not in targets:
            raise UserError(
                f"{key}={getattr(config, key)} requires target={' or '.join(targets)}; found target={config.target}."
            )
    if config.name is not None and (not config.name or Path(config.name).name != config.name):
        raise UserError(f"name={config.name}: expected a file name without a folder; output= sets the folder.")


@verb("export", positional="checkpoint", uses_torch=True)
def main(cfg: DictConfig) -> None:
    """Run `export`."""
    export(cfg, relative_path(Path(HydraConfig.get().runtime.output_dir)))


if __name__ == "__main__":
    main()
