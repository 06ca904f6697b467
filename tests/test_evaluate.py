"""The evaluate verb, on small networks."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from emotion.checkpoints.ensemble import load_ensemble
from emotion.checkpoints.load import load_checkpoint, set_temperature
from emotion.checkpoints.locate import BEST_CHECKPOINT, LAST_CHECKPOINT
from emotion.config.compose import compose
from emotion.data.datamodule import EmotionDataModule
from emotion.data.transforms.corruptions import CORRUPTIONS
from emotion.errors import UserError
from emotion.evaluate import evaluate
from emotion.metrics.calibration import fit_temperature
from emotion.reporting import figures
from emotion.reporting.text import format_interval
from emotion.train import train
from emotion.training.final_evaluation import calibrate
from tests.conftest import SMALL, record_of

RUN, OTHER, OUT = Path("run"), Path("other"), Path("out")


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    """A run whose record lists no digests, so that its files may be changed."""
    small_run(RUN, "trainer.max_epochs=1")
    dataclasses.replace(record_of(RUN), files={}).write(RUN)
    return RUN


@pytest.fixture
def other(small_run: Callable[..., Path]) -> Path:
    return small_run(OTHER, "trainer.max_epochs=1", "seed=1", "split.seed=1")


def evaluated(checkpoint: Path | str, *overrides: str) -> dict[str, Any]:
    return evaluate(compose("evaluate", f"checkpoint={checkpoint}", "accelerator=cpu", f"output={OUT}", *overrides))


def data_of(run: Path) -> EmotionDataModule:
    data = EmotionDataModule(**load_checkpoint(run).data)
    data.setup()
    return data


def test_an_evaluation_is_short_unless_all_tables_are_requested(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = evaluated(run)
    short = capsys.readouterr().out
    assert format_interval(scores["all"]["accuracy"]) in short
    assert f"scores and figures: {OUT}/best_" in short
    evaluated(run, "verbose=true")
    full = capsys.readouterr().out
    for table in ("by class, all rows", "most confident 50, 80 and 90 %", "quartiles by mean gray level"):
        assert (table in full) > (table in short)


def test_training_fits_and_stores_a_temperature(run: Path) -> None:
    record = record_of(run)
    calibration = record.calibration or {}
    assert load_checkpoint(run).classifier.temperature == calibration["temperature"]
    assert load_checkpoint(run / LAST_CHECKPOINT).classifier.temperature == 1
    assert calibration["n"] == record.split["val"]
    data = data_of(run)
    logits = load_checkpoint(run).classifier.logits(torch.from_numpy(data.faces.images[data.split.val]))["none"][0]
    labels = torch.from_numpy(data.labels[data.split.val])
    assert calibration["temperature"] == pytest.approx(fit_temperature(logits, labels), rel=0.02)
    assert calibration["validation"]["nll"][1] <= calibration["validation"]["nll"][0]
    stored = (run / BEST_CHECKPOINT).read_bytes()
    set_temperature(run / BEST_CHECKPOINT, 7.0)  # calibrating again ignores it
    device = load_checkpoint(run).classifier.device
    assert calibrate(run, data_of(run), device, record.machine["precision"]) == calibration
    assert (run / BEST_CHECKPOINT).read_bytes() == stored


def test_without_a_best_checkpoint_there_is_no_temperature(small_config: Callable[..., DictConfig]) -> None:
    train(small_config("trainer.max_epochs=1", "~callbacks.best_checkpoint"), RUN)
    assert record_of(RUN).calibration is None
    assert "uncalibrated" not in record_of(RUN).test_scores["none"]["all"]


def test_calibration_is_scored_with_and_without_temperature(run: Path) -> None:
    set_temperature(run / BEST_CHECKPOINT, 1.0)
    plain = evaluated(run, "tta=flip")
    set_temperature(run / BEST_CHECKPOINT, 2.0)
    tempered = evaluated(run, "tta=flip")
    for rows in ("all", "deduplicated"):
        assert tempered[rows]["uncalibrated"] == {key: plain[rows][key] for key in ("ece", "nll", "brier")}
        assert "uncalibrated" not in plain[rows]
    written = json.loads((OUT / "best_random_test_flip.json").read_text())
    assert (written["temperature"], written["checkpoint"]) == (2.0, "run/checkpoints/best.ckpt")


def test_figures_and_robustness_are_written(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    set_title = figures._set_title
    monkeypatch.setattr(figures, "_set_title", lambda figure, title: titles.append(title) or set_title(figure, title))
    evaluated(run.absolute())
    faces = "v4_attention seed=0: V4Attention, synthetic faces, 48 faces of test, tta=none"
    assert [title.splitlines()[0] for title in titles] == [faces] * 3
    assert all(path.read_bytes().startswith(b"%PDF") for path in OUT.glob("*.pdf"))
    assert [path.name for path in sorted(OUT.glob("*.pdf"))] == [
        "best_random_test_none_confusion.pdf", "best_random_test_none_reliability.pdf",
    ]  # fmt: skip
    for figure in ("confusion", "reliability", "mistakes"):
        assert (OUT / f"best_random_test_none_{figure}.png").stat().st_size > 10_000
        assert (run / f"test_{figure}.png").is_file()
    assert not list(OUT.glob("*robustness*"))
    scores = evaluated(run.absolute(), "robustness=true")
    robustness = scores["robustness"]
    values = [value for intervals in robustness["accuracy"].values() for value, _, _ in intervals]
    assert (list(robustness["accuracy"]), len(values)) == (list(CORRUPTIONS), 35)
    assert robustness["mean_corruption_accuracy"] == pytest.approx(np.mean(values))
    assert robustness["uncorrupted_accuracy"] == scores["all"]["accuracy"]
    evaluated(run.absolute())  # does not replace the scores with robustness
    assert json.loads((OUT / "best_random_test_none_robustness.json").read_text())["robustness"] == robustness
    assert "robustness" not in json.loads((OUT / "best_random_test_none.json").read_text())
    assert (OUT / "best_random_test_none_robustness.png").is_file()


def test_an_ensemble_is_evaluated(run: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    scores = evaluated(f"[{run},{other}]", "subset=val")
    rows = data_of(run).split.val
    shared = np.isin(rows, data_of(other).split.train).sum()
    printed = " ".join(capsys.readouterr().out.split())
    assert f"other/checkpoints/best.ckpt was trained on {shared} of the {len(rows)} val rows" in printed
    assert scores["deduplicated"]["n"] == len(rows) - shared
    written = json.loads((OUT / "ensemble_random_val_none.json").read_text())
    assert written["checkpoint"] == ["run/checkpoints/best.ckpt", "other/checkpoints/best.ckpt"]
    assert written["temperature"] == load_ensemble([str(run), str(other)]).temperatures
    evaluate(compose("evaluate", "checkpoint=[run,run]", "accelerator=cpu"), Path("outputs/evaluate/now"))
    assert Path("outputs/evaluate/now/ensemble_random_test_none.json").is_file()
    assert not (run / "evaluation").exists()


def test_quartiles_by_brightness_and_annotator_agreement(run: Path, fer_votes: Path) -> None:
    slices = evaluated(run, "data=fer2013_csv", "split=official", f"votes={fer_votes}")["slices"]
    evaluated(run, "data=fer2013_csv", "split=official")
    (written,) = OUT.glob("best_*_votes.json")
    assert json.loads(written.read_text())["slices"] == slices
    assert sum(quartile["n"] for quartile in slices["brightness"]) == 18
    assert all(quartile["from"] <= quartile["to"] for quartile in slices["brightness"])
    assert slices["agreement"][-1]["to"] == 1
    with pytest.raises(UserError, match="does not match: it has 63 rows"):  # votes on other faces
        evaluated(run, f"votes={fer_votes}")
    assert list(evaluated(run)["slices"]) == ["brightness"]


@pytest.mark.parametrize(
    ("override", "message"),
    {
        "robustness=5": "robustness=5: expected true or false",
        "subset=dev": "subset=dev: expected auto, train, val, test, all",
        "tta=sideways": "tta=sideways: expected none, flip, shifted, ten_crop",
        "votes=nothing.csv": "nothing.csv does not exist",
        "checkpoint=[]": "expected checkpoint=RUN",
        "checkpoint=[run,nothing]": "nothing does not exist; expected a run folder",
    }.items(),
)
def test_invalid_settings_are_refused(override: str, message: str, run: Path) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(compose("evaluate", "checkpoint=run", "accelerator=cpu", override))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_reported() -> None:
    with pytest.raises(UserError, match="accelerator=gpu: no GPU was found; expected auto or cpu"):
        evaluate(compose("evaluate", "checkpoint=fast_cnn", "accelerator=gpu"))


def test_scores_of_another_checkpoint_are_not_overwritten(run: Path, other: Path) -> None:
    evaluated(run)
    evaluated(run)
    before = {path: path.read_bytes() for path in OUT.iterdir()}
    message = r"out/best_random_test_none.json contains the scores of run/checkpoints/best.ckpt"
    with pytest.raises(UserError, match=message):
        evaluated(other)
    assert {path: path.read_bytes() for path in OUT.iterdir()} == before
    (OUT / "best_random_test_none.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        evaluated(run)


def test_data_of_a_run_in_another_folder_is_found_in_data_dir(
    fer_csv: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    overrides = ("data=fer2013_csv", "data_dir=data", "split=official", "batch_size=8", "trainer.max_epochs=1")
    train(compose("train", *SMALL, *overrides), RUN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    scores = evaluated(tmp_path / RUN, f"data_dir={fer_csv.parent}", f"cache_dir={tmp_path}/cache")
    assert scores["all"]["n"] == 18
