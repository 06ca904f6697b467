"""compare and results on real runs: two seeds of one small network and one of another."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion import runs
from emotion.cli import compose
from emotion.compare import compare
from emotion.data.dropped import NOTHING_DROPPED
from emotion.data.fer2013_csv import PUBLISHED_MD5
from emotion.errors import UserError
from emotion.results import BEGIN, END, experiment, results, tables
from emotion.train import train

DATA = ("data=synthetic", "data.training=20", "data.public_test=8", "data.private_test=8", "trainer.accelerator=cpu")
RUNS = {"simple/one": ("simple_cnn", 0), "simple/two": ("simple_cnn", 1), "compact": ("compact_cnn", 0)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three runs."""
    folder = tmp_path_factory.mktemp("trained")
    before = os.getcwd()
    os.chdir(folder)
    try:
        for name, (model, seed) in RUNS.items():
            changes = ("labels=seven", "trainer.max_epochs=2", "batch_size=16", f"cache_dir={folder}/cache")
            train(compose("train", f"experiment={model}", f"seed={seed}", *DATA, *changes), Path("runs") / name)
    finally:
        os.chdir(before)
    return folder / "runs"


@pytest.fixture
def kept(trained: Path, tmp_path: Path) -> Path:
    """A copy of them, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def compared(*sources: Path | str, **settings: str) -> Path:
    asked = [f"{key}={value}" for key, value in settings.items()]
    compare(compose("compare", f"runs=[{','.join(map(str, sources))}]", *asked), Path("out"))
    return Path("out")


def changed(run: Path, **fields: object) -> None:
    """Write other fields into a run's record."""
    record = json.loads((run / "record.json").read_text())
    (run / "record.json").write_text(json.dumps(record | fields))


def test_a_folder_is_all_the_runs_below_it_each_once(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "compact", tmp_path / "copy")
    found = runs.find([str(trained), str(trained / "simple"), f"{trained}/sim*/one", str(tmp_path / "copy")])
    assert [run.folder.relative_to(trained).as_posix() for run in found] == ["compact", "simple/one", "simple/two"]


def test_names_are_as_short_as_tells_them_apart(trained: Path) -> None:
    compact, one, two = runs.find([str(trained)])
    assert runs.names([compact, one]) == ["compact_cnn", "simple_cnn"]
    assert runs.names([compact, one, two]) == ["compact_cnn seed=0", "simple_cnn seed=0", "simple_cnn seed=1"]
    assert runs.names([one, one]) == [str(one.folder)] * 2


def test_runs_of_one_recipe_differ_in_their_seed_alone(kept: Path) -> None:
    assert [len(group) for group in runs.seeds_of(runs.find([str(kept)]))] == [1, 2]
    config = json.loads((kept / "simple/two/record.json").read_text())["config"]
    older = {key: value for key, value in config.items() if key != "sampler"}
    changed(kept / "simple/two", config=older | {"views": "none", "run_dir": "elsewhere"})
    assert [len(group) for group in runs.seeds_of(runs.find([str(kept)]))] == [1, 2]
    changed(kept / "simple/two", config=config | {"batch_size": 8})
    assert [len(group) for group in runs.seeds_of(runs.find([str(kept)]))] == [1, 1, 1]
    changed(kept / "simple/two", config=config | {"seed": 0})
    assert [len(group) for group in runs.seeds_of(runs.find([str(kept)]))] == [1, 1]  # one seed is not two


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
    (pair,) = compare(compose("compare", f"runs=[{','.join(sources)}]", "views=flip"), Path("out"))
    one, other = (run.record["scores"]["test"]["flip"]["all"] for run in runs.find(sources))
    assert pair.faces == one["n"] == 56
    assert pair.accuracy.figure == pytest.approx(other["accuracy"][0] - one["accuracy"][0])
    assert pair.macro_f1.figure == pytest.approx(other["macro_f1"][0] - one["macro_f1"][0])
    said = capsys.readouterr().out
    assert "accurate than compact_cnn on 56 faces" in said
    assert said.count("a difference") == 2
    assert "whether their recipes differ, only several seeds of each tell" in said


def test_two_seeds_of_one_recipe_are_not_tested(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(trained / "simple")
    assert "McNemar" not in capsys.readouterr().out


def test_clean_rows_are_paired_alone(kept: Path) -> None:
    for run in runs.find([str(kept)]):
        with np.load(run.folder / "predictions.npz") as stored:
            columns = dict(stored)
        columns["clean"][10:] = False
        np.savez(run.folder / "predictions.npz", **columns)
    sources = f"runs=[{kept / 'compact'},{kept / 'simple'}]"
    assert [pair.faces for pair in compare(compose("compare", sources, "rows=clean"), Path("out"))] == [10]


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
    with pytest.raises(UserError, match="recorded scores of views none, flip; found views=ten_crop"):
        compared(trained, views="ten_crop")
    with pytest.raises(UserError, match="rows=some: expected all or clean"):
        compared(trained, rows="some")
    with pytest.raises(UserError, match="no run given"):
        compared()
    changed(kept / "compact", scores=None)
    with pytest.raises(UserError, match="found 1 unfinished"):
        compared(kept / "compact")
    assert len(runs.find([str(kept)])) == 2
    assert "left out 1 unfinished" in capsys.readouterr().out
    (kept / "simple/one/record.json").write_text('{"scores": {"test": {}}}')
    with pytest.raises(UserError, match=r"record.json has no command, commit, config.*another version wrote it"):
        compared(kept)


@pytest.fixture
def published(kept: Path) -> Path:
    """The runs with records as if they were experiments on the real data; and a README with a place for the table."""
    for path in kept.rglob("record.json"):
        config = json.loads(path.read_text())["config"]
        as_it_stands = experiment(config["name"]) | {"seed": config["seed"], "data_dir": "data", "cache_dir": "data"}
        as_it_stands["data"] = {}
        data = {"source": "data/fer2013.csv", "digest": PUBLISHED_MD5, "stand_in": False}
        changed(path.parent, config=as_it_stands, data=data, commit="a1" * 20)
    Path("README.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    return kept


def test_results_keep_records_and_write_the_table_from_them_alone(published: Path) -> None:
    found = runs.find([str(published / "simple")])
    written = results(compose("results", f"runs=[{published / 'simple'}]"))
    places = sorted(path.relative_to("outputs/records").as_posix() for path in Path("outputs").rglob("*.*"))
    files = ("metrics.csv", "predictions.npz", "record.json")
    assert places == [f"simple_cnn/seed={seed}/{name}" for seed in (0, 1) for name in files]
    assert Path("README.md").read_text() == f"before\n{BEGIN}\n\n{written}\n{END}\nafter\n"
    line = written.splitlines()[2]
    figures = [100 * run.record["scores"]["test"]["none"]["all"]["accuracy"][0] for run in found]
    assert f"| {np.mean(figures):.1f} ± {np.std(figures, ddof=1):.1f} |" in line
    assert "| 52 on validation | -" in line
    assert "], missed |" in line
    assert "| 2 | a1a1a1a | `python -m emotion.train -m experiment=simple_cnn seed=0,1` |" in line
    shutil.rmtree(published)
    assert results(compose("results")) == written


def test_a_figure_is_passed_or_missed_where_its_interval_says_so(published: Path) -> None:
    for correct, verdict in ((0.9, "passed"), (0.56, "level"), (0.1, "missed")):
        for run in (published / "simple/one", published / "simple/two"):
            record = json.loads((run / "record.json").read_text())
            changed(run, best=record["best"] | {"score": correct}, split=record["split"] | {"val": 100})
        written = tables(runs.find([str(published / "simple")]))
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
    assert runs.recipe(older) == runs.recipe(config)
    assert runs.differing(older, experiment("compact_cnn")) == []
    assert runs.differing(config | {"mixup": {"_target_": "x"}}, experiment("compact_cnn")) == ["mixup"]


def test_records_of_before_rows_could_be_left_out_left_none_out(published: Path) -> None:
    config = json.loads((published / "compact/record.json").read_text())["config"]
    whole = {key: value for key, value in config["split"].items() if not key.startswith("drop")}
    older, now = config | {"split": whole}, config | {"split": whole | NOTHING_DROPPED}
    assert runs.recipe(older) == runs.recipe(now)
    assert runs.differing(older, experiment("compact_cnn")) == []
    assert runs.differing(now | {"split": now["split"] | {"drop": "rows.csv"}}, experiment("compact_cnn")) == ["split"]


def test_runs_that_left_other_rows_out_are_no_seeds_of_one_recipe(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads((kept / "simple/two/record.json").read_text())["data"]
    changed(kept / "simple/two", data=data | {"dropped": {"file": "x", "digest": "y", "rows": {"train": 1200}}})
    assert [len(group) for group in runs.seeds_of(runs.find([str(kept)]))] == [1, 1, 1]
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
    with pytest.raises(UserError, match=r"README.md has no place for the table"):
        results(compose("results"))
    assert Path("README.md").read_text() == text
