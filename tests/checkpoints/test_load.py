import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import nn

from emotion.checkpoints.ensemble import load_ensemble
from emotion.checkpoints.load import load_checkpoint, read_checkpoint
from emotion.checkpoints.locate import BEST_CHECKPOINT, LAST_CHECKPOINT, locate, locate_all
from emotion.checkpoints.training_data import choose_subset, load_data
from emotion.classifier import EmotionClassifier
from emotion.config.compose import compose
from emotion.data.faces import TEST, TRAINING
from emotion.errors import UserError
from emotion.evaluate import evaluate
from emotion.train import train

Config = Callable[..., DictConfig]
RUN = Path("run")


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    return small_run(RUN, "trainer.max_epochs=1")


def test_lightning_loads_the_same_weights(run: Path) -> None:
    expected = EmotionClassifier.load_from_checkpoint(run / BEST_CHECKPOINT, weights_only=True)
    classifier = load_checkpoint(run).classifier
    for name, value in classifier.state_dict().items():
        assert value.equal(expected.state_dict()[name])


def test_checkpoint_holds_classes_input_and_data(run: Path) -> None:
    loaded = load_checkpoint(run / BEST_CHECKPOINT)
    assert loaded.classifier.classes == ("happiness", "surprise", "sadness", "anger", "disgust", "fear")
    assert loaded.classifier.preprocess.size == 48
    assert loaded.data["split"]["_target_"] == "emotion.data.splits.random"


def test_probabilities_of_raw_pixels_sum_to_one(run: Path) -> None:
    pixels = torch.randint(0, 256, (5, 48, 48), dtype=torch.uint8)
    probabilities = load_checkpoint(run).classifier.probabilities(pixels, "flip")
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5))


@pytest.mark.parametrize(
    "content", [b"", b"no checkpoint at all", b"PK\x03\x04 cut"], ids=["empty", "text", "truncated"]
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"x.ckpt cannot be read as a checkpoint .*expected a run folder"):
        load_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize("name", ["a b.jpg", "x.PNG", "clip.mp4", "x.webp", "x.bmp"])
def test_a_picture_given_as_a_checkpoint_is_answered_with_its_setting(name: str) -> None:
    Path(name).touch()
    answer = f"{name} is an image or a video.* emotion.predict '?{name}.* emotion.explain '?images={name}"
    with pytest.raises(UserError, match=answer):
        locate(name)


def test_an_onnx_file_is_no_checkpoint() -> None:
    Path("x.onnx").touch()
    with pytest.raises(UserError, match=r"x\.onnx is an ONNX file, which only predict, demo and emotion\.load take"):
        locate("x.onnx")


def test_a_folder_of_runs_is_answered_with_the_runs_in_it(tmp_path: Path) -> None:
    for number in range(6):
        path = tmp_path / "outputs/tiny" / str(number) / (LAST_CHECKPOINT if number else BEST_CHECKPOINT)
        path.parent.mkdir(parents=True)
        path.touch()
    for folder in (tmp_path / "outputs/tiny", tmp_path / "outputs"):
        with pytest.raises(UserError, match=r"Runs in it:(\n  .*outputs/tiny/[0-4]){5}\n  and 1 more$"):
            locate(folder)
    Path("linked").mkdir()
    Path("linked/tiny").symlink_to(tmp_path / "outputs/tiny/1")
    with pytest.raises(UserError, match=r"Runs in it:\n  linked/tiny$"):
        locate("linked")
    Path("empty").mkdir()
    with pytest.raises(UserError, match=r"saved a checkpoint\.$"):
        locate("empty")


def test_the_folder_of_checkpoints_stands_for_its_run(tmp_path: Path) -> None:
    for name in (LAST_CHECKPOINT, BEST_CHECKPOINT):
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert locate(path.parent) == path


def test_a_pattern_stands_for_several_checkpoints() -> None:
    for folder in ("sweep/seed=0", "sweep/seed=1"):
        Path(folder, "checkpoints").mkdir(parents=True)
        Path(folder, BEST_CHECKPOINT).touch()
    Path("sweep/sweep.json").touch()
    assert locate_all("sweep/*") == ["sweep/seed=0", "sweep/seed=1"]
    assert locate_all(["sweep/seed=1", "sweep/*/checkpoints/b*"])[1] == "sweep/seed=0/checkpoints/best.ckpt"
    with pytest.raises(UserError, match=r"other\* does not exist"):
        locate_all("other*")


def test_a_malicious_pickle_does_not_run(tmp_path: Path) -> None:
    class Canary:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "canary",))  # type: ignore[return-value]

    torch.save({"state_dict": Canary()}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("content", [{"weights": 1}, {"state_dict": {}, "hyper_parameters": {"lr": 1}}, [1, 2]])
def test_a_checkpoint_of_another_program_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of this package"):
        load_checkpoint(tmp_path / "x.ckpt")


def test_the_message_for_a_missing_checkpoint_names_the_alternatives(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; expected a run folder"):
        load_checkpoint(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"has no checkpoints/best.ckpt"):
        load_checkpoint(tmp_path)


def test_evaluate_reproduces_the_scores_of_the_record(run: Path) -> None:
    import json

    record = json.loads((run / "record.json").read_text())
    result = evaluate(compose("evaluate", f"checkpoint={run}", "tta=flip", "accelerator=cpu"))
    assert result["all"] == record["scores"]["test"]["flip"]["all"]
    assert result["deduplicated"] == record["scores"]["test"]["flip"]["deduplicated"]
    assert (run / "evaluation" / "best_random_test_flip.json").is_file()
    assert (run / "evaluation" / "best_random_test_flip_confusion.png").is_file()


def test_evaluation_on_training_rows_has_no_deduplicated_rows(run: Path) -> None:
    result = evaluate(compose("evaluate", f"checkpoint={run}", "subset=train", "accelerator=cpu"))
    assert (result["all"]["n"], result["deduplicated"]["n"]) == (77, 0)


def test_evaluate_on_another_split_and_source(run: Path, fer_csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ("data=fer2013_csv", "split=official", "subset=val", "tta=ten_crop", "accelerator=cpu")
    result = evaluate(compose("evaluate", f"checkpoint={run}", *overrides))
    assert result["all"]["n"] == 18  # three faces of six classes in PublicTest
    assert "was trained on other data than" in capsys.readouterr().out


def test_a_label_scheme_of_the_same_classes_may_have_another_order(run: Path) -> None:
    """And merge other classes of the data than the checkpoint's own scheme."""
    loaded, cfg = load_checkpoint(run), compose("evaluate", f"checkpoint={run}", "labels=six")
    own = load_data(loaded, cfg)
    cfg.labels = dict(reversed(cfg.labels.items()))
    other = load_data(loaded, cfg)
    assert other.classes == own.classes == loaded.classifier.classes
    np.testing.assert_array_equal(other.labels, own.labels)
    cfg.labels = {**cfg.labels, "fear": [], "anger": ["angry", "fear"]}
    anger, fear = own.classes.index("anger"), own.classes.index("fear")
    np.testing.assert_array_equal(load_data(loaded, cfg).labels, np.where(own.labels == fear, anger, own.labels))


def test_data_with_other_classes_is_refused(run: Path, small_config: Config) -> None:
    with pytest.raises(
        UserError, match=r"was trained on the classes happiness, .*, but the data has happy, neutral, sad, surprise"
    ):
        evaluate(compose("evaluate", f"checkpoint={run}", "labels=four"))
    with pytest.raises(
        UserError, match=r"last.ckpt was trained on the classes happiness, .*, but the data has angry, "
    ):
        train(small_config("labels=seven", "trainer.max_epochs=2", f"resume={run}"), run)


def test_a_run_does_not_resume_with_other_data(run: Path, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"is not the data that the run started with: different source and split"):
        train(small_config("data.training=20", "trainer.max_epochs=2", f"resume={run}"), run)


def test_all_faces_of_a_folder_without_parts_are_evaluated(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shade in (("Anger", 50), ("joy", 120), ("Sad_Faces", 200)):
        Path("faces", name).mkdir(parents=True)
        Image.new("L", (60, 60), shade).save(f"faces/{name}/a.png")
    overrides = (f"checkpoint={run}", "data=image_folder", "data_dir=faces", "accelerator=cpu", "output=out")
    assert evaluate(compose("evaluate", *overrides))["all"]["n"] == 3
    out = " ".join(capsys.readouterr().out.split())
    assert "faces: no test part, so all faces are used: subset=all" in out
    assert "V4Attention, faces, all 3 faces" in out
    assert "No face has the label surprise or disgust or fear. Predicting it is an error" in out
    assert "labels=six '~labels.surprise' '~labels.disgust' '~labels.fear'" in out
    assert len(list(Path("out").glob("best_random_all_none_*.json"))) == 1
    with pytest.raises(UserError, match=r"faces: no test rows; .* subset=all"):
        evaluate(compose("evaluate", *overrides, "subset=test"))


def test_a_network_may_be_evaluated_on_some_of_its_classes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (f"checkpoint={run}", "accelerator=cpu", "output=out")
    every = evaluate(compose("evaluate", *arguments))
    capsys.readouterr()
    some = evaluate(compose("evaluate", *arguments, "labels=seven", "~labels.neutral", "~labels.fear", "~labels.happy"))
    out = capsys.readouterr().out
    assert "only classes of the data are predicted: angry, disgust, sad, surprise; not happiness, fear\n" in out
    kept = ["angry", "disgust", "sad", "surprise"]
    own = ["anger", "disgust", "sadness", "surprise"]
    assert list(some["all"]["classes"]) == kept
    assert [one["n"] for one in some["all"]["classes"].values()] == [every["all"]["classes"][name]["n"] for name in own]
    assert some["all"]["accuracy"][0] >= sum(every["all"]["classes"][name]["recall"][0] for name in own) / 4
    assert len(list(Path("out").glob("*.json"))) == 2
    with pytest.raises(UserError, match="was trained on the classes"):  # the network's disgust would be ignored
        evaluate(compose("evaluate", *arguments, "labels=six", "labels.anger=[angry,disgust]", "~labels.disgust"))
    with pytest.raises(UserError, match="was trained on the classes"):
        evaluate(compose("evaluate", *arguments, "labels=source", "+labels.sad=[sad]"))


def test_images_cropped_by_a_detector_are_evaluated_beside_whole_ones(run: Path) -> None:
    for name in ("anger", "joy"):
        Path("faces", name).mkdir(parents=True)
        Image.new("L", (60, 60), 90).save(f"faces/{name}/a.png")
    arguments = (f"checkpoint={run}", "data=image_folder", "data_dir=faces", "accelerator=cpu", "output=out")
    for detector in ((), ("detector@data.detector=haar",)):
        evaluate(compose("evaluate", *arguments, *detector))
    assert len(list(Path("out").glob("*.json"))) == 2


def test_the_probabilities_of_some_classes_are_those_of_all_divided_by_their_sum(run: Path) -> None:
    faces = torch.randint(256, (5, 48, 48), dtype=torch.uint8)
    whole, some = load_ensemble(run).eval(), load_ensemble(run).eval()
    assert some.restrict(["sad", "happy"]) == [name for name in whole.classes if name not in ("sadness", "happiness")]
    expected = whole.probabilities(faces)[:, [whole.classes.index("sadness"), whole.classes.index("happiness")]]
    torch.testing.assert_close(some.probabilities(faces), expected / expected.sum(1, keepdim=True))


def test_all_rows_of_a_split_are_evaluated_only_if_requested(run: Path) -> None:
    loaded, cfg = load_checkpoint(run), compose("evaluate", f"checkpoint={run}")
    data = load_data(loaded, cfg)
    assert choose_subset("auto", data, [loaded]) == "test"
    assert set(data.rows("all")) == {row for part in data.split for row in part}
    data.faces.usage[:] = TRAINING
    assert choose_subset("auto", data, [loaded]) == "test"  # which a checkpoint of this data must not leave


@pytest.mark.parametrize(
    ("split", "usage", "subset"),
    [
        ("kfold", TRAINING, "all"),
        ("official", TRAINING, "all"),
        ("swapped_test", TEST, "test"),
        ("kfold", TEST, "test"),
    ],
)
def test_other_data_without_parts_is_used_whole_whatever_the_split(
    split: str, usage: int, subset: str, run: Path, fer_csv: Path
) -> None:
    loaded, cfg = load_checkpoint(run), compose("evaluate", "data=fer2013_csv", f"split={split}")
    data = load_data(loaded, cfg)
    data.faces.usage[:] = usage
    assert choose_subset("auto", data, [loaded]) == subset
    assert len(data.rows("all")) == np.count_nonzero(data.labels >= 0)


def flip_a_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_in_a_tensor_is_detected(run: Path) -> None:
    (run / "record.json").unlink()  # lists the checkpoint's digest
    path = run / BEST_CHECKPOINT
    with zipfile.ZipFile(path) as archive:
        tensors = [entry for entry in archive.infolist() if "/data/" in entry.filename]
        entry = max(tensors, key=lambda entry: entry.file_size)
        position = path.read_bytes().index(archive.read(entry), entry.header_offset)
    flip_a_bit(path, position + entry.file_size // 2)
    torch.load(path, weights_only=True)  # does not compare checksums
    with pytest.raises(UserError, match=r"the checksum of .* does not match"):
        load_checkpoint(path)


def test_a_file_that_differs_from_its_record_is_refused(run: Path) -> None:
    with (run / BEST_CHECKPOINT).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"best.ckpt does not match the SHA-256 in run/record.json"):
        load_checkpoint(run)


def test_denormal_weights_are_zero(run: Path) -> None:
    """Processors compute with them up to a hundred times as slowly."""
    path = run / BEST_CHECKPOINT
    content = torch.load(path, weights_only=True)
    name = next(name for name, value in content["state_dict"].items() if value.ndim == 2)
    content["state_dict"][name].view(-1)[:3] = torch.tensor([1e-40, -1e-40, 1e-37])
    torch.save(content, "changed.ckpt")
    weights = load_checkpoint("changed.ckpt").classifier.state_dict()[name].view(-1)
    assert weights[:3].tolist() == [0, 0, pytest.approx(1e-37, rel=1e-3, abs=0)]
    assert weights[3:].equal(content["state_dict"][name].view(-1)[3:])


def test_the_loss_of_a_checkpoint_is_never_built(run: Path, tmp_path: Path) -> None:
    entries = read_checkpoint(run / BEST_CHECKPOINT).entries()
    entries["hyper_parameters"]["loss"] = {"_target_": "os.mkdir", "path": "canary"}
    torch.save(entries, tmp_path / "x.ckpt")
    assert isinstance(load_checkpoint(tmp_path / "x.ckpt").classifier.criterion, nn.CrossEntropyLoss)
    assert not Path("canary").exists()


def test_a_checkpoint_of_the_former_layout_loads(run: Path, tmp_path: Path) -> None:
    """It has former target names, and its zip archive ends in a comment of 71 bytes."""
    entries = read_checkpoint(run / BEST_CHECKPOINT).entries()
    entries["hyper_parameters"]["loss"]["_target_"] = "emotion.losses.cross_entropy"
    entries["datamodule_hyper_parameters"]["source"]["_target_"] = "emotion.data.synthetic.read"
    with (tmp_path / "x.ckpt").open("wb") as file:
        torch.save(entries, file)
    with zipfile.ZipFile(tmp_path / "x.ckpt", "a") as archive:
        archive.comment = b"sha256:" + b"0" * 64
    loaded = load_checkpoint(tmp_path / "x.ckpt")
    assert read_checkpoint(loaded.path).hyper_parameters["loss"]["_target_"] == "emotion.optim.losses.cross_entropy"
    assert loaded.data["source"]["_target_"] == "emotion.data.readers.synthetic.read"
