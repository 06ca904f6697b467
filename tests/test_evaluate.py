"""The evaluate verb, on networks that were trained for a moment."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig

from emotion.checkpoints import ensemble
from emotion.checkpoints.load import load_checkpoint, set_temperature
from emotion.checkpoints.locate import BEST_CHECKPOINT, LAST_CHECKPOINT
from emotion.config.compose import compose
from emotion.data.datamodule import EmotionDataModule
from emotion.data.transforms.corruptions import CORRUPTIONS
from emotion.errors import UserError
from emotion.evaluate import evaluate
from emotion.records import run_record
from emotion.train import train
from emotion.training.final_evaluation import calibrate
from tests.conftest import SMALL

Config = Callable[..., DictConfig]
RUN, OTHER, OUT = Path("run"), Path("other"), Path("out")


@pytest.fixture
def run(small_config: Config) -> Path:
    train(small_config("trainer.max_epochs=1"), RUN)
    return RUN


@pytest.fixture
def changeable(run: Path) -> Path:
    """A run whose record does not list its files' digests."""
    run_record.write_record(run, (run_record.read_record(run) or {}) | {"files": {}})
    return run


def evaluated(checkpoint: str, *overrides: str) -> dict[str, object]:
    return evaluate(compose("evaluate", f"checkpoint={checkpoint}", "accelerator=cpu", f"output={OUT}", *overrides))


def data_of(run: Path) -> EmotionDataModule:
    data = EmotionDataModule(**load_checkpoint(run).data)
    data.setup()
    return data


def test_training_stores_the_temperature_that_it_fitted_on_validation(run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    found = record["calibration"]
    assert load_checkpoint(run).classifier.temperature == found["temperature"]
    assert found["n"] == record["split"]["val"]
    assert found["validation"]["nll"][1] <= found["validation"]["nll"][0]
    assert load_checkpoint(run / LAST_CHECKPOINT).classifier.temperature == 1


def test_a_temperature_is_fitted_to_the_logits_whatever_the_checkpoint_holds(changeable: Path) -> None:
    began, whole = json.loads((changeable / "record.json").read_text()), (changeable / BEST_CHECKPOINT).read_bytes()
    set_temperature(changeable / BEST_CHECKPOINT, 7.0)
    data = data_of(changeable)
    device = load_checkpoint(changeable).classifier.device
    assert calibrate(changeable, data, device, began["machine"]["precision"]) == began["calibration"]
    assert (changeable / BEST_CHECKPOINT).read_bytes() == whole


def test_without_a_best_checkpoint_there_is_no_temperature(small_config: Config) -> None:
    train(small_config("trainer.max_epochs=1", "~callbacks.best_checkpoint"), RUN)
    record = json.loads((RUN / "record.json").read_text())
    assert record["calibration"] is None
    assert "uncalibrated" not in record["scores"]["test"]["none"]["all"]


def test_scores_tell_the_calibration_with_and_without_the_temperature(changeable: Path) -> None:
    set_temperature(changeable / BEST_CHECKPOINT, 1.0)
    plain = evaluated("run", "tta=flip")
    set_temperature(changeable / BEST_CHECKPOINT, 2.0)
    tempered = evaluated("run", "tta=flip")
    for rows in ("all", "clean"):
        before = {key: plain[rows][key] for key in ("ece", "nll", "brier")}  # type: ignore[index]
        assert tempered[rows]["uncalibrated"] == before  # type: ignore[index]
        assert "uncalibrated" not in plain[rows]  # type: ignore[operator]
    written = json.loads((OUT / "best_random_test_flip.json").read_text())
    assert (written["temperature"], written["checkpoint"]) == (2.0, "run/checkpoints/best.ckpt")


def test_pictures_of_confidence_and_of_the_worst_mistakes_are_drawn(run: Path) -> None:
    evaluated("run")
    for picture in ("confusion", "reliability", "mistakes"):
        assert (OUT / f"best_random_test_none_{picture}.png").stat().st_size > 10_000
        assert (run / f"test_{picture}.png").is_file()
    assert not list(OUT.glob("*robustness*"))


def test_several_checkpoints_are_judged_by_what_they_say_together(
    run: Path, small_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small_config("trainer.max_epochs=1", "seed=1", "split.seed=1"), OTHER)
    capsys.readouterr()
    found = evaluated("[run,other]", "subset=val")
    first, second = data_of(run), data_of(OTHER)
    seen = np.isin(first.split.val, second.split.train).sum()
    said = " ".join(capsys.readouterr().out.split())
    assert f"other/checkpoints/best.ckpt was trained on {seen} of these {len(first.split.val)} val rows" in said
    assert found["clean"]["n"] == len(first.split.val) - seen  # type: ignore[index]
    both = ensemble.load(["run", "other"])
    written = json.loads((OUT / "ensemble_random_val_none.json").read_text())
    assert written["checkpoint"] == ["run/checkpoints/best.ckpt", "other/checkpoints/best.ckpt"]
    assert written["temperature"] == both.temperatures


def test_several_checkpoints_leave_their_scores_outside_of_their_runs(run: Path) -> None:
    evaluate(compose("evaluate", "checkpoint=[run,run]", "accelerator=cpu"), Path("outputs/evaluate/now"))
    assert Path("outputs/evaluate/now/ensemble_random_test_none.json").is_file()
    assert not (run / "evaluation").exists()


def test_quarters_by_brightness_and_by_how_far_people_agree(run: Path, fer_votes: Path) -> None:
    found = evaluated("run", "data=fer2013_csv", "split=official", f"votes={fer_votes}")["slices"]
    assert sum(one["n"] for one in found["brightness"]) == 18  # type: ignore[index]
    assert all(one["from"] <= one["to"] for one in found["brightness"])  # type: ignore[index]
    assert found["agreement"][-1]["to"] == 1  # type: ignore[index]
    assert list(evaluated("run")["slices"]) == ["brightness"]  # type: ignore[call-overload]


def test_robustness_is_of_every_corruption_and_severity(run: Path) -> None:
    found = evaluated("run", "robustness=true")
    robust = found["robustness"]
    figures = [figure for severities in robust["accuracy"].values() for figure, _, _ in severities]  # type: ignore[index]
    assert (list(robust["accuracy"]), len(figures)) == (list(CORRUPTIONS), 35)  # type: ignore[index]
    assert robust["mean_corruption_accuracy"] == pytest.approx(np.mean(figures))  # type: ignore[index]
    assert robust["uncorrupted_accuracy"] == found["all"]["accuracy"]  # type: ignore[index]
    assert json.loads((OUT / "best_random_test_none.json").read_text())["robustness"] == robust
    assert (OUT / "best_random_test_none_robustness.png").is_file()


WRONG = {
    "robustness=5": "robustness=5: expected true or false",
    "votes=nothing.csv": "nothing.csv is not there",
    "checkpoint=[]": r"names none; expected checkpoint=RUN, or several of them",
    "checkpoint=[run,nothing]": "nothing is not there; give a run folder",
}


@pytest.mark.parametrize(("override", "message"), WRONG.items())
def test_what_cannot_be_is_refused(override: str, message: str, run: Path) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(compose("evaluate", "checkpoint=run", "accelerator=cpu", override))


def test_votes_on_other_faces_are_refused(run: Path, fer_votes: Path) -> None:
    with pytest.raises(UserError, match="does not fit: it has 63 rows and synthetic faces"):
        evaluated("run", f"votes={fer_votes}")


def test_the_scores_of_another_checkpoint_are_not_lost(run: Path, small_config: Config) -> None:
    evaluated(str(run))
    evaluated(str(run))
    before = {path: path.read_bytes() for path in OUT.iterdir()}
    train(small_config("trainer.max_epochs=1", "seed=1"), OTHER)
    with pytest.raises(
        UserError, match=r"out/best_random_test_none.json holds the scores of run/checkpoints/best.ckpt"
    ):
        evaluated(str(OTHER))
    assert {path: path.read_bytes() for path in OUT.iterdir()} == before


def test_the_source_is_found_in_data_dir_by_a_run_from_another_folder(
    fer_csv: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = ("data=fer2013_csv", "data_dir=data", "split=official", "batch_size=8", "trainer.max_epochs=1")
    train(compose("train", *SMALL, *asked), RUN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = str(tmp_path / RUN)
    asked = (f"checkpoint={run}", "accelerator=cpu", f"data_dir={fer_csv.parent}", f"cache_dir={tmp_path}/cache")
    assert evaluate(compose("evaluate", *asked))["all"]["n"] == 18
