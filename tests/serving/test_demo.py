"""The demo's server over loopback: responses, rejections, limits and robustness."""

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray

import emotion
from emotion.config.compose import compose
from emotion.data.crop import Box
from emotion.demo import demo, listen
from emotion.errors import UserError
from emotion.inference.backends import Backend
from emotion.inference.detectors import Haar
from emotion.inference.images import RGBImage, read_image
from emotion.inference.predictor import Predictor
from emotion.serving.limits import MAX_ADDRESSES, RateLimiter
from emotion.serving.session import Session
from tests.images import encode_animation, encode_image, scene
from tests.promises.hostile_images import png, zeros
from tests.serving.demo_server import TWO, send_request, serve, start_demo

POST = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return emotion.load()


@pytest.fixture(scope="module")
def session(predictor: Predictor) -> Session:
    return Session(predictor, megapixels=40)


@pytest.fixture(scope="module")
def port(session: Session) -> Iterator[int]:
    with serve(session) as port:
        yield port


def connect(port: int, data: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 20)
    connection.sendall(data)
    return connection


def test_faces_and_maps_equal_those_of_the_library(port: int, predictor: Predictor) -> None:
    status, result, _ = send_request(port, path="/api/predict?map=1")
    (expected,) = predictor.find_faces([read_image(TWO).pixels])
    assert status == 200
    assert len(result["faces"]) == len(expected) == 2
    pixels = np.stack([face.pixels for face in expected])
    maps = predictor.backend.maps(pixels, np.array([face.probs.argmax() for face in expected]))
    for face, other, map_ in zip(result["faces"], expected, maps, strict=True):
        expected_map = (map_ - map_.min()) / np.ptp(map_)
        assert {key: face[key] for key in other.to_dict()} == other.to_dict()
        assert face["label"] in predictor.classes
        values = np.reshape(face["map"]["values"], (face["map"]["height"], face["map"]["width"]))
        np.testing.assert_allclose(values, expected_map, atol=6e-4)
        assert (values.min(), values.max()) == pytest.approx((0, 1), abs=1e-3)
    assert [face["map"] for face in send_request(port)[1]["faces"]] == [None, None]


def test_a_face_may_have_no_map() -> None:
    predictor = emotion.load("fast_cnn", detector="none", tta="flip")
    ((face,),) = predictor.find_faces([scene((0, 0, 480))])
    unlikely = replace(face, probs=np.eye(len(face.classes), dtype=np.float32)[face.probs.argmin()])
    first, second = Session(predictor, megapixels=1)._maps([face, unlikely])
    assert first
    assert second is None


def test_boxes_are_in_pixels_of_the_sent_image(port: int) -> None:
    _, result, _ = send_request(port, encode_image(scene((2000, 1000, 2400), width=6000, height=4500), "JPEG"))
    (face,) = result["faces"]
    assert face["box"] == pytest.approx([2000, 1000, 2400, 2400], abs=400)


def test_the_first_frame_of_an_animation_is_processed(port: int) -> None:
    frames = [scene((50, 100, 240), (400, 200, 160)), scene((200, 100, 240))]
    for image_format in ("GIF", "WEBP"):
        status, result, _ = send_request(port, encode_animation(frames, image_format))
        assert (status, len(result["faces"])) == (200, 2)


def test_an_image_without_faces(port: int) -> None:
    status, result, _ = send_request(port, encode_image(scene()), "/api/predict?map=1")
    assert (status, result["faces"]) == (200, [])


def test_the_page_and_its_files(port: int, predictor: Predictor) -> None:
    status, page, headers = send_request(port, None, "/")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    for name in re.findall(r'(?:href|src)="([\w.]+)"', page):
        assert send_request(port, None, f"/{name}")[0] == 200
    assert "api/predict" in send_request(port, None, "/engine.js")[1]
    _, about, _ = send_request(port, None, "/api/about")
    assert about["classes"] == list(predictor.classes)
    assert len(about["colors"]) == len(set(about["colors"])) == len(about["classes"])
    assert (about["side"], about["channels"], about["synthetic"], about["maps_unavailable"]) == (48, 1, False, None)
    assert "Images stay on this machine" in about["privacy"]


def test_the_answer_has_what_its_schema_requires(port: int) -> None:
    _, text, headers = send_request(port, None, "/api/schema.json")
    assert headers["content-type"] == "application/schema+json"
    schema = json.loads(text)
    _, result, _ = send_request(port, path="/api/predict?map=1")
    assert set(result) == set(schema["required"]) == set(schema["properties"])
    face = schema["properties"]["faces"]["items"]
    map_ = face["properties"]["map"]
    for found in result["faces"]:
        assert set(found) == set(face["required"]) == set(face["properties"])
        assert set(found["map"]) == set(map_["required"]) == set(map_["properties"])


def test_an_unknown_address_names_the_api(port: int) -> None:
    status, result, _ = send_request(port, None, "/predict")
    assert status == 404
    assert "/api/predict" in result["error"]
    status, result, _ = send_request(port, None, "/api/predict")
    assert status == 405
    assert "/api/predict does not take GET. POST the bytes" in result["error"]


@pytest.mark.parametrize("path", ["/", "/api/about", "/nothing"])
def test_every_response_has_security_headers(port: int, path: str) -> None:
    _, _, headers = send_request(port, None, path)
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert headers["permissions-policy"].startswith("camera=(self)")
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


INVALID = {
    "text": (b"What is this?", 415, "The file is not an image; expected PNG, JPEG, WEBP, BMP."),
    "empty": (b"", 415, "The file is not an image"),
    "truncated JPEG": (
        encode_image(scene((50, 100, 240)), "JPEG")[:3000],
        422,
        "cannot be read .*truncated.* complete",
    ),
    "Pillow's limit": (png(30_000, 30_000, 8, 2, zeros(1)), 422, "too large .*900000000.* at most 40 million pixels"),
    "megapixels": (png(8_000, 6_000, 8, 2, zeros(1)), 422, "too large .8000 x 6000 pixels.; expected at most 40"),
    "megabytes": (bytes(1_000_001), 413, "The file is too large; expected at most 1 MB"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_images_are_rejected_with_a_message(case: str, port: int) -> None:
    body, expected, message = INVALID[case]
    status, result, _ = send_request(port, body)
    assert status == expected
    assert re.search(message, result["error"])
    assert "0x" not in result["error"]
    assert send_request(port)[0] == 200


def test_a_body_of_unknown_length_is_cut_at_the_limit(port: int) -> None:
    with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("POST", "/api/predict", iter([bytes(400_000)] * 3), encode_chunked=True)
        assert connection.getresponse().status == 413


FOREIGN = {
    "host": ({"Host": "evil.example"}, 421),
    "host with port": ({"Host": "evil.example:8000"}, 421),
    "network address": ({"Host": "192.168.1.5"}, 421),
    "host with known prefix": ({"Host": "localhost.evil.example"}, 421),
    "malformed host": ({"Host": "[127.0.0.1"}, 421),
    "origin": ({"Origin": "https://evil.example"}, 403),
    "null origin": ({"Origin": "null"}, 403),
    "origin with other port": ({"Origin": "http://127.0.0.1:1"}, 403),
    "other host of the same site": ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
    "cross-site form": ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_foreign_hosts_and_origins_are_rejected(foreign: str, port: int) -> None:
    headers, status = FOREIGN[foreign]
    assert send_request(port, headers=headers)[0] == status
    assert send_request(port, None, "/api/about", headers)[0] == status


def test_own_hosts_and_origins_are_accepted(port: int) -> None:
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}", "localhost."):
        assert send_request(port, None, "/api/about", {"Host": host, "Origin": f"http://{host}"})[0] == 200
    for site, mode in (("same-origin", "cors"), ("none", "navigate"), ("cross-site", "navigate")):  # the last is a link
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
        assert send_request(port, None, "/api/about", headers)[0] == 200


def test_on_a_network_addresses_and_allowed_hosts_are_accepted_and_the_page_says_so(session: Session) -> None:
    with serve(session, local=False, allowed_hosts=("demo.example",)) as port:
        for host in ("192.168.1.5:8000", "[fe80::1]:8000", "demo.example", socket.gethostname()):
            status, about, _ = send_request(port, None, "/api/about", {"Host": host})
            assert status == 200
            assert "over the network" in about["privacy"]
        assert send_request(port, None, "/api/about", {"Host": "evil.example"})[0] == 421


def test_the_rate_limit_counts_complete_images_only(session: Session) -> None:
    large = bytes(1_000_001)
    with serve(session, rate_limit=0.5) as port:
        assert [send_request(port, body)[0] for body in (large, large, TWO, TWO)] == [413, 413, 200, 429]
        _, result, headers = send_request(port)
        assert result["error"] == "Too many images from your address; wait a moment."
        assert 1 <= int(headers["retry-after"]) <= 2


def test_the_rate_limiter_refills_and_separates_addresses() -> None:
    now = [0.0]
    limiter = RateLimiter(2, lambda: now[0])
    assert [limiter.wait("a") for _ in range(5)] == [0, 0, 0, 0, 1]
    assert limiter.wait("b") == 0
    now[0] = 1.0
    assert [limiter.wait("a") for _ in range(3)] == [0, 0, 1]
    for number in range(2 * MAX_ADDRESSES):
        limiter.wait(str(number))
    assert len(limiter.tokens) == MAX_ADDRESSES
    assert RateLimiter(None).wait("a") == 0


def test_concurrent_requests_are_answered_as_single_ones(port: int, predictor: Predictor) -> None:
    assert predictor.is_concurrent
    assert not Predictor(predictor.backend, Haar()).is_concurrent  # OpenCV's cascade has a state
    images = [encode_image(scene((40 * i, 60, 200 + 20 * i))) for i in range(4)]
    single = [send_request(port, image)[1]["faces"] for image in images]
    with ThreadPoolExecutor(8) as pool:
        concurrent = list(pool.map(lambda image: send_request(port, image)[1]["faces"], 4 * images))
    assert all(single)
    assert concurrent == 4 * single


class BlockedDetector:
    """A detector that waits for an event."""

    def __init__(self) -> None:
        self.called, self.proceed = Event(), Event()

    def __call__(self, image: RGBImage) -> list[Box]:
        self.called.set()
        assert self.proceed.wait(20)
        return []


def test_a_full_queue_rejects_images(predictor: Predictor) -> None:
    detector = BlockedDetector()
    slow = Session(Predictor(predictor.backend, detector), 40)
    with serve(slow, max_queue=2) as port, ThreadPoolExecutor(4) as pool:
        requests = [pool.submit(send_request, port)]
        assert detector.called.wait(20)
        requests += [pool.submit(send_request, port) for _ in range(3)]
        (rejected,) = wait(requests, 20, FIRST_COMPLETED).done
        status, result, headers = rejected.result()
        assert (status, headers["retry-after"]) == (503, "1")
        assert "The server is busy" in result["error"]
        detector.proceed.set()
        assert sorted(request.result()[0] for request in requests) == [200, 200, 200, 503]
        assert send_request(port)[0] == 200


def test_a_bug_is_logged_without_its_message(predictor: Predictor, capfd: pytest.CaptureFixture[str]) -> None:
    def broken(image: RGBImage) -> list[Box]:
        if image.any():
            raise RuntimeError(f"pixels {image[0, 0]}")
        return []

    with serve(Session(Predictor(predictor.backend, broken), 40)) as port:
        status, result, _ = send_request(port)
        assert (status, result) == (500, {"error": "The image could not be processed; see the server's log."})
        assert send_request(port, encode_image(np.zeros((9, 9), np.uint8)))[0] == 200
    log = capfd.readouterr().err
    assert "RuntimeError" in log
    assert "in broken" in log
    assert "[128" not in log


@pytest.mark.parametrize(("data", "response"), [
    (POST + b"Content-Length: 500\r\n\r\nabc", b"HTTP/1.1 408"),
    (POST[:30], b""),
    (b"", b""),
], ids=["body", "head", "nothing"])  # fmt: skip
def test_slow_requests_time_out(data: bytes, response: bytes, session: Session) -> None:
    with serve(session, timeout=0.3) as port:
        with connect(port, data) as slow:
            assert slow.recv(12) == response
        assert send_request(port)[0] == 200


def test_a_slow_second_request_times_out(session: Session) -> None:
    with (
        serve(session, timeout=0.5) as port,
        connect(port, b"GET /style.css HTTP/1.1\r\nHost: localhost\r\n\r\n") as slow,
    ):
        while b"prefers-reduced-motion" not in slow.recv(1 << 16):
            pass
        slow.sendall(POST[:30])
        slow.settimeout(5)
        assert slow.recv(12) == b""


def test_a_client_may_leave_early(port: int) -> None:
    with connect(port, POST + b"Content-Length: 500\r\n\r\nabc"):
        pass
    assert send_request(port)[0] == 200


def test_a_rejected_client_receives_the_answer_though_it_is_still_sending(port: int) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    for path, headers, expected in (("/api/predict", form, 400), ("/", {"Host": "evil.example"}, 421)):
        status, _, received = send_request(port, bytes(8_000_000), path, headers)
        assert (status, received["connection"]) == (expected, "close")
    assert "connection" not in send_request(port)[2]


def test_connections_beyond_the_limit_are_rejected_until_others_time_out(session: Session) -> None:
    with serve(session, connections=3, timeout=1) as port:
        with ExitStack() as stack:
            waiting = [stack.enter_context(connect(port, POST)) for _ in range(3)]
            assert send_request(port, None, "/api/about")[0] == 503
            assert waiting[0].recv(1) == b""
        assert send_request(port)[0] == 200


def test_bodies_being_received_are_limited_together(session: Session) -> None:
    with serve(session, timeout=60) as port, ExitStack() as stack:
        clients = []
        for _ in range(5):
            head = POST + b"Content-Length: 990000\r\n\r\n"
            clients.append(stack.enter_context(connect(port, head + bytes(950_000))))
            assert send_request(port, None, "/api/about")[0] == 200  # the server has read the data before
        assert clients[0].recv(12) == b"HTTP/1.1 408"
        assert send_request(port)[0] == 200


class OtherBackend:
    """A backend with its own maps, or without."""

    def __init__(self, backend: Backend, maps: list[list[float]] | None) -> None:
        self.name, self.classes, self.side, self.channels = "other", backend.classes, backend.side, backend.channels
        self.probabilities, self.values, self.is_synthetic = backend.probabilities, maps, True

    def maps(self, faces: NDArray[np.uint8], targets: NDArray[np.int64]) -> NDArray[np.float32]:
        if self.values is None:
            raise UserError("There are no maps.")
        return np.tile(np.array(self.values, np.float32), (len(faces), 1, 1))


@pytest.mark.parametrize(
    ("maps", "reason", "expected"),
    [
        (None, "There are no maps.", None),
        ([[0, 1], [2, 4]], None, {"width": 2, "height": 2, "values": [0, 0.25, 0.5, 1]}),
    ],
)
def test_maps_are_scaled_or_their_absence_explained(
    maps: list[list[float]] | None, reason: str | None, expected: dict | None, predictor: Predictor
) -> None:
    session = Session(Predictor(OtherBackend(predictor.backend, maps), predictor.detector), 40)
    about = session.about()
    assert (about["maps_unavailable"], about["synthetic"]) == (reason, True)
    assert [face["map"] for face in session.predict(TWO, with_maps=True)["faces"]] == [expected] * 2


def test_the_command_serves_until_sigterm(tmp_path: Path) -> None:
    with start_demo(tmp_path) as process:
        assert send_request(process.port)[0] == 200


def test_a_port_in_use_is_reported() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"port={port} is in use; choose another, or port=0 for a free one"):
            demo(compose("demo", f"port={port}"))


INVALID_SETTINGS = {
    "port=70000": "port=70000: expected an integer up to 65535",
    "host=192.0.2.1": "host=192.0.2.1 cannot be used",
    "host=''": "expected an address of this machine",
    "allowed_hosts=demo.example": "^allowed_hosts=demo.example: ",
    "limits.megabytes=0": "limits.megabytes=0: expected a number above 0",
    "limits.max_queue=none": "^limits.max_queue=none: expected an integer",
    "limits.connections=0": "limits.connections=0: expected an integer of at least 1",
    "checkpoint=nowhere": "nowhere does not exist; expected a run folder",
}


@pytest.mark.parametrize("setting", INVALID_SETTINGS)
def test_an_invalid_setting_is_reported(setting: str) -> None:
    with pytest.raises(UserError, match=INVALID_SETTINGS[setting]):
        demo(compose("demo", "port=0", setting))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"demo needs uvicorn, which is not installed: pip install 'emotion\[demo\]'"):
        demo(compose("demo"))


def test_ctrl_c_ends_the_demo_without_an_error() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]

    def interrupt() -> None:
        for _ in range(1000):
            with suppress(ConnectionRefusedError):  # it does not listen yet
                send_request(port, None, "/")  # answered when the server handles signals
                return os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.02)

    with ThreadPoolExecutor(1) as executor:
        interrupted = executor.submit(interrupt)
        demo(compose("demo", f"port={port}", "accelerator=cpu"))
        interrupted.result(0)
