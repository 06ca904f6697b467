"""The page without a server, in Chromium: it sees what Python sees, and lets nothing out."""

import base64
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from filelock import FileLock
from numpy.typing import NDArray
from onnxruntime import InferenceSession

import emotion
from emotion.checkpoints import ensemble
from emotion.errors import UserError
from emotion.exporting.web import export_web, halved
from emotion.exporting.web_runtime import FILES, NAME, runtime_files
from emotion.inference.detectors import Box, Haar, crop
from emotion.inference.onnx_backend import OnnxJudge
from tests.pictures import packed, scene

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'emotion[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

TWO = scene((50, 100, 240), (400, 200, 160))

LOOK = """async ([picture, map]) => {
  const { look } = await import("./engine.js");
  const canvas = document.createElement("canvas");
  const bitmap = await createImageBitmap(new Blob([Uint8Array.from(atob(picture), (c) => c.charCodeAt(0))]));
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return look(canvas, { map });
}"""


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runtime, fetched once for all workers."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm, to fetch the page's runtime")
    folder = tmp_path_factory.getbasetemp().parent / "web_runtime"
    with FileLock(f"{folder}.lock"):
        try:
            runtime_files(None, folder)
        except UserError as error:
            pytest.skip(f"needs the page's runtime: {error}")
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def site(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host's root; the page lies below it, in below/page."""
    root = tmp_path_factory.mktemp("site")
    package = tmp_path_factory.mktemp("given") / NAME
    shutil.copytree(runtime, package / "dist")
    export_web(ensemble.load("attention_cnn"), root / "below" / "page", str(package.parent))
    return root


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/below/page/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["sync_api.Browser"]:
    if CHROMIUM is None:
        pytest.skip("needs chromium in the PATH")
    film = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    frames = [scene((150 + 5 * i, 100, 220)) for i in range(8)]
    film.write_bytes(b"".join(packed(frame, "JPEG") for frame in frames))
    camera = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*camera, f"--use-file-for-fake-video-capture={film}"]
        )
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def noticed() -> list[str]:
    """What the page's console said, and what it asked of others."""
    return []


@pytest.fixture(scope="module")
def page(browser: "sync_api.Browser", address: str, noticed: list[str]) -> Iterator["sync_api.Page"]:
    """The page, ready."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    opened = context.new_page()
    opened.on("console", lambda message: noticed.append(message.text))
    opened.on("pageerror", lambda error: noticed.append(str(error)))
    own = (address, f"blob:{address.removesuffix('below/page/')}")
    context.on("request", lambda request: None if request.url.startswith(own) else noticed.append(request.url))
    opened.goto(address)
    sync_api.expect(opened.locator("#choose")).to_be_enabled(timeout=30_000)
    yield opened
    context.close()


def looked(page: "sync_api.Page", picture: NDArray[np.uint8], maps: bool = False) -> list[dict[str, Any]]:
    faces: list[dict[str, Any]] = page.evaluate(LOOK, [base64.b64encode(packed(picture)).decode(), maps])["faces"]
    return faces


def coloured(seed: int) -> NDArray[np.uint8]:
    """Faces of many sizes in a picture with colour and noise, some over its edge, larger than is looked in."""
    picture = scene(
        (-0, 40, 97), (300, 33, 41), (700, 500, 333), (1000, 80, 222), (1250, 700, 287), width=1537, height=987
    )
    noise = np.random.default_rng(seed).normal(0, 6, picture.shape)
    return np.clip(picture * np.array([1, 0.93, 0.85]) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("picture", [TWO, coloured(0), coloured(1)[:700, 100:1400], scene()])
def test_the_browser_sees_what_python_sees(page: "sync_api.Page", site: Path, picture: NDArray[np.uint8]) -> None:
    found, expected = looked(page, picture, maps=True), emotion.load("attention_cnn").predict(picture)
    assert len(found) == len(expected)
    judge = OnnxJudge(site / "below/page/model.onnx")
    for face, other in zip(found, expected, strict=True):
        assert [face["left"], face["top"], face["side"]] == pytest.approx(list(other.box)[:3], abs=1e-6)
        np.testing.assert_allclose(face["probabilities"], other.shares, atol=1e-5)
        (values,) = judge.maps(other.pixels[None])
        assert (face["map"]["height"], face["map"]["width"]) == values.shape
        scaled = (values - values.min()) / np.ptp(values)
        np.testing.assert_allclose(face["map"]["values"], scaled.ravel(), atol=1e-4)


def test_maps_are_made_when_they_are_asked_for(page: "sync_api.Page") -> None:
    assert [face["map"] for face in looked(page, TWO)] == [None, None]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_has_the_pixels_that_opencv_gives_it(page: "sync_api.Page", channels: int) -> None:
    picture = coloured(2)[:300, :400]
    cut = """async ([picture, channels, crops]) => {
      const { enlarged, grey, rgb, shrunk, square } = await import("./pixels.js");
      const bytes = Uint8Array.from(atob(picture), (c) => c.charCodeAt(0));
      const bitmap = await createImageBitmap(new Blob([bytes]));
      const pen = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
      pen.drawImage(bitmap, 0, 0);
      const pixels = pen.getImageData(0, 0, bitmap.width, bitmap.height);
      const taken = channels === 1 ? grey(pixels) : rgb(pixels);
      return crops.map(([left, top, side, to]) => {
        const inside = square(taken, left, top, side);
        return Array.from((side > to ? shrunk : enlarged)(inside, to, to).data);
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
    found = page.evaluate(cut, [base64.b64encode(packed(picture)).decode(), channels, crops])
    for (left, top, side, to), pixels in zip(crops, found, strict=True):
        expected = crop(picture, Box(left, top, side, 1), to, channels)
        assert np.array_equal(np.array(pixels, np.uint8), expected.ravel()), (left, top, side, to)


def test_a_network_of_colours_gets_colours(browser: "sync_api.Browser", site: Path, address: str) -> None:
    """One whose probabilities are the mean red, green and blue of a face, and whose map is its brightness."""
    nodes = [
        onnx.helper.make_node("Cast", ["faces"], ["values"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("ReduceMean", ["values", "places"], ["probabilities"], keepdims=0),
        onnx.helper.make_node("ReduceMean", ["values", "colours"], ["map"], keepdims=0),
    ]
    axes = [onnx.numpy_helper.from_array(np.array(of), name) for name, of in (("places", [1, 2]), ("colours", [3]))]
    faces = onnx.helper.make_tensor_value_info("faces", onnx.TensorProto.UINT8, ["batch", 40, 40, 3])
    shapes = {"probabilities": ["batch", 3], "map": ["batch", 40, 40]}
    given = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = onnx.helper.make_graph(nodes, "colours", [faces], given, axes)
    network = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    told = json.loads((site / "below/page/model.json").read_text())
    told |= {"classes": ["red", "green", "blue"], "side": 40, "channels": 3}
    page, picture = browser.new_page(), coloured(0)
    page.route("**/model.onnx", lambda route: route.fulfill(body=network.SerializeToString()))
    page.route("**/model.json", lambda route: route.fulfill(json=told))
    page.goto(address)
    sync_api.expect(page.locator("#about")).to_contain_text("40 x 40 colour pixels", timeout=30_000)
    found = looked(page, picture, maps=True)
    page.close()
    crops = [crop(picture, box, 40, 3) for box in Haar()(picture)]
    np.testing.assert_allclose([face["probabilities"] for face in found], [c.mean((0, 1)) for c in crops], rtol=1e-5)
    maps = [(c.mean(2) - c.mean(2).min()) / np.ptp(c.mean(2)) for c in crops]
    np.testing.assert_allclose([face["map"]["values"] for face in found], [m.ravel() for m in maps], atol=1e-5)


def test_a_file_is_looked_at_and_what_is_none_is_refused(page: "sync_api.Page") -> None:
    def give(name: str, content: bytes) -> None:
        page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})

    message = page.locator("#message")
    give("two.png", packed(TWO))
    sync_api.expect(message).to_have_text("2 faces were found.")
    sync_api.expect(page.locator("#faces > li")).to_have_count(2)
    page.check("#map")
    sync_api.expect(page.locator(".box canvas")).to_have_count(2)
    page.uncheck("#map")
    give("wall.png", packed(scene()))
    sync_api.expect(message).to_contain_text("No face was found.")
    give("words.png", b"no picture")
    sync_api.expect(message).to_have_text("words.png is no picture that this browser can open.")


def test_the_camera_s_pictures_are_looked_at(page: "sync_api.Page") -> None:
    page.click("#camera")
    sync_api.expect(page.locator("#figures")).to_contain_text("pictures a second", timeout=20_000)
    sync_api.expect(page.locator("#faces > li")).to_have_count(1)
    page.keyboard.press("Escape")
    sync_api.expect(page.locator("#message")).to_have_text("The camera is off.")


def test_the_console_stays_empty_and_nobody_else_is_asked(page: "sync_api.Page", noticed: list[str]) -> None:
    assert len(looked(page, TWO)) == 2
    assert noticed == []


@pytest.mark.parametrize("held", [True, False])
def test_the_page_s_policy_lets_neither_it_nor_its_worker_send_anything_elsewhere(
    browser: "sync_api.Browser", address: str, held: bool
) -> None:
    send = """(elsewhere) => new Promise((done) => {
      const sent = `fetch("${elsewhere}", { mode: "no-cors" }).then(() => "sent", () => "held")`;
      const code = `${sent}.then((told) => postMessage(told))`;
      const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })), { type: "module" });
      worker.onmessage = async ({ data }) => {
        done([data, await fetch(elsewhere, { mode: "no-cors" }).then(() => "sent", () => "held")]);
      };
      worker.onerror = () => done("no worker");
    })"""
    context = browser.new_context(bypass_csp=not held)
    page = context.new_page()
    page.goto(address)
    elsewhere = address.replace("127.0.0.1", "localhost")  # the same server, which is another origin's by that name
    assert page.evaluate(send, elsewhere) == (["held", "held"] if held else ["sent", "sent"])
    context.close()


def test_a_page_opened_as_a_file_says_what_to_do(browser: "sync_api.Browser", site: Path) -> None:
    page = browser.new_page()
    page.goto((site / "below/page/index.html").as_uri())
    sync_api.expect(page.locator("#about")).to_contain_text(
        "Opened as a file, this page cannot start: it has to come from a web"
    )
    page.close()


@pytest.mark.parametrize(
    ("missing", "where", "told"),
    [
        ("engine.js", "#about", "The page could not start: a part of it did not load. Is the folder whole?"),
        ("haar.js", "#message", "The engine could not be started. Is the folder whole?"),
        ("model.onnx", "#message", "model.onnx could not be loaded (404). Is the folder whole?"),
    ],
)
def test_a_page_without_one_of_its_files_says_so(
    browser: "sync_api.Browser", address: str, missing: str, where: str, told: str
) -> None:
    page = browser.new_page()
    page.route(f"**/{missing}", lambda route: route.fulfill(status=404))
    page.goto(address)
    sync_api.expect(page.locator(where)).to_contain_text(told)
    page.close()


def test_the_folder_says_what_is_in_it(site: Path) -> None:
    folder = site / "below/page"
    readme, licences = ((folder / name).read_text() for name in ("README.txt", "LICENSES.txt"))
    assert [path.name for path in folder.iterdir() if path.name not in readme and path.name != "README.txt"] == []
    assert "Copyright (c) Microsoft Corporation" in licences
    assert "Copyright (C) 2000, Intel Corporation" in licences
    told = json.loads((folder / "model.json").read_text())
    assert told["detector"]["neighbours"] == Haar().neighbours
    assert set(FILES) <= {path.name for path in folder.iterdir()}


def test_weights_are_halved_where_nothing_is_lost(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    exact = random.normal(0, 1, (64, 64)).astype(np.float16).astype(np.float32)
    weights = {"exact": exact, "fine": exact + np.float32(1e-5), "huge": exact * 1e5}
    nodes = [onnx.helper.make_node("Gemm", ["faces", name], [f"by_{name}"]) for name in weights]
    taken, *given = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 64])
        for name in ("faces", *(f"by_{name}" for name in weights))
    )
    tensors = [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = onnx.helper.make_graph(nodes, "three", [taken], given, tensors)
    opset = onnx.helper.make_opsetid("", 18)
    whole = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    small = halved(whole)
    assert len(whole) - 64 * 64 * 2 <= len(small) <= len(whole) - 64 * 64 * 2 + 200
    faces = {"faces": random.normal(0, 1, (3, 64)).astype(np.float32)}
    one, other = (InferenceSession(model).run(None, faces) for model in (whole, small))
    assert [np.array_equal(*pair) for pair in zip(one, other, strict=True)] == [True] * 3


def test_shipped_weights_weigh_two_bytes_each(site: Path) -> None:
    parameters = sum(one.numel() for one in ensemble.load("attention_cnn").parameters())
    assert (site / "below/page/model.onnx").stat().st_size < 2.05 * parameters


def test_without_a_runtime_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="runtime="):
        export_web(ensemble.load("attention_cnn"), tmp_path / "page", str(tmp_path))
    assert not (tmp_path / "page").exists()


def test_what_was_fetched_once_is_not_fetched_again(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = shutil.copytree(runtime, tmp_path / "cache" / runtime.name)
    monkeypatch.setenv("PATH", "")  # no npm
    assert set(runtime_files(None, kept.parent)) == set(FILES)
    (kept / "ort.wasm.bundle.min.mjs").write_bytes(b"damaged")
    with pytest.raises(UserError, match="is fetched with npm"):
        runtime_files(None, kept.parent)
