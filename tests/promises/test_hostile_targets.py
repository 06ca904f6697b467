"""Configs with forbidden targets are refused, in overrides, config files and the files of a run.

Each target would leave a file behind, or import a module that does.
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
from emotion.io.atomic import write_text
from emotion.io.digests import RECORD
from tests.counted import Tally
from tests.promises.commands import assert_refused, run_commands

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
    "emotion.data.cache._remove_incomplete",
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
"""Settings that are instantiated at different times; the last before the verb starts."""


@pytest.fixture(autouse=True)
def hostile_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a module in the working directory that creates the canary when imported."""
    Path("hostile_module.py").write_text("open('canary', 'w').close()\ndef part(**_): pass\n")
    monkeypatch.syspath_prepend(".")


def malicious(target: str) -> dict[str, Any]:
    return {"_target_": target, **ARGUMENTS}


def nest(key: str, value: dict[str, Any]) -> dict[str, Any]:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


@pytest.mark.hard
@pytest.mark.promise("targets")
def test_malicious_overrides(tally: Tally) -> None:
    commands = []
    for number, target in enumerate(TARGETS):
        place = PLACES[number % len(PLACES)]
        settings = ",".join(f"{key}: {json.dumps(value)}" for key, value in malicious(target).items())
        commands.append(["train", *SMALL, f"++{place}={{{settings}}}"])
    for target, result in zip(TARGETS, run_commands(commands), strict=True):
        with tally(target):
            assert_refused(result)
            assert not CANARY.exists()
    assert not list(Path().rglob("config.yaml"))  # a refused run leaves no files


@pytest.mark.hard
@pytest.mark.promise("targets")
def test_malicious_config_files(tally: Tally) -> None:
    commands = []
    for number, target in enumerate(TARGETS):
        folder = Path(f"configs{number}/experiment")
        folder.mkdir(parents=True)
        content = nest(PLACES[number % len(PLACES)], malicious(target))
        (folder / "evil.yaml").write_text("# @package _global_\n" + json.dumps(content))
        commands.append(["train", *SMALL, "--config-dir", str(folder.parent), "+experiment=evil"])
    for target, result in zip(TARGETS, run_commands(commands), strict=True):
        with tally(target):
            assert_refused(result)
            assert not CANARY.exists()


def in_config(run: Path, target: str, number: int) -> list[str]:
    """Change the stored config of a run and resume it."""
    config = run / ".hydra/config.yaml"
    content = nest(PLACES[number % len(PLACES)], malicious(target))
    write_text(config, config.read_text() + json.dumps(content)[1:-1] + "\n")
    return ["train", f"resume={run}"]


def in_checkpoint(run: Path, target: str, number: int) -> list[str]:
    """Change the settings of the network or the data in a checkpoint."""
    path = run / BEST_CHECKPOINT
    content = read_checkpoint(path).entries()
    part = ("model", "source", "split")[number % 3]
    content["hyper_parameters" if part == "model" else "datamodule_hyper_parameters"][part] = malicious(target)
    save_checkpoint(content, path)
    return ["evaluate", f"checkpoint={path}", f"output={run}/out"]


def in_description(run: Path, target: str, number: int) -> list[str]:
    """Change the description of exported weights."""
    weights = run / "w.safetensors"
    content = read_checkpoint(run / BEST_CHECKPOINT)
    content.hyper_parameters["model"] = malicious(target)
    portable.write(weights, run / "w.json", content, None)
    return ["predict", "source=nowhere.png", f"checkpoint={weights}"]


FILES_OF_A_RUN: tuple[Callable[[Path, str, int], list[str]], ...] = (in_config, in_checkpoint, in_description)


@pytest.mark.hard
@pytest.mark.promise("targets")
def test_malicious_run_folders(small_run: Callable[..., Path], tally: Tally) -> None:
    commands = []
    for number, target in enumerate(TARGETS):
        run = small_run(Path(f"run{number}"), "trainer.max_epochs=1")
        (run / RECORD).unlink()  # an attacker would adapt its digests
        commands.append(FILES_OF_A_RUN[number % 3](run, target, number // 3))
    for target, result in zip(TARGETS, run_commands(commands), strict=True):
        with tally(target):
            assert_refused(result)
            assert not CANARY.exists()
