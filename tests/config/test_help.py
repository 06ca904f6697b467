import re
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from emotion.__main__ import main
from emotion.cli import report_errors
from emotion.config.compose import CONF, VERBS, compose
from emotion.config.help import NAME_WIDTH, help_or_version
from tests.processes import run_verb


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def settings_section(text: str) -> str:
    return text.split("Settings, KEY=VALUE:\n")[1].split("\nConfig groups")[0].split("\n--cfg")[0]


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_the_verbs_own_settings_and_groups_and_no_others(verb: str) -> None:
    text = help_or_version(verb, ["--help"])
    assert text is not None
    defaults = OmegaConf.load(CONF / f"{verb}.yaml").defaults
    groups = {str(group) for item in defaults if isinstance(item, DictConfig) for group in item}
    listed = text.partition("Config groups")[2].partition("\n--cfg")[0].partition("\nSettings of the choices")[0]
    assert set(re.findall(r"^  (\S+)  ", listed, re.MULTILINE)) == groups
    roots = {re.split(r"[.=]", name)[0] for name in re.findall(r"^  (\S+=\S*)", settings_section(text), re.MULTILINE)}
    own = {str(key) for key in OmegaConf.load(CONF / f"{verb}.yaml")} - {"defaults", "hydra"}
    assert roots == own | {"data_dir", "cache_dir"}
    assert roots <= set(compose(verb))


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_examples_and_fits_80_columns(verb: str) -> None:
    text = help_or_version(verb, ["-h"])
    assert text is not None
    purpose, _, examples = text.partition("\n\nExamples:\n")
    assert purpose.endswith(".")
    assert len(re.findall(rf"python -m emotion\.{verb}\b", examples.split("\n\n")[0])) >= 3
    wrapped = [line for line in settings_section(text).splitlines() if line.startswith(" " * NAME_WIDTH)]
    assert wrapped
    assert max(map(len, wrapped)) <= 80


def test_help_shows_a_nested_setting_with_its_comment() -> None:
    text = help_or_version("demo", ["--help"])
    assert text is not None
    assert re.search(r"limits\.rate_limit=40 +images per second and address", text)


@pytest.mark.parametrize("arguments", [["--help"], ["-m", "--help"], ["model=fast_cnn", "-h"]])
def test_train_answers_help_before_anything_else(arguments: list[str]) -> None:
    done = run_verb("train", *arguments)
    assert done.status == 0
    assert done.out.startswith("Train a classifier")
    assert "Hydra" not in done.out


def test_the_command_runs_a_verb_as_its_module_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "emotion.predict", raising=False)
    monkeypatch.setattr(sys, "argv", ["emotion", "predict", "--help"])
    main()
    assert capsys.readouterr().out == f"{help_or_version('predict', ['--help'])}\n"


@pytest.mark.parametrize("arguments", [["--version"], ["runs", "--version"]])
def test_the_version_is_the_packages(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "emotion.runs", raising=False)
    monkeypatch.setattr(sys, "argv", ["emotion", *arguments])
    main()
    assert re.fullmatch(r"emotion \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_without_a_verb_the_command_lists_them_and_an_unknown_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["emotion"])
    main()
    assert re.findall(r"^  (\w+)  ", capsys.readouterr().out, re.MULTILINE) == VERBS
    monkeypatch.setattr(sys, "argv", ["emotion", "trian"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "no verb trian; did you mean train?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_a_missing_setting_is_answered_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = compose(verb)
    missing = [str(key) for key in config if OmegaConf.is_missing(config, str(key))]
    for key in set(missing) - {"name", "run_dir"}:  # which train sets
        with pytest.raises(SystemExit), report_errors(verb):
            config[key]
        expected = rf"error: {key}= is missing; for example: python -m emotion.{verb}( \S+)* {key}=\S+( \S+)*\n"
        assert re.fullmatch(expected, capsys.readouterr().err)
    assert missing or verb not in ("predict", "publish")


def test_help_lists_the_choices_and_settings_of_a_searched_folder() -> None:
    for group, text in (("model", "_target_: mynet.MyNet\nwidth: 16  # channels\n"), ("experiment", "seed: 1\n")):
        folder = Path("mine") / group
        folder.mkdir(parents=True)
        (folder / "mynet.yaml").write_text(text)
    text = help_or_version("train", ["hydra.searchpath=[file://mine]", "model=mynet", "--help"])
    assert text is not None
    groups = text.partition("Config groups")[2]
    assert re.search(r"^  model (?:.|\n {28})*\bmynet\b", groups, re.MULTILINE)
    assert re.search(r"^  experiment (?:.|\n {28})*\bmynet\b", groups, re.MULTILINE)
    assert re.search(r"^  model\.width=16 +channels$", groups, re.MULTILINE)
