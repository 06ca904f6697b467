"""Pictures that mean harm are answered or refused, by predict and by the demo: soon, in little memory, and the next
one is answered again.

Seconds are those of one picture. Memory is the most that the process holds while it has the picture, less what it held
after its first honest one; so whatever earlier pictures left behind counts as well.
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
from tests.serving.demo_serving import Started, ask, started

SECONDS, MEGABYTES = 2, 200
REFUSED = (413, 415, 422)
FOURTHS = [list(MADE)[first::4] for first in range(4)]


class Watched:
    """A process and what an honest picture leaves it with."""

    def __init__(self, pid: int, look: Callable[[str, bytes], int | None]) -> None:
        self.pid, self.look = pid, look
        for name, content in (("honest.jpg", JPEG), ("honest.gif", animated("GIF"))):
            look(name, content)
        self.before = resident(pid)

    def faces(self, name: str, content: bytes) -> int | None:
        """That are found; None where the picture is refused."""
        reset_peak(self.pid)
        began = time.perf_counter()
        found = self.look(name, content)
        seconds, megabytes = time.perf_counter() - began, peak(self.pid) - self.before
        assert seconds < SECONDS, f"{seconds:.1f} s"
        assert megabytes < MEGABYTES, f"{megabytes:.0f} MB"
        return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with started(tmp_path_factory.mktemp("demo"), "limits.per_second=null", "limits.megapixels=179") as running:
        yield running


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return emotion.load()


@contextmanager
def judging(predictor: Predictor, folder: Path) -> Iterator[Callable[[str, bytes], int | None]]:
    """What `python -m emotion.predict source=FILE` does with each file, the weights being loaded once."""
    silent = Console(quiet=True)
    with Outputs(folder / "seen", "jsonl", True, predictor.classes) as outputs:

        def look(name: str, content: bytes) -> int | None:
            path = folder / name
            path.write_bytes(content)
            judged = Pipeline(predictor, outputs, silent, silent)
            try:
                judged.files([SourceFile(path, Path(name))], every=1, smoothing=0.5, seconds=None)
            except UserError:
                return None
            return judged.faces

        yield look


def asked(port: int, name: str, content: bytes) -> int | None:
    status, told, _ = ask(port, content)
    if status == 200:
        return len(told["faces"])
    assert status in REFUSED, status
    assert list(told) == ["error"]
    return None


def try_all(
    cases: Iterable[tuple[str, bytes]], predictor: Predictor, demo: Started, tally: Tally, folder: Path
) -> None:
    with judging(predictor, folder) as look:
        predicting, serving = Watched(os.getpid(), look), Watched(demo.pid, partial(asked, demo.port))
        for name, content in cases:
            with tally(name):
                found, seen = predicting.faces(name, content), serving.faces(name, content)
                moving = name.endswith((".gif", ".mp4"))  # which the demo takes for no picture
                assert found == seen or moving, f"predict: {found}, demo: {seen}"
                assert ask(demo.port, None, "/api/about")[0] == 200
        assert (look("honest.jpg", JPEG), asked(demo.port, "honest.jpg", JPEG)) == (2, 2)


@pytest.mark.hard
@pytest.mark.promise("images")
@pytest.mark.parametrize("names", FOURTHS, ids=["1", "2", "3", "4"])
def test_pictures_made_to_harm(
    names: list[str], predictor: Predictor, demo: Started, tally: Tally, tmp_path: Path
) -> None:
    try_all(((name, MADE[name]()) for name in names), predictor, demo, tally, tmp_path)


@pytest.mark.hard
@pytest.mark.promise("images")
@pytest.mark.parametrize("first", range(0, 500, 125))
def test_a_jpeg_with_its_bytes_changed(
    first: int, predictor: Predictor, demo: Started, tally: Tally, tmp_path: Path
) -> None:
    try_all(mutations(first, first + 125), predictor, demo, tally, tmp_path)


@pytest.mark.hard
def test_a_folder_of_them_and_one_honest_picture(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name, content in [(name, made()) for name, made in MADE.items()] + [("honest.png", encode_image(FACE))]:
        (tmp_path / "pictures" / name).write_bytes(content)
    command = [sys.executable, "-m", "emotion.predict", "pictures", "output=seen"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(f" of {len(MADE) + 1} files cannot be read; the others are judged.")
    assert "honest.png: 2 faces" in done.stdout


CHEAP = {
    "bomb header.jpg": "is too large .* at most 179 million pixels",
    "bomb.webp": r"is too large \(6000 x 6000 pixels, 576 MB unpacked\); expected at most 140 MB\. Make it",
    "bomb of a profile.png": r"cannot be read \(Decompressed data too large",
    "bomb of runs.bmp": "is in more parts than pictures are; save it anew",
}


@pytest.mark.parametrize("name", CHEAP)
def test_what_costs_too_much_is_said(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} {CHEAP[name]}"):
        read_image(MADE[name](), name)
