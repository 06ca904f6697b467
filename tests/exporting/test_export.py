"""What python -m emotion.export writes, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion.checkpoints import ensemble
from emotion.checkpoints.load import load_checkpoint
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.export import export
from emotion.exporting.int8 import why_not
from emotion.inference.onnx_backend import OnnxJudge
from emotion.io import digests
from tests.pictures import FOUND


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    """Of the small V4 on six classes."""
    return small_run(Path("run"), "trainer.max_epochs=1")


def exported(*overrides: str, folder: str = "elsewhere") -> dict[str, object]:
    found = export(compose("export", *overrides), Path(folder))
    place = next(Path().rglob("export.json"))
    assert json.loads(place.read_text()) == json.loads(json.dumps(found))
    return found


def test_a_run_s_file_lies_in_the_run_and_is_as_true_as_it_says(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = exported(f"checkpoint={run}")
    file = run / "export/v4_attention.onnx"
    assert found["files"] == {file.name: file.stat().st_size}
    assert sorted(path.name for path in file.parent.iterdir()) == ["export.json", file.name]
    said = capsys.readouterr().out
    assert f"wrote {file}, 0." in said
    parity = found["parity"]
    assert parity["of"] == "validation faces of synthetic faces"
    judge = load_checkpoint(run).classifier
    expected = judge.probabilities(torch.from_numpy(FOUND)).numpy()
    np.testing.assert_allclose(OnnxJudge(file, "none").probabilities(FOUND), expected, atol=1e-5)


def test_whole_numbers_are_kept_only_where_they_win_and_say_what_they_do(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = exported(f"checkpoint={run}", "int8=true", "name=small", "output=there")
    told, kept = found["int8"], Path("there/small_int8.onnx")
    faster = told["milliseconds"]["int8"] < told["milliseconds"]["fp32"]
    lost = told["validation"]["fp32"]["accuracy"][0] - told["validation"]["int8"]["accuracy"][0]
    assert told["kept"] == kept.is_file() == (faster and lost <= 0.005)
    assert ("int8 is kept" in capsys.readouterr().out) == told["kept"]
    assert (told["why"] is None) == told["kept"]
    assert told["test"].keys() == {"fp32", "int8"}
    for of_a_file in told["test"].values():
        for figure, lower, upper in of_a_file.values():
            assert lower <= figure <= upper


def found_of(fp32: tuple[float, float], int8: tuple[float, float]) -> dict[str, object]:
    both = {"fp32": fp32, "int8": int8}
    return {
        "validation": {name: {"accuracy": [accuracy]} for name, (accuracy, _) in both.items()},
        "milliseconds": {name: took for name, (_, took) in both.items()},
    }


def test_whole_numbers_have_to_be_faster_and_may_lose_half_a_point() -> None:
    assert why_not(found_of((0.7, 10), (0.6951, 5))) is None
    assert why_not(found_of((0.7, 10), (0.6949, 5))) == "it loses 0.51 points on validation, at most 0.5 may be lost"
    assert why_not(found_of((0.7, 10), (0.71, 10))) == "it is not faster"


def test_weights_that_travel_say_what_the_run_says(run: Path) -> None:
    found = exported(f"checkpoint={run}", "target=weights", "name=kept")
    files = {path.name: path.stat().st_size for path in (run / "export").iterdir() if path.name != "export.json"}
    assert found["files"] == files
    assert files.keys() == {"kept.safetensors", "kept.json"}
    sources = (run, run / "export/kept.safetensors")
    ours, theirs = (ensemble.load(source).probabilities(torch.from_numpy(FOUND)) for source in sources)
    assert 0 < (ours - theirs).abs().max() < 2e-3


def test_weights_that_travelled_are_compared_on_drawn_faces_and_lie_apart(run: Path) -> None:
    exported(f"checkpoint={run}", "target=weights", "name=kept", "output=kept")
    description = json.loads(Path("kept/kept.json").read_text())
    description["datamodule_hyper_parameters"]["source"] = {
        "_target_": "emotion.data.readers.fer2013.read_csv",
        "path": "data/fer2013.csv",
    }
    digests.write_json(Path("kept/kept.json"), description)
    Path("kept/export.json").unlink()
    found = exported("checkpoint=kept/kept.safetensors", folder="apart")
    assert found["parity"]["of"] == "drawn faces"
    assert sorted(path.name for path in Path("apart").iterdir()) == ["export.json", "kept.onnx"]
    with pytest.raises(UserError, match=r"int8=true needs the faces that the checkpoint was trained with: .*fer2013"):
        export(compose("export", "checkpoint=kept/kept.safetensors", "int8=true"), Path("int8"))
    assert not Path("int8").exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["target=coreml"], "target=coreml: expected onnx, weights, web"),
        (["tta=twice"], "tta=twice: expected none, flip, ten_crop"),
        (["int8=4"], "int8=4: expected true or false"),
        (["target=weights", "int8=true"], "int8=True is of target=onnx; found target=weights"),
        (["target=weights", "tta=flip"], "tta=flip is of target=onnx and web; found target=weights"),
        (["runtime=there"], "runtime=there is of target=web; found target=onnx"),
        (["name=a/b"], "name=a/b: expected a plain name"),
        (["output=run/record.json"], r"output=run/record\.json is a file; expected a folder"),
        (["checkpoint=[run,run]", "target=weights"], "target=weights writes one checkpoint; found 2"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(run: Path, wrong: list[str], says: str) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises(UserError, match=says):
        export(compose("export", "checkpoint=run", *wrong), Path("elsewhere"))
    assert sorted(Path().rglob("*")) == before
