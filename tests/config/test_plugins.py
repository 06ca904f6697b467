"""The sections of emotion/README.md on a user's own parts, followed literally."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import emotion
from emotion.config.compose import PACKAGE
from emotion.config.instantiate import PLUGINS, allow_plugins, instantiate
from emotion.config.untrusted import check_command
from emotion.data.readers.synthetic import render_faces
from emotion.errors import UserError
from emotion.records.run_record import RunRecord
from tests.conftest import record_of
from tests.processes import run_verb

README = (PACKAGE / "README.md").read_text(encoding="utf-8")
SMALL = ("batch_size=16", "trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=csv", "hydra.run.dir=run")
SYNTHETIC = ("data=synthetic", "data.training=8", "data.public_test=2", "data.private_test=2")
NET = ("model=simple_cnn", "compile.cpu=false")
REFUSED = "A module of your own: {}."


def follow(part: str) -> list[str]:
    """Write the files of a part's section and return the arguments of its training command."""
    section = README.split(f"### Your own {part}\n")[1].split("\n### ")[0].split("\n## ")[0]
    for path, text in re.findall(r"^# (\S+\.(?:py|yaml))\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    (command,) = re.findall(r"^python -m emotion\.train (.*)$", section, re.MULTILINE)
    return [argument.strip("'") for argument in command.split()]


def write_image() -> None:
    Image.fromarray(render_faces(np.array([3], np.uint8), np.random.default_rng(0))[0]).save("face.png")


def train(arguments: Sequence[str]) -> RunRecord:
    done = run_verb("train", *arguments, *SMALL)
    assert done.status == 0, done.err
    return record_of(Path("run"))


def test_an_own_model_is_used_only_if_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    own = follow("model")
    assert train([*own, *SYNTHETIC]).config["model"]["_target_"] == "mynet.MyNet"
    assert run_verb("export", "run", own[0], "target=weights", "output=run", "name=w").status == 0
    for checkpoint in ("run", "run/w.safetensors"):
        assert run_verb("evaluate", checkpoint, own[0], "output=scores").status == 0
        refused = run_verb("evaluate", checkpoint)
        assert refused.status == 2
        assert REFUSED.format(own[0]) in refused.err
    resumed = run_verb("train", "resume=run")
    assert resumed.status == 2
    assert REFUSED.format(own[0]) in resumed.err
    assert "is finished after 1 epoch" in run_verb("train", "resume=run", own[0]).err
    monkeypatch.setenv(PLUGINS, "")
    with pytest.raises(UserError, match=re.escape(REFUSED.format(own[0]))):
        emotion.load("run")
    with pytest.warns(UserWarning, match="SYNTHETIC: MyNet"):
        assert emotion.load("run", plugins=["mynet"]).backend.name == "MyNet"


def test_configs_that_are_not_chosen_need_no_plugins() -> None:
    own = [follow(part) for part in ("loss", "augmentation", "reader", "model")][-1]
    done = run_verb("train", *own, *SYNTHETIC, *SMALL)
    assert done.status == 0, done.err
    assert "python -m emotion.predict plugins=[mynet] photo.jpg checkpoint=run" in done.out
    refused = run_verb("train", *own, "loss=poly")
    assert REFUSED.format("plugins=[myloss]") in refused.err
    check_command("train", ["--config-dir", "mine", "model=simple_cnn"])
    check_command("train", ["-m", own[1], "seed=0,1", "hydra/launcher=submitit_slurm"])
    Path("mine/model/unfinished.yaml").write_text("_target_: [\n")
    check_command("train", [own[1], "model=simple_cnn"])
    with pytest.raises(UserError, match=r"A chosen config cannot be read: .*mine/model/unfinished\.yaml"):
        check_command("train", [own[1], "model=unfinished"])
    with pytest.raises(UserError, match=r"searchpath=\[mine\]: write hydra\.searchpath=\[file://mine\]\."):
        check_command("train", ["hydra.searchpath=[mine]", "model=mynet"])
    missing = run_verb("train", "hydra.searchpath=[file://nowhere]", *SYNTHETIC)
    assert missing.status == 2
    assert "hydra.searchpath: nowhere does not exist" in missing.err


@pytest.mark.parametrize(
    ("path", "text", "chosen"),
    [
        ("x/evil", "# @package hydra.callbacks.evil\n_target_: hostile.part\n", "+x=evil"),
        (
            "x/evil",
            "# @package _global_\nhydra: {callbacks: '${evil}'}\nevil: {a: {_target_: hostile.part}}\n",
            "+x=evil",
        ),
        ("hydra/launcher/evil", "_target_: hydra._internal.core_plugins.x.X\na: ${model}\n", "hydra/launcher=evil"),
        ("x/evil", "# @package _global_\nhydra: {job: {env_set: {EMOTION_PLUGINS: hostile}}}\n", "+x=evil"),
        ("hydra/launcher/evil", "_target_: hostile.part\n", "hydra/launcher=evil"),
        ("experiment/evil", "# @package _global_\ndefaults: [/model/own@hydra.callbacks.x]\n", "experiment=evil"),
    ],
)
def test_a_folder_of_configs_instantiates_nothing_through_hydra(path: str, text: str, chosen: str) -> None:
    for name, content in ((path, text), ("model/own", "_target_: hostile.part\n")):
        Path("mine", f"{name}.yaml").parent.mkdir(parents=True, exist_ok=True)
        Path("mine", f"{name}.yaml").write_text(content)
    for folder in (["hydra.searchpath=[file://mine]"], ["--config-dir", "mine"]):
        with pytest.raises(UserError, match="folder of configs: a config sets hydra"):
            check_command("train", [*folder, chosen])


def test_the_checkpoint_of_an_own_loss_is_used_without_it() -> None:
    """It is trained on shares of classes and validated on classes."""
    own = follow("loss")
    record = train([*own, *SYNTHETIC, *NET, "mixup=mixup", "loss.balanced=true"])
    assert record.config["loss"]["_target_"] == "myloss.PolyLoss"
    Path("myloss.py").unlink()
    write_image()
    for verb, *settings in (
        ("export", "run", "target=weights", "output=run", "name=w"),
        ("evaluate", "run"),
        ("evaluate", "run/w.safetensors", "output=scores"),
        ("predict", "checkpoint=run", "face.png", "detector=none", "output=found"),
    ):
        done = run_verb(verb, *settings)
        assert done.status == 0, done.err
    assert Path("found/predictions.jsonl").read_text().count("happy") == 1


def test_an_own_augmentation_is_of_training_only() -> None:
    own = follow("augmentation")
    record = train([*own, *SYNTHETIC, *NET])
    assert list(record.config["augment"]) == ["flip", "affine", "noise"]
    applied = run_verb("train", *own, *SYNTHETIC, *NET, *SMALL[:-1], "augment.noise.deviation=nan")
    assert "the training loss is nan" in applied.err
    wrong = run_verb("train", *own, *SYNTHETIC, *NET, *SMALL[:-1], "augment.noise.deviation=x")
    assert "augment.noise.deviation=x: expected a number, such as 0.05" in wrong.err
    Path("mynoise.py").unlink()
    assert run_verb("evaluate", "run").status == 0


def test_an_own_reader_is_needed_for_its_data_only() -> None:
    own = follow("reader")
    data = own[:-1]  # without the model
    missing = run_verb("prepare", *data, "data_dir=here")
    assert missing.status == 2
    assert "here/faces.npz does not exist; expected a file of numpy.savez" in missing.err
    labels = np.tile(np.arange(7, dtype=np.uint8), 12)
    images = render_faces(labels, np.random.default_rng(0))
    Path("here").mkdir()
    np.savez("here/faces.npz", images=images, labels=labels, usage=np.repeat([0, 0, 1, 2], 21).astype(np.uint8))
    whole = Path("here/faces.npz").read_bytes()
    Path("here/faces.npz").write_bytes(whole[:-1000])
    damaged = run_verb("prepare", *data, "data_dir=here")
    assert damaged.status == 2
    assert "error: here/faces.npz cannot be read (BadZipFile: File is not a zip file)" in damaged.err
    Path("here/faces.npz").write_bytes(whole)
    record = train([*own, *NET, "data_dir=here", "split=official"])
    assert record.split == {"train": 42, "val": 21, "test": 21}
    Path("here").rename("there")
    done = run_verb("evaluate", "run", own[0], "data_dir=there")
    assert done.status == 0, done.err
    write_image()
    assert run_verb("predict", "checkpoint=run", "face.png", "detector=none").status == 0
    assert run_verb("export", "run", "target=weights").status == 0
    assert REFUSED.format(own[0]) in run_verb("evaluate", "run", "data_dir=there").err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "cannot be imported from .*: ModuleNotFoundError: No module named 'nowhere'"),
        ("unfinished", r"cannot be imported from .*unfinished\.py line 2: '\(' was never closed"),
        ("unfinished.py", r"expected the name of a module: plugins=\[unfinished\]"),
        ("own/unfinished.py", r"expected the name of a module: plugins=\[own\.unfinished\]"),
        ("os", "expected a module of your own"),
        ("torch.hub", "expected a module of your own"),
        ("emotion.io.atomic", "expected a module of your own"),
    ],
)
def test_other_modules_are_refused(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(".")  # restored afterwards
    Path("unfinished.py").write_text("import math\nprint(\n")
    with pytest.raises(UserError, match=f"plugins={name}: {message}"):
        allow_plugins([name])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("mine.MyNte", r"mine has no MyNte; did you mean MyNet\?"),
        ("mine.Other", "mine has no Other; name a class or function that exists"),
        ("emotion.models.fastcnn.FastCNN", r"emotion\.models has no fastcnn; did you mean fast_cnn\?"),
        ("torch.optim.AdmW", r"torch\.optim has no AdmW; did you mean AdamW\?"),
    ],
)
def test_a_misspelt_target_names_the_nearest(target: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(".")
    monkeypatch.setenv(PLUGINS, "")
    Path("mine.py").write_text("class MyNet: ...\n")
    allow_plugins(["mine"])
    with pytest.raises(UserError, match=f"^_target_ {target}: {message}"):
        instantiate({"_target_": target})


@pytest.mark.parametrize("target", ["os.system", "torch.hub.load", "mynet", "a b.c"])
def test_no_plugin_is_advised_that_cannot_be_one(target: str) -> None:
    with pytest.raises(UserError) as refused:
        instantiate({"_target_": target})
    assert "is not allowed" in str(refused.value)
    assert "plugins=" not in str(refused.value)


def test_a_config_cannot_name_plugins() -> None:
    plugins, *own = follow("model")
    Path("mine/experiment").mkdir()
    Path("mine/experiment/x.yaml").write_text(f"# @package _global_\n{plugins.replace('=', ': ')}\n")
    for setting in (f"+{plugins}", "experiment=x"):
        done = run_verb("train", *own, *SYNTHETIC, *SMALL, setting)
        assert done.status == 2
        assert "plugins" in done.err
        assert not Path("run/record.json").exists()
