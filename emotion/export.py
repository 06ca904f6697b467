"""Take a trained classifier to where it is used: python -m emotion.export checkpoint=RUN [target=onnx|weights|web]."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from emotion.checkpoints.locate import SHIPPED, locate_all
from emotion.cli import verb
from emotion.errors import UserError
from emotion.reporting.text import near

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emotion.checkpoints.ensemble import Ensemble
    from emotion.data.datamodule import EmotionDataModule

Settings = dict[str, Any]
TARGETS = ("onnx", "weights", "web")
COMPARED = 100  # validation faces on which what is written has to say what the checkpoint says
MOST_ROUNDED = 0.02  # by how much half precision may change a probability


def export(cfg: DictConfig, folder: Path) -> Settings:
    """What was written and how true it is to the checkpoint, as export.json beside it has it.

    `folder` takes what is written of checkpoints that have no one run to lie in.

    Raises:
        UserError: something given is missing or wrong, or what would be written does not say what the checkpoint says.
    """
    settings: Settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    locate_all(settings["checkpoint"])
    _check(settings)
    from emotion.checkpoints import ensemble
    from emotion.io.atomic import write_text
    from emotion.records import run_record

    judge = ensemble.load(settings["checkpoint"]).eval()
    place, name = Path(settings["output"] or _place(judge, folder)), settings["name"] or _name(judge)
    task = {"onnx": _onnx, "weights": _weights, "web": _web}[settings["target"]]
    written, found = task(judge, place / name, settings)
    result = {
        "command": run_record.command(),
        "commit": run_record.commit(),
        "versions": run_record.versions() | run_record.versions_of("onnx", "onnxruntime", "onnxscript"),
        "target": settings["target"],
        **judge.described(),
        **found,
        "files": {path.relative_to(place).as_posix(): path.stat().st_size for path in written},
    }
    write_text(place / "export.json", json.dumps(result, indent=2) + "\n")
    for path in (*written, place / "export.json"):
        print(f"wrote {near(path.absolute())}, {path.stat().st_size / 1e6:,.2f} MB")
    return result


def _onnx(judge: "Ensemble", path: Path, settings: Settings) -> tuple[list[Path], Settings]:
    """One file, and where it is asked for and worth it a second one in whole numbers."""
    import torch

    from emotion.exporting.int8 import milliseconds, print_int8, write_int8
    from emotion.exporting.onnx import export_onnx
    from emotion.inference.onnx_backend import OnnxJudge
    from emotion.runtime.hardware import one_thread

    tta, data = settings["tta"], _data(judge, settings)
    faces, whose = _faces(judge, data)
    fp32, int8 = path.with_name(f"{path.name}.onnx"), path.with_name(f"{path.name}_int8.onnx")
    parity = export_onnx(judge, fp32, tta, faces=faces)
    print(
        f"opset {parity.opset}; on {parity.faces} {whose} no probability differs by more than {parity.largest:.1e} "
        f"from torch's, {100 * parity.same:.1f} % of the predictions are the same"
    )
    with one_thread():
        own = OnnxJudge(fp32, threads=1)
        pixels = torch.from_numpy(faces[:1])
        times = milliseconds(
            {"onnx": lambda: own.probabilities(faces[:1]), "torch": lambda: judge.probabilities(pixels, tta)}
        )
    print(f"a face on one thread: {times['onnx']:.2f} ms, in torch {times['torch']:.2f} ms")
    found: Settings = {"tta": tta, "parity": parity._asdict() | {"of": whose}, "milliseconds": times}
    if not settings["int8"]:
        return [fp32], found
    assert data is not None, "see _data"
    found["int8"] = write_int8(fp32, int8, data)
    print_int8(found["int8"])
    return [fp32, int8] if found["int8"]["kept"] else [fp32], found


def _weights(judge: "Ensemble", path: Path, settings: Settings) -> tuple[list[Path], Settings]:
    """Half precision as .safetensors, the rest beside it as JSON: what emotion/zoo holds."""
    import tempfile

    from emotion.checkpoints import ensemble, portable
    from emotion.checkpoints.load import read_checkpoint
    from emotion.exporting.onnx import differences, torch_says
    from emotion.records import run_record

    if len(judge.loaded) > 1:
        raise UserError(f"target=weights writes one checkpoint; found {len(judge.loaded)}. Export each on its own.")
    (loaded,) = judge.loaded
    content, record = read_checkpoint(loaded.path), run_record.record_of(loaded)
    faces, whose = _faces(judge, _data(judge, settings))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.safetensors"
        portable.write(copy, copy.with_suffix(".json"), content, record)
        largest, same = differences(*(torch_says(one, faces) for one in (judge, ensemble.load(copy))))
    if not largest <= MOST_ROUNDED:
        raise UserError(
            f"{loaded.path}: in half precision a probability differs by {largest:.3f}; expected at most {MOST_ROUNDED}."
        )
    print(
        f"on {len(faces)} {whose} no probability differs by more than {largest:.1e} from the checkpoint's, "
        f"{100 * same:.1f} % of the predictions are the same"
    )
    weights, description = path.with_name(f"{path.name}.safetensors"), path.with_name(f"{path.name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    portable.write(weights, description, content, record)
    return [weights, description], {"parity": {"faces": len(faces), "largest": largest, "same": same, "of": whose}}


def _web(judge: "Ensemble", path: Path, settings: Settings) -> tuple[list[Path], Settings]:
    """A folder of static files; the page's own where no other is named."""
    from emotion.exporting.web import export_web

    folder = path.parent if settings["output"] else path.parent / "web"
    return export_web(judge, folder, settings["runtime"], Path(settings["cache_dir"]), settings["tta"]), {}


def _data(judge: "Ensemble", settings: Settings) -> "EmotionDataModule | None":
    """What the (first) checkpoint was trained with; None where it is not here and not needed."""
    from emotion.checkpoints.training_data import data_of

    try:
        return data_of(judge.loaded[0], settings)
    except UserError as error:
        if settings["int8"]:
            raise UserError(f"int8=true needs the faces that the checkpoint was trained with: {error}") from error
        return None


def _faces(judge: "Ensemble", data: "EmotionDataModule | None") -> tuple["NDArray[np.uint8]", str]:
    """Faces to compare on, and what they are."""
    import numpy as np

    from emotion.exporting.onnx import drawn

    side, channels = judge.stored
    if data is None or data.faces.images.shape[1:] != (side, side, 3)[: 1 + channels]:
        return drawn(side, channels), "drawn faces"
    rows = np.random.default_rng(0).permutation(data.split.val)[:COMPARED]
    return data.faces.images[np.sort(rows)], f"validation faces of {data.faces.source}"


def _place(judge: "Ensemble", folder: Path) -> Path:
    from emotion.checkpoints.locate import BEST_CHECKPOINT

    path = judge.loaded[0].path
    of_a_run = len(judge.loaded) == 1 and path.parent.name == BEST_CHECKPOINT.parent.name
    return path.parent.parent / "export" if of_a_run else folder


def _name(judge: "Ensemble") -> str:
    """The run's, or that of weights that travelled; of several the networks' own."""
    from emotion.records import run_record

    if len(judge.loaded) > 1:
        return "ensemble"
    path, record = judge.loaded[0].path, run_record.record_of(judge.loaded[0])
    if path.suffix == SHIPPED and path.stem != "model":  # as the Hub has them all
        return path.stem
    return str(record["config"]["name"]) if record else judge.name.lower()


def _check(settings: Settings) -> None:
    from emotion.data.transforms.tta import TTA

    for key, choices in {"target": TARGETS, "tta": tuple(TTA)}.items():
        if settings[key] not in choices:
            raise UserError(f"{key}={settings[key]}: expected {', '.join(choices)}.")
    if not isinstance(settings["int8"], bool):
        raise UserError(f"int8={settings['int8']}: expected true or false.")
    for key, default, of in (
        ("tta", "none", ("onnx", "web")),
        ("int8", False, ("onnx",)),
        ("runtime", None, ("web",)),
    ):
        if settings[key] != default and settings["target"] not in of:
            expected = f"of target={' and '.join(of)}"
            raise UserError(f"{key}={settings[key]} is {expected}; found target={settings['target']}.")
    name = settings["name"]
    if name is not None and (not isinstance(name, str) or Path(name).name != name or not name):
        raise UserError(f"name={name}: expected a plain name of files, without a folder: output= has that.")
    if settings["output"] and Path(settings["output"]).is_file():
        raise UserError(f"output={settings['output']} is a file; expected a folder.")


@verb("export")
def main(cfg: DictConfig) -> None:
    """Export and report."""
    export(cfg, near(Path(HydraConfig.get().runtime.output_dir)))


if __name__ == "__main__":
    main()
