import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from emotion.cli import resume_in_place
from emotion.config.compose import compose
from emotion.io.atomic import write_json, write_text

RUN = Path("run")


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the stored config of a run, which the command line resumes."""
    path = RUN / ".hydra/config.yaml"
    path.parent.mkdir(parents=True)
    write_text(path, OmegaConf.to_yaml(compose("train")))
    monkeypatch.setattr(sys, "argv", ["emotion.train", "resume=run", "trainer.max_epochs=3"])
    return path


def test_a_run_is_resumed_with_its_own_config(config: Path) -> None:
    resume_in_place()
    assert sys.argv[1:5] == ["--config-path", str(config.parent.absolute()), "--config-name", "config"]
    assert sys.argv[5] == "trainer.max_epochs=3"
    assert f"hydra.run.dir='{RUN.absolute()}'" in sys.argv


@pytest.mark.parametrize("arguments", [["-m", "resume=run,other"], ["-m", "resume=glob(*)"], ["resume="]])
def test_only_one_run_is_resumed(
    arguments: list[str], config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["emotion.train", *arguments])
    with pytest.raises(SystemExit):
        resume_in_place()
    message = capsys.readouterr().err
    assert message.startswith(f"error: {arguments[-1]}")
    assert message.endswith(": expected the folder of one run: resume=outputs/NAME/TIME.\n")


def test_a_run_may_be_edited_before_it_is_resumed(config: Path) -> None:
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    resume_in_place()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("emotion.optim.losses", "emotion.losses"),
        ("patience: 10\n", ""),
        ("patience: 10\n", "patience: 10\nformer_setting: 10\n"),
    ],
)
def test_a_run_of_another_version_is_refused(
    old: str, new: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(RUN / "record.json", {"commit": "1234abcd"})
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    with pytest.raises(SystemExit) as error:
        resume_in_place()
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: run was started by another version (commit 1234abcd)")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hydra: {job: {}}\n", "run/.hydra/config.yaml holds hydra; expected only"),
        ("a: [", "cannot be read as a config"),
    ],
)
def test_other_configs_are_refused(
    content: str, message: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(content)
    with pytest.raises(SystemExit):
        resume_in_place()
    assert message in capsys.readouterr().err
