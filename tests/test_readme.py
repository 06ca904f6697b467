"""Every README: its commands compose, its paths and links exist, its tables and figures equal the records."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf

from emotion.checkpoints.locate import DEFAULT, zoo
from emotion.config.compose import CONF, compose
from emotion.config.paths import quote_paths
from emotion.records.run_folder import find_finished
from emotion.reporting.readme_tables import PROMISES, README_TABLES, RECORDS_TABLES, fill, make_tables
from tests.conftest import ROOT

RECORDS = ROOT / "outputs" / "records"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for pattern in (
        "README.md",
        "conf/README.md",
        "tests/README.md",
        "outputs/records/README.md",
        "emotion/**/README.md",
    )
    for path in sorted(ROOT.glob(pattern))
}
TEXT = " ".join("\n".join(PAGES.values()).split())
RECORDED = re.compile(r"<!-- (scores|weights) -->.*?<!-- end of \1 -->", re.DOTALL)
"""The tables of scores and weights, whose commands are those of their commits."""
COMMANDS = sorted(
    {
        command
        for text in PAGES.values()
        for command in re.findall(r"python -m emotion\.(\w+)([^`\n#]*)", RECORDED.sub("", text))
        if "plugins=" not in command[1]  # which tests/config/test_plugins.py runs
    }
)


@pytest.mark.parametrize(("verb", "rest"), COMMANDS)
def test_every_command_composes(verb: str, rest: str) -> None:
    words = shlex.split(rest.partition(" < ")[0])
    overrides = [word for word in words if "=" in word and not word.startswith(("resume=", "KEY="))]
    if verb == "predict" and "source=" not in rest:
        overrides.append("source=x")
    if verb in ("compare", "results", "evaluate", "explain", "export"):
        key = "runs" if verb in ("compare", "results") else "checkpoint"
        overrides.append(f"{key}=[{','.join(word for word in words if '=' not in word)}]")
    literal = quote_paths(verb, [word.replace("RUN", "outputs/x") for word in overrides], is_sweep="-m" in words)
    parsed = OverridesParser.create().parse_overrides(literal)
    sweeps = [override for override in parsed if override.is_sweep_override() and override.is_discrete_sweep()]
    first = [f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}" for override in sweeps]
    single = [override for override in parsed if not override.is_sweep_override()]
    cfg = compose(verb, *(str(override.input_line) for override in single), *first)
    for override in single:
        key = override.key_or_group
        found = OmegaConf.select(cfg, key)
        if not isinstance(found, DictConfig | ListConfig) and not (CONF / key).is_dir() and not key.startswith("hydra"):
            assert found == override.value()


@pytest.mark.parametrize("page", PAGES)
def test_paths_links_and_make_targets_exist(page: str) -> None:
    text, folder = PAGES[page], (ROOT / page).parent
    for name in re.findall(r"`((?:emotion|conf|tests)/[\w/.]+)`", text):
        assert "NAME" in name or (ROOT / name).exists(), name
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = folder / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, link
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets


def test_install_lines_name_an_extra() -> None:
    """Messages name the installed package, which pip need not look for; READMEs are read in a clone."""
    extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    for path in (*(ROOT / "emotion").rglob("*.py"), *CONF.rglob("*.yaml"), *(ROOT / page for page in PAGES)):
        for package, names in re.findall(r"pip install '([^'\[]+)\[([\w,]+)\]'", path.read_text(encoding="utf-8")):
            assert set(names.split(",")) <= extras, path
            assert package == "emotion" or path.suffix == ".md", path


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES)
def test_tables_fit_the_page(page: str) -> None:
    """The longest words of the columns, each with its margins, fit 840 pixels: about 104 characters."""
    for table in re.findall(r"(?:^\|.*\n)+", re.sub(r"\]\([^)]*\)", "]", PAGES[page]), re.MULTILINE):
        rows = [line.strip("|").split("|") for line in table.splitlines() if line.strip("|:- ")]
        columns = zip(*rows, strict=False)  # a cell with a quoted | counts as two
        width = sum(3 + max(len(word) for cell in column for word in cell.split() or [""]) for column in columns)
        assert width <= 104, rows[0]


@pytest.mark.parametrize("page", ["README.md", "emotion/inference/README.md"])
def test_the_python_lines_run(page: str) -> None:
    (lines,) = re.findall(r"```python\n(import emotion\n.*?)```", PAGES[page], re.DOTALL)
    shutil.copytree(RECORDS, RECORDS.relative_to(ROOT), ignore=lambda _, names: set(names) - {"faces.png"})
    names: dict[str, Any] = {}
    exec(lines, names)
    labels = [face.label for face in names["faces"]]
    assert sorted(labels) == ["happiness", "neutral", "surprise"]


def test_the_confusion_matrix_has_the_recalls_of_the_default_weights() -> None:
    record = json.loads(zoo()[DEFAULT].with_suffix(".json").read_text())["record"]
    classes = record["scores"]["test"][record["config"]["tta"]]["all"]["classes"]
    recalls = [scores["recall"][0] for scores in classes.values()]
    table = PAGES["README.md"].partition("<!-- confusion -->")[2].partition("<!-- end of confusion -->")[0]
    rows = [line.split("|")[2:-1] for line in table.strip().splitlines()[2:]]
    assert [int(row[index]) for index, row in enumerate(rows)] == [round(100 * recall) for recall in recalls]
    assert all(abs(sum(map(int, row)) - 100) <= 4 for row in rows)


def test_a_record_is_a_table_in_a_notebook() -> None:
    record = find_finished([str(RECORDS / "fast_cpu/seed=0")])[0].record
    html = record._repr_html_()
    accuracy, low, high = (100 * value for value in record.test_scores["flip"]["all"]["accuracy"])
    assert f"<tr><th>test accuracy %, tta=flip</th><td>{accuracy:.1f} [{low:.1f}, {high:.1f}]</td></tr>" in html
    assert "7,178 test" in html
    assert "<script>" not in replace(record, command="<script>")._repr_html_()


def test_tables_equal_the_records() -> None:
    tables = make_tables(RECORDS)
    for path, required in ((ROOT / "README.md", README_TABLES), (RECORDS / "README.md", RECORDS_TABLES)):
        text = path.read_text(encoding="utf-8")
        assert fill(path, text, tables, required) == text, f"{path}: write it again by python -m emotion.results"


def test_every_promise_was_counted() -> None:
    """Otherwise run `make test-hard` and archive outputs/promises.json."""
    counts = json.loads((RECORDS / "promises.json").read_text())["counts"]
    assert list(counts) == list(PROMISES)
    assert all(0 < count["held"] <= count["of"] for count in counts.values())


def test_every_model_is_listed_with_its_parameters() -> None:
    from tests.models.test_models import PARAMETERS
    from tests.models.test_timm_backbone import HEAD, WITHOUT_CLASSIFIER

    backbones = {model: parameters + HEAD[model] for model, parameters in WITHOUT_CLASSIFIER.items()}
    for model, parameters in (PARAMETERS | backbones).items():
        assert f"`{model}`" in TEXT
        assert f"{parameters:,}" in TEXT


def test_costs_equal_the_measurements() -> None:
    sweep, images = (json.loads((RECORDS / f"bench/{n}.json").read_text())["measured"][0] for n in ("sweeps", "images"))
    seconds, megabytes, many = sweep["seconds"], sweep["megabytes"], images["images"][-1]
    runs, slow = ([run.record for run in find_finished([str(RECORDS / name)])] for name in ("fast_cpu_4", "fast_cpu"))
    wall, epochs = fmean(run.wall_seconds or 0 for run in runs), fmean(run.fit_seconds for run in runs)
    rate = fmean(run.split["train"] * run.epochs / run.fit_seconds for run in slow)
    for statement in (
        f"composes a run in {seconds['composed']:.2f} s",
        f"{1000 * seconds['composed'] / 60:.0f} minutes for 1,000",
        f"takes {seconds['besides_epochs']:.1f} s in addition to its epochs",
        f"{megabytes['all']:.0f} MB, of which `remove=checkpoints` frees {megabytes['last.ckpt']:.0f}",
        f"listed and ranked in {seconds['ranked']:.1f} s",
        f"Of the {wall:.0f} s of a `fast_cpu_4` run (mean of three), {100 * epochs / wall:.0f} % are epochs",
        f"1,000 such runs take {1000 * wall / 3600:.0f} hours",
        f"in {1e6 / many['prepared_per_second'] / 60:.0f} minutes at {many['prepared_per_second']:,.0f} images/s",
        f"to {1e6 / many['images'] * many['prepared_mb'] / 1000:.1f} GB of memory-mapped files",
        f"{1e6 / rate / 60:.0f} minutes at the {rate:,.0f} faces/s",
    ):
        assert statement in TEXT, statement
    assert all(round(size["loading_anonymous_mb"] / 1000, 1) == 0.5 for size in images["images"])
