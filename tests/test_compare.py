"""compare and results on real runs: two seeds of one small network and one of another."""

import csv
import dataclasses
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from emotion.compare import compare
from emotion.config.compose import compose
from emotion.data.readers.fer2013 import PUBLISHED_MD5
from emotion.data.splits import NO_EXCLUSIONS
from emotion.errors import UserError
from emotion.evaluation.score import score
from emotion.metrics.statistics import Difference, PairedComparison, RecipeComparison, holm, welch
from emotion.records.archive import experiment
from emotion.records.recipe import group_by_recipe, recipe, recipe_differences
from emotion.records.run_folder import Run, display_names, find_finished
from emotion.reporting import figures, readme_tables
from emotion.reporting.comparison import _points, bars, compare_runs, tables
from emotion.reporting.ranking import TITLE, ranking_tables, write_ranking
from emotion.reporting.readme_tables import README_TABLES, RECORDS_TABLES
from emotion.reporting.text import format_mean_std
from emotion.results import results
from emotion.train import train
from tests.conftest import ROOT, record_of

SMALL = ("data=synthetic", "data.training=20", "data.public_test=8", "data.private_test=8", "labels=seven",
         "trainer.accelerator=cpu", "trainer.max_epochs=1", "batch_size=16", "compile.cpu=false",
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
            overrides = (f"experiment={model}", f"seed={seed}", *SMALL, f"cache_dir={folder}/cache")
            train(compose("train", *overrides), Path("runs") / name)
    finally:
        os.chdir(before)
    return folder / "runs"


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A copy of them whose files may be changed."""
    folder = Path(shutil.copytree(trained, tmp_path / "runs"))
    for name in RUNS:
        change(folder / name)
    return folder


def change(run: Path, **fields: Any) -> None:  # noqa: ANN401
    """Change fields of a run's record, which then lists no digests."""
    dataclasses.replace(record_of(run), files={}, **fields).write(run)


def change_predictions(run: Path, **columns: np.ndarray | None) -> None:
    path = run / "predictions.npz"
    with np.load(path) as stored:
        merged = dict(stored) | columns
    np.savez(path, **{name: column for name, column in merged.items() if column is not None})


def compared(*sources: Path | str, **settings: str) -> tuple[list[PairedComparison], list[RecipeComparison]]:
    """Compare runs and write to the folder `out`."""
    overrides = [f"{key}={value}" for key, value in settings.items()]
    return compare(compose("compare", f"runs=[{','.join(map(str, sources))}]", *overrides), Path("out"))


def read_csv(name: str) -> list[dict[str, str]]:
    with Path("out", name).open(newline="") as file:
        return list(csv.DictReader(file))


def group_sizes(folder: Path) -> list[int]:
    return [len(group) for group in group_by_recipe(find_finished([str(folder)]))]


def test_each_run_in_folders_and_patterns_is_found_once(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "compact", tmp_path / "copy")
    found = find_finished([str(trained), str(trained / "simple"), f"{trained}/sim*/one", str(tmp_path / "copy")])
    assert [run.folder.relative_to(trained).as_posix() for run in found] == ["compact", "simple/one", "simple/two"]


def test_trials_of_a_search_do_not_replace_other_sources(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(runs / "compact", scores={})
    shutil.copytree(runs / "compact", runs / "compact/stopped")
    change(runs / "compact/stopped", scores=None)
    (runs / "compact/failed").mkdir()
    (runs / "compact/failed/error.txt").write_text("first line\nthe loss is NaN\n")
    assert compared(runs / "compact") == ([], [])
    skipped = f"{runs}/compact: skipped 2 unfinished runs\n  {runs}/compact/failed: the loss is NaN\n"
    assert skipped in (printed := capsys.readouterr().out)
    assert printed.count("trials of a search, not evaluated on test") == 1
    assert not Path("out").exists()
    compared(f"{runs}/simp*", runs / "compact")
    assert [line["run"] for line in read_csv("comparison.csv")] == ["simple_cnn seed=0", "simple_cnn seed=1"]
    assert capsys.readouterr().out.count("trials of a search, not evaluated on test") == 1
    assert compared(f"{runs}/comp*") == ([], [])
    with pytest.raises(UserError, match=r"nosuchrun.*no such folder"):
        compared("nosuchrun", runs / "compact")


def test_display_names_are_the_shortest_distinct_ones(trained: Path) -> None:
    compact, one, two = find_finished([str(trained)])
    assert display_names([compact, one]) == ["compact_cnn", "simple_cnn"]
    assert display_names([compact, one, two]) == ["compact_cnn seed=0", "simple_cnn seed=0", "simple_cnn seed=1"]
    assert display_names([one, one]) == [str(one.folder)] * 2


def test_only_runs_of_one_metric_classes_and_split_are_ranked_together(trained: Path) -> None:
    record = record_of(trained / "compact")
    loss = dataclasses.replace(record, best={"metric": "train/loss", "mode": "min", "score": 0.1, "epoch": 1})
    two = dataclasses.replace(record, config=record.config | {"labels": {"happy": ["happy"], "sad": ["sad"]}})
    split = dataclasses.replace(record, config=record.config | {"split": record.config["split"] | {"seed": 1}})
    better = dataclasses.replace(record, best=record.best | {"score": 1.0})
    tables = ranking_tables([record, loss, two, split, better], ["a", "loss", "two", "split", "better"])
    ranked = [[row["run"].split()[0] for row in rows] for rows in tables.values()]
    assert ranked == [["better", "a"], ["loss"], ["two"], ["split"]]
    for title, part in zip(tables, ("val/acc; angry, ", "train/loss; ", "happy, sad; ", "seed=1; "), strict=True):
        assert part in title
    assert list(ranking_tables([record, better], ["a", "b"])) == [TITLE]
    csv_file, _ = sorted(write_ranking(tables, trained.parent))
    assert "train/loss" in csv_file.read_text()


def test_monitored_scores_have_the_interval_of_the_faces_scored(trained: Path) -> None:
    record = record_of(trained / "compact")
    assert record.num_validated == 56  # in a batch of 64
    config = record.config | {"batch_size": 7, "trainer": record.config["trainer"] | {"limit_val_batches": 1}}
    half = dataclasses.replace(record, best=record.best | {"score": 0.5}, config=config)
    simple = dataclasses.replace(half, config=config | {"name": "simple_cnn"})  # published on validation
    (whole, _), (part, (row,)) = ranking_tables([record, half], ["whole", "half"]).items()
    assert "; 56 faces of " in whole
    assert "; 28 faces of " in part
    assert row["val/acc %"] == "50.0 [32.6, 67.4]"  # Wilson's interval of 14 of 28 faces
    assert "| 50.0 [32.6, 67.4], n = 1 |" in readme_tables.results_table([[Run(trained, simple)]])


def test_runs_of_one_recipe_differ_in_their_seed_only(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert group_sizes(runs) == [1, 2]
    two = runs / "simple/two"
    record = record_of(two)
    older = {key: value for key, value in record.config.items() if key != "sampler"}
    change(two, config=older | {"tta": "none", "run_dir": "elsewhere"})
    assert group_sizes(runs) == [1, 2]
    change(two, config=record.config | {"batch_size": 8})
    assert group_sizes(runs) == [1, 1, 1]
    for trainer in ({"gradient_clip_algorithm": "value"}, {"precision": "bf16-mixed"}):
        change(two, config=record.config | {"trainer": record.config["trainer"] | trainer})
        assert group_sizes(runs) == ([1, 2] if "precision" in trainer else [1, 1, 1])
    for name, sizes in (("weight_statistics", [1, 2]), ("mine", [1, 1, 1])):
        change(two, config=record.config | {"callbacks": record.config["callbacks"] | {name: {"_target_": "a.B"}}})
        assert group_sizes(runs) == sizes
    change(two, config=record.config | {"seed": 0})
    assert group_sizes(runs) == [1, 1, 1]  # one seed, not two
    exclusions = {"file": "x", "digest": "y", "rows": {"train": 1200}}
    change(two, config=record.config, data=record.data | {"exclusions": exclusions})
    assert group_sizes(runs) == [1, 1, 1]
    compared(runs)
    assert "1,200 rows excluded" in Path("out/comparison.md").read_text()


def test_the_predictions_of_folds_are_pooled(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("simple/one", "simple/two", "compact")
    config = record_of(runs / "compact").config
    hits, faces = 0, 0
    for fold, name in enumerate(names):
        split = {"_target_": "emotion.data.splits.kfold", "folds": 4, "fold": fold, "seed": 0}
        change(runs / name, config=config | {"split": split})
        n = 10 * (fold + 1)
        labels = np.arange(n) % 7
        predicted = np.where(np.arange(n) < 4 * fold + 5, labels, (labels + 1) % 7)
        change_predictions(
            runs / name, rows=np.arange(n), labels=labels, none=predicted, flip=predicted, deduplicated=labels > 0
        )
        hits, faces = hits + 4 * fold + 5, faces + n
    compared(runs)
    written, printed = Path("out/comparison.md").read_text(), capsys.readouterr().out
    assert all(text.index("pooled over folds") < text.index("\nruns\n") for text in (written, f"\n{printed}"))
    assert "label{tab:ranking" not in Path("out/comparison.tex").read_text()  # a fold has one run
    table = written.split("pooled over folds")[1].split("\n\n")[1]
    assert "| compact_cnn seed=0 | 3 of 4 | 60 |" in table
    assert (hits, faces) == (27, 60)
    assert "| 45.0 [" in table
    compared(runs, rows="deduplicated")
    assert "| 3 of 4 | 50 |" in Path("out/comparison.md").read_text()
    for name in names[:2]:
        repeated = Path(shutil.copytree(runs / name, runs / "again" / name))
        change(repeated, fit_seconds=1.0)  # an exact copy would be skipped
    compared(runs)
    assert re.findall(r"\| (\d of 4) \|", Path("out/comparison.md").read_text()) == ["3 of 4", "2 of 4"]


def test_a_ranking_names_what_its_runs_share(runs: Path) -> None:
    config = record_of(runs / "compact").config
    change(runs / "compact", config=config | {"split": config["split"] | {"seed": 7}})
    compared(runs)
    latex = Path("out/comparison.tex").read_text()
    classes = "angry, disgust, fear, happy, sad, surprise, neutral"
    assert f"Ranked among the runs of val/acc; {classes}; official; 56 faces" in latex
    assert re.findall(r"label{tab:(ranking.*)}", latex) == ["ranking-1"]  # compact is alone


def test_tables_show_the_recorded_scores(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(trained / "compact", trained / "simple")
    printed, written = capsys.readouterr().out, Path("out/comparison.md").read_text()
    scores = record_of(trained / "compact").test_scores["none"]["all"]
    assert "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * value for value in scores["accuracy"])) in written
    assert "{:.3f} [{:.3f}, {:.3f}]".format(*scores["nll"]) in written
    for piece in ("compact_cnn seed=0", "595,175", "56", "official, 7 classes, SYNTHETIC", "0, 1", "±"):
        assert piece in written, piece
    assert "compact_cnn seed=0" in printed
    lines = read_csv("comparison.csv")
    assert [line["run"] for line in lines] == ["compact_cnn seed=0", "simple_cnn seed=0", "simple_cnn seed=1"]
    assert float(lines[0]["accuracy"]) == scores["accuracy"][0]
    assert float(lines[0]["f1/fear_low"]) == scores["classes"]["fear"]["f1"][1]
    assert [line["accuracy_p_holm"] == "" for line in lines] == [True, False, True]  # a recipe's first run is tested
    assert 0 <= float(lines[1]["macro_f1_p_holm"]) <= 1
    latex = Path("out/comparison.tex").read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\bottomrule") == latex.count(r"\end{table}") > 2
    assert r"accuracy \%" in latex
    labels = re.findall(r"\\label{tab:([\w-]+)}", latex)
    assert labels == ["runs", "ranking", "scores", "f1", "recipes", "networks"]
    captions = re.findall(r"\\caption{(.*)}", latex)
    assert len(captions) == len(labels)
    for caption, title in zip(captions, re.findall(r"\n\n(.*)\n\n\|", written), strict=False):
        assert caption[0].isupper()
        assert caption.endswith(".")
        assert not caption.replace("\\", "").lower().startswith(title)
    assert "simple_" not in latex
    assert Path("out/comparison.pdf").read_bytes().startswith(b"%PDF")
    with Image.open("out/comparison.png") as image:
        assert min(image.size) > 300


def test_every_part_of_a_table_names_the_runs(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    compared(trained)
    blocks = [block.splitlines() for block in capsys.readouterr().out.split("\n\n")]
    tables = [block for block in blocks if any(line.startswith("--") or line.startswith("-  --") for line in block)]
    assert len(tables) > 8
    for block in tables:
        assert sum(" seed=" in line or line.startswith("simple_cnn ") for line in block) in (1, 3), block


def test_the_tests_are_in_the_latex_file(recipes: Path) -> None:
    compared(recipes)
    latex = Path("out/comparison.tex").read_text()
    networks, seeds = (
        latex.split(f"\\label{{tab:{label}}}")[1].split(r"\bottomrule")[0] for label in ("networks", "seeds")
    )
    second, third = networks.splitlines()[-2:]
    assert second.startswith("second seed=0 & 56 & 10 & 0 & +17.86 [+")  # 40 less 30 of 56 correct
    assert third.startswith("third seed=0 & 56 & 1 & 0 & +1.79 [+0.00, +")
    assert "& 0.0059 &" in second  # McNemar's p of 10 and 0, 2 / 2**10, times 3: only that of macro F1 is smaller
    second, third = seeds.splitlines()[-2:]
    assert second.startswith("second & 56 & 3 & +19.64 [+")
    assert third.startswith("third & 56 & 2 & +1.79 [$-$")
    assert "first (3 seeds)" in latex


def test_a_pair_is_the_difference_of_the_records(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [trained / "compact", trained / "simple/one"]
    (pair,), recipes = compared(*sources, tta="flip")
    first, second = (record_of(run).test_scores["flip"]["all"] for run in sources)
    assert pair.faces == first["n"] == 56
    assert pair.accuracy.value == pytest.approx(second["accuracy"][0] - first["accuracy"][0])
    assert pair.macro_f1.value == pytest.approx(second["macro_f1"][0] - first["macro_f1"][0])
    printed = capsys.readouterr().out
    assert "accurate than compact_cnn on 56 faces" in printed
    assert printed.count(" difference") == 2  # a verdict on accuracy and one on macro F1
    assert recipes == []
    assert "compact_cnn: a single seed, so only the trained networks can be compared" in printed
    compared(trained / "simple")  # seeds of one recipe are not tested
    printed = capsys.readouterr().out
    assert "McNemar" not in printed
    assert "2 seeds of one recipe differ by chance and are not tested" in printed


def test_differences_are_in_words() -> None:
    words = ("more", "less", "equal")
    texts = [_points(Difference(value, value - 0.01, value + 0.01, 0.5), *words) for value in (0.002, -0.002, 0.0)]
    assert texts == ["0.20 points [-0.80, 1.20] more", "0.20 points [-0.80, 1.20] less", "equal"]


def test_deduplicated_rows_are_paired_alone(runs: Path) -> None:
    for name in RUNS:
        change_predictions(runs / name, deduplicated=np.arange(56) < 10)
    pairs, _ = compared(runs / "compact", runs / "simple", rows="deduplicated")
    assert [pair.faces for pair in pairs] == [10]


def test_a_temperature_is_listed(runs: Path) -> None:
    change(runs / "compact", calibration={"temperature": 1.618})
    change(runs / "simple/one", calibration=None)
    compared(runs / "compact", runs / "simple/one")
    assert [line["temperature"] for line in read_csv("comparison.csv")] == ["1.618", ""]
    lines = Path("out/comparison.md").read_text().splitlines()[4:8]
    assert [line.split("|")[-2].strip() for line in lines] == ["temperature", "---:", "1.62", "-"]


CORRECT = {"first": [30, 32, 31], "second": [40, 41, 45], "third": [31, 33]}
"""Number of the 56 test faces that each seed of three recipes classifies correctly."""
HALF_WIDTH = 4.3027 / 56 / 3**0.5
"""Of the first recipe's interval: Student's quantile for two degrees of freedom times the standard error."""


@pytest.fixture
def recipes(trained: Path, tmp_path: Path) -> Path:
    """Runs as if of three recipes, with batch sizes 1, 2 and 3 and several seeds each."""
    for batch_size, (name, seeds) in enumerate(CORRECT.items(), 1):
        for seed, correct in enumerate(seeds):
            run = Path(shutil.copytree(trained / "compact", tmp_path / "recipes" / name / str(seed)))
            with np.load(run / "predictions.npz") as stored:
                labels = stored["labels"].astype(np.int64)
            predicted = np.where(np.arange(56) < correct, labels, (labels + 1) % 7)
            change_predictions(run, none=predicted.astype(np.uint8))
            config = record_of(run).config | {"name": name, "seed": seed, "batch_size": batch_size}
            scores = score(torch.eye(7)[torch.from_numpy(predicted)], labels, tuple(config["labels"]))
            change(run, config=config, scores={"test": {"none": {"all": scores}}})
    return tmp_path / "recipes"


def test_recipes_are_tested_over_their_seeds(recipes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs, tests = compared(recipes)
    assert [(pair.faces, pair.accuracy.value) for pair in pairs] == [(56, pytest.approx(n / 56)) for n in (10, 1)]
    assert [(test.faces, test.first, test.second) for test in tests] == [(56, 3, 3), (56, 3, 2)]
    groups = group_by_recipe(find_finished([str(recipes)]))
    values = {
        key: [[run.record.test_scores["none"]["all"][key][0] for run in group] for group in groups]
        for key in ("accuracy", "macro_f1")
    }
    assert values["accuracy"] == [[correct / 56 for correct in seeds] for seeds in CORRECT.values()]
    uncorrected = [welch(values[key][0], values[key][index]) for index in (1, 2) for key in values]
    differences = [difference for test in tests for difference in (test.accuracy, test.macro_f1)]
    assert [difference[:3] for difference in differences] == [pytest.approx(expected[:3]) for expected in uncorrected]
    assert [difference.p for difference in differences] == pytest.approx(holm([one.p for one in uncorrected]))
    printed = capsys.readouterr().out
    for name, n, points, verdict in (("second", 3, "19.64", "a difference"), ("third", 2, "1.79", "no difference")):
        start = f"The recipe {name} is {points} points"
        sentence = next(line for line in printed.splitlines() if line.startswith(start))
        assert f"more accurate than first on 56 faces (means of {n} and 3 seeds), Welch p = " in sentence
        assert f"corrected for 4 tests: {verdict}" in sentence


def test_recipes_are_written_with_the_interval_of_their_mean(recipes: Path, trained: Path) -> None:
    compared(recipes)
    mean, std = 31 / 56, 1 / 56
    low, high = mean - HALF_WIDTH, mean + HALF_WIDTH
    cell = f"{100 * mean:.1f} ± {100 * std:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    assert f"| first | 3 | 0, 1, 2 | {cell} |" in Path("out/comparison.md").read_text()
    first, second, third = read_csv("recipes.csv")
    assert (first["n"], first["seeds"], third["seeds"]) == ("3", "0 1 2", "0 1")
    values = [float(first[key]) for key in ("accuracy", "accuracy_low", "accuracy_high", "accuracy_std")]
    assert values == pytest.approx([mean, low, high, std], abs=1e-5)
    assert first["accuracy_p_holm"] == ""
    assert float(second["accuracy_difference"]) == pytest.approx(11 / 56)
    assert float(second["accuracy_p_holm"]) < 0.05 < float(third["accuracy_p_holm"])

    found = find_finished([str(recipes / "first"), str(trained / "compact")])
    names, scores = bars(*compare_runs(found, "none", "all"))
    assert len(names) == len(scores) == 5
    assert names[-1] == "first\nmean of 3 seeds"
    assert scores[-1]["accuracy"] == pytest.approx((mean, low, high), abs=1e-5)
    by_seed = [own["classes"]["happy"]["f1"][0] for own in scores[:3]]
    assert scores[-1]["classes"]["happy"]["f1"][0] == pytest.approx(np.mean(by_seed))


def test_recipes_are_tested_on_the_faces_that_all_seeds_share(recipes: Path) -> None:
    path = recipes / "second/1/predictions.npz"
    with np.load(path) as stored:
        columns = {name: column[::-1][:50] for name, column in stored.items()}  # the last fifty, in reverse order
    np.savez(path, **columns)
    pairs, tests = compared(recipes)
    assert [(pair.faces, test.faces) for pair, test in zip(pairs, tests, strict=True)] == [(56, 50), (56, 56)]
    assert tests[0].accuracy.value == pytest.approx(11 / 50)  # every seed classifies the first six correctly


def test_a_recipe_with_one_seed_is_not_tested(recipes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(recipes / "third/1")
    pairs, tests = compared(recipes)
    assert (len(pairs), len(tests)) == (2, 1)
    printed = capsys.readouterr().out
    assert printed.count("Welch p") == 2
    assert "third: a single seed, so only the trained networks can be compared" in printed
    third = read_csv("recipes.csv")[2]
    assert (third["n"], third["accuracy"]) == ("1", "")


def test_the_mean_of_equal_seeds_has_no_interval(recipes: Path) -> None:
    for seed in (0, 1):  # of the third recipe, which has these two
        change(recipes / f"third/{seed}", scores=record_of(recipes / "third/0").scores)
    compared(recipes)
    third = read_csv("recipes.csv")[2]
    assert (third["n"], third["accuracy_low"], third["accuracy_high"], third["accuracy_std"]) == ("2", "", "", "0.0")
    score = f"{100 * float(third['accuracy']):.1f}"
    assert f"| third | 2 | 0, 1 | {score} ± 0.0 |" in Path("out/comparison.md").read_text()
    figure = figures.comparison(*bars(*compare_runs(find_finished([str(recipes)]), "none", "all")), "")
    last = figure.axes[0].lines[-2:]  # the interval and the mean of the last recipe
    assert [len(line.get_xdata()) for line in last] == [0, 1]


def test_scores_of_no_faces_are_dashes(recipes: Path) -> None:
    for seed in (0, 1):
        run = recipes / f"third/{seed}"
        scores = score(torch.zeros(0, 7), np.zeros(0, np.int64), tuple(record_of(run).labels))
        change(run, scores={"test": {"none": {"all": scores}}})
    made = tables(*compare_runs(find_finished([str(recipes / "third")]), "none", "all"), "none", "all")
    of_classes, of_recipe = (one.rows for one in made if one.title.startswith(("recipes", "F1")))
    assert list(of_classes[0].values())[1:] == ["-"] * 7
    assert list(of_recipe[0].values())[3:] == ["-"] * 3


def test_recipes_of_one_name_are_named_by_what_their_runs_share(recipes: Path) -> None:
    for path in sorted(recipes.glob("*/*")):
        change(path, config=record_of(path).config | {"name": "sw"})
        path.rename(path.parents[1] / f"model={path.parent.name},seed={path.name}")
    compared(recipes)
    assert [line["recipe"] for line in read_csv("recipes.csv")] == [
        "sw model=first",
        "sw model=second",
        "sw model=third",
    ]
    for number, path in enumerate(sorted(recipes.glob("model=*"))):  # names that say nothing about the recipe
        path.rename(path.parent / f"12-00-{number:02d}")
    compared(recipes)
    assert [line["recipe"] for line in read_csv("recipes.csv")] == [
        "sw 12-00-00 and 2 more", "sw 12-00-03 and 2 more", "sw 12-00-06 and 1 more",
    ]  # fmt: skip


def test_folds_of_recipes_of_one_name_are_named_by_what_their_runs_share(recipes: Path) -> None:
    for path in sorted(recipes.glob("*/[01]")):
        record = record_of(path)
        split = {"_target_": "emotion.data.splits.kfold", "folds": 5, "fold": int(path.name), "seed": 0}
        change(path, config=record.config | {"name": "sw", "seed": 0, "split": split})
        path.rename(path.parents[1] / f"model={path.parent.name},split.fold={path.name}")
    for name in ("first", "second"):
        shutil.rmtree(recipes / name)  # a third seed
    compared(recipes)
    table = Path("out/comparison.md").read_text().split("pooled over folds")[1]
    assert all(f"| sw model={name} | 2 of 5 |" in table for name in CORRECT)


def test_recipes_on_other_data_or_of_one_name(recipes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        run = recipes / f"third/{seed}"
        change(run, data=record_of(run).data | {"digest": "1"})
    _, tests = compared(recipes)
    assert len(tests) == 1
    assert "The recipe third is not tested against first: it was evaluated on other data." in capsys.readouterr().out
    for path in recipes.glob("*/*"):
        change(path, config=record_of(path).config | {"name": "one"})
    compared(recipes)
    assert len({line["recipe"] for line in read_csv("recipes.csv")}) == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": {"digest": "1"}}, "it was evaluated on other data"),
        ({"labels": {"a": ["happy"], "b": ["sad"]}}, "it has other classes"),
        ({"labels": {"happy": ["happy", "surprise"]}}, "it has other classes"),
        ({}, "it was evaluated on other faces"),
    ],
    ids=["data", "classes", "emotions of a class", "faces"],
)
def test_a_run_that_cannot_be_paired_is_listed_but_not_tested(
    changes: dict[str, Any], reason: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "compact"
    record = record_of(run)
    labels = changes.get("labels", {})
    if "happy" in labels:
        labels = record.labels | labels
    config = record.config | ({"labels": labels} if labels else {})
    change(run, config=config, data=record.data | changes.get("data", {}))
    if not changes:
        change_predictions(run, rows=np.arange(56) + 1000)
    compared(runs / "simple/one", run)
    printed = capsys.readouterr().out
    assert f"compact_cnn is not tested against simple_cnn: {reason}." in printed
    assert "McNemar" not in printed


DAMAGES: dict[str, tuple[Any, str]] = {
    "removed": (None, "cannot be read"),
    "empty": (b"", "cannot be read"),
    "truncated": (100, "cannot be read"),
    "another array": (np.arange(3), "cannot be read"),
    "columns missing": ({"flip": None, "none": None}, "cannot be read"),
    "columns of other lengths": ({"deduplicated": np.ones(3, bool)}, "do not fit together"),
    "a class too many": ({"none": np.full(56, 9)}, "do not fit together or to 7 classes"),
    "floats": ({"none": np.zeros(56)}, "do not fit together"),
    "other labels": ({"labels": np.full(56, 3)}, "label the same faces differently; one is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_predictions_are_reported_in_one_message(runs: Path, damage: str) -> None:
    path = runs / "compact" / "predictions.npz"
    content, message = DAMAGES[damage]
    if isinstance(content, dict):
        change_predictions(path.parent, **content)
    elif isinstance(content, np.ndarray):
        with path.open("wb") as file:
            np.save(file, content)
    elif content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:content])
    pattern = (
        message if damage == "other labels" else rf"predictions.npz .*{message}.*expected the predictions with tta="
    )
    with pytest.raises(UserError, match=pattern):
        compared(runs / "simple/one", runs / "compact")


def test_missing_scores_and_invalid_settings_are_refused(
    trained: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="has test scores with tta=none, flip; expected tta=ten_crop"):
        compared(trained, tta="ten_crop")
    with pytest.raises(UserError, match="rows=some: expected all, deduplicated"):
        compared(trained, rows="some")
    with pytest.raises(UserError, match="no run given"):
        compared()
    change(runs / "compact", scores=None)
    with pytest.raises(UserError, match="found 1 unfinished"):
        compared(runs / "compact")
    assert len(find_finished([str(runs)])) == 2
    assert "skipped 1 unfinished run" in capsys.readouterr().out
    (runs / "simple/one/record.json").write_text('{"scores": {"test": {}}}')
    with pytest.raises(UserError, match=r"record.json has no command, config.*another version wrote it"):
        compared(runs)


README = "".join(f"before\n<!-- {name} -->\nold\n<!-- end of {name} -->\nafter\n" for name in README_TABLES)


def test_classes_that_two_schemes_name_differently_share_a_column() -> None:
    runs = find_finished([str(ROOT / f"outputs/records/{name}/seed=0") for name in ("simple_cnn", "v4_attention")])
    made = tables(*compare_runs(runs, "none", "all"), "none", "all")
    (table,) = [one.rows for one in made if one.title == "F1 % by class"]
    assert [list(row)[1:] for row in table] == [list(run.record.labels) for run in runs[:1]] + [
        ["happy", "surprise", "sad", "angry", "disgust", "fear"]
    ]
    happiness = runs[1].record.test_scores["none"]["all"]["classes"]["happiness"]
    assert table[1]["happy"] == f"{100 * happiness['f1'][0]:.1f}"


@pytest.fixture
def experiments(runs: Path) -> Path:
    """The runs with records as if they were experiments on FER2013, and a README with a place for the table."""
    for name in RUNS:
        record = record_of(runs / name)
        config = experiment(record.name) | {"seed": record.seed, "data_dir": "data", "cache_dir": "data", "data": {}}
        data = {"source": "data/fer2013.csv", "digest": PUBLISHED_MD5, "synthetic": False}
        change(runs / name, config=config, data=data, commit="a1" * 20)
    Path("README.md").write_text(README)
    return runs


def table_row(table: str) -> dict[str, str]:
    """The cells of the first row of a Markdown table, or of several, by column."""
    cells: dict[str, str] = {}
    for one in table.split("\n\n"):
        header, _, row = ([cell.strip() for cell in line.split("|")[1:-1]] for line in one.splitlines()[:3])
        cells |= dict(zip(header, row, strict=True))
    return cells


def result_rows(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The first rows of the short and of the detailed table of results."""
    groups = group_by_recipe(find_finished([str(folder)]))
    return table_row(readme_tables.results_table(groups)), table_row(readme_tables.scores_table(groups))


def test_a_seed_has_one_interval_in_both_tables(experiments: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = {"part": "test", "accuracy": 0.659, "macro_f1": 0.6}
    monkeypatch.setattr(readme_tables, "experiment", lambda name: experiment("simple_cnn") | {"published": published})
    run = experiments / "compact"
    scores = record_of(run).test_scores
    scores["none"]["all"] |= {"accuracy": [0.6, 0.55, 0.63], "macro_f1": [0.5, 0.41, 0.55]}
    change(run, scores={"test": scores})
    row, detailed = result_rows(run)
    assert row["reached %"] == "60.0 [55.0, 63.0]; macro F1 50.0 [41.0, 55.0], n = 1"
    assert (detailed["accuracy %"], detailed["macro F1 %"]) == ("60.0 [55.0, 63.0]", "50.0 [41.0, 55.0]")
    accuracy, macro_f1 = "below: -5.90 [-10.90, -2.90]", "macro F1 below: -10.00 [-19.00, -5.00]"
    assert row["difference to published"] == f"{accuracy}; {macro_f1}"


def test_the_interval_of_several_seeds_covers_faces_and_seeds() -> None:
    """Faces: 0.03 below and 0.04 above the mean; seeds: 12.71 * 0.01 (Student's quantile times the standard error)."""
    estimate = readme_tables._estimate([(0.51, 0.48, 0.55), (0.49, 0.46, 0.53)])
    assert estimate == pytest.approx(
        (2, 0.5, 0.5 - (0.03**2 + 0.1271**2) ** 0.5, 0.5 + (0.04**2 + 0.1271**2) ** 0.5), abs=1e-4
    )


def test_results_archive_records_and_write_the_tables_from_them(experiments: Path) -> None:
    commands = [f"python -m emotion.train experiment=simple_cnn seed={seed}" for seed in (0, 1)]
    for name, command in zip(("one", "two"), commands, strict=True):
        change(experiments / "simple" / name, command=command)
    found = find_finished([str(experiments / "simple")])
    tables = results(compose("results", f"runs=[{experiments / 'simple'}]"))
    paths = sorted(path.relative_to("outputs/records").as_posix() for path in Path("outputs").rglob("*.*"))
    files = ("metrics.csv", "predictions.npz", "record.json")
    assert paths == ["README.md", *(f"simple_cnn/seed={seed}/{name}" for seed in (0, 1) for name in files)]
    readme, page = Path("README.md").read_text(), Path("outputs/records/README.md").read_text()
    assert readme == "".join(
        f"before\n<!-- {name} -->\n\n{tables[name]}\n<!-- end of {name} -->\nafter\n" for name in README_TABLES
    )
    for name in RECORDS_TABLES:
        assert f"<!-- {name} -->\n\n{tables[name]}\n<!-- end of {name} -->" in page
    row, detailed = result_rows(experiments / "simple")
    command = " <br> ".join(f"`{command}`" for command in commands)
    assert row == table_row(tables["results"])
    assert row["published %"] == "52 on validation"
    assert row["reached %"].endswith("], n = 2")
    assert row["difference to published"].startswith("below: -")
    assert command in tables["scores"]
    accuracy = [100 * run.record.test_scores["none"]["all"]["accuracy"][0] for run in found]
    assert detailed["accuracy %"] == f"{np.mean(accuracy):.1f} ± {np.std(accuracy, ddof=1):.1f}"
    assert (detailed["n"], detailed["commit"], detailed["command"]) == ("2", "a1a1a1a", command)
    shutil.rmtree(experiments)
    assert results(compose("results")) == tables


def test_table_shows_calibration_and_duration(experiments: Path) -> None:
    folder = experiments / "simple"
    for calibrated in (False, True):
        for seed, name in enumerate(("one", "two")):
            record = record_of(folder / name)
            scores = record.test_scores["none"]["all"]
            if calibrated:
                scores |= {
                    "uncalibrated": {key: scores[key] for key in ("ece", "nll", "brier")},
                    "ece": 0.01 + seed / 50,
                }
            else:
                scores |= scores.pop("uncalibrated", {})
            calibration = {"temperature": 1.5} if calibrated else None
            change(folder / name, calibration=calibration, scores=record.scores, fit_seconds=540.0 + 120 * seed)
        _, row = result_rows(folder)
        if not calibrated:
            uncalibrated = format_mean_std(
                [run.record.test_scores["none"]["all"]["ece"] for run in find_finished([str(folder)])]
            )
        assert row["ECE % uncalibrated"] == uncalibrated
        assert row["ECE % with temperature"] == ("2.0 ± 1.4" if calibrated else "-")
        assert row["minutes"] == "10.0 ± 1.4"


def test_published_figures_may_be_with_tta(experiments: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = {"part": "test", "tta": "flip", "accuracy": 0.0, "target": True, "note": "why"}
    declared = experiment("simple_cnn") | {"published": published}
    monkeypatch.setattr(readme_tables, "experiment", lambda name: declared)
    for name in ("one", "two"):  # whose epoch was chosen by the loss
        run = experiments / "simple" / name
        change(run, best=record_of(run).best | {"metric": "val/loss", "score": 1.2})
    row, _ = result_rows(experiments / "simple")
    found = find_finished([str(experiments / "simple")])
    reached = np.mean([100 * run.record.test_scores["flip"]["all"]["accuracy"][0] for run in found])
    assert f"{reached:+.2f} " in row["difference to published"]
    assert row["published %"] == "0 with TTA (target); why"


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.9, "above"), (0.56, "within interval"), (0.1, "below")])
def test_difference_to_published_is_judged_by_its_interval(experiments: Path, accuracy: float, verdict: str) -> None:
    for run in (experiments / "simple/one", experiments / "simple/two"):
        record = record_of(run)
        change(run, best=record.best | {"score": accuracy}, split=record.split | {"val": 100})
    row, detailed = result_rows(experiments / "simple")
    assert row["difference to published"].startswith(f"{verdict}: ")
    assert detailed["difference to published"] == row["difference to published"]


def test_an_experiment_may_leave_settings_open(experiments: Path) -> None:
    run = experiments / "compact"
    config = experiment("distill") | {"seed": 0, "data_dir": "data", "cache_dir": "data", "data": {}}
    for teachers in ("outputs/one", ["one", "other"]):
        change(run, config=config | {"distillation": config["distillation"] | {"teacher": teachers}})
        tables = results(compose("results", f"runs=[{run}]", "records=archive"))
        row = table_row(tables["scores"])
        assert (row["experiment"], row["published %"], row["difference to published"]) == ("distill", "-", "-")
        assert "distill" not in tables["results"]  # which has published experiments only
        shutil.rmtree("archive")
    change(run, config=config | {"distillation": {"teacher": "one", "temperature": 2.0, "weight": 0.5}})
    with pytest.raises(UserError, match=r"experiment=distill; .*\n  distillation.temperature: found 2.0, expected 4"):
        results(compose("results", f"runs=[{run}]"))


def test_settings_that_older_records_lack_have_their_defaults(experiments: Path) -> None:
    config, declared = record_of(experiments / "compact").config, experiment("compact_cnn")
    split = {key: value for key, value in config["split"].items() if not key.startswith("exclude")}
    older = {key: value for key, value in config.items() if key not in ("mixup", "distillation")} | {"split": split}
    now = config | {"split": split | NO_EXCLUSIONS}
    assert recipe(older) == recipe(config) == recipe(now)
    assert recipe_differences(older, declared) == []
    assert recipe_differences(config | {"mixup": {"_target_": "x"}}, declared) == ["mixup"]
    assert recipe_differences(now | {"split": now["split"] | {"exclude": "rows.csv"}}, declared) == ["split"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another recipe": ({"config": {"batch_size": 8}}, r"Settings that differ:\n  batch_size: found 8, expected 64$"),
    "fewer epochs": ({"config": {"trainer": {"max_epochs": 1}}}, r"\n  trainer.max_epochs: found 1, expected 30\n"),
    "no experiment": ({"config": {"name": "mine"}}, "mine is not an experiment; expected attention_cnn, baseline_cnn"),
    "absolute path": ({"config": {"data_dir": "/home/me"}}, r"absolute paths \(/home/me\); run it with data_dir=data"),
    "other data": ({"data": {"digest": "0"}}, "expected the published fer2013.csv"),
    "mixed data": ({"data": {"mix": {"source": "drawn"}}}, "drawn was mixed into its training data"),
    "uncommitted code": ({"commit": "a1+changes"}, "was not made from a commit"),
    "another run of the seed": ({"fit_seconds": -1.0}, "holds another run of that seed; remove it first"),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_only_unchanged_experiments_are_archived(experiments: Path, refused: str) -> None:
    run = experiments / "simple" / "one"
    fields, message = REFUSED[refused]
    if refused == "another run of the seed":
        results(compose("results", f"runs=[{run}]"))
    record = record_of(run)
    merged = {key: getattr(record, key) | value if isinstance(value, dict) else value for key, value in fields.items()}
    change(run, **merged)
    before = sorted(Path("outputs").rglob("*"))
    with pytest.raises(UserError, match=message):
        results(compose("results", f"runs=[{run}]"))
    assert sorted(Path("outputs").rglob("*")) == before


def test_two_runs_of_one_seed_are_not_archived_together(experiments: Path) -> None:
    again = Path(shutil.copytree(experiments / "simple/one", experiments / "again"))
    change(again, fit_seconds=1.0)
    with pytest.raises(UserError, match=r"are both experiment=simple_cnn seed=\d; give one of them"):
        results(compose("results", f"runs=[{experiments / 'simple/one'},{again}]", "records=archive"))
    assert not Path("archive").exists()


@pytest.mark.parametrize("text", ["no markers", "<!-- end of results -->\n<!-- results -->\n"])
def test_a_readme_without_markers_is_unchanged(text: str) -> None:
    Path("README.md").write_text(text)
    with pytest.raises(UserError, match=r"README.md has no place for a table"):
        results(compose("results"))
    assert Path("README.md").read_text() == text
