"""What a config may not build is refused however it comes: by an override, in a config file, in a run's folder.

Each name would leave a file behind, or import a module that does.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emotion.checkpoints import portable
from emotion.checkpoints.checkpoint_io import save_checkpoint
from emotion.checkpoints.load import read_checkpoint
from emotion.checkpoints.locate import BEST_CHECKPOINT
from emotion.io import digests
from tests.counted import Tally
from tests.promises.asked import ask, refused

CANARY = Path("canary")
TARGETS = (
    "os.system",
    "posix.system",
    "builtins.eval",
    "builtins.exec",
    "builtins.__import__",
    "subprocess.Popen",
    "subprocess.check_output",
    "pickle.loads",
    "joblib.load",
    "numpy.load",
    "torch.load",
    "torch.hub.load",
    "torch.nn.functional.torch.load",
    "torch.nn.modules.module.torch.serialization.load",
    "torch.optim.optimizer.functools.partial",
    "importlib.import_module",
    "runpy.run_path",
    "shutil.rmtree",
    "webbrowser.open",
    "ctypes.CDLL",
    "hydra.utils.instantiate",
    "emotion.data.cache.shutil.rmtree",
    "emotion.data.cache._remove",
    "emotion.models.__builtins__.eval",
    "emotion.inference.onnx_backend.import_optional",
    "emotion.checkpoints.checkpoint_io.save_checkpoint",
    "lightning.pytorch.trainer.trainer.os.system",
    "hostile_module.part",
    "emotion.models.v4_attention\n.os.system",
    "\uff4f\uff53.system",
)
ARGUMENTS = {"command": "touch canary", "args": "touch canary", "path_name": "hostile_module.py"}
SMALL = ("data=synthetic", "data.training=9", "data.public_test=2", "data.private_test=2", "trainer.max_epochs=1")
PLACES = ("loss", "optimizer", "augment.evil", "callbacks.evil", "hydra.callbacks.evil")
"""Parts that are built when, in the first case, the classifier is made, ..., and in the last before a verb begins."""


@pytest.fixture(autouse=True)
def hostile_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the working directory, which leaves the canary when it is imported."""
    Path("hostile_module.py").write_text("open('canary', 'w').close()\ndef part(**_): pass\n")
    monkeypatch.syspath_prepend(".")


def described(target: str) -> dict[str, Any]:
    return {"_target_": target, **ARGUMENTS}


def nested(place: str, described: dict[str, Any]) -> dict[str, Any]:
    *outer, last = place.split(".")
    found: dict[str, Any] = {last: described}
    for name in reversed(outer):
        found = {name: found}
    return found


@pytest.mark.hard
@pytest.mark.promise("targets")
def test_an_override_builds_nothing_hostile(tally: Tally) -> None:
    commands = []
    for number, target in enumerate(TARGETS):
        place = PLACES[number % len(PLACES)]
        settings = ",".join(f"{key}: {json.dumps(value)}" for key, value in described(target).items())
        commands.append(["train", *SMALL, f"++{place}={{{settings}}}"])
    for target, answer in zip(TARGETS, ask(commands), strict=True):
        with tally(target):
            refused(answer)
            assert not CANARY.exists()
    assert not list(Path().rglob("config.yaml"))  # a refused run leaves nothing


@pytest.mark.hard
@pytest.mark.promise("targets")
def test_a_config_file_builds_nothing_hostile(tally: Tally) -> None:
    commands = []
    for number, target in enumerate(TARGETS):
        folder = Path(f"configs{number}/experiment")
        folder.mkdir(parents=True)
        content = nested(PLACES[number % len(PLACES)], described(target))
        (folder / "evil.yaml").write_text("# @package _global_\n" + json.dumps(content))
        commands.append(["train", *SMALL, "--config-dir", str(folder.parent), "+experiment=evil"])
    for target, answer in zip(TARGETS, ask(commands), strict=True):
        with tally(target):
            refused(answer)
            assert not CANARY.exists()


def in_config(run: Path, target: str, number: int) -> list[str]:
    """The config that a run is resumed by, sealed as ours are."""
    config = run / ".hydra/config.yaml"
    content = nested(PLACES[number % len(PLACES)], described(target))
    digests.write_yaml(config, config.read_text().partition("\n")[2] + json.dumps(content)[1:-1] + "\n")
    return ["train", f"resume={run}"]


def in_checkpoint(run: Path, target: str, number: int) -> list[str]:
    """The settings of its network or of its data."""
    path = run / BEST_CHECKPOINT
    content = read_checkpoint(path)
    part = ("loss", "model", "source", "split")[number % 4]
    content["hyper_parameters" if number % 4 < 2 else "datamodule_hyper_parameters"][part] = described(target)
    save_checkpoint(content, path)
    return ["evaluate", f"checkpoint={path}", f"output={run}/out"]


def in_description(run: Path, target: str, number: int) -> list[str]:
    """What stands beside weights that were exported."""
    weights = run / "w.safetensors"
    content = read_checkpoint(run / BEST_CHECKPOINT)
    content["hyper_parameters"]["loss"] = described(target)
    portable.write(weights, run / "w.json", content, None)
    return ["predict", "source=nowhere.png", f"checkpoint={weights}"]


WAYS: tuple[Callable[[Path, str, int], list[str]], ...] = (in_config, in_checkpoint, in_description)


@pytest.mark.hard
@pytest.mark.promise("targets")
def test_a_runs_folder_builds_nothing_hostile(small_run: Callable[..., Path], tally: Tally) -> None:
    commands = []
    for number, target in enumerate(TARGETS):
        run = small_run(Path(f"run{number}"), "trainer.max_epochs=1")
        (run / digests.RECORD).unlink()  # whose digests a hostile one would have of its own
        commands.append(WAYS[number % 3](run, target, number // 3))
    for target, answer in zip(TARGETS, ask(commands), strict=True):
        with tally(target):
            refused(answer)
            assert not CANARY.exists()
