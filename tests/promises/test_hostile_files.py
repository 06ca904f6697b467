"""A hostile file, given to any command that opens such files: nothing in it runs, and it is refused in under 1 GB."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from emotion.checkpoints.load import load_checkpoint
from emotion.checkpoints.locate import BEST_CHECKPOINT
from emotion.errors import UserError
from emotion.io import digests
from emotion.records.predictions import PREDICTIONS
from tests.counted import Tally
from tests.pictures import FOUND, packed
from tests.promises import hostile_files as hostile
from tests.promises.asked import Command, ask, refused

FEW = ("data=synthetic", "data.training=9", "data.public_test=2", "data.private_test=2", "trainer.accelerator=cpu")
OPENING: tuple[Command, ...] = (
    ("evaluate", "output=out"),
    ("predict", "source=face.png", "detector=none"),
    ("explain", "output=out"),
    ("export",),
    ("publish", "repo=some-one/faces", "license=mit", "dry_run=true"),
    ("demo",),
    ("audit", *FEW[:4]),
    ("train", *FEW, "experiment=distill"),
)
"""The commands that open a checkpoint, which is then the last argument."""


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    Path("face.png").write_bytes(packed(FOUND[0]))
    return small_run(Path("run"), "trainer.max_epochs=1")


def opening(number: int, path: Path) -> list[str]:
    """One of the commands, of this checkpoint."""
    command = OPENING[number % len(OPENING)]
    return [*command, f"{'distillation.teacher' if command[0] == 'train' else 'checkpoint'}={path}"]


def all_refused(tally: Tally, commands: Sequence[tuple[str, Command]]) -> None:
    """Try each case, by its name: the command is refused for its file, the last argument's, and no canary is there."""
    for (name, command), answer in zip(commands, ask([command for _, command in commands]), strict=True):
        with tally(f"{name}: {' '.join(command)}"):
            refused(answer)
            assert re.split(r"[=\[,]", command[-1])[-1].rstrip("]").partition(".")[0] in answer.said, answer
            assert answer.megabytes < 1000, answer
            assert not Path(hostile.CANARY).exists()


@pytest.mark.hard
@pytest.mark.promise("files")
@pytest.mark.parametrize("half", [0, 1])
def test_what_torch_is_to_load_as_a_checkpoint(half: int, run: Path, tally: Tally) -> None:
    commands = []
    for number, (kind, make) in list(enumerate(hostile.RAW.items()))[half::2]:
        path = Path(f"{number}.ckpt")
        path.write_bytes(make())
        commands.append((kind, opening(number // 2 + half, path)))
    all_refused(tally, commands)


@pytest.mark.hard
@pytest.mark.promise("files")
def test_what_torch_is_to_load_as_weights(run: Path, tally: Tally) -> None:
    commands = []
    for number, (kind, make) in enumerate(list(hostile.RAW.items())[:15]):
        path = Path(f"{number}").with_suffix((".pth", ".pt", ".bin")[number % 3])
        path.write_bytes(make())
        commands.append((kind, ["train", *FEW, "model=simple_cnn", f"model.weights={path}"]))
    all_refused(tally, commands)


@pytest.mark.hard
@pytest.mark.promise("files")
def test_checkpoints_that_are_ours_but_for_one_thing(run: Path, tally: Tally) -> None:
    commands = []
    for number, kind in enumerate(hostile.CHANGED):
        path = Path(f"{number}.ckpt")
        hostile.changed_checkpoint(run, kind, path)
        commands.append((kind, opening(number, path)))
    all_refused(tally, commands)


@pytest.mark.hard
@pytest.mark.promise("files")
def test_weights_that_travel(run: Path, tally: Tally) -> None:
    commands = []
    for number, kind in enumerate((*hostile.SAFETENSORS, *hostile.DESCRIPTIONS, "NaN among the weights")):
        path = Path(f"{number}.safetensors")
        hostile.exported(run, path)
        described = path.with_suffix(".json")
        if kind in hostile.SAFETENSORS:
            path.write_bytes(hostile.SAFETENSORS[kind])
        elif kind in hostile.DESCRIPTIONS:
            described.write_text(hostile.DESCRIPTIONS[kind](described.read_text()), encoding="latin-1")
        else:
            hostile.nan_weights(path)
        hostile.seal(path)
        commands.append((kind, opening(number, path)))
    all_refused(tally, commands)


@pytest.mark.hard
@pytest.mark.promise("files")
def test_files_of_onnx(run: Path, tally: Tally) -> None:
    (Path("secret")).write_bytes(bytes(48 * 48 * 3 * 4))
    commands = []
    for number, kind in enumerate(hostile.ONNX):
        hostile.onnx_file(Path(f"{number}.onnx"), kind)
        commands.append((kind, opening((1, 5)[number % 2], Path(f"{number}.onnx"))))
    all_refused(tally, commands)


def copies(run: Path) -> tuple[Path, Path]:
    """Two runs of other recipes, to be compared on the faces that both judged."""
    shutil.rmtree("other", ignore_errors=True)
    other = Path(shutil.copytree(run, "other"))
    record: dict[str, Any] = digests.read_json(run / digests.RECORD)
    record["config"]["batch_size"] = 5
    digests.write_json(other / digests.RECORD, record)
    return run, other


@pytest.mark.hard
@pytest.mark.promise("files")
def test_configs(run: Path, tally: Tally) -> None:
    commands = []
    for number, (kind, text) in enumerate(hostile.YAML.items()):
        folder = Path(shutil.copytree(run, f"run{number}"))
        digests.write_yaml(folder / ".hydra/config.yaml", text)
        commands.append((kind, ["train", f"resume={folder}"]))
    for number, (kind, text) in enumerate(list(hostile.YAML.items())[:3]):
        folder = Path(f"configs{number}")
        (folder / "experiment").mkdir(parents=True)
        (folder / "experiment/evil.yaml").write_text(text)
        commands.append((kind, ["evaluate", "--config-dir", str(folder), "checkpoint=run", "+experiment=evil"]))
    all_refused(tally, commands)


@pytest.mark.hard
@pytest.mark.promise("files")
def test_records_and_predictions(run: Path, tally: Tally) -> None:
    commands: list[tuple[str, Command]] = []
    for kind in hostile.NPZ:
        one, other = (Path(shutil.copytree(folder, f"{folder}_{kind}".replace(" ", "_"))) for folder in copies(run))
        (other / PREDICTIONS).write_bytes(hostile.npz(kind))
        record = digests.read_json(other / digests.RECORD)
        record["files"] = {}
        digests.write_json(other / digests.RECORD, record)
        commands.append((kind, ["compare", f"runs=[{one},{other}]"]))
    for name, text in {"deep": hostile.DEEP, "list": "[]", "large": "{}"}.items():
        (Path(shutil.copytree(run, name)) / digests.RECORD).write_text(text)
    hostile.sparse(Path("large") / digests.RECORD, hostile.HUGE)
    commands.append(("a record nested deep", ["compare", "runs=deep"]))
    commands.append(("a record that is a list", ["runs", "runs=list"]))
    commands.append(("a record of 3 GB", [*OPENING[4], "checkpoint=large"]))
    all_refused(tally, commands)


@pytest.mark.hard
@pytest.mark.promise("files")
def test_data(tally: Tally) -> None:
    lists = ["prepare", "data=path_list", "data.val=null", "data.test=null"]
    for name in ("csv", "votes", "list", "map", "deep"):
        Path(name).mkdir()
    Path("csv/fer2013.csv").write_text("emotion,pixels,Usage\n0,")
    Path("votes/fer2013.csv").write_text("emotion,pixels,Usage\n")
    Path("votes/ferplus_votes.csv").write_text("Usage,Image name,")
    Path("list/train.csv").write_text("path,label\n")
    for name in ("map", "deep"):
        Path(name, "train.csv").write_text("path,label\nface.png,0\n")
    Path("map/label_map.json").write_text("{")
    Path("deep/label_map.json").write_text(hostile.DEEP)
    for name in ("csv/fer2013.csv", "votes/ferplus_votes.csv", "list/train.csv", "map/label_map.json"):
        hostile.sparse(Path(name), hostile.HUGE // 2)
    Path("rows.csv").write_text("row\n" + "9" * 5000 + "\n")
    all_refused(
        tally,
        [
            ("a CSV file of one line", ["prepare", "data=fer2013_csv", "data_dir=csv"]),
            ("votes of one line", ["prepare", "data=ferplus", "data_dir=votes"]),
            ("a list of one line", [*lists, "data_dir=list"]),
            ("a label map of 1.5 GB", [*lists, "data_dir=map"]),
            ("a label map nested deep", [*lists, "data_dir=deep"]),
            ("a row of 5,000 digits", ["train", *FEW, "split.exclude=rows.csv"]),
        ],
    )


@pytest.mark.parametrize("kind", ["bytes, in an archive", "doubled text, in an archive", "a directory that lies"])
def test_what_would_grow_is_refused_before_it_is_opened(kind: str) -> None:
    Path("x.ckpt").write_bytes(hostile.RAW[kind]())
    with pytest.raises(
        UserError, match=r"x\.ckpt (holds more than numbers and settings|would unpack to 4,294,967,296 b)"
    ):
        load_checkpoint("x.ckpt")


@pytest.mark.hard
def test_the_same_files_with_nothing_wrong_are_taken(run: Path) -> None:
    """What is refused above is refused for what is wrong with it."""
    hostile.onnx_file(Path("whole.onnx"), "whole")
    hostile.exported(run, Path("whole.safetensors"))
    places = [run / BEST_CHECKPOINT, Path("whole.safetensors"), Path("whole.onnx")]
    for answer in ask([opening(1, place) for place in places]):
        assert answer.status == 0, answer
