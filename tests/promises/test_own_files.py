"""Truncated, corrupted or swapped files of a run are refused, and a run resumes from its last valid checkpoint."""

import random
import shutil
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
from emotion.records.predictions import read_predictions
from emotion.records.run_folder import find_finished
from emotion.train import train
from emotion.training import setup
from emotion.training.resume import latest_valid_checkpoint
from tests.conftest import record_of, signal_at
from tests.counted import Tally
from tests.training.test_resume import content, differences

STOPPED, FINISHED = Path("stopped"), Path("finished")
Config = Callable[..., DictConfig]
Counts = tuple[int, int]
"""How often to truncate a file and to flip bits in it."""

pytestmark = [pytest.mark.hard, pytest.mark.promise("own files")]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of which every test takes a copy."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def runs(originals: Path, small_config: Config, monkeypatch: pytest.MonkeyPatch) -> dict[str, DictConfig]:
    """Configs of two runs with different seeds; this folder holds each run stopped in its third epoch and finished."""
    configs = {"one": small_config("trainer.max_epochs=4"), "other": small_config("trainer.max_epochs=4", "seed=1")}
    for cfg in configs.values():
        cfg.cache_dir = str(originals / "cache")
    if not list(originals.glob("o*")):
        for name, cfg in configs.items():
            train(cfg, originals / name / FINISHED)
            batches = record_of(originals / name / FINISHED).split["train"] // 16
            with monkeypatch.context() as patch:
                signal_at(patch, "training_step", 2 * batches + 2)
                with pytest.raises(Stopped):
                    train(cfg, originals / name / STOPPED)
    for name in configs:
        shutil.copytree(originals / name, name)
    return configs


def damage(path: Path, counts: Counts, seed: int, other: Path | None = None) -> Iterator[str]:
    """Damage the file in each way, then swap it with another run's, and restore it; yield a description of each."""
    original, rng = path.read_bytes(), random.Random(seed)
    truncated, flipped = counts
    for number in range(truncated):
        path.write_bytes(original[: rng.randrange(len(original))])
        yield f"{path} truncated {number}"
    for number in range(flipped):
        damaged = bytearray(original)
        for position in rng.sample(range(len(damaged)), rng.randint(1, 3)):
            damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        yield f"{path} flipped {number}"
    if other:
        path.write_bytes(other.read_bytes())
        yield f"{path} swapped"
    path.write_bytes(original)


def resumes_from(run: Path, cfg: DictConfig) -> Path:
    config = setup.resolve(cfg, run)
    data, _ = setup.make_data(config)
    return latest_valid_checkpoint(run, setup.make_classifier(config, data), data, config.trainer["max_epochs"])


def read_finished(run: Path) -> None:
    """Read what other verbs read of a finished run."""
    load_checkpoint(run)
    (finished,) = find_finished([str(run)])
    read_predictions(finished, "none")


def test_a_run_resumes_from_its_last_valid_checkpoint(runs: dict[str, DictConfig], tally: Tally) -> None:
    run, other = "one" / STOPPED, "other" / STOPPED
    last, previous = run / LAST_CHECKPOINT, run / PREVIOUS_CHECKPOINT
    original = content(run)
    assert resumes_from(run, runs["one"]) == last
    for case in damage(last, (18, 20), 0, other / LAST_CHECKPOINT):
        with tally(case):
            chosen = resumes_from(run, runs["one"])
            # a flipped bit of the archive's padding changes nothing that is read
            assert chosen == previous or ("flipped" in case and differences(original, content(run)) == [])
    last.write_bytes(b"")
    for case in damage(previous, (3, 0), 1, other / PREVIOUS_CHECKPOINT):
        with tally(case), pytest.raises(UserError, match=r"last.ckpt cannot be read(.|\n)*previous.ckpt"):
            resumes_from(run, runs["one"])


@pytest.mark.parametrize("kind", ["truncated", "swapped"])
def test_resume_auto_recovers_from_a_damaged_checkpoint(
    kind: str, runs: dict[str, DictConfig], tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    run, uninterrupted = "one" / STOPPED, "one" / FINISHED
    last = run / LAST_CHECKPOINT
    with tally(f"resume=auto {kind}"):
        swapped = ("other" / STOPPED / LAST_CHECKPOINT).read_bytes()
        last.write_bytes(last.read_bytes()[:-100] if kind == "truncated" else swapped)
        cfg = runs["one"].copy()
        cfg.resume = "auto"
        train(cfg, run)
        assert f"Resuming from {run / PREVIOUS_CHECKPOINT}, epoch 2." in capsys.readouterr().out
        for name in ("last", "best"):
            assert differences(content(uninterrupted, name), content(run, name)) == []
        assert (run / "metrics.csv").read_bytes() == (uninterrupted / "metrics.csv").read_bytes()
        assert not (run / PREVIOUS_CHECKPOINT).exists()


@pytest.mark.parametrize(
    ("name", "counts"),
    [(str(BEST_CHECKPOINT), (12, 13)), ("predictions.npz", (5, 7)), ("record.json", (8, 0))],
)
def test_damaged_files_of_a_finished_run_are_refused(
    name: str, counts: Counts, runs: dict[str, DictConfig], tally: Tally
) -> None:
    run = "one" / FINISHED
    read_finished(run)
    for case in damage(run / name, counts, 2, "other" / FINISHED / name):
        with tally(case), pytest.raises(UserError):
            read_finished(run)


@pytest.mark.parametrize(
    ("name", "counts"),
    [("one.safetensors", (6, 6)), ("one.json", (4, 0)), ("one.onnx", (4, 0))],
)
def test_damaged_exports_are_refused(name: str, counts: Counts, runs: dict[str, DictConfig], tally: Tally) -> None:
    target = "onnx" if name.endswith("onnx") else "weights"
    for run in runs:
        arguments = (f"checkpoint={run / FINISHED}", f"target={target}", f"name={run}", "output=out")
        export(compose("export", *arguments), Path("out"))
    path = Path("out") / name
    weights = path.with_suffix(".safetensors") if path.suffix == ".json" else path
    read = OnnxBackend if path.suffix == ".onnx" else load_checkpoint
    assert read(weights)
    for case in damage(path, counts, 4, path.with_stem("other") if read is load_checkpoint else None):
        with tally(case), pytest.raises(UserError):
            read(weights)
