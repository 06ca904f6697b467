from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from emotion.checkpoints.load import load_checkpoint
from emotion.checkpoints.locate import BEST_CHECKPOINT
from emotion.classifier import EmotionClassifier
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.evaluate import evaluate
from emotion.train import train

Config = Callable[..., DictConfig]
RUN = Path("run")


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    return small_run(RUN, "trainer.max_epochs=1")


def test_lightnings_own_loading_works(run: Path) -> None:
    theirs = EmotionClassifier.load_from_checkpoint(run / BEST_CHECKPOINT, weights_only=True)
    mine = load_checkpoint(run).classifier
    for name, value in mine.state_dict().items():
        assert value.equal(theirs.state_dict()[name])


def test_checkpoint_holds_classes_input_and_data(run: Path) -> None:
    loaded = load_checkpoint(run / BEST_CHECKPOINT)
    assert loaded.classifier.classes == ("happiness", "surprise", "sadness", "anger", "disgust", "fear")
    assert loaded.classifier.preprocess.size == 48
    assert loaded.data["split"]["_target_"] == "emotion.data.splits.random"


def test_probabilities_of_raw_pixels_sum_to_one(run: Path) -> None:
    pixels = torch.randint(0, 256, (5, 48, 48), dtype=torch.uint8)
    found = load_checkpoint(run).classifier.probabilities(pixels, "flip")
    torch.testing.assert_close(found.sum(1), torch.ones(5))


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04 cut"], ids=["empty", "text", "cut"])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"x.ckpt cannot be read as a checkpoint .*expected a .ckpt file"):
        load_checkpoint(tmp_path / "x.ckpt")


def test_a_checkpoint_cut_short_is_refused(run: Path) -> None:
    path = run / BEST_CHECKPOINT
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        load_checkpoint(run)


def test_a_pickle_that_would_run_is_not_run(tmp_path: Path) -> None:
    class Canary:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "canary",))  # type: ignore[return-value]

    torch.save({"state_dict": Canary()}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("content", [{"weights": 1}, {"state_dict": {}, "hyper_parameters": {"lr": 1}}, [1, 2]])
def test_another_programs_checkpoint_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"expected a .ckpt file|not a checkpoint of this package"):
        load_checkpoint(tmp_path / "x.ckpt")


def test_a_missing_checkpoint_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there; give a run folder"):
        load_checkpoint(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"holds no checkpoints/best.ckpt"):
        load_checkpoint(tmp_path)


def test_evaluate_finds_what_training_recorded(run: Path) -> None:
    import json

    record = json.loads((run / "record.json").read_text())
    found = evaluate(compose("evaluate", f"checkpoint={run}", "tta=flip", "accelerator=cpu"))
    assert found["all"] == record["scores"]["test"]["flip"]["all"]
    assert found["deduplicated"] == record["scores"]["test"]["flip"]["deduplicated"]
    assert (run / "evaluation" / "best_random_test_flip.json").is_file()
    assert (run / "evaluation" / "best_random_test_flip_confusion.png").is_file()


def test_evaluate_on_training_rows_has_no_clean_ones(run: Path) -> None:
    found = evaluate(compose("evaluate", f"checkpoint={run}", "subset=train", "accelerator=cpu"))
    assert (found["all"]["n"], found["deduplicated"]["n"]) == (77, 0)


def test_evaluate_on_another_split_and_source(run: Path, fer_csv: Path) -> None:
    overrides = ("data=fer2013_csv", "split=official", "subset=val", "tta=ten_crop", "accelerator=cpu")
    found = evaluate(compose("evaluate", f"checkpoint={run}", *overrides))
    assert found["all"]["n"] == 18  # three faces of six classes in PublicTest


REFUSED = {"subset=dev": "expected train, val, test", "tta=many": "expected none, flip, ten_crop"}


@pytest.mark.parametrize(("override", "message"), REFUSED.items())
def test_evaluate_refuses_what_it_does_not_know(override: str, message: str, run: Path) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(compose("evaluate", f"checkpoint={run}", override))


def test_data_of_other_classes_is_refused(run: Path, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"tells apart happiness, .*; the data has happy, neutral, sad, surprise"):
        evaluate(compose("evaluate", f"checkpoint={run}", "labels=four"))
    with pytest.raises(UserError, match=r"last.ckpt tells apart happiness, .*; the data has angry, "):
        train(small_config("labels=seven", "trainer.max_epochs=2", f"resume={run}"), run)


def test_a_run_does_not_go_on_with_other_faces(run: Path, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"is not what the run began with: another source and another split"):
        train(small_config("data.training=20", "trainer.max_epochs=2", f"resume={run}"), run)


def test_evaluate_says_when_it_cannot_know_the_training_rows(
    run: Path, fer_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(compose("evaluate", f"checkpoint={run}", "data=fer2013_csv", "split=official"))
    assert "which of its rows it knows is unknown" in capsys.readouterr().out
