"""The demo's page in headless Chromium, with drawn faces as its camera."""

import base64
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from PIL import Image

import emotion
from emotion.inference.annotate import class_colors
from emotion.serving.session import Session
from tests.images import encode_image, scene
from tests.serving.demo_server import TWO, serve

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'emotion[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium in the PATH")

ONE = encode_image(scene((200, 100, 240)))
SIZES = {"narrow": (360, 740), "wide": (1400, 900)}
SEND = """([kind, bytes, name, type]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], name, { type }));
    const event = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: data, bubbles: true })
        : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
    document.querySelector("#dropzone").dispatchEvent(event);
}"""


class Demo(NamedTuple):
    """A page, its address, the URLs that it requested, and its console messages."""

    page: "sync_api.Page"
    address: str
    requests: list[str]
    console: list[str]

    def choose(self, content: bytes, name: str = "a.png", media_type: str = "image/png") -> None:
        self.page.set_input_files("#file", {"name": name, "mimeType": media_type, "buffer": content})

    def expect_message(self, text: str) -> None:
        sync_api.expect(self.page.get_by_role("status")).to_contain_text(text)

    def expect_faces(self, count: int) -> None:
        sync_api.expect(self.page.locator(".box")).to_have_count(count)
        sync_api.expect(self.page.locator(".face")).to_have_count(count)

    def percents(self) -> list[list[int]]:
        return self.page.evaluate(
            "[...document.querySelectorAll('.face')].map(f => [...f.querySelectorAll('.percent')]"
            ".map(p => parseInt(p.textContent)))"
        )


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(emotion.load(), megapixels=40)


@pytest.fixture(scope="module")
def address(session: Session) -> Iterator[str]:
    with serve(session) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["sync_api.Browser"]:
    camera = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    camera.write_bytes(b"".join(encode_image(scene((80 + 10 * step, 100, 240)), "JPEG") for step in range(10)))
    fake_camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    arguments = [*fake_camera, f"--use-file-for-fake-video-capture={camera}"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(params=["wide"])
def demo(request: pytest.FixtureRequest, browser: "sync_api.Browser", address: str) -> Iterator[Demo]:
    """A loaded page, which must contact no other host and log nothing."""
    width, height = SIZES[request.param]
    page = browser.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce")
    page.set_default_timeout(15_000)
    demo = Demo(page, address, [], [])
    page.on("request", lambda request: demo.requests.append(request.url))
    page.on("console", lambda entry: demo.console.append(entry.text))
    page.on("pageerror", lambda error: demo.console.append(str(error)))
    page.goto(address)
    sync_api.expect(page.get_by_role("button", name="Choose an image")).to_be_enabled()
    yield demo
    assert not [url for url in demo.requests if not url.startswith((address, "data:", f"blob:{address}"))]
    assert demo.console == []
    page.close()


both_sizes = pytest.mark.parametrize("demo", SIZES, indirect=True)


@both_sizes
def test_two_faces_get_numbered_boxes_and_bars_that_add_up(demo: Demo) -> None:
    demo.choose(TWO)
    demo.expect_message("2 faces found.")
    demo.expect_faces(2)
    assert [sum(percents) for percents in demo.percents()] == [100, 100]
    assert demo.page.locator(".face .number").all_inner_texts() == ["1", "2"]
    colors = "all => all.map(element => getComputedStyle(element).backgroundColor)"
    boxes, cards = (demo.page.locator(f"{parent} .number").evaluate_all(colors) for parent in (".box", ".face"))
    assert boxes == cards
    first, second = (box.bounding_box() for box in demo.page.locator(".box").all())
    frame = demo.page.locator("#frame").bounding_box()
    assert first
    assert second
    assert frame
    assert (first["x"] - frame["x"]) / frame["width"] == pytest.approx(50 / 640, abs=0.05)
    assert first["x"] < second["x"]
    assert first["width"] > second["width"]
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert demo.page.evaluate(overflow) == 0


def test_maps_switched_on_during_a_request_are_shown(demo: Demo) -> None:
    held: list[sync_api.Route] = []
    demo.page.route("**/api/predict*", lambda route: route.continue_() if held else held.append(route))
    demo.choose(TWO)
    demo.expect_message("Processing")
    while not held:
        demo.page.wait_for_timeout(50)
    demo.page.locator("#map").check()
    held[0].continue_()
    demo.expect_faces(2)
    sync_api.expect(demo.page.locator(".box canvas")).to_have_count(2)


@both_sizes
def test_the_camera_runs_until_escape(demo: Demo) -> None:
    page = demo.page
    page.get_by_role("button", name="Start camera").click()
    demo.expect_faces(1)
    sync_api.expect(page.locator("#timing")).to_contain_text("frames per second")
    demo.expect_message("The camera is on.")
    assert [sum(percents) for percents in demo.percents()] == [100]
    page.keyboard.press("Escape")
    demo.expect_message("The camera is off.")
    sync_api.expect(page.get_by_role("button", name="Start camera")).to_be_visible()
    sync_api.expect(page.locator("#video")).to_have_js_property("srcObject", None)
    demo.choose(TWO)
    demo.expect_faces(2)


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_an_image_can_be_pasted_or_dropped(kind: str, demo: Demo) -> None:
    demo.page.evaluate(SEND, [kind, list(ONE), "a.png", "image/png"])
    demo.expect_message("1 face found.")
    demo.expect_faces(1)


def test_the_switch_shows_and_hides_maps(demo: Demo) -> None:
    demo.choose(TWO)
    demo.expect_faces(2)
    switch, maps = demo.page.get_by_role("switch"), demo.page.locator(".box canvas")
    sync_api.expect(maps).to_have_count(0)
    switch.check()
    sync_api.expect(maps).to_have_count(2)
    sync_api.expect(maps.first).to_be_visible()
    opaque = "map => map.getContext('2d').getImageData(0, 0, map.width, map.height).data.some(v => v)"
    assert maps.first.evaluate(opaque)
    switch.uncheck()
    sync_api.expect(maps.first).to_be_hidden()


def test_errors_are_reported_and_the_next_image_is_processed(demo: Demo) -> None:
    demo.choose(b"What is this?", "notes.txt", "text/plain")
    demo.expect_message("notes.txt is not an image that this browser can open.")
    assert demo.page.get_by_role("status").get_attribute("aria-live") == "polite"
    demo.choose(encode_image(scene()))
    demo.expect_message("No face found.")
    demo.expect_faces(0)
    error = '{"error": "The server is busy; try again in a moment."}'
    response = {"status": 503, "body": error, "content_type": "application/json"}
    demo.page.route("**/api/predict", lambda route: route.fulfill(**response))
    demo.choose(ONE)
    demo.expect_message("The server is busy; try again in a moment.")
    demo.page.unroute("**/api/predict")
    demo.choose(ONE)
    demo.expect_message("1 face found.")
    demo.expect_faces(1)
    assert "503" in demo.console.pop()  # logged by the browser
    demo.choose(b"What is this?", "notes.txt", "text/plain")
    demo.expect_faces(0)
    assert not demo.page.locator("#frame").is_visible()


def test_the_page_works_with_the_keyboard_alone(demo: Demo) -> None:
    page = demo.page
    page.on("filechooser", lambda chooser: None)  # registered early, since expect_file_chooser alone comes too late
    order = []
    for _ in range(3):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert order == ["choose", "camera", "map"]
    page.keyboard.press("Space")
    sync_api.expect(page.get_by_role("switch")).to_be_checked()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    sync_api.expect(page.locator(".box canvas")).to_have_count(1)
    page.keyboard.press("Enter")
    demo.expect_message("The camera is off.")
    page.keyboard.press("Shift+Tab")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    file = Path("two.png")
    file.write_bytes(TWO)
    chooser.value.set_files(file)
    demo.expect_faces(2)


def test_the_page_answers_as_the_library_does(demo: Demo) -> None:
    image = scene((150, 300, 720), (1200, 600, 480), width=1920, height=1440)
    file = encode_image(image, "JPEG", quality=60)
    with demo.page.expect_response("**/api/predict") as response:
        demo.choose(file, "a.jpg", "image/jpeg")
    predictor = emotion.load()
    assert response.value.json()["faces"] == [face | {"map": None} for face in predictor.predict(file).to_dict()]
    demo.expect_faces(2)
    labels = [face.label for face in predictor.predict(file)]
    assert demo.page.locator(".face .title").all_inner_texts() == labels
    colors = dict(zip(predictor.classes, class_colors(predictor.classes), strict=True))
    shown = demo.page.locator(".box").evaluate_all("all => all.map(box => getComputedStyle(box).borderTopColor)")
    assert shown == [f"rgb{colors[label]}" for label in labels]


def test_a_turned_face_has_a_turned_box(demo: Demo) -> None:
    matrix = cv2.getRotationMatrix2D((320, 240), -30, 1.0)
    image = cv2.warpAffine(scene((200, 120, 240)), matrix, (640, 480), borderMode=cv2.BORDER_REPLICATE)
    demo.choose(encode_image(np.asarray(image, np.uint8)))
    demo.expect_faces(1)
    turned = demo.page.locator(".box").evaluate("box => box.style.transform")
    assert float(turned.removeprefix("rotate(").removesuffix("deg)")) == pytest.approx(30, abs=8)


@pytest.mark.parametrize(
    ("image_format", "noise", "sent"),
    [("GIF", 0, "image/gif"), ("WEBP", 0, "image/png"), ("WEBP", 12, "image/jpeg"), ("AVIF", 12, "image/jpeg")],
)
def test_other_formats_are_sent_as_png_or_if_that_is_too_large_as_jpeg(
    image_format: str, noise: float, sent: str, demo: Demo
) -> None:
    image = scene((50, 100, 480), width=1000, height=750) + np.random.default_rng(0).normal(0, noise, (750, 1000, 3))
    content = encode_image(image.clip(0, 255).astype(np.uint8), image_format)
    assert len(content) < 1e6  # the limit of the demo
    demo.page.evaluate("() => { const real = fetch; fetch = (url, options) => real(url, window.sent = options) }")
    with demo.page.expect_response("**/api/predict"):
        demo.choose(content, f"a.{image_format}", f"image/{image_format.lower()}")
    demo.expect_faces(1)
    assert demo.page.evaluate("window.sent.body.type") == sent


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_the_box_of_a_turned_file_is_where_the_page_shows_the_face(image_format: str, demo: Demo) -> None:
    image = Image.fromarray(scene((60, 40, 240), width=640, height=480)).rotate(-90, expand=True)
    exif = image.getexif()
    exif[0x0112] = 8
    demo.choose(encode_image(image, image_format, exif=exif), f"a.{image_format}", f"image/{image_format.lower()}")
    demo.expect_faces(1)
    (box,), (frame,) = ([each.bounding_box() for each in demo.page.locator(name).all()] for name in (".box", "#frame"))
    shown = demo.page.locator("#image").evaluate("canvas => canvas.toDataURL()")
    with Image.open(BytesIO(base64.b64decode(shown.partition(",")[2]))) as canvas:
        is_face = np.abs(np.asarray(canvas.convert("L"), int) - 128) > 20
    for axis, start, side in ((1, "x", "width"), (0, "y", "height")):
        center = (box[start] + box[side] / 2 - frame[start]) / frame[side]
        positions = np.flatnonzero(is_face.any(1 - axis))
        assert center == pytest.approx((positions[0] + positions[-1]) / 2 / is_face.shape[axis], abs=0.1)


def test_a_stopped_server_is_reported(browser: "sync_api.Browser", session: Session) -> None:
    with serve(session) as port:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        sync_api.expect(page.get_by_role("button", name="Start camera")).to_be_enabled()
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": ONE})
    sync_api.expect(page.get_by_role("status")).to_contain_text("The server does not respond. Is it still running?")
    page.close()


def test_synthetic_training_is_shown(browser: "sync_api.Browser", demo: Demo) -> None:
    sync_api.expect(demo.page.locator("#synthetic")).to_be_hidden()
    session = Session(emotion.load(), megapixels=40)
    session.predictor.backend.is_synthetic = True
    with serve(session) as port:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        sync_api.expect(page.get_by_text("The network was trained on synthetic faces: its predictions")).to_be_visible()
        page.close()
