import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from emotion import load
from emotion.checkpoints.ensemble import load_ensemble
from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.explain import explain
from emotion.explainers.image_set import sample_balanced
from emotion.inference.detectors import load_detector
from emotion.inference.photographs import load_photographs
from emotion.train import train
from tests.images import scene

Config = Callable[..., DictConfig]
RUN, OUT = Path("run"), Path("out")
REGIONS = ("brows", "eyes", "nose", "mouth", "elsewhere")


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    return small_run(RUN, "trainer.max_epochs=1")


def run_explain(*overrides: str, checkpoint: str = "run", measured: bool = False) -> dict[str, Any]:
    small = ("accelerator=cpu", "precision=32-true", "faces=7")
    faithfulness = ("faithfulness.faces=3", "faithfulness.sensitivity=2") if measured else ("faithfulness=null",)
    return explain(compose("explain", f"checkpoint={checkpoint}", *small, *faithfulness, *overrides), OUT)


def test_writes_maps_figures_and_measures_of_every_explainer(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run_explain("explainer=[gradcam,gradcam++,attention,occlusion]", "num_shown=3", measured=True)
    assert record == json.loads((OUT / "explain.json").read_text())
    assert "3 measured faces: too few for a table of faithfulness (20)" in (printed := capsys.readouterr().out)
    assert "gain over center" not in printed
    assert [one["method"] for one in record["explanations"]] == ["gradcam", "gradcam++", "attention", "occlusion"]
    for explanation in record["explanations"]:
        assert [explanation["n"][name] for name in ("deletion", "insertion", "road")] == [3, 3, 3]
        assert explanation["n"]["sensitivity"] <= 2
        assert explanation["blank"] or set(explanation["n"].values()) == {2, 3}
        assert sum(explanation["measures"][name][0] for name in REGIONS) == pytest.approx(1, abs=1e-4)
        assert set(explanation["baselines"]) == {"chance", "center"}
        assert set(explanation["gain_over_center"]) == {"deletion", "insertion", "road"}
    with np.load(OUT / "maps.npz") as maps:
        assert maps["V4Attention/occlusion"].shape == (7, 48, 48)
        assert maps["targets"].shape == (4, 7)
    for name in ("sheet.png", "averages.png", "faithfulness.png"):
        with Image.open(OUT / name) as figure:
            assert figure.width > 300


def test_explains_the_given_rows_target_and_layer(run: Path) -> None:
    with np.load(run / "rows.npz") as parts:
        rows = parts["test"][:2].tolist()
    record = run_explain("layer=features.0.0.body.0", "target=fear", f"rows={rows}")
    assert record["faces"]["rows"] == rows
    assert (OUT / "sheet.png").is_file()
    with np.load(OUT / "maps.npz") as maps:
        assert maps["targets"].tolist() == [[5, 5]]


def test_reports_training_faces_and_removes_the_figure_of_a_previous_run(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    OUT.mkdir()
    (OUT / "faithfulness.png").touch()
    run_explain("subset=train")
    assert "was trained on 7 of the 7 faces" in capsys.readouterr().out
    assert not (OUT / "faithfulness.png").exists()


def test_compares_two_networks_and_explains_an_ensemble(run: Path, small_run: Callable[..., Path]) -> None:
    small_run(Path("two"), "trainer.max_epochs=1", "seed=1", "model=v2_se")
    both = run_explain("compare_with=two")
    assert [one["network"] for one in both["explanations"]] == ["V4Attention", "V2SE"]
    ensemble = run_explain(checkpoint="[run,two]")
    assert [one["network"] for one in ensemble["explanations"]] == ["V4Attention + V2SE"]


def test_networks_of_one_architecture_are_named_after_their_runs_or_paths(
    run: Path, small_run: Callable[..., Path]
) -> None:
    small_run(Path("two"), "trainer.max_epochs=1", "seed=1")
    by_seed = run_explain("compare_with=two")
    assert [one["network"] for one in by_seed["explanations"]] == ["v4_attention seed=0", "v4_attention seed=1"]
    with np.load(OUT / "maps.npz") as maps:
        assert {"v4_attention seed=0/gradcam", "v4_attention seed=1/gradcam"} <= set(maps)
    shutil.copytree(run, "copy")
    by_path = run_explain("compare_with=copy")
    assert [one["network"] for one in by_path["explanations"]] == [
        "run",
        "copy",
    ]
    assert set(by_path["networks"]) == {one["network"] for one in by_path["explanations"]}


def test_a_class_may_be_named_by_a_synonym(run: Path) -> None:
    for name in ("angry", "Anger"):
        run_explain(f"target={name}")
        with np.load(OUT / "maps.npz") as maps:
            assert set(maps["targets"].ravel()) == {3}


def test_explains_the_faces_of_image_files(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos").mkdir()
    two, crop = scene((50, 100, 240), (400, 200, 160)), np.tile(np.arange(80, dtype=np.uint8), (60, 1))
    for name, image in (("a.png", two), ("b.jpg", crop)):
        Image.fromarray(image).save(f"photos/{name}")
    record = run_explain("images=[photos/a.png,photos]")
    crops = record["faces"].pop("crops")
    assert record["faces"] == {"source": "photos/a.png, photos", "digest": None, "n": 3}
    assert [one["file"] for one in crops] == ["photos/a.png", "photos/a.png", "photos/b.jpg"]
    assert crops[0]["box"] == pytest.approx([50, 100, 240, 240], abs=40)
    assert crops[2]["box"] == [10, 0, 60, 60]
    assert not {"subset", "faces", "seed", "data", "labels", "split", "data_dir"} & set(record["config"])
    out = capsys.readouterr().out
    assert "photos/b.jpg: no face was found; the whole image is explained.\n" in out
    assert "SYNTHETIC: V4Attention was trained on synthetic faces" in out
    assert run_explain("images=photos", "detector=none")["faces"]["n"] == 2
    with pytest.raises(UserError, match="target=true: expected predicted, happiness, surprise"):
        run_explain("images=photos", "target=true")


def test_an_image_that_cannot_be_read_is_reported_after_the_maps_of_the_others(run: Path) -> None:
    Path("photos").mkdir()
    Path("photos/a.jpg").write_bytes(b"no image")
    Image.fromarray(scene((200, 100, 240))).save("photos/b.png")
    with pytest.raises(UserError, match=r"(?s)photos/a.jpg cannot be read.*The files hold the other maps"):
        run_explain("images=photos")
    assert json.loads((OUT / "explain.json").read_text())["faces"]["n"] == 1
    with pytest.raises(UserError, match=r"photos/a\.jpg cannot be read"):
        run_explain("images=photos/a.jpg")


def test_a_file_that_shows_no_face_is_skipped_with_a_warning(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos").mkdir()
    Image.fromarray(scene((200, 100, 240))).save("photos/b.png")
    Image.new("RGB", (50, 40)).save("photos/c.png")
    Image.new("L", (9, 9)).save("photos/d.gif", save_all=True, append_images=[Image.new("L", (9, 9), 255)])
    assert run_explain("images=photos")["faces"]["n"] == 1
    problems = {"c.png": "is blank; expected a face", "d.gif": "is a video; expected images"}
    warnings = capsys.readouterr().err
    for name, problem in problems.items():
        assert f"warning: photos/{name} {problem}" in warnings
        with pytest.raises(UserError, match=f"photos/{name} {problem}"):
            run_explain(f"images=photos/{name}")


@pytest.mark.filterwarnings("ignore:SYNTHETIC")
def test_images_are_cropped_as_for_predictions(small_run: Callable[..., Path]) -> None:
    small_run(RUN, "trainer.max_epochs=1", "input.size=64")
    Image.fromarray(scene((200, 100, 240))).save("a.png")
    images, unreadable = load_photographs(["a.png"], load_detector("blazeface"), [load_ensemble(RUN)])
    assert not unreadable
    (face,) = load(RUN).predict("a.png")
    np.testing.assert_array_equal((255 * images.faces[0, 0]).round(), face.pixels)


@pytest.mark.parametrize(
    ("chosen_by", "argument"),
    [("images=photo.jpg", "subset=val"), ("images=photo.jpg", "data=auto"), ("rows=[5]", "faces=7")],
)
def test_settings_without_effect_are_refused(run: Path, chosen_by: str, argument: str) -> None:
    given = ("checkpoint=run", chosen_by, argument)
    with pytest.raises(UserError, match=f"= selects the faces, so {argument.partition('=')[0]}= would have no effect"):
        explain(compose("explain", *given), OUT, given)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_reported() -> None:
    with pytest.raises(UserError, match="accelerator=gpu: no GPU was found; expected auto or cpu"):
        explain(compose("explain", "checkpoint=fast_cnn", "accelerator=gpu"), OUT)


REFUSED = {
    "subset=dev": "expected auto, train, val, test, all",
    "faces=0": "faces=0: expected an integer of 1 or more",
    "seed=x": "seed=x: expected an integer",
    "faithfulness.faces=1": "faithfulness.faces= .* expected integers of 2 or more",
    "faithfulness=5": "faithfulness=5: expected settings, faithfulness.KEY=VALUE",
    "rows=5": "rows=5: expected a list",
    "rows=[]": r"rows=\[\]: expected row numbers",
    "images=5": "images=5: expected image files",
    "checkpoint=null": "checkpoint=None: expected a run folder",
    "explainer=attention": "layer=features.0 applies to Grad-CAM only",
    "target=glee": "target=glee: expected predicted, true, happiness",
    "layer=features.7": r"layer=features\.7: V4Attention has no such layer .*:\n  features\n",
    "rows=[100000]": "expected numbers from 0 to",
    "images='0'": r"0 does not exist; expected an image, a folder or a pattern \('photos/\*\.jpg'\)\.$",
    "compare_with=run": "compare_with=run is the checkpoint itself",
}


@pytest.mark.parametrize(("override", "message"), REFUSED.items())
def test_invalid_settings_are_refused_and_nothing_is_written(override: str, message: str, run: Path) -> None:
    layer = ["layer=features.0"] if override == "explainer=attention" else []
    with pytest.raises(UserError, match=message):
        run_explain(override, *layer, measured="faithfulness" in override)
    assert not OUT.exists()


def test_a_row_without_a_class_of_the_network_is_refused(run: Path) -> None:
    with np.load(run / "rows.npz") as parts:
        used = np.concatenate([parts[name] for name in ("train", "val", "test")])
    neutral = int(np.setdiff1d(np.arange(used.max()), used)[0])
    with pytest.raises(UserError, match=rf"rows=\[{neutral}\] belong to none of happiness, surprise, sadness"):
        run_explain(f"rows=[{neutral}]")


def test_without_data_the_user_is_told_of_images() -> None:
    with pytest.raises(UserError, match=r"(?s)nowhere/fer2013\.csv.*own: images=photo\.jpg"):
        explain(compose("explain", "checkpoint=fast_cnn", "data_dir=nowhere"), OUT)


def test_sampled_rows_are_balanced_over_classes() -> None:
    labels = np.array([0] * 90 + [1] * 8 + [2] * 2)
    rows = sample_balanced(np.arange(100), labels, 12, seed=0)
    assert np.bincount(labels[rows]).tolist() == [5, 5, 2]
    assert labels[rows[:3]].tolist() == [0, 1, 2]
    assert rows.tolist() == sample_balanced(np.arange(100), labels, 12, seed=0).tolist()


def test_callback_explains_every_epoch_and_does_not_change_training(small_config: Config) -> None:
    train(small_config(), Path("plain"))
    overrides = ("callbacks=[default,explanations]", "callbacks.explanations.faces=3")
    train(small_config(*overrides), Path("explained"))
    events = EventAccumulator(str(next(Path("explained").rglob("events*")).parent), size_guidance={"images": 0})
    events.Reload()
    assert len(events.Images("val/explanations")) == 2
    plain, explained = (
        torch.load(Path(folder) / LAST_CHECKPOINT, weights_only=True)["state_dict"] for folder in ("plain", "explained")
    )
    assert all(value.equal(explained[name]) for name, value in plain.items())
    assert (Path("plain") / "metrics.csv").read_text() == (Path("explained") / "metrics.csv").read_text()


def test_the_maps_of_other_methods_are_kept_if_one_fails(run: Path) -> None:
    failing = "explainer.attention.layer=nowhere"
    with pytest.raises(UserError, match=r"(?s)attention failed: layer=nowhere is not.*The files hold the other maps"):
        run_explain("explainer=[attention,gradcam]", failing)
    assert [one["method"] for one in json.loads((OUT / "explain.json").read_text())["explanations"]] == ["gradcam"]
    assert (OUT / "sheet.png").is_file()
