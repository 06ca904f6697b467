"""The static page in Chromium: its results match Python's, and nothing leaves it."""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnxruntime import InferenceSession

import emotion
from emotion.checkpoints.ensemble import load_ensemble
from emotion.config.compose import compose
from emotion.data.crop import Box, crop
from emotion.errors import UserError
from emotion.export import export
from emotion.exporting.onnx import halve_weights
from emotion.exporting.web import export_web, model_description
from emotion.exporting.web_runtime import FILES
from emotion.inference.blazeface import BlazeFace
from emotion.inference.onnx_backend import OnnxBackend
from tests.images import encode_image, scene
from tests.web_server import serve_folder

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'emotion[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

TWO = scene((50, 100, 240), (400, 200, 160))

PREDICT = """async ([image, map]) => {
  const { predict } = await import("./engine.js");
  const canvas = document.createElement("canvas");
  const bitmap = await createImageBitmap(new Blob([Uint8Array.from(atob(image), (c) => c.charCodeAt(0))]));
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return predict({ width: canvas.width, height: canvas.height, draw: () => canvas }, { map });
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a web server, with the page in below/web."""
    root = tmp_path_factory.mktemp("site")
    output = root / "below"
    try:
        with redirect_stdout(StringIO()) as said:
            export(compose("export", "checkpoint=fast_cnn", "target=web", f"output={output}"), Path("elsewhere"))
    except UserError as error:
        pytest.skip(f"needs the page's runtime: {error}")
    assert f"python -m http.server --bind 127.0.0.1 --directory {output}/web\n" in said.getvalue()
    return root


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with serve_folder(site) as address:
        yield f"{address}/below/web/"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["sync_api.Browser"]:
    if CHROMIUM is None:
        pytest.skip("needs chromium in the PATH")
    video = tmp_path_factory.mktemp("camera") / "video.mjpeg"
    frames = [scene((150 + 5 * i, 100, 220)) for i in range(8)]
    video.write_bytes(b"".join(encode_image(frame, "JPEG") for frame in frames))
    camera = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*camera, f"--use-file-for-fake-video-capture={video}"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def events() -> list[str]:
    """Console messages of the page and its requests to other hosts."""
    return []


@pytest.fixture(scope="module")
def page(browser: "sync_api.Browser", address: str, events: list[str]) -> Iterator["sync_api.Page"]:
    """The loaded page."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    own = (address, f"blob:{address.removesuffix('below/web/')}")
    context.on("request", lambda request: None if request.url.startswith(own) else events.append(request.url))
    page.goto(address)
    sync_api.expect(page.locator("#choose")).to_be_enabled(timeout=30_000)
    yield page
    context.close()


def predict(page: "sync_api.Page", image: NDArray[np.uint8], maps: bool = False) -> list[dict[str, Any]]:
    faces: list[dict[str, Any]] = page.evaluate(PREDICT, [base64.b64encode(encode_image(image)).decode(), maps])[
        "faces"
    ]
    return faces


def color_scene(seed: int) -> NDArray[np.uint8]:
    """A large image with color, noise and faces of many sizes, some beyond its edge."""
    image = scene(
        (-0, 40, 97), (300, 33, 41), (700, 500, 333), (1000, 80, 222), (1250, 700, 287), width=1537, height=987
    )
    noise = np.random.default_rng(seed).normal(0, 6, image.shape)
    return np.clip(image * np.array([1, 0.93, 0.85]) + noise, 0, 255).astype(np.uint8)


def turned_scene() -> NDArray[np.uint8]:
    """Two faces, turned by 30 degrees."""
    matrix = cv2.getRotationMatrix2D((320, 240), -30, 1.0)
    return np.asarray(cv2.warpAffine(TWO, matrix, (640, 480), borderMode=cv2.BORDER_REPLICATE), np.uint8)


IMAGES = [
    TWO,
    turned_scene(),
    color_scene(0),
    color_scene(1)[:700, 100:1400],
    scene(),
    scene((3, 2, 90), width=96, height=94),
]


@pytest.mark.parametrize("image", IMAGES)
def test_browser_and_python_agree(page: "sync_api.Page", site: Path, image: NDArray[np.uint8]) -> None:
    faces, expected = predict(page, image, maps=True), emotion.load("fast_cnn").predict(image)
    assert [face["label"] for face in faces] == [face.label for face in expected]
    backend = OnnxBackend(site / "below/web/model.onnx")
    for face, other in zip(faces, expected, strict=True):
        assert face["box"] == pytest.approx([*other.box[:3], other.box.side], abs=0.01)
        assert (face["angle"], face["score"]) == pytest.approx((other.box.angle, other.box.score), abs=1e-3)
        np.testing.assert_allclose(list(face["probabilities"].values()), other.probs, atol=1e-4)
        (values,) = backend.session.run(["map"], {"faces": other.pixels[None]})[0]
        assert (face["map"]["height"], face["map"]["width"]) == values.shape
        scaled = (values - values.min()) / np.ptp(values)
        np.testing.assert_allclose(face["map"]["values"], scaled.ravel(), atol=1e-3)


def test_maps_are_computed_on_request_only(page: "sync_api.Page") -> None:
    assert [face["map"] for face in predict(page, TWO)] == [None, None]


@pytest.mark.parametrize("channels", [1, 3])
def test_crops_equal_opencvs(page: "sync_api.Page", channels: int) -> None:
    image = color_scene(2)[:300, :400]
    cut = """async ([image, channels, crops]) => {
      const { cropSquare, enlarge, shrink, toGray, toRGB } = await import("./pixels.js");
      const bytes = Uint8Array.from(atob(image), (c) => c.charCodeAt(0));
      const bitmap = await createImageBitmap(new Blob([bytes]));
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
      context.drawImage(bitmap, 0, 0);
      const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
      const converted = channels === 1 ? toGray(toRGB(pixels)) : toRGB(pixels);
      return crops.map(([left, top, side, to]) => {
        const inside = cropSquare(converted, left, top, side);
        return Array.from((side > to ? shrink : enlarge)(inside, to, to).data);
      });
    }"""
    crops = [
        (10, 20, 131, 48),
        (-9, 200, 144, 48),
        (30, -5, 96, 48),
        (300, 100, 200, 64),
        (50, 60, 37, 224),
        (7, 9, 48, 48),
    ]
    results = page.evaluate(cut, [base64.b64encode(encode_image(image)).decode(), channels, crops])
    for (left, top, side, to), pixels in zip(crops, results, strict=True):
        expected = crop(image, Box(left, top, side, 1), to, channels)
        assert np.array_equal(np.array(pixels, np.uint8), expected.ravel()), (left, top, side, to)


def test_color_network_gets_color_faces(browser: "sync_api.Browser", site: Path, address: str) -> None:
    """Its probabilities are the mean red, green and blue of a face, and its map is the brightness."""
    nodes = [
        onnx.helper.make_node("Cast", ["faces"], ["values"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("ReduceMean", ["values", "pixels"], ["probabilities"], keepdims=0),
        onnx.helper.make_node("ReduceMean", ["values", "channels"], ["map"], keepdims=0),
    ]
    axes = [onnx.numpy_helper.from_array(np.array(a), name) for name, a in (("pixels", [1, 2]), ("channels", [3]))]
    faces = onnx.helper.make_tensor_value_info("faces", onnx.TensorProto.UINT8, ["batch", 40, 40, 3])
    shapes = {"probabilities": ["batch", 3], "map": ["batch", 40, 40]}
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, s) for name, s in shapes.items()]
    graph = onnx.helper.make_graph(nodes, "color", [faces], outputs, axes)
    network = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    description = json.loads((site / "below/web/model.json").read_text())
    description |= {"classes": ["red", "green", "blue"], "side": 40, "channels": 3}
    page, image = browser.new_page(), color_scene(0)
    page.route("**/model.onnx", lambda route: route.fulfill(body=network.SerializeToString()))
    page.route("**/model.json", lambda route: route.fulfill(json=description))
    page.goto(address)
    sync_api.expect(page.locator("#about")).to_contain_text("40 x 40 color pixels", timeout=30_000)
    results = predict(page, image, maps=True)
    page.close()
    crops = [crop(image, box, 40, 3) for box in BlazeFace()(image)]
    means = [list(face["probabilities"].values()) for face in results]
    np.testing.assert_allclose(means, [c.mean((0, 1)) for c in crops], rtol=5e-3)
    maps = [(c.mean(2) - c.mean(2).min()) / np.ptp(c.mean(2)) for c in crops]
    np.testing.assert_allclose([face["map"]["values"] for face in results], [m.ravel() for m in maps], atol=0.05)


def test_chosen_files_are_classified_or_refused(page: "sync_api.Page") -> None:
    def choose(name: str, content: bytes) -> None:
        page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})

    message = page.locator("#message")
    choose("two.png", encode_image(TWO))
    sync_api.expect(message).to_have_text("2 faces found.")
    sync_api.expect(page.locator("#faces > li")).to_have_count(2)
    page.check("#map")
    sync_api.expect(page.locator(".box canvas")).to_have_count(2)
    page.uncheck("#map")
    choose("wall.png", encode_image(scene()))
    sync_api.expect(message).to_contain_text("No face found.")
    choose("words.png", b"no image")
    sync_api.expect(message).to_have_text("words.png is not an image that this browser can open.")


def test_camera_frames_are_classified(page: "sync_api.Page") -> None:
    page.click("#camera")
    sync_api.expect(page.locator("#timing")).to_contain_text("frames per second", timeout=20_000)
    sync_api.expect(page.locator("#faces > li")).to_have_count(1)
    page.keyboard.press("Escape")
    sync_api.expect(page.locator("#message")).to_have_text("The camera is off.")


def test_console_stays_empty_and_no_other_host_is_contacted(page: "sync_api.Page", events: list[str]) -> None:
    assert len(predict(page, TWO)) == 2
    assert events == []


@pytest.mark.parametrize("policy", [True, False])
def test_policy_keeps_page_and_worker_from_sending_anything(
    browser: "sync_api.Browser", address: str, policy: bool
) -> None:
    send = """(url) => new Promise((done) => {
      const attempt = `fetch("${url}", { mode: "no-cors" }).then(() => "sent", () => "blocked")`;
      const code = `${attempt}.then((result) => postMessage(result))`;
      const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })), { type: "module" });
      worker.onmessage = async ({ data }) => {
        done([data, await fetch(url, { mode: "no-cors" }).then(() => "sent", () => "blocked")]);
      };
      worker.onerror = () => done("no worker");
    })"""
    context = browser.new_context(bypass_csp=not policy)
    page = context.new_page()
    page.goto(address)
    other_origin = address.replace("127.0.0.1", "localhost")  # of the same server
    assert page.evaluate(send, other_origin) == (["blocked"] * 2 if policy else ["sent"] * 2)
    context.close()


def test_page_opened_as_a_file_explains_what_to_do(browser: "sync_api.Browser", site: Path) -> None:
    page = browser.new_page()
    page.goto((site / "below/web/index.html").as_uri())
    sync_api.expect(page.locator("#about")).to_contain_text("This page must be opened from a web server.")
    page.close()


@pytest.mark.parametrize(
    ("missing", "element", "message"),
    [
        ("engine.js", "#about", "The page could not be loaded completely. Is the folder complete?"),
        ("blazeface.js", "#message", "The engine could not be started. Is the folder complete?"),
        ("model.onnx", "#message", "model.onnx could not be loaded (404). Is the folder complete?"),
    ],
)
def test_missing_files_are_reported(
    browser: "sync_api.Browser", address: str, missing: str, element: str, message: str
) -> None:
    page = browser.new_page()
    page.route(f"**/{missing}", lambda route: route.fulfill(status=404))
    page.goto(address)
    sync_api.expect(page.locator(element)).to_contain_text(message)
    page.close()


@pytest.mark.parametrize("name", ["model.json", "detector.onnx", "model.onnx", "ort.wasm"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_damaged_files_are_reported(
    browser: "sync_api.Browser", site: Path, address: str, name: str, share: float
) -> None:
    content = (site / "below/web" / name).read_bytes()
    page = browser.new_page()
    page.route(f"**/{name}", lambda route: route.fulfill(body=content[: int(share * len(content))]))
    page.goto(address)
    message = f"{name} cannot be read. Is it complete? Copy it again, or export the page again."
    sync_api.expect(page.locator("#message")).to_contain_text(message, timeout=30_000)
    sync_api.expect(page.locator("#choose")).to_be_disabled()
    page.close()


@pytest.mark.parametrize(
    ("name", "element", "message"),
    [
        ("app.js", "#about", "The page could not be loaded completely. Is the folder complete?"),
        ("engine.js", "#about", "The page could not be loaded completely. Is the folder complete?"),
        ("worker.js", "#message", "The engine could not be started. Is the folder complete?"),
        ("ort.js", "#message", "The engine could not be started. Is the folder complete?"),
    ],
)
def test_truncated_scripts_are_reported(
    browser: "sync_api.Browser", site: Path, address: str, name: str, element: str, message: str
) -> None:
    content = (site / "below/web" / name).read_bytes()
    page = browser.new_page()
    page.route(
        f"**/{name}",
        lambda route: route.fulfill(body=content[: len(content) // 2], headers={"Content-Type": "text/javascript"}),
    )
    page.goto(address)
    sync_api.expect(page.locator(element)).to_contain_text(message)
    page.close()


@pytest.mark.filterwarnings("ignore:SYNTHETIC")
def test_synthetic_training_is_shown(
    browser: "sync_api.Browser",
    page: "sync_api.Page",
    site: Path,
    address: str,
    small_run: Callable[..., Path],
) -> None:
    description = json.loads((site / "below/web/model.json").read_text())
    assert description["synthetic"] is False
    sync_api.expect(page.locator("#synthetic")).to_be_hidden()
    assert model_description(load_ensemble(small_run(Path("run"), "trainer.max_epochs=1")))["synthetic"] is True
    other = browser.new_page()
    other.route("**/model.json", lambda route: route.fulfill(json=description | {"synthetic": True}))
    other.goto(address)
    sync_api.expect(other.locator("#synthetic")).to_be_visible(timeout=30_000)
    other.close()


def test_folder_documents_its_files_and_licenses_and_is_small(site: Path) -> None:
    folder = site / "below/web"
    readme, licenses = ((folder / name).read_text() for name in ("README.txt", "LICENSES.txt"))
    names = {path.name for path in folder.iterdir()}
    assert [name for name in names if name not in readme and name != "README.txt"] == []
    assert {path.name for path in folder.parent.iterdir()} == {"web", "fast_cnn.web.export.json"}
    assert set(FILES) <= names
    assert "Copyright (c) Microsoft Corporation" in licenses
    assert "Copyright 2020-2023 The MediaPipe Authors" in licenses
    parameters = sum(parameter.numel() for parameter in load_ensemble("fast_cnn").parameters())
    assert (folder / "model.onnx").stat().st_size < 2.1 * parameters  # two bytes each


def test_weights_are_halved_where_that_is_lossless() -> None:
    rng = np.random.default_rng(0)
    exact = rng.normal(0, 1, (64, 64)).astype(np.float16).astype(np.float32)
    weights = {"exact": exact, "fine": exact + np.float32(1e-5), "huge": exact * 1e5}
    nodes = [onnx.helper.make_node("Gemm", ["faces", name], [f"by_{name}"]) for name in weights]
    faces, *outputs = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 64])
        for name in ("faces", *(f"by_{name}" for name in weights))
    )
    tensors = [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = onnx.helper.make_graph(nodes, "three", [faces], outputs, tensors)
    opset = onnx.helper.make_opsetid("", 18)
    network = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    model = network.SerializeToString()
    halve_weights(network)
    onnx.checker.check_model(network)
    small = network.SerializeToString()
    expected = len(model) - 64 * 64 * 2
    assert expected <= len(small) <= expected + 200
    batch = {"faces": rng.normal(0, 1, (3, 64)).astype(np.float32)}
    before, after = (InferenceSession(content).run(None, batch) for content in (model, small))
    assert all(map(np.array_equal, before, after))


def test_other_files_are_not_replaced(site: Path, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UserError, match="contains other files; expected a new or empty folder, or an earlier page"):
        export_web(load_ensemble("fast_cnn"), tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    (site / "below/web/style.css").write_text("")
    assert export_web(load_ensemble("fast_cnn"), site / "below/web") == sorted((site / "below/web").iterdir())
    assert (site / "below/web/style.css").stat().st_size > 0


def test_nothing_is_written_without_a_runtime(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="runtime="):
        export_web(load_ensemble("fast_cnn"), tmp_path / "page", str(tmp_path))
    assert not (tmp_path / "page").exists()
