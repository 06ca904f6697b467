"""Commands refuse malicious files: nothing in them runs, and the process stays under 1 GB."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from emotion.checkpoints.load import load_checkpoint
from emotion.checkpoints.locate import BEST_CHECKPOINT
from emotion.errors import UserError
from emotion.io.atomic import write_json, write_text
from emotion.io.bounded import read_json_object
from emotion.io.digests import RECORD
from emotion.records.predictions import PREDICTIONS
from tests.counted import Tally
from tests.images import FACES, encode_image
from tests.promises import hostile_files as hostile
from tests.promises.commands import Command, assert_refused, run_commands

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
"""Commands that open a checkpoint, which is appended as the last argument."""


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    Path("face.png").write_bytes(encode_image(FACES[0]))
    return small_run(Path("run"), "trainer.max_epochs=1")


def opening(number: int, path: Path) -> list[str]:
    """Return one of the commands with this checkpoint."""
    command = OPENING[number % len(OPENING)]
    return [*command, f"{'distillation.teacher' if command[0] == 'train' else 'checkpoint'}={path}"]


def assert_all_refused(tally: Tally, commands: Sequence[tuple[str, Command]]) -> None:
    """Check that each command is refused, naming the file in its last argument, and that nothing ran."""
    for (name, command), result in zip(commands, run_commands([command for _, command in commands]), strict=True):
        with tally(f"{name}: {' '.join(command)}"):
            assert_refused(result)
            assert re.split(r"[=\[,]", command[-1])[-1].rstrip("]").partition(".")[0] in result.output, result
            assert result.megabytes < 1000, result
            assert not Path(hostile.CANARY).exists()


@pytest.mark.hard
@pytest.mark.promise("files")
@pytest.mark.parametrize("half", [0, 1])
def test_malicious_checkpoints(half: int, run: Path, tally: Tally) -> None:
    commands = []
    for number, (kind, make) in list(enumerate(hostile.RAW.items()))[half::2]:
        path = Path(f"{number}.ckpt")
        path.write_bytes(make())
        commands.append((kind, opening(number // 2 + half, path)))
    assert_all_refused(tally, commands)


@pytest.mark.hard
@pytest.mark.promise("files")
def test_malicious_weights(run: Path, tally: Tally) -> None:
    commands = []
    for number, (kind, make) in enumerate(list(hostile.RAW.items())[:15]):
        path = Path(f"{number}").with_suffix((".pth", ".pt", ".bin")[number % 3])
        path.write_bytes(make())
        commands.append((kind, ["train", *FEW, "model=simple_cnn", f"model.weights={path}"]))
    assert_all_refused(tally, commands)


@pytest.mark.hard
@pytest.mark.promise("files")
def test_changed_checkpoints(run: Path, tally: Tally) -> None:
    commands = []
    for number, kind in enumerate(hostile.CHANGED):
        path = Path(f"{number}.ckpt")
        hostile.changed_checkpoint(run, kind, path)
        commands.append((kind, opening(number, path)))
    assert_all_refused(tally, commands)


@pytest.mark.hard
@pytest.mark.promise("files")
def test_malicious_portable_weights(run: Path, tally: Tally) -> None:
    commands = []
    for number, kind in enumerate((*hostile.SAFETENSORS, *hostile.DESCRIPTIONS, "NaN among the weights")):
        path = Path(f"{number}.safetensors")
        hostile.export_weights(run, path)
        description = path.with_suffix(".json")
        if kind in hostile.SAFETENSORS:
            path.write_bytes(hostile.SAFETENSORS[kind])
        elif kind in hostile.DESCRIPTIONS:
            description.write_text(hostile.DESCRIPTIONS[kind](description.read_text()), encoding="latin-1")
        else:
            hostile.nan_weights(path)
        hostile.update_digest(path)
        commands.append((kind, opening(number, path)))
    assert_all_refused(tally, commands)


@pytest.mark.hard
@pytest.mark.promise("files")
def test_malicious_onnx_files(run: Path, tally: Tally) -> None:
    (Path("secret")).write_bytes(bytes(48 * 48 * 3 * 4))
    commands = []
    for number, kind in enumerate(hostile.ONNX):
        hostile.onnx_file(Path(f"{number}.onnx"), kind)
        commands.append((kind, opening((1, 5)[number % 2], Path(f"{number}.onnx"))))
    assert_all_refused(tally, commands)


def copies(run: Path) -> tuple[Path, Path]:
    """Return two runs of different recipes with the same test faces."""
    shutil.rmtree("other", ignore_errors=True)
    other = Path(shutil.copytree(run, "other"))
    record = read_json_object(run / RECORD)
    record["config"]["batch_size"] = 5
    write_json(other / RECORD, record)
    return run, other


@pytest.mark.hard
@pytest.mark.promise("files")
def test_malicious_configs(run: Path, tally: Tally) -> None:
    commands = []
    for number, (kind, text) in enumerate(hostile.YAML.items()):
        folder = Path(shutil.copytree(run, f"run{number}"))
        write_text(folder / ".hydra/config.yaml", text)
        commands.append((kind, ["train", f"resume={folder}"]))
    for number, (kind, text) in enumerate(list(hostile.YAML.items())[:2]):
        folder = Path(f"configs{number}")
        (folder / "experiment").mkdir(parents=True)
        (folder / "experiment/evil.yaml").write_text(text)
        commands.append((kind, ["train", "--config-dir", str(folder), "experiment=evil"]))
    assert_all_refused(tally, commands)


@pytest.mark.hard
@pytest.mark.promise("files")
def test_malicious_records_and_predictions(run: Path, tally: Tally) -> None:
    commands: list[tuple[str, Command]] = []
    for kind in hostile.NPZ:
        one, other = (Path(shutil.copytree(folder, f"{folder}_{kind}".replace(" ", "_"))) for folder in copies(run))
        (other / PREDICTIONS).write_bytes(hostile.npz(kind))
        record = read_json_object(other / RECORD)
        record["files"] = {}
        write_json(other / RECORD, record)
        commands.append((kind, ["compare", f"runs=[{one},{other}]"]))
    for name, text in {"deep": hostile.DEEP, "list": "[]", "large": "{}"}.items():
        (Path(shutil.copytree(run, name)) / RECORD).write_text(text)
    hostile.sparse(Path("large") / RECORD, hostile.HUGE)
    commands.append(("a record nested deep", ["compare", "runs=deep"]))
    commands.append(("a record that is a list", ["compare", "runs=list"]))
    commands.append(("a record of 3 GB", [*OPENING[4], "checkpoint=large"]))
    assert_all_refused(tally, commands)


@pytest.mark.hard
@pytest.mark.promise("files")
def test_malicious_data(tally: Tally) -> None:
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
    assert_all_refused(
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


@pytest.mark.parametrize("kind", ["bytes, in an archive", "doubled text, in an archive", "a directory of false sizes"])
def test_a_file_that_would_expand_is_refused_before_it_is_opened(kind: str) -> None:
    Path("x.ckpt").write_bytes(hostile.RAW[kind]())
    with pytest.raises(
        UserError, match=r"x\.ckpt (holds more than tensors and settings|would unpack to 4,294,967,296 b)"
    ):
        load_checkpoint("x.ckpt")


@pytest.mark.hard
def test_the_same_files_without_changes_are_accepted(run: Path) -> None:
    hostile.onnx_file(Path("whole.onnx"), "whole")
    hostile.export_weights(run, Path("whole.safetensors"))
    places = [run / BEST_CHECKPOINT, Path("whole.safetensors"), Path("whole.onnx")]
    for result in run_commands([opening(1, place) for place in places]):
        assert result.status == 0, result
