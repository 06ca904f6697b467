"""The data of a checkpoint, where it was, where it moved, or the other data that the command line names."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from emotion.checkpoints.load import LoadedCheckpoint, load_checkpoint
from emotion.checkpoints.training_data import load_data
from emotion.config.compose import compose
from emotion.data.faces import EMOTIONS, PRIVATE_TEST, FaceChunk
from emotion.data.labels import NO_CLASS
from emotion.errors import UserError
from emotion.evaluate import evaluate
from emotion.explain import explain
from emotion.export import export
from emotion.records.run_folder import read_run
from emotion.train import train
from tests.conftest import SMALL, csv_lines, made_votes, record_of, signal_at, write_votes

RUN, BASE, OTHER = Path("run"), Path("base"), Path("other")


@pytest.fixture
def folders(few_faces: FaceChunk) -> None:
    """The same rows in base and, in another order, in other."""
    header, *rows = csv_lines(few_faces)
    for folder, order in ((BASE, rows), (OTHER, rows[::-1])):
        folder.mkdir()
        (folder / "fer2013.csv").write_text("\n".join([header, *order]) + "\n")
        write_votes(folder / "ferplus_votes.csv", made_votes(few_faces), few_faces.usage)


def config(*overrides: str) -> DictConfig:
    fixed = ("data_dir=base", "split=official", "batch_size=8", "trainer.max_epochs=1", "logger=csv", "tta=none")
    return compose("train", *SMALL, *fixed, *overrides)


@pytest.fixture
def run(folders: None) -> Path:
    train(config(), RUN)
    return RUN


def used(loaded: LoadedCheckpoint, *overrides: str) -> str:
    return load_data(loaded, compose("evaluate", *overrides)).faces.source


def test_the_folder_that_is_named_is_used_or_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_checkpoint(run)
    assert used(loaded) == "base/fer2013.csv"
    assert used(loaded, "data_dir=other") == "other/fer2013.csv"
    assert used(loaded, "data=auto", "data_dir=other") == "other/fer2013.csv"
    refused = "nowhere/fer2013.csv does not exist.*\ndata_dir=nowhere replaces the data of run/.*, base/fer2013.csv"
    for verb in (evaluate, explain, export):
        with pytest.raises(UserError, match=refused):
            verb(compose(verb.__name__, "checkpoint=run", "data_dir=nowhere"), Path("out"))
    monkeypatch.setenv("EMOTION_DATA", "other")
    assert used(loaded) == "other/fer2013.csv"
    assert used(loaded, "data_dir=base") == "base/fer2013.csv"


def test_data_that_moved_is_found_and_named_by_its_new_place(run: Path) -> None:
    loaded = load_checkpoint(run)
    BASE.rename("moved")
    assert used(loaded, "data_dir=moved") == "moved/fer2013.csv"
    assert used(loaded, "data=fer2013_csv", "data_dir=moved") == "moved/fer2013.csv"  # prepared under its former name
    Path("moved").rename("data")  # the default
    assert used(loaded) == "data/fer2013.csv"


def test_every_location_of_a_source_moves(run: Path) -> None:
    loaded = load_checkpoint(run)
    csv = {"_target_": "emotion.data.readers.fer2013.read_csv", "path": "base/fer2013.csv"}
    ferplus = {"_target_": "emotion.data.readers.ferplus.read", "source": csv, "votes": "base/ferplus_votes.csv"}
    shutil.copytree(BASE, "copy")
    moved = loaded._replace(data=loaded.data | {"source": ferplus | {"agreement": 0}})
    data = load_data(moved, compose("evaluate", "data_dir=copy"))
    assert data.faces.components[0].source == "copy/fer2013.csv"
    assert data.hparams["source"]["votes"] == "copy/ferplus_votes.csv"


def test_generated_faces_are_in_no_folder(small_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_checkpoint(small_run(RUN, "trainer.max_epochs=1"))
    with pytest.raises(UserError, match=r"generated faces .*data_dir=other has no effect.*data=auto data_dir=other"):
        used(loaded, "data_dir=other")
    monkeypatch.setenv("EMOTION_DATA", "other")
    assert used(loaded) == "synthetic faces"


@pytest.mark.parametrize("split", ["split=kfold", "split=swapped_test", "split.exclude=rows.csv"])
def test_other_data_keeps_its_own_test_part(split: str, folders: None) -> None:
    Path("rows.csv").write_text("row,issue\n62,leak\n")
    fixed = ("data_dir=base", "batch_size=8", "trainer.max_epochs=1", "logger=csv", "tta=none")
    train(compose("train", *SMALL, *fixed, split), RUN)
    loaded = load_checkpoint(RUN)
    few = [line for line in (OTHER / "fer2013.csv").read_text().splitlines() if "PublicTest" not in line]
    (OTHER / "fer2013.csv").write_text("\n".join(few))
    data = load_data(loaded, compose("evaluate", "data=fer2013_csv", "data_dir=other"))
    expected = (data.faces.usage == PRIVATE_TEST) & (data.labels != NO_CLASS)
    assert data.split.test.tolist() == np.flatnonzero(expected).tolist()


def test_a_folder_whose_name_has_a_dot_may_move() -> None:
    for number in range(42):
        path = Path("faces.v2", ("train", "val", "test")[number % 3], EMOTIONS[number // 6], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (48, 48), 6 * number).save(path)
    fixed = ("data=image_folder", "data_dir=faces.v2", "split=official", "batch_size=8", "trainer.max_epochs=1")
    train(compose("train", *SMALL, *fixed, "logger=csv", "tta=none"), RUN)
    Path("faces.v2").rename("moved")
    assert used(load_checkpoint(RUN), "data_dir=moved") == "moved"


def test_a_run_with_a_second_source_keeps_its_folds_on_the_first(folders: None) -> None:
    fixed = ("data_dir=base", "data=fer2013_csv", "batch_size=8", "trainer.max_epochs=1", "logger=csv", "tta=none")
    train(compose("train", *SMALL, *fixed, "data/mix=synthetic", "split=kfold"), RUN)
    loaded = load_checkpoint(RUN)
    own = load_data(loaded, compose("evaluate"))
    first = load_data(loaded, compose("evaluate", "data=fer2013_csv", "data_dir=base"))
    np.testing.assert_array_equal(first.split.test, own.split.test)


def test_scores_are_replaced_however_the_checkpoint_is_named(run: Path) -> None:
    for name in (run, run.absolute(), Path("run/checkpoints/best.ckpt")):
        evaluate(compose("evaluate", f"checkpoint={name}"))
        evaluate(compose("evaluate", f"checkpoint={name}", "output=out"))
    evaluate(compose("evaluate", f"checkpoint={run.rename('moved')}"))


def test_scores_on_other_data_have_their_own_files(run: Path) -> None:
    settings = ("checkpoint=run", "accelerator=cpu")
    for overrides in ((), ("data_dir=other",), ("data=auto", "data_dir=other"), ("split=swapped_test",)):
        evaluate(compose("evaluate", *settings, *overrides))
    written = {path.name: json.loads(path.read_text()) for path in sorted((run / "evaluation").glob("*.json"))}
    assert len(written) == 3
    assert written["best_official_test_none.json"]["source"] == "base/fer2013.csv"
    assert sorted(scores["source"] for scores in written.values()) == ["base/fer2013.csv"] * 2 + ["other/fer2013.csv"]


def test_a_run_is_resumed_where_its_data_moved(folders: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, "training_step", 4)
        with pytest.raises(BaseException, match="SIGINT"):
            train(config("trainer.max_epochs=2"), RUN)
    BASE.rename("moved")
    stored = (RUN / ".hydra/config.yaml").read_text()
    with pytest.raises(UserError, match=r"other/fer2013.csv is not the data .*data_dir=FOLDER"):
        train(config("trainer.max_epochs=2", "resume=run", "data_dir=other"), RUN)
    assert (RUN / ".hydra/config.yaml").read_text() == stored
    train(config("trainer.max_epochs=2", "resume=run", "data_dir=moved"), RUN)
    assert read_run(RUN).state == "finished"
    again = ("trainer.max_epochs=2", "resume=auto")
    train(config(*again, "data_dir=moved"), RUN)
    shutil.copytree("moved", BASE)
    train(config(*again), RUN)  # the same data in another place
    with pytest.raises(UserError, match=r"other/fer2013.csv is not moved/fer2013.csv, the data that the run"):
        train(config(*again, "data_dir=other"), RUN)
    assert record_of(RUN).data["source"] == "moved/fer2013.csv"
