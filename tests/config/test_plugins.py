import re
from pathlib import Path

import pytest

from emotion.config.compose import CONF
from emotion.config.instantiate import PLUGINS
from tests.processes import run_verb

README = CONF.parent / "README.md"
SMALL = [
    "data=synthetic", "data.training=8", "data.public_test=2", "data.private_test=2", "batch_size=16",
    "trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=csv", "hydra.run.dir=run",
]  # fmt: skip


def follow_readme() -> list[str]:
    """Write the files of the README's section and return the arguments of its training command."""
    section = README.read_text(encoding="utf-8").split("## Use your own parts")[1].split("\n## ")[0]
    for path, text in re.findall(r"^# (\S+\.(?:py|yaml))\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    (command,) = re.findall(r"^python -m emotion\.train (.*)$", section, re.MULTILINE)
    return [argument.strip("'") for argument in command.split()]


def test_the_readmes_own_model_trains_and_is_evaluated_only_if_it_is_named() -> None:
    own = follow_readme()
    done = run_verb("train", *own, *SMALL)
    assert done.status == 0, done.err
    (plugins,) = (argument for argument in own if argument.startswith("plugins="))
    assert run_verb("evaluate", "run", plugins).status == 0
    refused = run_verb("evaluate", "run")
    assert refused.status == 2
    assert plugins in refused.err
    resumed = run_verb("train", "resume=run", plugins)
    assert "is finished after 1 epoch" in resumed.err


@pytest.mark.parametrize("argument", ["plugins=nowhere", "plugins=[nowhere]"])
def test_a_plugin_that_cannot_be_imported_is_refused(argument: str) -> None:
    done = run_verb("runs", argument, "csv=null")
    assert done.status == 2
    assert "plugins=nowhere: cannot be imported" in done.err


def test_a_config_cannot_name_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PLUGINS, raising=False)
    own = [argument for argument in follow_readme() if not argument.startswith("plugins=")]
    done = run_verb("train", *own, *SMALL, "+plugins=[mynet]")
    assert done.status == 2
    assert not Path("run/record.json").exists()
