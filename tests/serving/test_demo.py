"""The demo's server over loopback: what it answers, whom it refuses, and that it stays up."""

import os
import re
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from threading import Event

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import emotion
from emotion.config.compose import compose
from emotion.data.transforms.preprocess import values
from emotion.demo import demo, listening
from emotion.errors import UserError
from emotion.explainers.explainer import Explainer
from emotion.explainers.gradcam import GradCam
from emotion.inference.backends import Judge
from emotion.inference.detectors import Box
from emotion.inference.images import Picture, read_picture
from emotion.inference.predictor import Predictor
from emotion.inference.torch_backend import TorchJudge
from emotion.serving.guard import REMEMBERED, Allowance
from emotion.serving.session import Looker
from tests.pictures import packed, scene
from tests.serving.demo_serving import TWO, ask, serving


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return emotion.load()


@pytest.fixture(scope="module")
def looker(predictor: Predictor) -> Looker:
    return Looker(predictor, megapixels=40)


@pytest.fixture(scope="module")
def port(looker: Looker) -> Iterator[int]:
    with serving(looker) as port:
        yield port


def test_faces_are_the_predictor_s(port: int, predictor: Predictor) -> None:
    status, told, _ = ask(port)
    expected = predictor.predict(TWO)
    assert status == 200
    assert len(told["faces"]) == len(expected) == 2
    for face, other in zip(told["faces"], expected, strict=True):
        assert [face[key] for key in ("left", "top", "side")] == pytest.approx(list(other.box)[:3], abs=0.01)
        np.testing.assert_allclose(face["probabilities"], other.shares, atol=1e-6)
        assert face["map"] is None


def test_boxes_are_in_the_pixels_of_the_picture_that_was_sent(port: int) -> None:
    _, told, _ = ask(port, packed(scene((2000, 1000, 2400), width=6000, height=4500), "JPEG"))
    (face,) = told["faces"]
    assert [face[key] for key in ("left", "top", "side")] == pytest.approx([2000, 1000, 2400], abs=400)


def test_maps_are_the_explainer_s_of_each_face_s_likeliest_class(port: int, predictor: Predictor) -> None:
    _, told, _ = ask(port, path="/api/look?map=1")
    (found,) = predictor.faces_of([read_picture(TWO).pixels])
    pixels = torch.from_numpy(np.stack([face.pixels for face in found]))
    targets = torch.tensor([int(face.shares.argmax()) for face in found])
    assert isinstance(predictor.judge, TorchJudge)
    expected = Explainer(predictor.judge.ensemble, GradCam("features")).maps(values(pixels), targets)
    for face, own in zip(told["faces"], expected, strict=True):
        laid_out = np.reshape(face["map"]["values"], (face["map"]["height"], face["map"]["width"]))
        np.testing.assert_allclose(laid_out, own, atol=6e-4)
        assert (laid_out.min(), laid_out.max()) == pytest.approx((0, 1), abs=1e-3)


def test_an_empty_wall_is_answered_with_no_face(port: int) -> None:
    status, told, _ = ask(port, packed(scene()), "/api/look?map=1")
    assert (status, told["faces"]) == (200, [])


def test_the_page_and_what_it_asks_first(port: int, predictor: Predictor) -> None:
    status, page, headers = ask(port, None, "/")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    for name in re.findall(r'(?:href|src)="([\w.]+)"', page):
        assert ask(port, None, f"/{name}")[0] == 200
    assert "asked(" in ask(port, None, "/engine.js")[1]
    _, about, headers = ask(port, None, "/api/about")
    assert headers["cache-control"] == "no-store"
    assert about["classes"] == list(predictor.classes)
    assert (about["side"], about["channels"], about["without_maps"]) == (48, 1, None)
    assert "No picture leaves this machine" in about["private"]


@pytest.mark.parametrize("path", ["/", "/api/about", "/nothing"])
def test_every_answer_forbids_the_browser_whatever_the_page_does_not_need(port: int, path: str) -> None:
    _, _, headers = ask(port, None, path)
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert headers["permissions-policy"].startswith("camera=(self)")
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def header_of(width: int, height: int) -> bytes:
    """A PNG of that size, of whose pixels next to nothing is there."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(b"\0")))
    lengths = (struct.pack(">I", len(data)) for _, data in chunks)
    sums = (struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)
    packed = (n + name + data + c for n, (name, data), c in zip(lengths, chunks, sums, strict=True))
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


BAD = {
    "no picture": (b"What is this?", 415, "This is no picture; expected PNG, JPEG, WEBP, BMP."),
    "nothing": (b"", 415, "This is no picture"),
    "a truncated JPEG": (packed(scene((50, 100, 240)), "JPEG")[:3000], 422, "cannot be read .*truncated.* Is it whole"),
    "more pixels than any": (header_of(30_000, 30_000), 422, "too large .*900000000.* at most 40 million pixels"),
    "more pixels than asked": (header_of(8_000, 6_000), 422, "too large .8000 x 6000 pixels.; expected at most 40"),
    "more bytes than asked": (bytes(1_000_001), 413, "The file is too large; expected at most 1 MB"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_looked_at_is_refused_in_a_sentence_and_the_next_picture_is_looked_at(
    bad: str, port: int
) -> None:
    body, status, sentence = BAD[bad]
    found, told, _ = ask(port, body)
    assert found == status
    assert re.search(sentence, told["error"])
    assert "0x" not in told["error"]
    assert ask(port)[0] == 200


def test_a_body_of_no_known_length_is_cut_off_at_the_limit(port: int) -> None:
    with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("POST", "/api/look", iter([bytes(400_000)] * 3), encode_chunked=True)
        assert connection.getresponse().status == 413


FOREIGN = {
    "another name": ({"Host": "evil.example"}, 421),
    "another name with our port": ({"Host": "evil.example:8000"}, 421),
    "a network's address": ({"Host": "192.168.1.5"}, 421),
    "a name that begins as ours": ({"Host": "localhost.evil.example"}, 421),
    "nonsense": ({"Host": "[127.0.0.1"}, 421),
    "another site's page": ({"Origin": "https://evil.example"}, 403),
    "a page of nowhere": ({"Origin": "null"}, 403),
    "another port's page": ({"Origin": "http://127.0.0.1:1"}, 403),
    "a form of another site": ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_pages_of_other_sites_and_names_are_refused(foreign: str, port: int) -> None:
    headers, status = FOREIGN[foreign]
    assert ask(port, headers=headers)[0] == status
    assert ask(port, None, "/api/about", headers)[0] == status


def test_the_server_s_own_names_and_page_are_answered(port: int) -> None:
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}", "localhost."):
        assert ask(port, None, "/api/about", {"Host": host, "Origin": f"http://{host}"})[0] == 200


def test_beyond_this_machine_addresses_and_named_hosts_are_answered_and_the_page_says_so(looker: Looker) -> None:
    with serving(looker, local=False, hosts=("demo.example",)) as port:
        for host in ("192.168.1.5:8000", "[fe80::1]:8000", "demo.example", socket.gethostname()):
            status, about, _ = ask(port, None, "/api/about", {"Host": host})
            assert status == 200
            assert "over the network" in about["private"]
        assert ask(port, None, "/api/about", {"Host": "evil.example"})[0] == 421


def test_one_address_has_so_many_turns_a_second(looker: Looker) -> None:
    with serving(looker, per_second=0.5) as port:
        assert [ask(port, packed(scene()))[0] for _ in range(2)] == [200, 429]
        status, told, headers = ask(port)
        assert (status, told["error"]) == (429, "Too many pictures at once from you; wait a little.")
        assert 1 <= int(headers["retry-after"]) <= 2


def test_turns_come_back_with_time_and_each_address_has_its_own() -> None:
    now = [0.0]
    allowance = Allowance(2, lambda: now[0])
    assert [allowance.wait("a") for _ in range(5)] == [0, 0, 0, 0, 1]
    assert allowance.wait("b") == 0
    now[0] = 1.0
    assert [allowance.wait("a") for _ in range(3)] == [0, 0, 1]
    for number in range(2 * REMEMBERED):
        allowance.wait(str(number))
    assert len(allowance.left) == REMEMBERED
    assert Allowance(None).wait("a") == 0


class Waiting:
    """A detector that begins when it is told to."""

    def __init__(self) -> None:
        self.came, self.go = Event(), Event()

    def __call__(self, picture: Picture) -> list[Box]:
        self.came.set()
        assert self.go.wait(20)
        return []


def test_more_pictures_than_may_wait_are_sent_away(predictor: Predictor) -> None:
    detector = Waiting()
    slow = Looker(Predictor(predictor.judge, detector), 40)
    with serving(slow, waiting=2) as port, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, port)]
        assert detector.came.wait(20)
        asked += [pool.submit(ask, port) for _ in range(3)]
        (refused,) = wait(asked, 20, FIRST_COMPLETED).done
        status, told, headers = refused.result()
        assert (status, headers["retry-after"]) == (503, "1")
        assert "Too many pictures are waiting" in told["error"]
        detector.go.set()
        assert sorted(one.result()[0] for one in asked) == [200, 200, 200, 503]
        assert ask(port)[0] == 200


def test_a_fault_while_looking_is_one_sentence_logged_without_its_words(
    predictor: Predictor, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(picture: Picture) -> list[Box]:
        if picture.any():
            raise RuntimeError(f"pixels {picture[0, 0]}")
        return []

    with serving(Looker(Predictor(predictor.judge, broken), 40)) as port:
        status, told, _ = ask(port)
        assert (status, told) == (500, {"error": "The picture could not be looked at; the server says more."})
        assert ask(port, packed(np.zeros((9, 9), np.uint8)))[0] == 200
    said = capfd.readouterr().err
    assert "RuntimeError" in said
    assert "in broken" in said
    assert "[128" not in said


UNFINISHED = {
    "body": (b"POST /api/look HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nabc", b"HTTP/1.1 408"),
    "head": (b"POST /api/look HTTP/1.1\r\nHo", b""),
}


@pytest.mark.parametrize("part", UNFINISHED)
def test_who_takes_too_long_is_not_waited_for(part: str, looker: Looker) -> None:
    sent, answer = UNFINISHED[part]
    with serving(looker, seconds=0.3) as port:
        with socket.create_connection(("127.0.0.1", port), 20) as slow:
            slow.sendall(sent)
            assert slow.recv(12) == answer
        assert ask(port)[0] == 200


def test_whoever_leaves_early_harms_nobody(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 20) as leaving:
        leaving.sendall(b"POST /api/look HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nabc")
    assert ask(port)[0] == 200


def test_what_is_refused_unread_says_that_the_connection_ends(port: int) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    for path, headers, status in (("/api/look", form, 400), ("/", {"Host": "evil.example"}, 421)):
        found, _, told = ask(port, TWO, path, headers)
        assert (found, told["connection"]) == (status, "close")
    assert "connection" not in ask(port)[2]


def test_what_is_refused_takes_no_turn(looker: Looker) -> None:
    with serving(looker, per_second=0.5) as port:
        assert [ask(port, body)[0] for body in (bytes(1_000_001), bytes(1_000_001), TWO, TWO)] == [413, 413, 200, 429]


def test_whoever_waits_longest_makes_room_for_the_next(looker: Looker) -> None:
    with serving(looker, connections=3) as port, ExitStack() as opened:
        first, *others = (opened.enter_context(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(3))
        for one in (first, *others):
            one.sendall(b"POST /api/look HTTP/1.1\r\nHo")
        assert ask(port)[0] == 200
        with suppress(ConnectionResetError):
            assert first.recv(1) == b""
        others[0].setblocking(False)
        with pytest.raises(BlockingIOError):
            others[0].recv(1)


def test_bodies_on_their_way_in_hold_so_much_together(looker: Looker) -> None:
    with serving(looker, seconds=60) as port, ExitStack() as opened:
        clients = [opened.enter_context(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(5)]
        for client in clients:
            client.sendall(b"POST /api/look HTTP/1.1\r\nHost: localhost\r\nContent-Length: 990000\r\n\r\n")
            client.sendall(bytes(950_000))
            assert ask(port, None, "/api/about")[0] == 200  # that is, the server has come to it
        assert clients[0].recv(12) == b"HTTP/1.1 408"
        assert ask(port)[0] == 200


class Asked:
    """A judge that is not torch's."""

    def __init__(self, judge: Judge) -> None:
        self.name, self.classes, self.side, self.channels = "asked", judge.classes, judge.side, judge.channels
        self.probabilities = judge.probabilities


class Mapping(Asked):
    """One that makes its own maps."""

    def maps(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.tile(np.array([[0, 1], [2, 4]], np.float32), (len(faces), 1, 1))


def test_a_judge_without_maps_says_so(predictor: Predictor) -> None:
    looker = Looker(Predictor(Asked(predictor.judge), predictor.detector), 40)
    assert looker.about()["without_maps"] == "asked makes no maps."
    assert [face["map"] for face in looker.look(TWO, with_maps=True)["faces"]] == [None, None]


def test_a_judge_s_own_maps_are_scaled_to_1(predictor: Predictor) -> None:
    looker = Looker(Predictor(Mapping(predictor.judge), predictor.detector), 40)
    assert looker.about()["without_maps"] is None
    expected = {"width": 2, "height": 2, "values": [0, 0.25, 0.5, 1]}
    assert [face["map"] for face in looker.look(TWO, with_maps=True)["faces"]] == [expected] * 2


def test_sigterm_stops_the_verb() -> None:
    command = [sys.executable, "-m", "emotion.demo", "port=0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout
        said = re.fullmatch(r"FastCNN looks at pictures at http://127.0.0.1:(\d+)/ .*\n", child.stdout.readline())
        assert said
        assert ask(int(said[1]))[0] == 200
        child.terminate()  # not SIGINT, which a shell's background jobs are born deaf to
        assert child.communicate()[1] == ""
    assert child.returncode == 143


def test_a_port_that_is_taken_is_named() -> None:
    with listening("127.0.0.1", 0) as listener:
        taken = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"port={taken} is in use; give another, or port=0 for any free one"):
            demo(compose("demo", f"port={taken}"))


WRONG = {
    "port=70000": "port=70000: expected a whole number up to 65535",
    "host=192.0.2.1": "host=192.0.2.1 cannot be listened at",
    "host=''": "expected an address of this machine",
    "hosts=demo.example": "expected names, such as",
    "limits.megabytes=0": "limits.megabytes=0: expected a number above 0",
    "limits.waiting=none": "limits.waiting=none: expected a whole number of 1 or more",
    "checkpoint=nowhere": "nowhere is not there; give a run folder",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_setting_is_named(wrong: str) -> None:
    with pytest.raises(UserError, match=WRONG[wrong]):
        demo(compose("demo", "port=0", wrong))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"uvicorn is not installed; the page needs it: pip install 'emotion\[demo\]'"):
        demo(compose("demo"))
