import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import emotion
from emotion.checkpoints.ensemble import load_ensemble
from emotion.data.crop import Box
from emotion.data.readers.ferplus import VOTE_NAMES
from emotion.errors import UserError
from emotion.exporting.onnx import export_onnx
from emotion.inference.backends import load_backend
from emotion.inference.detectors import FullImage, Haar
from emotion.inference.onnx_backend import OnnxBackend
from emotion.inference.predictor import Face, Faces, Predictor
from emotion.inference.torch_backend import TorchBackend
from tests.images import FACES, scene
from tests.web_server import serve_folder

pytestmark = pytest.mark.filterwarnings("ignore:SYNTHETIC")


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    """A small V4 on six classes."""
    return small_run(Path("run"), "trainer.max_epochs=1")


def test_a_cropped_face_reaches_the_network_unchanged(run: Path) -> None:
    faces = Predictor(TorchBackend(run), FullImage()).predict(list(FACES))
    expected = load_ensemble(run).probabilities(torch.from_numpy(FACES)).numpy()
    assert [np.array_equal(face.pixels, pixels) for (face,), pixels in zip(faces, FACES, strict=True)] == [True] * 6
    np.testing.assert_allclose([face.probs for (face,) in faces], expected, atol=1e-6)


def test_results_do_not_depend_on_the_batch_size(run: Path) -> None:
    images = [scene((50, 100, 240), (400, 200, 160)), scene(), scene((200, 100, 200))]
    single, batched = (Predictor(TorchBackend(run), Haar(), batch_size=size).predict(images) for size in (1, 64))
    assert [len(faces) for faces in batched] == [2, 0, 1]
    for faces, others in zip(single, batched, strict=True):
        for face, other in zip(faces, others, strict=True):
            assert face.box == other.box
            np.testing.assert_allclose(face.probs, other.probs, atol=1e-6)


def test_a_face_has_label_probabilities_and_a_short_repr(run: Path) -> None:
    predictor = emotion.load(run)
    (face,) = predictor.predict(scene((200, 100, 200)))
    assert face.label == max(face.probabilities, key=face.probabilities.__getitem__)
    assert face.probabilities[face.label] == face.probability
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert all(isinstance(value, float) for value in (*face.box, face.probability))
    assert repr(face).startswith(f"Face({face.label} {face.probability * 100:.0f} %, left=")
    assert face == predictor.predict(scene((200, 100, 200)))[0]
    assert face != replace(face, min_confidence=0.5)
    assert len({face, replace(face)}) == 1
    assert "classes=happiness, surprise" in repr(predictor)


def test_flip_averages_a_face_and_its_mirror_image(run: Path) -> None:
    face = FACES[0]
    plain, flip = (TorchBackend(run, tta).probabilities for tta in ("none", "flip"))
    mean = (plain(face[None]) + plain(face[None, :, ::-1].copy())) / 2
    np.testing.assert_allclose(flip(face[None]), mean, atol=1e-6)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"min_confidence": "0.5"}, "min_confidence=0.5: expected a probability"),
        ({"min_confidence": 2}, "min_confidence=2: expected a probability"),
        ({"checkpoint": None}, "checkpoint=None: expected a run folder"),
        ({"checkpoint": []}, "checkpoint= is empty"),
        ({"detector": None}, "detector=None: expected"),
    ],
)
def test_values_of_another_type_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        emotion.load(**setting)


@pytest.mark.parametrize("min_confidence", [1, np.float32(0.5), np.float64(0.5), torch.tensor(0.5)])
def test_any_real_number_is_a_confidence(min_confidence: float) -> None:
    assert type(emotion.load(min_confidence=min_confidence).min_confidence) is float


def test_load_takes_included_weights() -> None:
    (face,) = emotion.load().predict(scene((200, 100, 200)))
    assert tuple(face.probabilities) == tuple(VOTE_NAMES)[:8]


@pytest.mark.parametrize(
    ("checkpoint", "tta", "message"),
    [
        ("nothing", "none", r"nothing does not exist; expected a run folder .* \(fast_cnn"),
        ("fast_cnn", "many", "tta=many: expected one of none, flip, shifted, ten_crop"),
        (["fast_cnn", "a.onnx"], "none", "an ensemble cannot contain .onnx files"),
    ],
)
def test_load_rejects_invalid_arguments(checkpoint: object, tta: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        emotion.load(checkpoint, tta=tta)  # type: ignore[arg-type]


@pytest.mark.parametrize("tta", ["flip", "shifted"])
def test_included_weights_average_views_without_torch(tta: str) -> None:
    light, averaged = load_backend("fast_cnn"), load_backend("fast_cnn", tta)
    assert isinstance(averaged, OnnxBackend)
    expected = TorchBackend("fast_cnn", tta).probabilities(FACES)
    np.testing.assert_allclose(averaged.probabilities(FACES), expected, atol=1e-5)
    assert np.abs(averaged.probabilities(FACES) - light.probabilities(FACES)).max() > 0.01


def test_included_weights_run_without_torch() -> None:
    assert isinstance(load_backend("fast_cnn"), OnnxBackend)
    assert isinstance(load_backend("fast_cnn", "ten_crop"), TorchBackend)
    code = "import sys, emotion; emotion.load().predict(sys.argv[1]); print({'torch', 'hydra'} & set(sys.modules))"
    Image.fromarray(scene((200, 100, 200))).save("a.png")
    done = subprocess.run([sys.executable, "-c", code, "a.png"], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_results_convert_plot_and_save(tmp_path: Path) -> None:
    image = scene((50, 100, 240), (400, 200, 160))
    faces = emotion.load().predict(image)
    assert isinstance(faces, Faces)
    assert len(faces) == 2
    first = faces.to_dict()[0]
    assert first["box"] == [pytest.approx(value, abs=0.05) for value in (*faces[0].box[:3], faces[0].box.side)]
    left, top, right, bottom = faces[0].box.xyxy
    assert (right - left, bottom - top) == pytest.approx((faces[0].box.side,) * 2)
    assert json.loads(json.dumps(first))["label"] == faces[0].label
    table = faces.to_dataframe()
    assert list(table.columns[:4]) == ["left", "top", "width", "height"]
    assert list(table["label"]) == [face.label for face in faces]
    assert table[faces[0].label].iloc[0] == first["probability"]
    faces.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert np.array_equal(np.asarray(saved), np.asarray(faces.plot()))
        assert (np.asarray(saved) != image).any()


def test_boxes_of_a_shrunk_image_are_drawn_where_they_belong(tmp_path: Path) -> None:
    image = Image.fromarray(scene((200, 100, 240))).resize((6400, 4800))
    image.save(tmp_path / "large.jpg")
    (face,) = faces = emotion.load().predict(tmp_path / "large.jpg")
    assert face.box.side == pytest.approx(2400, abs=400)
    plot = faces.plot()
    changed = (np.abs(np.asarray(plot, int) - np.asarray(image.resize(plot.size), int)) > 60).any(2)
    columns = np.flatnonzero(changed.any(0))
    assert columns.min() / plot.width == pytest.approx(face.box.left / 6400, abs=0.01)


def test_faces_and_their_explanation_are_pictures_in_a_notebook() -> None:
    model = emotion.load()
    faces = model.predict(scene((50, 100, 240), (400, 200, 160)))
    for shown, plot in ((faces, faces.plot()), (faces[0], faces[0].plot())):
        with Image.open(BytesIO(shown._repr_png_())) as image:
            assert np.array_equal(np.asarray(image), np.asarray(plot))
    plots = [np.asarray(face.plot()) for face in faces]
    explained = np.asarray(model.explain(faces))
    image = scene((50, 100, 240), (400, 200, 160))
    for accepted in (image, [image], [faces], list(faces)):
        assert np.array_equal(np.asarray(model.explain(accepted)), explained)
    with pytest.raises(UserError, match=r"photo\.jpg does not exist"):
        model.explain("photo.jpg")
    height, width = plots[0].shape[:2]
    assert explained.shape[1:] == (width * 3 // 2, 3)
    assert 2 * height < len(explained) < 2.3 * height  # a legend
    alone = np.asarray(model.explain(faces[0]))[:height]
    np.testing.assert_allclose(alone.astype(int), explained[:height].astype(int), atol=2)
    for row, values in enumerate(model.maps(faces)):
        overlay = explained[(row + 1) * height - width // 2 : (row + 1) * height, -width // 2 :].astype(int)
        colored = np.abs(overlay - overlay.mean(2, keepdims=True)).sum(2)  # the face itself is gray
        shrunk = cv2.resize(colored.astype(np.float32), values.shape, interpolation=cv2.INTER_AREA)
        assert np.corrcoef(shrunk.ravel(), values.ravel())[0, 1] > 0.7
    with pytest.raises(UserError, match="explain\\(\\) found no faces"):
        model.explain(model.predict(scene()))


def test_a_face_without_a_map_is_shown_without_one() -> None:
    model = emotion.load("fast_cnn", detector="none", tta="flip")
    (face,) = model.predict(FACES[0])
    unlikely = replace(face, probs=np.eye(len(face.classes), dtype=np.float32)[face.probs.argmin()])
    explained = np.asarray(model.explain([face, unlikely]))
    height, width = np.asarray(face.plot()).shape[:2]
    second = explained[height : 2 * height, -width // 2 :]
    assert explained[:height, -width // 2 :].std() > 3 * second.std()
    assert (second == 235).mean() > 0.95


def test_faces_of_another_model_are_not_explained(run: Path) -> None:
    face = emotion.load(detector="none").predict(FACES[0])[0]
    with pytest.raises(UserError, match=r"Found a face \(48, 48\) of another model \(neutral, .*; expected \(48, 48\)"):
        emotion.load(run).explain(face)
    with pytest.raises(UserError, match=r"Found a face \(64, 64\) of another model"):
        emotion.load().explain(replace(face, pixels=np.zeros((64, 64), np.uint8)))


def test_threads_share_a_predictor(run: Path) -> None:
    images = [scene((50 + 7 * n, 100, 200 + n), (400, 200, 160 - n)) for n in range(16)]

    def explain(predictor: Predictor, image: NDArray[np.uint8]) -> tuple[Faces, NDArray[np.float32]]:
        return (faces := predictor.predict(image)), predictor.maps(faces)

    for predictor in (Predictor(load_backend("fast_cnn"), Haar()), Predictor(TorchBackend(run), FullImage())):
        expected = [explain(predictor, image) for image in images]
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(partial(explain, predictor), images))
        for (faces, maps), (others, other_maps) in zip(found, expected, strict=True):
            assert [face.box for face in faces] == [face.box for face in others]
            np.testing.assert_allclose(maps, other_maps, atol=1e-5)


def test_a_predictor_works_in_another_process(run: Path) -> None:
    image = scene((200, 100, 200))
    predictor = emotion.load("fast_cnn", tta="flip", min_confidence=0.1)
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        assert processes.submit(predictor.predict, image).result() == predictor.predict(image)
    for original in (predictor, emotion.load(run, detector=Haar(min_face=0.1))):
        for other in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
            assert other.predict(image) == original.predict(image)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_square_is_unclear(level: int) -> None:
    predictor = emotion.load(detector="none")
    (face,) = predictor.predict(np.full((100, 100, 3), level, np.uint8))
    assert face.label == "unclear"
    (face,) = predictor.predict(np.full((100, 100, 3), (250, 120, 10), np.uint8))
    assert face.label == "unclear"


def test_an_unsure_face_is_unclear() -> None:
    (face,) = emotion.load(detector="none").predict(FACES[0])
    assert face.label in face.classes
    (sure,) = emotion.load(detector="none", min_confidence=face.probability - 0.01).predict(FACES[0])
    (unsure,) = emotion.load(detector="none", min_confidence=face.probability + 0.01).predict(FACES[0])
    assert (sure.label, unsure.label) == (face.label, "unclear")
    assert unsure.probability == face.probability
    with pytest.raises(UserError, match=r"min_confidence=1\.5: expected a probability"):
        emotion.load(min_confidence=1.5)


def test_the_order_of_channels_is_named() -> None:
    rng = np.random.default_rng(0)
    image = np.asarray(scene((200, 100, 200)) * np.array([1, 0.8, 0.4]) + rng.integers(0, 5, (480, 640, 3)), np.uint8)
    predictor = emotion.load()
    (rgb,), (bgr,) = predictor.predict(image), predictor.predict(image[..., ::-1], color="bgr")
    assert np.array_equal(rgb.pixels, bgr.pixels)
    with pytest.raises(UserError, match="color=hsv: expected one of rgb, bgr"):
        predictor.predict(image, color="hsv")


def test_transparent_pixels_are_put_on_white() -> None:
    image = np.zeros((480, 640, 4), np.uint8)
    image[..., :3], image[100:300, 200:400, 3] = scene((200, 100, 200)), 255
    expected = image[..., :3].copy()
    expected[image[..., 3] == 0] = 255
    predictor = emotion.load(detector="none")
    assert np.array_equal(predictor.predict(image)[0].pixels, predictor.predict(expected)[0].pixels)


@pytest.mark.parametrize("shape", [(3, 48, 48), (5, 48, 48), (4, 48, 48, 3), (2, 48, 48, 1)])
def test_an_array_of_images_is_a_list(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    predictor = emotion.load(detector="none")
    results = predictor.predict(images)
    assert [len(faces) for faces in results] == [1] * shape[0]
    np.testing.assert_allclose(results[1][0].probs, predictor.predict(images[1])[0].probs, atol=1e-6)


def test_an_array_of_two_channels_is_refused() -> None:
    with pytest.raises(UserError, match=r"uint8 \(48, 48, 2\); expected"):
        emotion.load(detector="none").predict(np.zeros((48, 48, 2), np.uint8))


def test_folders_and_patterns_are_lists(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg"):
        Image.fromarray(scene((200, 100, 200))).save(tmp_path / name)
    predictor = emotion.load()
    for source in (tmp_path, str(tmp_path), f"{tmp_path}/*"):
        assert [Path(str(faces.image)).name for faces in predictor.predict(source)] == ["a.jpg", "b.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="contains none of the expected images"):
        predictor.predict(tmp_path / "empty")


def test_unreadable_files_and_videos_of_a_folder_are_skipped_with_a_warning(tmp_path: Path) -> None:
    Image.fromarray(scene((200, 100, 200))).save(tmp_path / "b.png")
    (tmp_path / "a.jpg").write_bytes(b"no image")
    (tmp_path / "clip.mp4").touch()
    predictor = emotion.load()
    with pytest.warns(UserWarning, match="skipped|cannot be read") as warned:
        (faces,) = predictor.predict(tmp_path)
    assert faces.image == tmp_path / "b.png"
    texts = [str(warning.message) for warning in warned]
    assert [("skipped 1 file (1 .mp4)" in text, "a.jpg cannot be read" in text) for text in texts] == [
        (True, False), (False, True),
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"a\.jpg cannot be read"):
        predictor.predict([tmp_path / "b.png", tmp_path / "a.jpg"])
    with pytest.raises(UserError, match=r"clip\.mp4 is a video, .*python -m emotion\.predict source="):
        predictor.predict(tmp_path / "clip.mp4")
    with pytest.raises(UserError, match=f"{tmp_path} is a folder; expected an image file. Pass a folder on its own"):
        predictor.predict([tmp_path])
    with pytest.raises(UserError, match="images='': expected the path"):
        predictor.predict("")


def test_an_image_without_faces_has_the_columns_of_others() -> None:
    model = emotion.load()
    empty, found = (model.predict(image).to_dataframe() for image in (scene(), scene((200, 100, 200))))
    assert list(empty.columns) == list(found.columns)
    assert (len(empty), len(found)) == (0, 1)


def test_an_annotated_image_is_saved_in_a_new_folder_and_by_its_suffix(tmp_path: Path) -> None:
    faces = emotion.load().predict(scene((200, 100, 200)))
    faces.save(tmp_path / "new/folder/a.png")
    with Image.open(tmp_path / "new/folder/a.png") as image:
        assert image.size == faces.plot().size
    for suffix in (".xyz", ".pgm", ".pbm"):  # the last two have no colors
        with pytest.raises(UserError, match=rf"a\{suffix}: expected a name that ends in one of"):
            faces.save(tmp_path / f"a{suffix}")
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["a.png"]


def test_some_of_the_faces_are_plotted_alone() -> None:
    image = scene((50, 100, 240), (400, 200, 160))
    faces = emotion.load().predict(image)
    largest = faces[:1]
    assert isinstance(largest, Faces)
    assert list(largest) == [faces[0]]
    assert np.array_equal(largest.image, image)
    assert not np.array_equal(np.asarray(largest.plot()), np.asarray(faces.plot()))
    assert faces[::-1].to_dict() == faces.to_dict()[::-1]


@pytest.mark.parametrize(
    ("min_confidence", "pixels", "caption"),
    [
        (0.5, np.eye(48, dtype=np.uint8) * 255, "sad 70 %"),
        (0.9, np.eye(48, dtype=np.uint8) * 255, "unclear (sad 70 %)"),
        (0.5, np.zeros((48, 48), np.uint8), "unclear"),
    ],
)
def test_a_caption_names_an_unclear_faces_most_likely_class(
    min_confidence: float, pixels: np.ndarray, caption: str
) -> None:
    probs = np.array([0.3, 0.7], np.float32)
    assert Face(Box(0, 0, 48, 1.0), ("happy", "sad"), probs, pixels, min_confidence).caption == caption


def test_an_address_is_loaded_or_reported(tmp_path: Path) -> None:
    Image.fromarray(scene((200, 100, 200))).save(tmp_path / "a.png")
    with serve_folder(tmp_path) as address:
        assert len(emotion.load().predict(f"{address}/a.png")) == 1
        assert len(emotion.load().predict(f"{address}/a.png?width=200&crop=[0,*]")) == 1  # no pattern
        with pytest.raises(UserError, match=r"/b\.png cannot be loaded .*404"):
            emotion.load().predict(f"{address}/b.png")
    with pytest.raises(UserError, match=r"/a\.png cannot be loaded"):
        emotion.load().predict(f"{address}/a.png")


def test_synthetic_training_is_told(run: Path) -> None:
    with pytest.warns(UserWarning, match="SYNTHETIC: V4Attention was trained on synthetic faces"):
        emotion.load(run)
    assert not load_backend("fast_cnn").is_synthetic
    export_onnx(load_ensemble(run), Path("run.onnx"))
    assert load_backend("run.onnx").is_synthetic


def test_versions_and_devices() -> None:
    assert emotion.__version__ == version("emotion")
    with pytest.raises(UserError, match="device=tpu: expected auto, cpu or gpu"):
        emotion.load(device="tpu")
    if not torch.cuda.is_available():
        for device in ("gpu", "cuda"):
            with pytest.raises(UserError, match=f"device={device}: no GPU was found"):
                emotion.load(device=device)
