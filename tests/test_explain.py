import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.explain import explain
from emotion.explainers.explanation import balanced
from emotion.train import train

Config = Callable[..., DictConfig]
RUN, OUT = Path("run"), Path("out")
FEW = ("accelerator=cpu", "precision=32-true", "faces=7", "faithfulness.faces=3", "faithfulness.sensitivity=2")


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    return small_run(RUN, "trainer.max_epochs=1")


def explained(*overrides: str) -> dict:
    return explain(compose("explain", f"checkpoint={RUN}", *FEW, *overrides), OUT)


def test_every_method_in_one_go_leaves_maps_pictures_and_measures(run: Path) -> None:
    found = explained("method=[gradcam,gradcam++,attention,occlusion]", "shown=3")
    assert found == json.loads((OUT / "explain.json").read_text())
    assert [one["method"] for one in found["explained"]] == ["gradcam", "gradcam++", "attention", "occlusion"]
    for one in found["explained"]:
        assert [one["n"][name] for name in ("deletion", "insertion", "road")] == [3, 3, 3]
        assert one["n"]["sensitivity"] <= 2
        assert one["blank"] or set(one["n"].values()) == {2, 3}
        assert sum(one["measures"][name][0] for name in PARTS) == pytest.approx(1, abs=1e-4)
        assert set(one["truer_than_middle"]) == {"deletion", "insertion", "road"}
    with np.load(OUT / "maps.npz") as maps:
        assert maps["V4Attention/occlusion"].shape == (7, 48, 48)
        assert maps["targets"].shape == (4, 7)
    for name in ("sheet.png", "averages.png", "faithfulness.png"):
        with Image.open(OUT / name) as picture:
            assert picture.width > 300


PARTS = ("brows", "eyes", "nose", "mouth", "elsewhere")


def test_rows_targets_and_layers_as_asked(run: Path) -> None:
    with np.load(run / "rows.npz") as parts:
        rows = parts["test"][:2].tolist()
    asked = ("layer=features.0.0.body.0", "target=fear", f"rows={rows}", "faithfulness=null")
    found = explained(*asked)
    assert found["faces"]["rows"] == rows
    assert (OUT / "sheet.png").is_file()
    assert not (OUT / "faithfulness.png").exists()
    with np.load(OUT / "maps.npz") as maps:
        assert maps["targets"].tolist() == [[5, 5]]


def test_faces_that_the_network_was_trained_on_are_told_and_a_former_picture_goes(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    OUT.mkdir()
    (OUT / "faithfulness.png").touch()
    explained("subset=train", "faithfulness=null")
    assert "was trained on 7 of these 7 faces" in capsys.readouterr().out
    assert not (OUT / "faithfulness.png").exists()


def test_two_networks_side_by_side_and_several_as_one(run: Path, small_run: Callable[..., Path]) -> None:
    small_run(Path("two"), "trainer.max_epochs=1", "seed=1", "model=v2_se")
    both = explained("beside=two", "faithfulness=null")
    assert [one["network"] for one in both["explained"]] == ["V4Attention", "V2SE"]
    together = explain(compose("explain", f"checkpoint=[{RUN},two]", *FEW, "faithfulness=null"), OUT)
    assert [one["network"] for one in together["explained"]] == ["V4Attention + V2SE"]


def test_pictures_from_files(run: Path) -> None:
    Path("photos").mkdir()
    for name, size in (("a.png", (60, 80)), ("b.jpg", (48, 48))):
        Image.new("RGB", size, (200, 150, 100)).save(f"photos/{name}")
    found = explained("images=[photos/a.png,photos]", "faithfulness=null")
    assert found["faces"] == {"source": "photos/a.png, photos", "digest": None, "n": 3, "rows": [0, 1, 2]}
    with pytest.raises(UserError, match="target=true: expected predicted, happiness, surprise"):
        explained("images=photos", "target=true")


REFUSED = {
    "subset=dev": "expected train, val, test",
    "faces=0": "faces=0: expected a whole number of 1 or more",
    "seed=x": "seed=x: expected a whole number of 0 or more",
    "faithfulness.faces=1": "expected faces and sensitivity, whole numbers of 2 or more",
    "faithfulness=5": "faithfulness=5: expected faces and sensitivity",
    "rows=5": r"rows=5: expected row numbers of the source",
    "rows=[]": r"rows=\[\]: expected row numbers",
    "images=5": "images=5: expected picture files",
    "checkpoint=null": "checkpoint=None: expected a run folder",
    "output=run/record.json": "output=run/record.json is a file; expected a folder",
    "method=attention": "layer=features.0 is Grad-CAM's",
    "target=joy": "target=joy: expected predicted, true, happiness",
    "layer=features.7": r"layer=features\.7: V4Attention has no layer .* expected one of features\.0\.0\.body\.0",
    "rows=[100000]": "expected numbers from 0 to",
    "images=nothing.png": r"nothing\.png: not there",
    "beside=run": "beside=run is the checkpoint itself",
}


@pytest.mark.parametrize(("override", "message"), REFUSED.items())
def test_what_cannot_be_done_is_one_message(override: str, message: str, run: Path) -> None:
    layer = ["layer=features.0"] if override == "method=attention" else []
    with pytest.raises(UserError, match=message):
        explained(override, *layer)
    assert not OUT.exists()


def test_faces_are_chosen_evenly_over_classes() -> None:
    labels = np.array([0] * 90 + [1] * 8 + [2] * 2)
    chosen = balanced(np.arange(100), labels, 12, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [5, 5, 2]
    assert labels[chosen[:3]].tolist() == [0, 1, 2]
    assert chosen.tolist() == balanced(np.arange(100), labels, 12, seed=0).tolist()


def test_training_shows_the_same_faces_explained_each_epoch_and_is_not_changed_by_it(small_config: Config) -> None:
    train(small_config(), Path("plain"))
    shown = ("callbacks=[default,explanations]", "callbacks.explanations.faces=3")
    train(small_config(*shown), Path("shown"))
    events = EventAccumulator(str(next(Path("shown").rglob("events*")).parent), size_guidance={"images": 0})
    events.Reload()
    assert len(events.Images("val/explanations")) == 2
    one, other = (torch.load(Path(run) / LAST_CHECKPOINT, weights_only=True) for run in ("plain", "shown"))
    assert all(value.equal(other["state_dict"][name]) for name, value in one["state_dict"].items())
    assert (Path("plain") / "metrics.csv").read_text() == (Path("shown") / "metrics.csv").read_text()
