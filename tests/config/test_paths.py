"""Paths on the command line are taken literally, whatever their names."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from emotion.cli import _join_bare_arguments
from emotion.cli import quote_paths as quote_command_line
from emotion.config import paths
from emotion.config.compose import VERBS, compose, quote
from emotion.config.overrides import _dotted_keys
from emotion.config.typed import typed
from emotion.errors import UserError
from emotion.predict import PredictConfig
from tests.processes import run_verb

NAMES = (
    "a=b", "model=simple_cnn,seed=0", "gesichter_ä", "a#b", "a b", "a,b", "[x]", "[x] (1)", "{y}", "it's",
    'di"es', "50%", "2024", "1e5", "true", "nan", ".5", "a:b", "a\\b", "end\\", "(z)", "-", "$x", "photos(1)", "null/x",
)  # fmt: skip


def read(verb: str, setting: str, value: str) -> object:
    """Return what Hydra reads from `setting=value` on the command line of a verb."""
    (quoted,) = paths.quote_paths(verb, [f"{setting}={value}"], is_sweep=False)
    assert paths.quote_paths(verb, [quoted], is_sweep=False) == [quoted]  # further processes quote it again
    return OverridesParser.create().parse_override(quoted).value()


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_taken_literally(name: str) -> None:
    Path("S", name).mkdir(parents=True)
    for setting in ("checkpoint", "data_dir", "output"):
        assert read("evaluate", setting, f"S/{name}") == f"S/{name}"
        assert read("evaluate", setting, f"~/{name}") == str(Path.home() / name)
    others = [f"S/{name}", "S/a=b", "fast_cnn"]
    assert read("evaluate", "checkpoint", f"[{','.join(others)}]") == others
    assert read("train", "hydra.run.dir", name) == name


@pytest.mark.parametrize("name", ["${oc.env:HOME}.jpg", "a\\${seed}"])
def test_an_existing_path_is_not_interpolated(name: str) -> None:
    Path(name).touch()
    for value, expected in ((name, name), (f"[{name},b]", [name, "b"])):
        arguments = paths.quote_paths("predict", [f"source={value}"], is_sweep=False)
        assert typed(compose("predict", *arguments), PredictConfig).source == expected


def test_a_comma_is_part_of_a_name_where_that_exists() -> None:
    for name in ("S/seed=0,lr=1", "S/seed=1,lr=1", "S/x, y"):
        Path(name).mkdir(parents=True)
    assert read("compare", "runs", "[S/seed=0,lr=1,S/seed=1,lr=1]") == ["S/seed=0,lr=1", "S/seed=1,lr=1"]
    assert read("explain", "images", "[S/x, y, z.jpg]") == ["S/x, y", "z.jpg"]
    assert read("predict", "source", "['a,b',c]") == ["a,b", "c"]


def test_null_and_interpolations_keep_their_meaning() -> None:
    assert read("evaluate", "votes", "null") is None
    assert paths.quote_paths("train", ["hydra.run.dir=outputs/${seed}"], is_sweep=False) == [
        "hydra.run.dir='outputs/${seed}'"
    ]


def test_a_sweep_over_paths_separates_them_at_commas() -> None:
    Path("a,b").mkdir()
    quoted = paths.quote_paths(
        "train", ["model.weights=S/seed=0,run", "data_dir=a,b", "seed=0,1", "hydra.sweep.dir=c,d"], is_sweep=True
    )
    assert quoted == ["model.weights='S/seed=0',run", "data_dir='a,b'", "seed=0,1", "hydra.sweep.dir='c,d'"]
    assert paths.quote_paths("train", quoted, is_sweep=True) == quoted


def test_every_setting_whose_default_is_a_path_is_a_path_setting() -> None:
    found = set()
    for verb in VERBS:
        for data in ("auto", "path_list", "ferplus") if verb in ("train", "prepare") else (None,):
            raw = OmegaConf.to_container(compose(verb, *([f"data={data}"] if data else [])), resolve=False)
            for key in _dotted_keys(raw):
                value = _raw(raw, key)
                if isinstance(value, str) and ("data_dir}" in value or value.startswith("outputs/")):
                    assert paths.is_path_setting(verb, key), f"{verb}: {key}={value}"
                    found.add(key)
    assert {"data.source.path", "cache_dir", "data.votes", "data.train", "csv", "records"} <= found
    for key in (
        "data.path",
        "split.exclude",
        "distillation.teacher",
        "detector.model",
        "data.detector.model",
        "callbacks.x.dirpath",
    ):
        assert paths.is_path_setting("train", key)
    assert not paths.is_path_setting("bench", "runs")


def _raw(node: object, key: str) -> object:
    for part in key.split("."):
        assert isinstance(node, dict)
        node = node[part]
    return node


@pytest.mark.parametrize("output", ["net.onnx", "a/scores.JSON", "existing", "photo.jpg"])
def test_an_output_that_names_a_file_is_refused(output: str) -> None:
    Path("existing").touch()
    with pytest.raises(UserError, match=rf"output={output} names a file; expected a folder"):
        paths.check_output_folder(output)


@pytest.mark.parametrize("output", [None, "-", "a/b", "folder.png", "v1.2", "2026-01-31_12-00-00"])
def test_an_output_that_names_a_folder_is_accepted(output: str | None) -> None:
    Path("folder.png").mkdir()
    paths.check_output_folder(output)


def test_home_is_expanded_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION_DATA", "~/faces")
    monkeypatch.setattr(sys, "argv", ["emotion.prepare"])
    quote_command_line("prepare")
    assert compose("prepare").data_dir == str(Path.home() / "faces")


def test_bare_runs_are_checkpoints(small_run: Callable[..., Path]) -> None:
    """The names of a sweep's folders, in the sweep's folder, where they look like settings."""
    small_run(Path("model=v4,seed=0"), "trainer.max_epochs=1", "tta=none")
    done = run_verb("evaluate", "model=v4,seed=0", "accelerator=cpu", "output=o=1,#ä")
    assert done.status == 0, done.err
    assert Path("o=1,#ä/best_random_test_none.json").is_file()


@pytest.mark.parametrize(
    ("command", "message"),
    {
        "prepare faces": "faces: expected settings: python -m emotion.prepare KEY=VALUE",
        "train run": r"run: expected settings: .*; to continue a run: resume=run",
        "evaluate run checkpoint=run": "found run and checkpoint=run; expected one of them",
        "export nowhere": "nowhere does not exist; expected a run folder",
        "explain ~/nowhere": f"{Path.home()}/nowhere does not exist; expected a run folder",
        "publish repo=a/b": r"checkpoint=RUN and folder=FOLDER",
    }.items(),
)
def test_bare_arguments_that_mean_nothing_are_refused(command: str, message: str) -> None:
    Path("run").mkdir()
    verb, *arguments = shlex.split(command)
    done = run_verb(verb, *arguments)
    assert done.status == 2
    assert message.replace(".*", "") in done.err or all(part in done.err for part in message.split(".*")), done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "source"),
    [(["-"], "-"), (["output=-", "-"], "-"), (["-", "b c.jpg"], ["-", "b c.jpg"]), (["~/a"], str(Path.home() / "a"))],
)
def test_bare_arguments_are_sources(arguments: list[str], source: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["emotion.predict", *arguments])
    _join_bare_arguments("predict", "source")
    assert compose("predict", *sys.argv[1:]).source == source


def test_a_choice_of_a_group_in_a_group_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("shots/a=b.jpg", "data/c=d.jpg"):
        Path(name).parent.mkdir()
        Path(name).touch()
    arguments = ["hydra/launcher=joblib", "+data/mix=synthetic", "shots/a=b.jpg", "data/c=d.jpg", "shots/e=f.jpg"]
    monkeypatch.setattr(sys, "argv", ["emotion.evaluate", *arguments])
    _join_bare_arguments("evaluate", "checkpoint")
    assert sys.argv[1:] == [*arguments[:2], "checkpoint=['shots/a=b.jpg','data/c=d.jpg','shots/e=f.jpg']"]


def test_a_quoted_text_is_read_as_it_was() -> None:
    texts = ["a\\b", "a\\\\b", "a\\'b", "'", "\\"]
    assert compose("evaluate", f"checkpoint=[{','.join(map(quote, texts))}]").checkpoint == texts
