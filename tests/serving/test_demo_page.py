"""The demo's page in headless Chromium with a camera made of drawn faces."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import emotion
from emotion.serving.session import Session
from tests.images import encode_image, scene
from tests.serving.demo_server import serving

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'emotion[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium in the PATH")

ONE, TWO = encode_image(scene((200, 100, 240))), encode_image(scene((50, 100, 240), (400, 200, 160)))
SIZES = {"narrow": (360, 740), "wide": (1400, 900)}
SEND = """([kind, bytes, name, type]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], name, { type }));
    const event = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: data, bubbles: true })
        : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
    document.querySelector("#place").dispatchEvent(event);
}"""


class Opened(NamedTuple):
    """A page, its address, and what it has asked for and complained about."""

    page: "sync_api.Page"
    address: str
    asked: list[str]
    complaints: list[str]

    def choose(self, content: bytes, name: str = "a.png", kind: str = "image/png") -> None:
        self.page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content})

    def says(self, words: str) -> None:
        sync_api.expect(self.page.get_by_role("status")).to_contain_text(words)

    def has_faces(self, count: int) -> None:
        sync_api.expect(self.page.locator(".box")).to_have_count(count)
        sync_api.expect(self.page.locator(".face")).to_have_count(count)

    def percents(self) -> list[list[int]]:
        return self.page.evaluate(
            "[...document.querySelectorAll('.face')].map(f => [...f.querySelectorAll('.percent')]"
            ".map(p => parseInt(p.textContent)))"
        )


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(Session(emotion.load(), megapixels=40)) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["sync_api.Browser"]:
    camera = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    camera.write_bytes(b"".join(encode_image(scene((80 + 10 * step, 100, 240)), "JPEG") for step in range(10)))
    pretending = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    arguments = [*pretending, f"--use-file-for-fake-video-capture={camera}"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(params=["wide"])
def opened(request: pytest.FixtureRequest, browser: "sync_api.Browser", address: str) -> Iterator[Opened]:
    """Ready for a picture; afterwards it has asked nobody else, nor complained."""
    width, height = SIZES[request.param]
    page = browser.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce")
    page.set_default_timeout(15_000)
    one = Opened(page, address, [], [])
    page.on("request", lambda request: one.asked.append(request.url))
    page.on("console", lambda said: one.complaints.append(said.text))
    page.on("pageerror", lambda error: one.complaints.append(str(error)))
    page.goto(address)
    sync_api.expect(page.get_by_role("button", name="Choose a picture")).to_be_enabled()
    yield one
    assert not [url for url in one.asked if not url.startswith((address, "data:", f"blob:{address}"))]
    assert one.complaints == []
    page.close()


both = pytest.mark.parametrize("opened", SIZES, indirect=True)


@both
def test_two_faces_have_numbered_boxes_and_bars_that_add_up(opened: Opened) -> None:
    opened.choose(TWO)
    opened.says("2 faces were found.")
    opened.has_faces(2)
    assert [sum(shares) for shares in opened.percents()] == [100, 100]
    assert opened.page.locator(".face .number").all_inner_texts() == ["1", "2"]
    colours = "all => all.map(one => getComputedStyle(one).backgroundColor)"
    boxes, cards = (opened.page.locator(f"{place} .number").evaluate_all(colours) for place in (".box", ".face"))
    assert boxes == cards
    assert boxes[0] != boxes[1]
    first, second = (box.bounding_box() for box in opened.page.locator(".box").all())
    frame = opened.page.locator("#frame").bounding_box()
    assert first
    assert second
    assert frame
    assert (first["x"] - frame["x"]) / frame["width"] == pytest.approx(50 / 640, abs=0.05)
    assert first["x"] < second["x"]
    assert first["width"] > second["width"]
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert opened.page.evaluate(overflow) == 0


@both
def test_the_camera_is_watched_until_escape(opened: Opened) -> None:
    page = opened.page
    page.get_by_role("button", name="Start camera").click()
    opened.has_faces(1)
    sync_api.expect(page.locator("#figures")).to_contain_text("pictures a second")
    opened.says("The camera is on.")
    assert [sum(shares) for shares in opened.percents()] == [100]
    page.keyboard.press("Escape")
    opened.says("The camera is off.")
    sync_api.expect(page.get_by_role("button", name="Start camera")).to_be_visible()
    sync_api.expect(page.locator("#video")).to_have_js_property("srcObject", None)
    opened.choose(TWO)
    opened.has_faces(2)


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_picture_may_be_pasted_or_dropped(kind: str, opened: Opened) -> None:
    opened.page.evaluate(SEND, [kind, list(ONE), "a.png", "image/png"])
    opened.says("1 face was found.")
    opened.has_faces(1)


def test_the_switch_lays_maps_over_the_faces_and_takes_them_away(opened: Opened) -> None:
    opened.choose(TWO)
    opened.has_faces(2)
    switch, maps = opened.page.get_by_role("switch"), opened.page.locator(".box canvas")
    sync_api.expect(maps).to_have_count(0)
    switch.check()
    sync_api.expect(maps).to_have_count(2)
    sync_api.expect(maps.first).to_be_visible()
    opaque = "map => map.getContext('2d').getImageData(0, 0, map.width, map.height).data.some(v => v)"
    assert maps.first.evaluate(opaque)
    switch.uncheck()
    sync_api.expect(maps.first).to_be_hidden()


def test_a_mistake_is_told_politely_and_the_next_picture_is_looked_at(opened: Opened) -> None:
    status = opened.page.get_by_role("status")
    opened.choose(b"What is this?", "notes.txt", "text/plain")
    opened.says("notes.txt is no picture that this browser can open.")
    assert status.get_attribute("aria-live") == "polite"
    opened.choose(encode_image(scene()))
    opened.says("No face was found.")
    opened.has_faces(0)
    opened.choose(ONE)
    opened.says("1 face was found.")
    opened.has_faces(1)


def test_what_the_server_refuses_stands_on_the_page(opened: Opened) -> None:
    no = '{"error": "Too many pictures are waiting; try again in a moment."}'
    opened.page.route("**/api/predict", lambda route: route.fulfill(status=503, body=no, content_type="application/json"))
    opened.choose(ONE)
    opened.says("Too many pictures are waiting; try again in a moment.")
    opened.page.unroute("**/api/predict")
    opened.choose(ONE)
    opened.has_faces(1)
    assert "503" in opened.complaints.pop()  # the browser's own note


def test_the_keyboard_alone_is_enough(opened: Opened) -> None:
    page = opened.page
    page.on("filechooser", lambda chooser: None)  # in time: waiting for one alone begins too late
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
    opened.says("The camera is off.")
    page.keyboard.press("Shift+Tab")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    picture = Path("two.png")
    picture.write_bytes(TWO)
    chooser.value.set_files(picture)
    opened.has_faces(2)


def test_large_pictures_travel_small_and_small_ones_whole(opened: Opened) -> None:
    opened.page.evaluate("() => { const real = fetch; fetch = (to, how) => real(to, window.sent = how) }")
    measured = "createImageBitmap(window.sent.body).then(made => [window.sent.body.type, made.width, made.height])"
    for size, travels in (((2560, 1920), ["image/jpeg", 1280, 960]), ((96, 64), ["image/png", 96, 64])):
        with opened.page.expect_response("**/api/predict"):
            opened.choose(encode_image(scene(width=size[0], height=size[1])))
        assert opened.page.evaluate(measured) == travels


def test_a_server_that_is_gone_is_said(browser: "sync_api.Browser") -> None:
    with serving(Session(emotion.load(), megapixels=40)) as port:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        sync_api.expect(page.get_by_role("button", name="Start camera")).to_be_enabled()
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": ONE})
    sync_api.expect(page.get_by_role("status")).to_contain_text("The server does not answer. Is it still running?")
    page.close()
