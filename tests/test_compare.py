"""compare and results on real runs: two seeds of one small network and one of another."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emotion.compare import compare, read
from emotion.config.compose import compose
from emotion.data.readers.fer2013 import PUBLISHED_MD5
from emotion.data.splits import NOTHING_DROPPED
from emotion.errors import UserError
from emotion.evaluation.score import score
from emotion.metrics.statistics import holm, welch
from emotion.records import run_record
from emotion.records.archive import experiment
from emotion.reporting import readme_tables
from emotion.reporting.comparison import bars
from emotion.reporting.readme_tables import results_tables
from emotion.reporting.text import mean_and_deviation
from emotion.results import (
    BEGIN,
    BEGIN_EXPLANATIONS,
    BEGIN_WEIGHTS,
    END,
    END_EXPLANATIONS,
    END_WEIGHTS,
    results,
)
from emotion.train import train

DATA = ("data=synthetic", "data.training=20", "data.public_test=8", "data.private_test=8", "trainer.accelerator=cpu",
        "~callbacks.tensorboard_pictures")  # fmt: skip
RUNS = {"simple/one": ("simple_cnn", 0), "simple/two": ("simple_cnn", 1), "compact": ("compact_cnn", 0)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three runs."""
    folder = tmp_path_factory.mktemp("trained")
    before = os.getcwd()
    os.chdir(folder)
    try:
        for name, (model, seed) in RUNS.items():
            changes = ("labels=seven", "trainer.max_epochs=1", "batch_size=16", f"cache_dir={folder}/cache")
            train(compose("train", f"experiment={model}", f"seed={seed}", *DATA, *changes), Path("runs") / name)
    finally:
        os.chdir(before)
    return folder / "runs"


@pytest.fixture
def kept(trained: Path, tmp_path: Path) -> Path:
    """A copy of them, whose files may be changed."""
    runs = Path(shutil.copytree(trained, tmp_path / "runs"))
    for record in runs.rglob(run_record.RECORD):
        changed(record.parent)
    return runs


def compared(*sources: Path | str, **settings: str) -> Path:
    asked = [f"{key}={value}" for key, value in settings.items()]
    compare(compose("compare", f"runs=[{','.join(map(str, sources))}]", *asked), Path("out"))
    return Path("out")


def changed(run: Path, **fields: object) -> None:
    """Write other fields into a run's record, which then lists no files."""
    run_record.write_record(run, (run_record.read_record(run) or {}) | {"files": {}} | fields)


def test_a_folder_is_all_the_runs_below_it_each_once(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "compact", tmp_path / "copy")
    found = run_record.find([str(trained), str(trained / "simple"), f"{trained}/sim*/one", str(tmp_path / "copy")])
    assert [run.folder.relative_to(trained).as_posix() for run in found] == ["compact", "simple/one", "simple/two"]


def test_names_are_as_short_as_tells_them_apart(trained: Path) -> None:
    compact, one, two = run_record.find([str(trained)])
    assert run_record.names([compact, one]) == ["compact_cnn", "simple_cnn"]
    assert run_record.names([compact, one, two]) == ["compact_cnn seed=0", "simple_cnn seed=0", "simple_cnn seed=1"]
    assert run_record.names([one, one]) == [str(one.folder)] * 2


def test_runs_of_one_recipe_differ_in_their_seed_alone(kept: Path) -> None:
    assert [len(group) for group in run_record.seeds_of(run_record.find([str(kept)]))] == [1, 2]
    config = json.loads((kept / "simple/two/record.json").read_text())["config"]
    older = {key: value for key, value in config.items() if key != "sampler"}
    changed(kept / "simple/two", config=older | {"tta": "none", "run_dir": "elsewhere"})
    assert [len(group) for group in run_record.seeds_of(run_record.find([str(kept)]))] == [1, 2]
    changed(kept / "simple/two", config=config | {"batch_size": 8})
    assert [len(group) for group in run_record.seeds_of(run_record.find([str(kept)]))] == [1, 1, 1]
    changed(kept / "simple/two", config=config | {"seed": 0})
    assert [len(group) for group in run_record.seeds_of(run_record.find([str(kept)]))] == [1, 1]  # one seed, not two


def test_table_shows_what_the_records_say(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = compared(trained / "compact", trained / "simple")
    said, written = capsys.readouterr().out, (out / "comparison.md").read_text()
    scores = json.loads((trained / "compact" / "record.json").read_text())["scores"]["test"]["none"]["all"]
    assert "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * value for value in scores["accuracy"])) in written
    assert "{:.3f} [{:.3f}, {:.3f}]".format(*scores["nll"]) in written
    for piece in ("compact_cnn seed=0", "595,175", "56", "official, 7 classes, SYNTHETIC", "0, 1", "±"):
        assert piece in written, piece
    assert "compact_cnn seed=0" in said
    with (out / "comparison.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["run"] for line in lines] == ["compact_cnn seed=0", "simple_cnn seed=0", "simple_cnn seed=1"]
    assert float(lines[0]["accuracy"]) == scores["accuracy"][0]
    assert float(lines[0]["f1/fear_low"]) == scores["classes"]["fear"]["f1"][1]
    assert [line["accuracy_p_holm"] == "" for line in lines] == [True, False, True]  # a recipe's first run is tested
    assert 0 <= float(lines[1]["macro_f1_p_holm"]) <= 1
    with Image.open(out / "comparison.png") as image:
        assert min(image.size) > 300


def test_pair_is_the_difference_of_the_two_records(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [str(trained / "compact"), str(trained / "simple/one")]
    (pair,), recipes = compare(compose("compare", f"runs=[{','.join(sources)}]", "tta=flip"), Path("out"))
    one, other = (run.record["scores"]["test"]["flip"]["all"] for run in run_record.find(sources))
    assert pair.faces == one["n"] == 56
    assert pair.accuracy.figure == pytest.approx(other["accuracy"][0] - one["accuracy"][0])
    assert pair.macro_f1.figure == pytest.approx(other["macro_f1"][0] - one["macro_f1"][0])
    said = capsys.readouterr().out
    assert "accurate than compact_cnn on 56 faces" in said
    assert said.count("a difference") == 2
    assert recipes == []
    assert "compact_cnn has a single seed: only the trained networks can be compared" in said


def test_two_seeds_of_one_recipe_are_not_tested(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = compared(trained / "simple")
    assert "McNemar" not in capsys.readouterr().out
    assert "##" not in (out / "comparison.md").read_text()


def test_clean_rows_are_paired_alone(kept: Path) -> None:
    for run in run_record.find([str(kept)]):
        with np.load(run.folder / "predictions.npz") as stored:
            columns = dict(stored)
        columns["clean"][10:] = False
        np.savez(run.folder / "predictions.npz", **columns)
    sources = f"runs=[{kept / 'compact'},{kept / 'simple'}]"
    pairs, _ = compare(compose("compare", sources, "rows=clean"), Path("out"))
    assert [pair.faces for pair in pairs] == [10]


RIGHT = {"first": [30, 32, 31], "second": [40, 41, 45], "third": [31, 33]}
"""Of 56 test faces, how many each seed of three recipes has right."""
HALF = 4.3027 / 56 / 3**0.5
"""Of the first's interval: Student's quantile at two degrees of freedom by the standard error."""


@pytest.fixture
def recipes(trained: Path, tmp_path: Path) -> Path:
    """A folder of runs as if of three recipes: batch sizes 1, 2 and 3, several seeds each."""
    for batch_size, (name, seeds) in enumerate(RIGHT.items(), 1):
        for seed, right in enumerate(seeds):
            run = Path(shutil.copytree(trained / "compact", tmp_path / "recipes" / name / str(seed)))
            record = json.loads((run / "record.json").read_text())
            settings = record["config"] | {"name": name, "seed": seed, "batch_size": batch_size}
            with np.load(run / "predictions.npz") as stored:
                columns = dict(stored)
            labels = columns["labels"].astype(np.int64)
            columns["none"] = np.where(np.arange(56) < right, labels, (labels + 1) % 7).astype(np.uint8)
            np.savez(run / "predictions.npz", **columns)
            certain = torch.eye(7)[torch.from_numpy(columns["none"]).long()]
            scores = {"none": {"all": score(certain, labels, tuple(settings["labels"]))}}
            changed(run, config=settings, scores={"test": scores})
    return tmp_path / "recipes"


def test_recipes_are_tested_by_the_figures_of_their_seeds(recipes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_record.find([str(recipes)])
    pairs, tests = compare(compose("compare", f"runs=[{recipes}]"), Path("out"))
    assert [(pair.faces, pair.accuracy.figure) for pair in pairs] == [(56, pytest.approx(r / 56)) for r in (10, 1)]
    assert [(test.faces, test.first, test.second) for test in tests] == [(56, 3, 3), (56, 3, 2)]
    reached = {
        key: [
            [run.record["scores"]["test"]["none"]["all"][key][0] for run in group]
            for group in run_record.seeds_of(found)
        ]
        for key in ("accuracy", "macro_f1")
    }
    assert reached["accuracy"] == [[right / 56 for right in seeds] for seeds in RIGHT.values()]
    uncorrected = [
        welch(reached[key][0], other) for at in (1, 2) for key, other in ((k, reached[k][at]) for k in reached)
    ]
    figures = [figure for test in tests for figure in (test.accuracy, test.macro_f1)]
    assert [figure[:3] for figure in figures] == [pytest.approx(expected[:3]) for expected in uncorrected]
    assert [figure.p for figure in figures] == pytest.approx(holm([expected.p for expected in uncorrected]))
    said = capsys.readouterr().out
    assert "The recipe second (n = 3 seeds) is in the mean 19.64 points" in said
    assert "more accurate than first (n = 3) on 56 faces, Welch p = " in said
    assert said.count("corrected for 4 tests: the recipes differ. ") == 1
    assert "The recipe third (n = 2 seeds) is in the mean 1.79 points" in said
    assert said.count("corrected for 4 tests: no difference is shown. ") == 1


def test_recipes_stand_in_every_file_with_the_interval_of_their_mean(recipes: Path) -> None:
    out = compared(recipes)
    mean, half, deviation = 31 / 56, HALF, 1 / 56
    shown = f"{100 * mean:.1f} ± {100 * deviation:.1f} [{100 * (mean - half):.1f}, {100 * (mean + half):.1f}]"
    assert f"| first | 3 | 0, 1, 2 | {shown} |" in (out / "comparison.md").read_text()
    with (out / "recipes.csv").open(newline="") as file:
        first, second, third = csv.DictReader(file)
    assert (first["n"], first["seeds"], third["seeds"]) == ("3", "0 1 2", "0 1")
    figures = [float(first[key]) for key in ("accuracy", "accuracy_low", "accuracy_high", "accuracy_deviation")]
    assert figures == pytest.approx([mean, mean - half, mean + half, deviation], abs=1e-5)
    assert first["accuracy_p_holm"] == ""
    assert float(second["accuracy_difference"]) == pytest.approx(11 / 56)
    assert float(second["accuracy_p_holm"]) < 0.05 < float(third["accuracy_p_holm"])


def test_picture_carries_the_means_of_several_seeds_in_the_form_of_runs(recipes: Path, trained: Path) -> None:
    found = run_record.find([str(recipes / "first"), str(trained / "compact")])
    names, shown = bars(*read(found, "none", "all"))
    assert len(names) == len(shown) == 5
    assert names[-1] == "first\nmean of 3 seeds"
    assert shown[-1]["accuracy"] == pytest.approx((31 / 56, 31 / 56 - HALF, 31 / 56 + HALF), abs=1e-5)
    assert shown[-1]["classes"]["happy"]["f1"][0] == pytest.approx(
        np.mean([one["classes"]["happy"]["f1"][0] for one in shown[:3]])
    )


def test_recipes_are_tested_on_the_faces_that_every_seed_judged(recipes: Path) -> None:
    path = recipes / "second/1/predictions.npz"
    with np.load(path) as stored:
        columns = {name: column[::-1][:50] for name, column in stored.items()}  # the last fifty, in another order
    np.savez(path, **columns)
    pairs, tests = compare(compose("compare", f"runs=[{recipes}]"), Path("out"))
    assert [(pair.faces, test.faces) for pair, test in zip(pairs, tests, strict=True)] == [(56, 50), (56, 56)]
    assert tests[0].accuracy.figure == pytest.approx(11 / 50)  # of the six first faces, which everyone has right


def test_of_a_recipe_with_one_seed_the_trained_network_alone_is_compared(
    recipes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(recipes / "third/1")
    pairs, tests = compare(compose("compare", f"runs=[{recipes}]"), Path("out"))
    assert (len(pairs), len(tests)) == (2, 1)
    said = capsys.readouterr().out
    assert said.count("Welch p") == 2
    assert "Of third there is a single seed: only the trained networks can be compared" in said
    with Path("out/recipes.csv").open(newline="") as file:
        assert [(line["n"], line["accuracy"] == "") for line in csv.DictReader(file)][2] == ("1", True)


def test_recipes_that_judged_something_else_are_not_tested(recipes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        record = json.loads((recipes / f"third/{seed}/record.json").read_text())
        changed(recipes / f"third/{seed}", data=record["data"] | {"digest": "1"})
    _, tests = compare(compose("compare", f"runs=[{recipes}]"), Path("out"))
    assert len(tests) == 1
    assert "The recipe third is not tested against first: it was judged on other data." in capsys.readouterr().out


def test_recipes_of_one_name_go_by_their_first_run(recipes: Path) -> None:
    for path in recipes.rglob("record.json"):
        record = json.loads(path.read_text())
        changed(path.parent, config=record["config"] | {"name": "one"})
    with (compared(recipes) / "recipes.csv").open(newline="") as file:
        assert len({line["recipe"] for line in csv.DictReader(file)}) == 3


def test_a_temperature_stands_beside_the_run_that_has_one(kept: Path) -> None:
    changed(kept / "compact", calibration={"temperature": 1.618})
    changed(kept / "simple/one", calibration=None)
    out = compared(kept / "compact", kept / "simple/one")
    with (out / "comparison.csv").open(newline="") as file:
        assert [line["temperature"] for line in csv.DictReader(file)] == ["1.618", ""]
    endings = [line.split("|")[-2].strip() for line in (out / "comparison.md").read_text().splitlines()[4:8]]
    assert endings == ["temperature", "---:", "1.62", "-"]


OTHERS: dict[str, tuple[dict[str, object], str]] = {
    "other data": ({"data": {"source": "elsewhere.csv", "digest": "1", "stand_in": False}}, "judged on other data"),
    "other classes": ({"labels": {"a": ["happy"], "b": ["sad"]}}, "tells other classes apart"),
    "classes of other members": ({"labels": "merged"}, "tells other classes apart"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_run_that_judged_something_else_is_shown_but_not_tested(
    other: str, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields, reason = OTHERS[other]
    record = json.loads((kept / "compact" / "record.json").read_text())
    if fields.get("labels") == "merged":
        fields = {"labels": record["config"]["labels"] | {"happy": ["happy", "surprise"]}}
    changed(kept / "compact", **(fields if "data" in fields else {"config": record["config"] | fields}))
    compared(kept / "simple/one", kept / "compact")
    said = capsys.readouterr().out
    assert f"compact_cnn is not tested against simple_cnn: it {'was ' if 'judged' in reason else ''}{reason}." in said
    assert "McNemar" not in said


def test_runs_of_two_test_sets_have_no_face_in_common(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(kept / "compact" / "predictions.npz") as stored:
        np.savez(kept / "compact" / "predictions.npz", **(dict(stored) | {"rows": stored["rows"] + 1000}))
    compared(kept / "simple/one", kept / "compact")
    assert "it was judged on other faces" in capsys.readouterr().out


DAMAGES: dict[str, tuple[object, str]] = {
    "removed": (None, "cannot be read"),
    "empty": (b"", "cannot be read"),
    "truncated": (100, "cannot be read"),
    "another array": (np.arange(3), "cannot be read"),
    "columns missing": ({"flip": None, "none": None}, "cannot be read"),
    "columns of other lengths": ({"clean": np.ones(3, bool)}, "do not fit together"),
    "a class too many": ({"none": np.full(56, 9)}, "do not fit together or to 7 classes"),
    "floats": ({"none": np.zeros(56)}, "do not fit together"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_predictions_are_one_message(kept: Path, damage: str) -> None:
    path = kept / "compact" / "predictions.npz"
    content, message = DAMAGES[damage]
    whole = path.read_bytes()
    with np.load(path) as stored:
        columns = dict(stored)
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, int):
        path.write_bytes(whole[:content])
    elif isinstance(content, np.ndarray):
        with path.open("wb") as file:
            np.save(file, content)
    elif isinstance(content, dict):
        np.savez(path, **{name: value for name, value in (columns | content).items() if value is not None})
    with pytest.raises(UserError, match=rf"predictions.npz .*{message}.*expected what a run leaves"):
        compared(kept / "simple/one", kept / "compact")


def test_labels_that_differ_are_a_fault(kept: Path) -> None:
    path = kept / "compact" / "predictions.npz"
    with np.load(path) as stored:
        np.savez(path, **(dict(stored) | {"labels": (stored["labels"] + 1) % 7}))
    with pytest.raises(UserError, match="give the same faces other labels; one is damaged"):
        compared(kept / "simple/one", kept / "compact")


def test_what_was_not_scored_is_named(trained: Path, kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="recorded scores of views none, flip; found tta=ten_crop"):
        compared(trained, tta="ten_crop")
    with pytest.raises(UserError, match="rows=some: expected all or clean"):
        compared(trained, rows="some")
    with pytest.raises(UserError, match="no run given"):
        compared()
    changed(kept / "compact", scores=None)
    with pytest.raises(UserError, match="found 1 unfinished"):
        compared(kept / "compact")
    assert len(run_record.find([str(kept)])) == 2
    assert "left out 1 unfinished" in capsys.readouterr().out
    run_record.write_record(kept / "simple/one", {"scores": {"test": {}}})
    with pytest.raises(UserError, match=r"record.json has no command, commit, config.*another version wrote it"):
        compared(kept)


AFTER = (
    f"after\n{BEGIN_EXPLANATIONS}\n\n\n{END_EXPLANATIONS}\n"
    f"{BEGIN_WEIGHTS}\n\n{readme_tables.weights_table()}\n{END_WEIGHTS}\n"
)


@pytest.fixture
def published(kept: Path) -> Path:
    """The runs with records as if they were experiments on the real data; and a README with a place for the table."""
    for path in kept.rglob("record.json"):
        config = json.loads(path.read_text())["config"]
        as_it_stands = experiment(config["name"]) | {"seed": config["seed"], "data_dir": "data", "cache_dir": "data"}
        as_it_stands["data"] = {}
        data = {"source": "data/fer2013.csv", "digest": PUBLISHED_MD5, "stand_in": False}
        changed(path.parent, config=as_it_stands, data=data, commit="a1" * 20)
    Path("README.md").write_text(f"before\n{BEGIN}\nold\n{END}\n{AFTER}")
    return kept


def test_results_keep_records_and_write_the_table_from_them_alone(published: Path) -> None:
    found = run_record.find([str(published / "simple")])
    written = results(compose("results", f"runs=[{published / 'simple'}]"))
    places = sorted(path.relative_to("outputs/records").as_posix() for path in Path("outputs").rglob("*.*"))
    files = ("metrics.csv", "predictions.npz", "record.json")
    assert places == [f"simple_cnn/seed={seed}/{name}" for seed in (0, 1) for name in files]
    assert Path("README.md").read_text() == f"before\n{BEGIN}\n\n{written}\n{END}\n{AFTER}"
    line = written.splitlines()[2]
    figures = [100 * run.record["scores"]["test"]["none"]["all"]["accuracy"][0] for run in found]
    assert f"| {np.mean(figures):.1f} ± {np.std(figures, ddof=1):.1f} |" in line
    assert "| 52 on validation | -" in line
    assert "], missed |" in line
    assert "| 2 | a1a1a1a | `python -m emotion.train -m experiment=simple_cnn seed=0,1` |" in line
    shutil.rmtree(published)
    assert results(compose("results")) == written


def test_calibration_error_is_shown_before_and_after_the_temperature(published: Path) -> None:
    path = published / "simple"
    for place in ("one", "two"):
        record = json.loads((path / place / "record.json").read_text())
        scores = record["scores"]["test"]["none"]["all"]
        scores |= scores.pop("uncalibrated", {})
        changed(path / place, calibration=None, scores=record["scores"])
    before = [run.record["scores"]["test"]["none"]["all"]["ece"] for run in run_record.find([str(path)])]
    cells = results_tables(run_record.find([str(path)])).splitlines()[2].split("|")
    assert [cell.strip() for cell in cells[9:11]] == [mean_and_deviation(before), "-"]
    for seed, place in enumerate(("one", "two")):
        record = json.loads((path / place / "record.json").read_text())
        scores = record["scores"]["test"]["none"]["all"]
        scores |= {"ece": 0.01 + seed / 50, "uncalibrated": {key: scores[key] for key in ("ece", "nll", "brier")}}
        changed(path / place, calibration={"temperature": 1.5}, scores=record["scores"])
    cells = results_tables(run_record.find([str(path)])).splitlines()[2].split("|")
    assert [cell.strip() for cell in cells[9:11]] == [mean_and_deviation(before), "2.0 ± 1.4"]


def test_minutes_are_shown_where_no_run_was_resumed(published: Path) -> None:
    for place, seconds in (("one", 540.0), ("two", 660.0)):
        changed(published / "simple" / place, wall_seconds=seconds)
    cells = results_tables(run_record.find([str(published / "simple")])).splitlines()[2].split("|")
    assert cells[11].strip() == "10.0 ± 1.4"
    changed(published / "simple" / "two", wall_seconds=None)
    assert results_tables(run_record.find([str(published / "simple")])).splitlines()[2].split("|")[11].strip() == "-"


def test_a_mark_may_be_of_the_run_s_views(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from emotion.reporting import readme_tables

    mark = {"part": "test", "tta": "flip", "accuracy": 0.0, "target": True}
    as_it_stands = experiment("simple_cnn") | {"published": mark}
    monkeypatch.setattr(readme_tables, "experiment", lambda name: as_it_stands)
    for place in ("one", "two"):  # chosen by a loss, which is no accuracy
        record = json.loads((published / "simple" / place / "record.json").read_text())
        changed(published / "simple" / place, best=record["best"] | {"metric": "val/loss", "score": 1.2})
    found = run_record.find([str(published / "simple")])
    cells = results_tables(found).splitlines()[2].split("|")
    reached = np.mean([100 * run.record["scores"]["test"]["flip"]["all"]["accuracy"][0] for run in found])
    assert cells[3].strip() == "0 with views (target)"
    assert cells[4].strip().startswith(f"+{reached:.2f} ")


def test_a_figure_is_passed_or_missed_where_its_interval_says_so(published: Path) -> None:
    for correct, verdict in ((0.9, "passed"), (0.56, "level"), (0.1, "missed")):
        for run in (published / "simple/one", published / "simple/two"):
            record = json.loads((run / "record.json").read_text())
            changed(run, best=record["best"] | {"score": correct}, split=record["split"] | {"val": 100})
        written = results_tables(run_record.find([str(published / "simple")]))
        assert f"], {verdict} |" in written


def test_an_experiment_without_published_figures_has_dashes_and_what_it_was_given(published: Path) -> None:
    run = published / "compact"
    config = experiment("distill") | {"seed": 0, "data_dir": "data", "cache_dir": "data", "data": {}}
    for teachers, said in (("outputs/one", "outputs/one"), (["one", "other"], "[one,other]")):
        changed(run, config=config | {"distillation": config["distillation"] | {"teacher": teachers}})
        written = results(compose("results", f"runs=[{run}]", "records=kept"))
        line = written.splitlines()[2]
        assert line.startswith("| distill |")
        assert line.split("|")[3:5] == [" - ", " - "]
        assert f"`python -m emotion.train experiment=distill distillation.teacher={said} seed=0`" in line
        shutil.rmtree("kept")
    changed(run, config=config | {"distillation": {"teacher": "one", "temperature": 2.0, "weight": 0.5}})
    with pytest.raises(UserError, match="is not distill as it stands: it has another distillation"):
        results(compose("results", f"runs=[{run}]"))


def test_records_of_before_mixing_and_teachers_had_neither(published: Path) -> None:
    config = json.loads((published / "compact/record.json").read_text())["config"]
    older = {key: value for key, value in config.items() if key not in ("mixup", "distillation")}
    assert run_record.recipe(older) == run_record.recipe(config)
    assert run_record.differing(older, experiment("compact_cnn")) == []
    assert run_record.differing(config | {"mixup": {"_target_": "x"}}, experiment("compact_cnn")) == ["mixup"]


def test_records_of_before_rows_could_be_left_out_left_none_out(published: Path) -> None:
    config = json.loads((published / "compact/record.json").read_text())["config"]
    whole = {key: value for key, value in config["split"].items() if not key.startswith("drop")}
    older, now = config | {"split": whole}, config | {"split": whole | NOTHING_DROPPED}
    assert run_record.recipe(older) == run_record.recipe(now)
    assert run_record.differing(older, experiment("compact_cnn")) == []
    assert run_record.differing(now | {"split": now["split"] | {"drop": "rows.csv"}}, experiment("compact_cnn")) == [
        "split"
    ]


def test_runs_that_left_other_rows_out_are_no_seeds_of_one_recipe(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads((kept / "simple/two/record.json").read_text())["data"]
    changed(kept / "simple/two", data=data | {"dropped": {"file": "x", "digest": "y", "rows": {"train": 1200}}})
    assert [len(group) for group in run_record.seeds_of(run_record.find([str(kept)]))] == [1, 1, 1]
    compare(compose("compare", f"runs=[{kept}]"), kept / "out")
    assert "1,200 rows left out" in (kept / "out/comparison.md").read_text()


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "another recipe": ({"batch_size": 8}, "is not simple_cnn as it stands: it has another batch_size"),
    "fewer epochs": ({"trainer": {"max_epochs": 1}}, "is not simple_cnn as it stands: it has another trainer"),
    "no experiment": ({"name": "mine"}, "mine is no experiment; expected attention_cnn, baseline_cnn"),
    "a machine's folder": (
        {"data_dir": "/home/me"},
        r"names places of this machine \(/home/me\); run it with data_dir=data",
    ),
    "other data": ({}, "expected the published fer2013.csv"),
    "uncommitted code": ({}, "no commit holds the code that it ran"),
    "another run of the seed": ({}, "is another run of that seed; remove it first"),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_results_take_experiments_as_they_stand_alone(published: Path, refused: str) -> None:
    run = published / "simple" / "one"
    settings, message = REFUSED[refused]
    record = json.loads((run / "record.json").read_text())
    if refused == "another run of the seed":
        results(compose("results", f"runs=[{run}]"))
        changed(run, fit_seconds=0.1)
    if refused == "other data":
        changed(run, data=record["data"] | {"digest": "0"})
    if refused == "uncommitted code":
        changed(run, commit="a1+changes")
    if settings:
        changed(run, config=record["config"] | settings)
    before = sorted(Path("outputs").rglob("*"))
    with pytest.raises(UserError, match=message):
        results(compose("results", f"runs=[{run}]"))
    assert sorted(Path("outputs").rglob("*")) == before


@pytest.mark.parametrize("text", ["no place", f"{END}\n{BEGIN}\n"])
def test_a_readme_without_a_place_stays_as_it_is(text: str) -> None:
    Path("README.md").write_text(text)
    with pytest.raises(UserError, match=r"README.md has no place for a table"):
        results(compose("results"))
    assert Path("README.md").read_text() == text
