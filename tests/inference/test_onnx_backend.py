"""Files of ONNX as judges, and files that are none."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import emotion
from emotion.checkpoints import ensemble
from emotion.errors import UserError
from emotion.exporting.onnx import export_onnx
from emotion.inference.backends import load_backend
from emotion.inference.onnx_backend import OnnxBackend
from tests.images import FACES, scene
from tests.promises import hostile_files as hostile

FILE = Path("small.onnx")


@pytest.fixture
def file(small_run: Callable[..., Path], kept_runs: Path) -> Path:
    """Of the small V4 on six classes, with flip views inside."""
    run = small_run(Path("run"), "trainer.max_epochs=1")
    kept = kept_runs / FILE
    if not kept.exists():
        export_onnx(ensemble.load_ensemble(run), kept, "flip")
    FILE.write_bytes(kept.read_bytes())
    return FILE


def test_a_file_and_its_run_find_the_same_in_a_picture(file: Path) -> None:
    picture = scene((50, 100, 240), (400, 200, 160))
    ours, theirs = (emotion.load(source, tta="flip").predict(picture) for source in ("run", file))
    assert len(ours) == 2
    for face, other in zip(ours, theirs, strict=True):
        assert (face.box, face.label, face.classes) == (other.box, other.label, other.classes)
        np.testing.assert_allclose(face.shares, other.shares, atol=1e-5)


def test_a_picture_is_judged_without_torch(file: Path) -> None:
    np.save("faces.npy", FACES)
    code = (
        "import sys, emotion, numpy; "
        f"print(len(emotion.load('{file}', detector='none', tta='flip').predict(list(numpy.load('faces.npy'))))); "
        "print(sorted({'torch', 'lightning', 'torchvision', 'hydra', 'onnx'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["6", "[]"]


def test_views_that_are_not_inside_are_refused(file: Path) -> None:
    with pytest.raises(UserError, match=r"small\.onnx has tta=flip inside; found tta=none\. .*tta=none"):
        load_backend(file, "none")
    assert OnnxBackend(file).tta == "flip"


def test_a_file_without_maps_says_so(file: Path) -> None:
    with pytest.raises(UserError, match="the file makes no maps"):
        OnnxBackend(file).maps(FACES)


def test_what_is_no_file_of_ours_is_refused(file: Path) -> None:
    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.save(model, "theirs.onnx")
    onnx.helper.set_model_props(model, {"emotion": '{"format": "emotion onnx 0"}'})
    onnx.save(model, "older.onnx")
    Path("cut.onnx").write_bytes(file.read_bytes()[:5000])
    Path("text.onnx").write_text("no ONNX at all")
    ours = "is no ONNX file of this package; expected one that python -m emotion.export wrote"
    for name, says in {
        "theirs.onnx": ours,
        "older.onnx": ours,
        "cut.onnx": r"cut\.onnx cannot be read as ONNX .* Is it whole",
        "text.onnx": r"text\.onnx cannot be read as ONNX",
        "nowhere.onnx": r"nowhere\.onnx is not there; expected a file that python -m emotion.export wrote",
    }.items():
        with pytest.raises(UserError, match=says):
            emotion.load(name)


@pytest.mark.parametrize("kind", list(hostile.MEMORY_HUNGRY)[:-1])
def test_a_file_that_asks_for_more_memory_than_a_face_needs_is_refused_without_it(kind: str) -> None:
    hostile.onnx_file(Path("greedy.onnx"), kind)
    code = (
        "import emotion\nfrom emotion.benchmarks.measurement import peak_memory\n"
        "try:\n    emotion.load('greedy.onnx')\n"
        "except emotion.errors.UserError as error:\n    print(error)\n"
        "print(peak_memory())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, megabytes = found.stdout.splitlines()
    assert said.startswith(
        "greedy.onnx cannot be asked, or takes more than 600 MB for a face; expected one that python"
    )
    assert float(megabytes) < 1000
    assert found.stderr == ""


def test_faces_that_take_too_much_together_are_asked_one_after_another() -> None:
    hostile.onnx_file(FILE, "92 MB a face")
    judge, faces = OnnxBackend(FILE), np.random.default_rng(0).integers(0, 256, (13, 48, 48), np.uint8)
    each = np.concatenate([judge.probabilities(faces[i : i + 1]) for i in range(len(faces))])
    np.testing.assert_allclose(judge.probabilities(faces), each, atol=1e-6)


def test_a_missing_runtime_names_the_extra(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"ONNX needs onnxruntime.*pip install 'emotion\[export\]'"):
        emotion.load(file)
