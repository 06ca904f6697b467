import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import emotion
from emotion.checkpoints.ensemble import Ensemble, load_ensemble
from emotion.config.compose import compose
from emotion.data.transforms.preprocess import to_float
from emotion.errors import UserError
from emotion.explainers.explainer import EnsembleExplainer
from emotion.explainers.gradcam import GradCam
from emotion.exporting.onnx import export_onnx, synthetic_faces
from emotion.inference.backends import load_backend
from emotion.inference.onnx_backend import OnnxBackend, _lay_over_faces, _resize
from emotion.inference.torch_backend import TorchBackend
from emotion.predict import predict
from tests.exporting.test_onnx import make_member
from tests.images import FACES, scene
from tests.promises import hostile_files as hostile

FILE = Path("small.onnx")
pytestmark = pytest.mark.filterwarnings("ignore:SYNTHETIC")


@pytest.fixture
def file(small_run: Callable[..., Path], kept_runs: Path) -> Path:
    """The small V4 on six classes, exported with tta=flip."""
    run = small_run(Path("run"), "trainer.max_epochs=1")
    cached = kept_runs / FILE
    if not cached.exists():
        export_onnx(load_ensemble(run), cached, "flip")
    FILE.write_bytes(cached.read_bytes())
    return FILE


def run_python(code: str) -> list[str]:
    """Run code in a new process, which must not write to standard error, and return its output lines."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_file_predicts_like_its_run(file: Path) -> None:
    image = scene((50, 100, 240), (400, 200, 160))
    expected, exported = (emotion.load(source, tta="flip").predict(image) for source in ("run", file))
    assert len(expected) == 2
    for face, other in zip(expected, exported, strict=True):
        assert (face.box, face.label, face.classes) == (other.box, other.label, other.classes)
        np.testing.assert_allclose(face.probs, other.probs, atol=1e-5)


def test_prediction_does_not_import_torch(file: Path) -> None:
    np.save("faces.npy", FACES)
    lines = run_python(
        "import sys, warnings, emotion, numpy; warnings.filterwarnings('ignore', 'SYNTHETIC'); "
        f"print(len(emotion.load('{file}', detector='none', tta='flip').predict(list(numpy.load('faces.npy'))))); "
        "print(sorted({'torch', 'lightning', 'torchvision', 'hydra', 'onnx'} & set(sys.modules)))"
    )
    assert lines == ["6", "[]"]


def test_other_augmentation_and_maps_are_rejected(file: Path) -> None:
    with pytest.raises(UserError, match=r"small\.onnx was exported with tta=flip; found tta=none\. .*tta=none"):
        load_backend(file, "none")
    assert OnnxBackend(file).tta == "flip"
    with pytest.raises(UserError, match=r"was exported without Grad-CAM; .*export RUN grad_cam=true adds"):
        OnnxBackend(file).maps(FACES)


def test_the_default_is_the_augmentation_of_the_file(file: Path) -> None:
    faces = load_backend(file, "flip").probabilities(FACES)
    np.testing.assert_array_equal(load_backend(file).probabilities(FACES), faces)
    np.testing.assert_allclose(
        load_backend("run").probabilities(FACES), load_backend("run", "none").probabilities(FACES)
    )
    Image.fromarray(scene((200, 100, 200))).save("one.png")
    assert predict(compose("predict", "source=one.png", f"checkpoint={file}"), Path("out")).faces == 1
    assert compose("demo").tta is None


def similarity(maps: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Mean correlation of maps (N, H, W)."""
    return float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(maps, others, strict=True)]))


@pytest.mark.parametrize("tta", ["flip", "shifted"])
def test_a_map_is_that_of_the_target(tta: str, rng: np.random.Generator) -> None:
    pairs = FACES[rng.integers(0, 6, (2, 500))].mean(0) + rng.integers(-20, 20, (500, 48, 48))
    faces = pairs.clip(0, 255).astype(np.uint8)
    file, plain = load_backend("fast_cnn", tta), load_backend("fast_cnn")
    targets = file.probabilities(faces).argmax(1)
    differs = plain.probabilities(faces).argmax(1) != targets
    faces, targets = faces[differs][:20], targets[differs][:20]
    maps, of_torch = file.maps(faces, targets), TorchBackend("fast_cnn").maps(faces, targets)
    has_map = np.isfinite(maps).all((1, 2))
    assert has_map.mean() > 0.8
    faces, maps, of_torch = faces[has_map], maps[has_map], of_torch[has_map]
    assert similarity(maps, of_torch) > similarity(maps, np.roll(of_torch, 1, 0)) + 0.05  # than maps of other faces
    if tta == "flip":
        np.testing.assert_allclose(maps, plain.maps(faces[:, :, ::-1])[:, :, ::-1], atol=1e-5)
    assert np.isnan(file.maps(faces, file.probabilities(faces).argmin(1))).all()


@pytest.mark.parametrize(("model", "side"), [("resnet_cbam", 48), ("resnet_cbam", 40), ("v4_attention", 64)])
def test_maps_equal_pytorchs(model: str, side: int) -> None:
    ensemble = Ensemble([make_member(model, side=side, size=side)])
    export_onnx(ensemble, FILE, cam=True)
    backend, faces = OnnxBackend(FILE), synthetic_faces(side, 1)
    targets = backend.probabilities(faces).argmax(1)
    explainer = EnsembleExplainer(ensemble, GradCam("features"))
    expected = explainer.maps(to_float(torch.from_numpy(faces)), torch.from_numpy(targets))
    assert expected.max() > 0.5
    np.testing.assert_allclose(backend.maps(faces, targets), expected, atol=1e-5)


@pytest.mark.parametrize(("size", "side"), [(1, 48), (3, 48), (5, 44), (6, 48), (7, 224), (24, 80), (48, 48), (48, 24)])
def test_maps_are_resized_as_by_pytorch(size: int, side: int, rng: np.random.Generator) -> None:
    maps = rng.random((4, size, size), np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(maps)[:, None], (side, side), mode="bilinear")[:, 0]
    np.testing.assert_allclose(_resize(maps, side), expected, atol=1e-5)


@pytest.mark.parametrize("tta", ["flip", "shifted"])
def test_a_map_is_laid_over_the_face(tta: str) -> None:
    views = load_backend("fast_cnn", tta)._views(FACES)
    for index, view in enumerate(views):
        moved = _lay_over_faces(view.astype(np.float32), index, len(views))
        np.testing.assert_array_equal(moved[:, 3:-3, 3:-3], FACES[:, 3:-3, 3:-3])


def test_a_gpu_is_refused() -> None:
    message = r"=gpu: small\.onnx runs on the CPU.*expected auto or cpu, or the run"
    with pytest.raises(UserError, match=f"^device{message}"):
        emotion.load(FILE, device="gpu")
    with pytest.raises(UserError, match=f"^accelerator{message}"):
        load_backend(FILE, accelerator="gpu")


def test_a_file_in_the_home_folder_is_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert emotion.load(f"~/{file}", tta="flip").backend.name == "V4Attention"


def test_other_files_are_rejected(file: Path) -> None:
    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.save(model, "foreign.onnx")
    onnx.helper.set_model_props(model, {"emotion": '{"format": "emotion onnx 0"}'})
    onnx.save(model, "older.onnx")
    Path("truncated.onnx").write_bytes(file.read_bytes()[:5000])
    Path("text.onnx").write_text("not ONNX")
    not_ours = "is not an ONNX file of this package; expected a file that python -m emotion.export wrote"
    for name, message in {
        "foreign.onnx": not_ours,
        "older.onnx": not_ours,
        "truncated.onnx": r"truncated\.onnx cannot be read as ONNX .* Is it complete",
        "text.onnx": r"text\.onnx cannot be read as ONNX",
        "nowhere.onnx": r"nowhere\.onnx does not exist; expected a file that python -m emotion.export wrote",
    }.items():
        with pytest.raises(UserError, match=message):
            emotion.load(name)


@pytest.mark.parametrize("kind", list(hostile.MEMORY_HUNGRY)[:-1])
def test_a_file_that_needs_too_much_memory_is_rejected_without_using_it(kind: str) -> None:
    hostile.onnx_file(Path("greedy.onnx"), kind)
    message, megabytes = run_python(
        "import emotion\nfrom emotion.benchmarks.measurement import peak_memory\n"
        "try:\n    emotion.load('greedy.onnx')\n"
        "except emotion.errors.UserError as error:\n    print(error)\n"
        "print(peak_memory())"
    )
    assert message.startswith("greedy.onnx cannot be run, or needs more than 600 MB for a face; expected a file that")
    assert float(megabytes) < 1000


def test_a_batch_that_needs_too_much_memory_is_split() -> None:
    hostile.onnx_file(FILE, "92 MB a face")
    backend, faces = OnnxBackend(FILE), np.random.default_rng(0).integers(0, 256, (13, 48, 48), np.uint8)
    expected = np.concatenate([backend.probabilities(faces[i : i + 1]) for i in range(len(faces))])
    np.testing.assert_allclose(backend.probabilities(faces), expected, atol=1e-6)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"ONNX needs onnxruntime.*pip install 'emotion\[export\]'"):
        load_backend(FILE)
