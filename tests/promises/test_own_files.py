"""Files of a run that are cut short, altered or another run's are refused; a run goes on from the last good one."""

import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig

from emotion.checkpoints.load import PREVIOUS_CHECKPOINT, load_checkpoint
from emotion.checkpoints.locate import BEST_CHECKPOINT, LAST_CHECKPOINT
from emotion.config.compose import compose
from emotion.errors import Stopped, UserError
from emotion.export import export
from emotion.inference.onnx_backend import OnnxBackend
from emotion.records import run_record
from emotion.records.predictions import read_predictions
from emotion.records.run_folder import Run
from emotion.train import dispatch, train
from emotion.training import setup
from emotion.training.resume import latest_valid_checkpoint
from tests.conftest import signal_at
from tests.counted import Tally
from tests.training.test_resume import content, differences

STOPPED, FINISHED, CONFIG = Path("stopped"), Path("finished"), Path(".hydra/config.yaml")
Config = Callable[..., DictConfig]

pytestmark = [pytest.mark.hard, pytest.mark.promise("own files")]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of this file lie, which every test takes a copy of."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def runs(kept: Path, small_config: Config, monkeypatch: pytest.MonkeyPatch) -> dict[str, DictConfig]:
    """What two runs of other seeds are composed of, each of which lies here stopped in its third epoch and finished."""
    settings = {"one": small_config("trainer.max_epochs=4"), "other": small_config("trainer.max_epochs=4", "seed=1")}
    for cfg in settings.values():
        cfg.cache_dir = str(kept / "cache")
    if not list(kept.glob("o*")):
        for name, cfg in settings.items():
            train(cfg, kept / name / FINISHED)
            with monkeypatch.context() as patch:
                signal_at(patch, "training_step", 2 * (len_train(kept / name / FINISHED) // 16) + 2)
                with pytest.raises(Stopped):
                    train(cfg, kept / name / STOPPED)
    for name in settings:
        shutil.copytree(kept / name, name)
    return settings


def len_train(run: Path) -> int:
    return int((run_record.read_record(run) or {})["split"]["train"])


def damaged(path: Path, other: Path, each: tuple[int, int, int], seed: int) -> Iterator[str]:
    """The file cut short, with bits flipped and exchanged for another run's, so many times each; then as it was."""
    whole, draw = path.read_bytes(), random.Random(seed)
    cuts, flips, swaps = each
    for number in range(cuts):
        path.write_bytes(whole[: draw.randrange(len(whole))])
        yield f"{path} cut {number}"
    for number in range(flips):
        content = bytearray(whole)
        for place in draw.sample(range(len(content)), draw.randint(1, 3)):
            content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        yield f"{path} flipped {number}"
    for number in range(swaps):
        path.write_bytes(other.read_bytes())
        yield f"{path} swapped {number}"
    path.write_bytes(whole)


def last_of(run: Path, cfg: DictConfig) -> Path:
    """The checkpoint that a run goes on from."""
    settings = setup.resolve(cfg, run)
    data, _ = setup.make_data(settings)
    return latest_valid_checkpoint(run, setup.make_classifier(settings, data), data)


def read_whole(run: Path) -> None:
    """What other verbs read of a finished run."""
    record = run_record.read_record(run) or {}
    load_checkpoint(run)
    read_predictions(Run(run, record), "none")


def test_a_run_goes_on_from_the_last_good_checkpoint(runs: dict[str, DictConfig], tally: Tally) -> None:
    run, other = "one" / STOPPED, "other" / STOPPED
    last, former = run / LAST_CHECKPOINT, run / PREVIOUS_CHECKPOINT
    assert last_of(run, runs["one"]) == last
    for case in damaged(last, other / LAST_CHECKPOINT, (18, 20, 5), 0):
        with tally(case):
            assert last_of(run, runs["one"]) == former
    last.write_bytes(b"")
    for case in damaged(former, other / PREVIOUS_CHECKPOINT, (2, 2, 1), 1):
        with tally(case), pytest.raises(UserError, match=r"last.ckpt cannot be read(.|\n)*previous.ckpt"):
            last_of(run, runs["one"])


@pytest.mark.parametrize("damage", ["cut", "swapped"])
def test_resumed_of_its_own_accord_it_is_the_run_that_was_not_damaged(
    damage: str, runs: dict[str, DictConfig], tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    run, straight = "one" / STOPPED, "one" / FINISHED
    last = run / LAST_CHECKPOINT
    with tally(f"resume=auto {damage}"):
        content_of_another = ("other" / STOPPED / LAST_CHECKPOINT).read_bytes()
        last.write_bytes(last.read_bytes()[:-100] if damage == "cut" else content_of_another)
        cfg = runs["one"].copy()
        cfg.resume = "auto"
        train(cfg, run)
        assert f"Going on from {run / PREVIOUS_CHECKPOINT}, of epoch 2." in capsys.readouterr().out
        for name in ("last", "best"):
            assert differences(content(straight, name), content(run, name)) == []
        assert (run / "metrics.csv").read_bytes() == (straight / "metrics.csv").read_bytes()
        assert not (run / PREVIOUS_CHECKPOINT).exists()


@pytest.mark.parametrize(
    ("name", "each"),
    [(str(BEST_CHECKPOINT), (12, 13, 5)), ("record.json", (8, 8, 4)), ("predictions.npz", (5, 7, 3))],
)
def test_a_finished_runs_files_are_refused(
    name: str, each: tuple[int, int, int], runs: dict[str, DictConfig], tally: Tally
) -> None:
    run = "one" / FINISHED
    read_whole(run)
    for case in damaged(run / name, "other" / FINISHED / name, each, 2):
        with tally(case), pytest.raises(UserError):
            read_whole(run)


def test_a_runs_config_is_refused(
    runs: dict[str, DictConfig], tally: Tally, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = "one" / STOPPED, "other" / STOPPED
    for case in damaged(run / CONFIG, other / CONFIG, (4, 4, 2), 3):
        with tally(case):
            monkeypatch.setattr(sys, "argv", ["emotion.train", f"resume={run}"])
            with pytest.raises(SystemExit) as ended:
                dispatch()
            assert ended.value.code == 2
            assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("name", "each"),
    [("one.safetensors", (6, 6, 3)), ("one.json", (4, 4, 2)), ("one.onnx", (4, 6, 0))],
)
def test_what_was_exported_is_refused(
    name: str, each: tuple[int, int, int], runs: dict[str, DictConfig], tally: Tally
) -> None:
    for run in runs:
        target = "onnx" if name.endswith("onnx") else "weights"
        given = (f"checkpoint={run / FINISHED}", f"target={target}", f"name={run}", "output=out")
        export(compose("export", *given), Path("out"))
    path = Path("out") / name
    asked = path.with_suffix(".safetensors") if path.suffix == ".json" else path
    read = OnnxBackend if path.suffix == ".onnx" else load_checkpoint
    assert read(asked)
    for case in damaged(path, path.with_stem("other"), each, 4):
        with tally(case), pytest.raises(UserError):
            read(asked)
