"""predict and the demo process or refuse malicious images quickly and in little memory, and continue with the next.

Memory is the peak during an image minus the resident memory after the first valid one, so leaks count as well; and so
does what other tests in the process have left, therefore these tests run alone.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

import emotion
from emotion.errors import UserError
from emotion.inference.images import read_image
from emotion.inference.inputs import SourceFile
from emotion.inference.outputs import Outputs
from emotion.inference.pipeline import Pipeline
from emotion.inference.predictor import Predictor
from tests.counted import Tally
from tests.images import encode_image
from tests.promises.hostile_images import FACE, JPEG, MADE, animated, mutations
from tests.promises.memory import peak, reset_peak, resident
from tests.serving.demo_server import DemoProcess, send_request, start_demo

SECONDS, MEGABYTES = 2, 200
REFUSED = (413, 415, 422)
QUARTERS = [list(MADE)[first::4] for first in range(4)]


class Monitored:
    """A process with its memory after valid images."""

    def __init__(self, pid: int, process_image: Callable[[str, bytes], int | None]) -> None:
        self.pid, self.process_image = pid, process_image
        for name, content in (("valid.jpg", JPEG), ("valid.gif", animated("GIF"))):
            process_image(name, content)
        self.before = resident(pid)

    def faces(self, name: str, content: bytes) -> int | None:
        """Return the number of faces; None if the image is refused."""
        reset_peak(self.pid)
        start = time.perf_counter()
        faces = self.process_image(name, content)
        seconds, megabytes = time.perf_counter() - start, peak(self.pid) - self.before
        assert seconds < SECONDS, f"{seconds:.1f} s"
        assert megabytes < MEGABYTES, f"{megabytes:.0f} MB"
        return faces


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoProcess]:
    with start_demo(tmp_path_factory.mktemp("demo"), "limits.rate_limit=null", "limits.megapixels=179") as running:
        yield running


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return emotion.load()


@contextmanager
def predicting(predictor: Predictor, folder: Path) -> Iterator[Callable[[str, bytes], int | None]]:
    """Yield a function that does what `python -m emotion.predict source=FILE` does, with the weights loaded once."""
    silent = Console(quiet=True)
    with Outputs(folder / "seen", "jsonl", True, predictor.classes) as outputs:

        def process_image(name: str, content: bytes) -> int | None:
            path = folder / name
            path.write_bytes(content)
            pipeline = Pipeline(predictor, outputs, silent, silent)
            try:
                pipeline.process_files([SourceFile(path, Path(name))], frame_stride=1, smoothing=0.5, max_seconds=None)
            except UserError:
                return None
            return pipeline.num_faces

        yield process_image


def send(port: int, name: str, content: bytes) -> int | None:
    status, answer, _ = send_request(port, content)
    if status == 200:
        return len(answer["faces"])
    assert status in REFUSED, status
    assert list(answer) == ["error"]
    return None


def try_all(
    cases: Iterable[tuple[str, bytes]], predictor: Predictor, demo: DemoProcess, tally: Tally, folder: Path
) -> None:
    with predicting(predictor, folder) as process_image:
        predict_process, demo_process = (
            Monitored(os.getpid(), process_image),
            Monitored(demo.pid, partial(send, demo.port)),
        )
        for name, content in cases:
            with tally(name):
                found, served = predict_process.faces(name, content), demo_process.faces(name, content)
                moving = name.endswith((".gif", ".mp4"))  # refused by the demo
                assert found == served or moving, f"predict: {found}, demo: {served}"
                assert send_request(demo.port, None, "/api/about")[0] == 200
        assert (process_image("valid.jpg", JPEG), send(demo.port, "valid.jpg", JPEG)) == (2, 2)


@pytest.mark.hard
@pytest.mark.alone
@pytest.mark.promise("images")
@pytest.mark.parametrize("names", QUARTERS, ids=["1", "2", "3", "4"])
def test_malicious_images(
    names: list[str], predictor: Predictor, demo: DemoProcess, tally: Tally, tmp_path: Path
) -> None:
    try_all(((name, MADE[name]()) for name in names), predictor, demo, tally, tmp_path)


@pytest.mark.hard
@pytest.mark.alone
@pytest.mark.promise("images")
@pytest.mark.parametrize("first", range(0, 500, 125))
def test_a_jpeg_with_random_changes(
    first: int, predictor: Predictor, demo: DemoProcess, tally: Tally, tmp_path: Path
) -> None:
    try_all(mutations(first, first + 125), predictor, demo, tally, tmp_path)


@pytest.mark.hard
def test_a_folder_of_malicious_images_and_a_valid_one(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name, content in [(name, make()) for name, make in MADE.items()] + [("valid.png", encode_image(FACE))]:
        (tmp_path / "pictures" / name).write_bytes(content)
    command = [sys.executable, "-m", "emotion.predict", "pictures", "output=seen"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(
        f" of {len(MADE) + 1} files cannot be read; the others were processed."
    )
    assert "valid.png: 2 faces" in done.stdout


CHEAP = {
    "bomb header.jpg": "is too large .* at most 179 million pixels",
    "bomb.webp": r"is too large \(6000 x 6000 pixels, 576 MB decoded\); expected at most 140 MB\. Make it",
    "bomb of a profile.png": r"cannot be read \(Decompressed data too large",
    "bomb of runs.bmp": "is split into more than 131,072 parts; save it again",
}


@pytest.mark.parametrize("name", CHEAP)
def test_an_expensive_image_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} {CHEAP[name]}"):
        read_image(MADE[name](), name)
