"""Files and messages of python -m emotion.export."""

import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from emotion.checkpoints.ensemble import load_ensemble
from emotion.checkpoints.load import load_checkpoint
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.export import export
from emotion.exporting.int8 import rejection_reason
from emotion.inference.onnx_backend import OnnxBackend
from tests.images import FACES


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    """A run of the small V4 on six classes."""
    return small_run(Path("run"), "trainer.max_epochs=1")


def run_export(*overrides: str, folder: str = "elsewhere") -> dict[str, Any]:
    record = export(compose("export", *overrides), Path(folder))
    path = max(Path().rglob("*.export.json"), key=lambda path: path.stat().st_mtime_ns)
    assert json.loads(path.read_text()) == json.loads(json.dumps(record))
    return record


def test_onnx_is_written_into_the_run_and_matches_the_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run_export(f"checkpoint={run}")
    file = run / "export/v4_attention.onnx"
    assert record["files"] == {file.name: file.stat().st_size}
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name, f"{file.name}.export.json"]
    out = capsys.readouterr().out
    assert f"wrote {file}, {file.stat().st_size / 1e3:.1f} kB" in out
    names: dict[str, Any] = {}
    Image.fromarray(FACES[0]).save("face.png")
    exec(textwrap.dedent(out.partition("With plain ONNX Runtime:\n")[2].partition("wrote ")[0]), names)
    assert names["probabilities"].shape == (1, len(names["classes"]))
    assert names["classes"] == list(OnnxBackend(file).classes)
    assert record["parity"]["source"] == "validation faces of synthetic faces"
    expected = load_checkpoint(run).classifier.probabilities(torch.from_numpy(FACES)).numpy()
    np.testing.assert_allclose(OnnxBackend(file, "none").probabilities(FACES), expected, atol=1e-5)
    np.testing.assert_allclose(names["probabilities"], expected[:1], atol=1e-5)


@pytest.mark.hard
def test_int8_is_kept_only_if_it_wins(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run_export(f"checkpoint={run}", "int8=true", "name=small", "output=there")["int8"]
    faster = report["milliseconds"]["int8"] < report["milliseconds"]["fp32"]
    loss = report["validation"]["fp32"]["accuracy"][0] - report["validation"]["int8"]["accuracy"][0]
    assert report["kept"] == Path("there/small_int8.onnx").is_file() == (faster and loss <= 0.005)
    assert ("int8 is kept" in capsys.readouterr().out) == report["kept"]
    assert (report["reason"] is None) == report["kept"]
    assert report["test"].keys() == {"fp32", "int8"}
    for scores in report["test"].values():
        assert all(lower <= value <= upper for value, lower, upper in scores.values())


@pytest.mark.parametrize(
    ("accuracy", "milliseconds", "reason"),
    [
        (0.6951, 5, None),
        (0.6949, 5, "it loses 0.51 points on validation, expected at most 0.5"),
        (0.71, 10, "it is not faster"),
    ],
)
def test_int8_must_be_faster_and_may_lose_half_a_point(accuracy: float, milliseconds: float, reason: str) -> None:
    assert rejection_reason({"fp32": 0.7, "int8": accuracy}, {"fp32": 10, "int8": milliseconds}) == reason


def test_weights_match_the_run_and_can_be_exported_again_without_its_data(run: Path) -> None:
    record = run_export(f"checkpoint={run}", "target=weights", "name=kept", "output=weights")
    files = {path.name: path.stat().st_size for path in Path("weights").iterdir() if ".export" not in path.suffixes}
    assert record["files"] == files
    assert files.keys() == {"kept.safetensors", "kept.json"}
    original, exported = (
        load_ensemble(source).probabilities(torch.from_numpy(FACES)) for source in (run, "weights/kept.safetensors")
    )
    assert 0 < (original - exported).abs().max() < 2e-3

    description = json.loads(Path("weights/kept.json").read_text())
    source = {"_target_": "emotion.data.readers.fer2013.read_csv", "path": "data/fer2013.csv"}
    description["datamodule_hyper_parameters"]["source"] = source
    Path("weights/kept.json").write_text(json.dumps(description))
    again = run_export("checkpoint=weights/kept.safetensors", folder="apart")
    assert again["parity"]["source"] == "synthetic faces"
    assert sorted(path.name for path in Path("apart").iterdir()) == ["kept.onnx", "kept.onnx.export.json"]
    with pytest.raises(UserError, match=r"int8=true needs the data that the checkpoint was trained on: .*fer2013"):
        export(compose("export", "checkpoint=weights/kept.safetensors", "int8=true"), Path("int8"))
    assert not Path("int8").exists()


def test_each_target_keeps_its_record(run: Path) -> None:
    record = run_export(f"checkpoint={run}", "name=small")
    run_export(f"checkpoint={run}", "name=small", "target=weights")
    assert json.loads((run / "export/small.onnx.export.json").read_text()) == json.loads(json.dumps(record))
    assert {path.name for path in (run / "export").iterdir()} == {
        *("small.onnx", "small.onnx.export.json"),
        *("small.json", "small.safetensors", "small.weights.export.json"),
    }


def test_int8_of_an_earlier_export_is_deleted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    int8 = run / "export/v4_attention_int8.onnx"
    int8.parent.mkdir()
    int8.touch()
    run_export(f"checkpoint={run}")
    assert int8.exists()  # no record says whose it is
    record = int8.with_name("v4_attention.onnx.export.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"files": {int8.name: 0}}))
    run_export(f"checkpoint={run}")
    assert not int8.exists()
    assert f"deleted {int8} of an earlier export; int8=true writes it again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stopped", "override"),
    [
        ("emotion.exporting.int8.export_int8", "int8=true"),
        ("emotion.io.atomic.write_json", "target=onnx"),
        ("emotion.io.atomic.write_json", "target=weights"),
    ],
)
def test_a_stopped_export_leaves_no_record_of_other_files(
    stopped: str, override: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    run_export(f"checkpoint={run}", *([] if override == "int8=true" else [override]))
    int8 = run / "export/v4_attention_int8.onnx"
    int8.touch()
    monkeypatch.setattr(stopped, stop)
    with pytest.raises(KeyboardInterrupt):
        run_export(f"checkpoint={run}", override)
    assert not list(int8.parent.glob("*.export.json"))
    assert int8.exists() == (override != "int8=true")


@pytest.mark.parametrize("target", ["onnx", "web"])
def test_a_missing_onnx_names_the_extra(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    message = rf"target={target} needs onnxscript, which is not installed: pip install 'emotion\[export\]'"
    with pytest.raises(UserError, match=message):
        export(compose("export", "checkpoint=fast_cnn", f"target={target}"), Path("elsewhere"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["target=coreml"], "target=coreml: expected onnx, weights, web"),
        (["tta=twice"], "tta=twice: expected none, flip, shifted, ten_crop"),
        (["int8=maybe"], "int8=maybe: expected true or false"),
        (["target=weights", "int8=true"], "int8=True requires target=onnx; found target=weights"),
        (["target=weights", "tta=flip"], "tta=flip requires target=onnx or web; found target=weights"),
        (["runtime=there"], "runtime=there requires target=web; found target=onnx"),
        (["name=a/b"], "name=a/b: expected a file name"),
        (["checkpoint=[run,run]", "target=weights"], "target=weights exports one checkpoint; found 2"),
    ],
)
def test_invalid_settings_are_refused_and_nothing_is_written(run: Path, overrides: list[str], message: str) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises(UserError, match=message):
        export(compose("export", "checkpoint=run", *overrides), Path("elsewhere"))
    assert sorted(Path().rglob("*")) == before
