"""The README's commands compose, its make targets exist, and its figures stand in a record."""

import json
import re
import shlex
from pathlib import Path
from statistics import fmean

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from emotion.config.compose import compose
from emotion.records import run_record
from emotion.reporting import readme_tables
from emotion.reporting.readme_tables import results_tables
from emotion.results import BEGIN, BEGIN_EXPLANATIONS, BEGIN_WEIGHTS, END, END_EXPLANATIONS, END_WEIGHTS
from tests import counted

README = (Path(__file__).parent.parent / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"python -m emotion\.(\w+)([^`\n#]*)", re.sub(r"<!--.*?-->", "", README))))


@pytest.mark.parametrize(("verb", "rest"), COMMANDS)
def test_every_command_composes(verb: str, rest: str) -> None:
    overrides = [word for word in shlex.split(rest) if "=" in word and not word.startswith("resume=")]
    if verb == "predict" and "source=" not in rest:
        overrides.append("source=x")
    if verb in ("compare", "results"):
        overrides.append(f"runs=[{','.join(word for word in rest.split() if '=' not in word)}]")
    if verb == "runs":
        overrides = [re.sub(r"^where=(.*)", r"where='\1'", word) for word in overrides]
    parsed = OverridesParser.create().parse_overrides([word.replace("RUN", "outputs/x") for word in overrides])
    discrete = [one for one in parsed if one.is_sweep_override() and one.is_discrete_sweep()]
    first = [f"{one.get_key_element()}={next(iter(one.sweep_string_iterator()))}" for one in discrete]
    compose(verb, *(str(one.input_line) for one in parsed if not one.is_sweep_override()), *first)


def test_every_make_target_exists(project: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (project / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)) <= targets


def test_every_file_that_is_named_exists(project: Path) -> None:
    for name in re.findall(r"`((?:emotion|conf|tests)/[\w/.]+)`", README):
        assert "NAME" in name or (project / name).exists(), name


def test_the_table_of_results_says_what_the_records_say(project: Path) -> None:
    written = README.split(BEGIN)[1].split(END)[0].strip()
    assert written == results_tables(run_record.find([str(project / "outputs" / "records")])).strip()


def test_the_table_of_explanations_says_what_their_records_say(project: Path) -> None:
    written = README.split(BEGIN_EXPLANATIONS)[1].split(END_EXPLANATIONS)[0].strip()
    assert written == readme_tables.explanations_table(project / "outputs" / "records").strip()


def test_the_table_of_weights_says_what_travels_with_them() -> None:
    written = README.split(BEGIN_WEIGHTS)[1].split(END_WEIGHTS)[0].strip()
    assert written == readme_tables.weights_table().strip()


def test_the_promises_are_those_that_were_counted(project: Path) -> None:
    record = json.loads((project / "outputs/records/promises.json").read_text())
    written = README.split("<!-- promises -->")[1].split("<!-- end of promises -->")[0].strip()
    assert written == counted.table(record)
    assert {name: count["of"] for name, count in record["counts"].items()} == {
        name: of for name, (of, _) in counted.PROMISES.items()
    }


def test_every_picture_exists(project: Path) -> None:
    for name in re.findall(r"!\[.*?\]\((.*?)\)", README, re.DOTALL):
        assert (project / name).is_file(), name


def test_every_model_stands_in_the_readme_with_its_parameters() -> None:
    from tests.models.test_models import PARAMETERS
    from tests.models.test_timm_backbone import WHOLE

    for model, parameters in (PARAMETERS | WHOLE).items():
        assert f"`{model}`" in README
        assert f"{parameters:,}" in README


def test_what_a_sweep_costs_is_what_was_measured(project: Path) -> None:
    records = project / "outputs" / "records"
    sweep, images = (json.loads((records / f"bench/{n}.json").read_text())["measured"][0] for n in ("sweeps", "images"))
    seconds, megabytes, many = sweep["seconds"], sweep["megabytes"], images["images"][-1]
    runs = [run.record for run in run_record.find([str(records / "fast_cpu_4")])]
    slow = [run.record for run in run_record.find([str(records / "fast_cpu")])]
    wall, epochs = fmean(run["wall_seconds"] for run in runs), fmean(run["fit_seconds"] for run in runs)
    rate = fmean(run["split"]["train"] * run["epochs"] / run["fit_seconds"] for run in slow)
    for said in (
        f"composes a run in {seconds['composed']:.2f} s",
        f"{1000 * seconds['composed'] / 60:.0f} minutes for 1,000",
        f"takes {seconds['besides_epochs']:.1f} s besides its epochs",
        f"{megabytes['all']:.0f} MB, of which `remove=checkpoints` gives back {megabytes['last.ckpt']:.0f}",
        f"listed and ranked in {seconds['ranked']:.1f} s",
        f"`fast_cpu_4`'s {wall:.0f} s (the mean of three) {100 * epochs / wall:.0f} % are epochs",
        f"1,000 runs of it are {1000 * wall / 3600:.0f} hours of one such machine",
        f"in {1e6 / many['prepared_per_second'] / 60:.0f} minutes at {many['prepared_per_second']:,.0f} a second",
        f"to {1e6 / many['images'] * many['prepared_mb'] / 1000:.1f} GB that are memory-mapped",
        f"{1e6 / rate / 60:.0f} minutes at the {rate:,.0f} faces a second",
    ):
        assert said in " ".join(README.split()), said
    assert all(round(one["loading_anonymous_mb"] / 1000, 1) == 0.5 for one in images["images"])
