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
from emotion.compare import compare
from emotion.errors import UserError
from emotion.results import BEGIN, END, results
from emotion.train import train
from tests.conftest import compose_config

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
            train(compose_config("train", f"experiment={model}", f"seed={seed}", *DATA, *changes), Path("runs") / name)
    finally:
        os.chdir(before)
    return folder / "runs"


@pytest.fixture
def kept(trained: Path, tmp_path: Path) -> Path:
    """A copy of them, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def compared(*sources: Path | str, **settings: str) -> Path:
    asked = [f"{key}={value}" for key, value in settings.items()]
    compare(compose_config("compare", f"runs=[{','.join(map(str, sources))}]", *asked), Path("out"))
    return Path("out")


def test_a_folder_is_all_the_runs_below_it_each_once(trained: Path) -> None:
    found = runs.find([str(trained), str(trained / "simple"), f"{trained}/sim*/one"])
    assert [run.folder.relative_to(trained).as_posix() for run in found] == ["compact", "simple/one", "simple/two"]


def test_names_are_as_short_as_tells_them_apart(trained: Path) -> None:
    compact, one, two = runs.find([str(trained)])
    assert runs.names([compact, one]) == ["compact_cnn", "simple_cnn"]
    assert runs.names([compact, one, two]) == ["compact_cnn seed=0", "simple_cnn seed=0", "simple_cnn seed=1"]
    assert runs.names([one, one]) == [str(one.folder)] * 2


def test_runs_of_one_experiment_differ_in_their_seed_alone(trained: Path) -> None:
    assert [len(group) for group in runs.seeds_of(runs.find([str(trained)]))] == [1, 2]


def test_table_shows_what_the_records_say(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = compared(trained / "compact", trained / "simple")
    said, written = capsys.readouterr().out, (out / "comparison.md").read_text()
    record = json.loads((trained / "compact" / "record.json").read_text())
    accuracy = record["scores"]["test"]["none"]["all"]["accuracy"]
    assert "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * value for value in accuracy)) in written
    for text in (said, written):
        for piece in ("compact_cnn seed=0", "595,175", "56", "test of synthetic faces", "0, 1", "±"):
            assert piece in text, piece
    with (out / "comparison.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["run"] for line in lines] == ["compact_cnn seed=0", "simple_cnn seed=0", "simple_cnn seed=1"]
    assert float(lines[0]["accuracy"]) == accuracy[0]
    assert float(lines[0]["f1/fear_low"]) == record["scores"]["test"]["none"]["all"]["classes"]["fear"]["f1"][1]
    assert lines[0]["accuracy_p"] == ""
    assert 0 <= float(lines[1]["macro_f1_p"]) <= 1
    with Image.open(out / "comparison.png") as image:
        assert min(image.size) > 300


def test_pair_is_the_difference_of_the_two_records(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [str(trained / "compact"), str(trained / "simple/one")]
    (pair,) = compare(compose_config("compare", f"runs=[{','.join(sources)}]", "views=flip"), Path("out"))
    one, other = (run.record["scores"]["test"]["flip"]["all"] for run in runs.find(sources))
    assert pair.faces == one["n"] == 56
    assert pair.accuracy.figure == pytest.approx(other["accuracy"][0] - one["accuracy"][0])
    assert pair.macro_f1.figure == pytest.approx(other["macro_f1"][0] - one["macro_f1"][0])
    said = capsys.readouterr().out
    assert "accurate than compact_cnn on 56 faces" in said
    assert "a difference" in said


def test_clean_rows_are_paired_alone(kept: Path) -> None:
    for run in runs.find([str(kept)]):
        columns = runs.read_predictions(run)
        columns["clean"][10:] = False
        np.savez(run.folder / "predictions.npz", **columns)  # type: ignore[arg-type]
    sources = f"runs=[{kept / 'compact'},{kept / 'simple'}]"
    assert [pair.faces for pair in compare(compose_config("compare", sources, "rows=clean"), Path("out"))] == [10, 10]


def test_a_run_on_other_classes_is_shown_but_not_tested(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((kept / "compact" / "record.json").read_text())
    record["config"]["labels"] = {"a": [], "b": []}
    (kept / "compact" / "record.json").write_text(json.dumps(record))
    compared(kept / "simple/one", kept / "compact")
    said = capsys.readouterr().out
    assert "compact_cnn: other data or other classes." in said
    assert "McNemar" not in said


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("remove", "predictions.npz cannot be read"),
        ("truncate", "predictions.npz cannot be read"),
        ("columns", "has no clean, labels, none"),
    ],
)
def test_damaged_predictions_are_one_message(kept: Path, damage: str, message: str) -> None:
    path = kept / "compact" / "predictions.npz"
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:100])
    else:
        np.savez(path, rows=np.arange(3))
    with pytest.raises(UserError, match=message):
        compared(kept / "simple/one", kept / "compact")


def test_what_was_not_scored_is_named(trained: Path, kept: Path) -> None:
    with pytest.raises(UserError, match="recorded scores of views none, flip; found views=ten_crop"):
        compared(trained, views="ten_crop")
    with pytest.raises(UserError, match="rows=some: expected all or clean"):
        compared(trained, rows="some")
    record = json.loads((kept / "compact" / "record.json").read_text())
    (kept / "compact" / "record.json").write_text(json.dumps(record | {"scores": None}))
    with pytest.raises(UserError, match="found 1 unfinished"):
        compared(kept / "compact")


def test_results_keep_records_and_write_the_table_from_them_alone(kept: Path) -> None:
    for path in kept.rglob("record.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"commit": "a1" * 20, "data": record["data"] | {"source": "fer2013.csv"}}))
    readme = Path("README.md")
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    written = results(compose_config("results", f"runs=[{kept / 'simple'}]"))
    places = sorted(path.relative_to("outputs/records").as_posix() for path in Path("outputs").rglob("*.*"))
    assert places == [
        f"simple_cnn/seed={seed}/{name}"
        for seed in (0, 1)
        for name in ("metrics.csv", "predictions.npz", "record.json")
    ]
    assert readme.read_text() == f"before\n{BEGIN}\n\n{written}\n{END}\nafter\n"
    (line,) = written.splitlines()[2:]
    figures = [run.record["scores"]["test"]["none"]["all"]["accuracy"][0] for run in runs.find([str(kept / "simple")])]
    assert f"{100 * np.mean(figures):.1f} ± {100 * np.std(figures, ddof=1):.1f}" in line
    assert "52 of validation" in line
    assert "no, -" in line
    assert "0, 1 (n = 2)" in line
    assert "| a1a1a1a |" in line
    shutil.rmtree(kept)
    assert results(compose_config("results")) == written


def test_results_take_experiments_on_fer2013_alone(kept: Path) -> None:
    Path("README.md").write_text(f"{BEGIN}\n{END}\n")
    with pytest.raises(UserError, match="was trained on synthetic faces; expected a run on FER2013"):
        results(compose_config("results", f"runs=[{kept}]"))
    path = kept / "compact" / "record.json"
    record = json.loads(path.read_text()) | {"data": {"source": "fer2013.csv", "digest": "", "stand_in": False}}
    path.write_text(json.dumps(record | {"commit": "a1+changes"}))
    with pytest.raises(UserError, match="no commit holds the code that it ran"):
        results(compose_config("results", f"runs=[{kept / 'compact'}]"))
    path.write_text(json.dumps(record | {"config": record["config"] | {"published": None}}))
    with pytest.raises(UserError, match="is no run of an experiment"):
        results(compose_config("results", f"runs=[{kept / 'compact'}]"))
    assert not Path("outputs/records").exists()
