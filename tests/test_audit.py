"""The audit verb on a fer2013.csv with known issues, and on FER2013."""

import csv
import hashlib
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotion.audit import audit
from emotion.config.compose import compose
from emotion.data.faces import FaceChunk, Faces
from emotion.data.issues import ISSUES
from emotion.data.readers.ferplus import VOTE_COLUMNS
from emotion.data.splits import split_with_exclusions
from emotion.errors import UserError
from emotion.train import train
from tests.conftest import SMALL, csv_lines, record_of
from tests.processes import run_verb

SYNTHETIC = ("data=synthetic", "data.training=16", "data.public_test=4", "data.private_test=4", "accelerator=cpu")


@pytest.fixture
def fer_with_issues(tmp_path: Path, few_faces: FaceChunk) -> Path:
    """A fer2013.csv with 63 good rows, 21 of each usage, followed by one or two rows with each issue."""
    images, labels, _ = few_faces[:3]
    added = [
        (images[0], labels[0], 0),  # 63: equal to 0
        (images[30], labels[30], 0),  # 64: equal to a PublicTest row
        (images[50], (labels[50] + 1) % 7, 0),  # 65: equal to a PrivateTest row, with another label
        (np.roll(images[1], 1, 1), labels[1], 0),  # 66: nearly equal to 1
        (np.full_like(images[0], 9), 0, 0),  # 67: blank
        (100 + images[2] // 100, labels[2], 2),  # 68: low contrast
        (images[31], labels[31], 2),  # 69: a PublicTest row in PrivateTest
    ]
    columns = [np.array(column, np.uint8) for column in zip(*added, strict=True)]
    rows = FaceChunk(*(np.concatenate(pair) for pair in zip(few_faces[:3], columns, strict=True)), [""] * 70)
    path = tmp_path / "data" / "fer2013.csv"
    path.parent.mkdir()
    path.write_text("\n".join(csv_lines(rows)) + "\n")
    return path


def usage_column(path: Path) -> list[str]:
    return [line.rsplit(",", 1)[1] for line in path.read_text().splitlines()[1:]]


def write_votes(path: Path, usage: list[str], majority: list[str]) -> Path:
    cells = [",".join("9" if name == chosen else "1" for name in VOTE_COLUMNS) for chosen in majority]
    lines = [f"{part},x.png,{cell}" for part, cell in zip(usage, cells, strict=True)]
    path.write_text("\n".join([f"Usage,Image name,{','.join(VOTE_COLUMNS)}", *lines]) + "\n")
    return path


def audited(folder: Path, *overrides: str) -> tuple[dict[str, Any], dict[str, list[int]], str]:
    """Audit; return the content of audit.json, the rows of each issue and the page."""
    result = audit(compose("audit", *overrides), folder)
    assert json.loads((folder / "audit.json").read_text()) == result
    with (folder / "rows.csv").open() as file:
        table = list(csv.DictReader(file))
    rows = {name: [int(line["row"]) for line in table if line["issue"] == name] for name in ISSUES}
    return result, rows, (folder / "audit.html").read_text()


def test_every_issue_is_found(fer_with_issues: Path, tmp_path: Path) -> None:
    result, rows, _ = audited(tmp_path / "out", "near.correlation=0.85", "low_contrast=4")
    assert (result["faces"], result["distinct_images"], result["redundant_rows"]) == (70, 66, 4)
    assert rows["leak"] == [31, 64, 65]
    assert rows["duplicate"] == [63]
    assert len({*rows["leak"], *rows["duplicate"]}) == result["redundant_rows"]  # without them, each image occurs once
    assert rows["conflict"] == [50, 65]
    assert 66 in rows["near_duplicate"]
    assert rows["blank"] == [67]
    assert rows["low_contrast"] == [68]
    assert result["in_earlier_parts"] == {
        "PublicTest": {"Training": 1},
        "PrivateTest": {"Training": 1, "PublicTest": 1, "any": 2},
    }
    assert set(result["skipped"]) == {"not_a_face", "label"}


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def values(self, tag: str, attribute: str) -> list[str]:
        return [str(attrs[attribute]) for name, attrs in self.tags if name == tag and attribute in attrs]


def test_the_page_is_self_contained_and_its_links_resolve(fer_with_issues: Path, tmp_path: Path) -> None:
    _, _, text = audited(tmp_path / "out", "max_images=5")
    page = Page(text)
    ids = {str(attrs["id"]) for _, attrs in page.tags if "id" in attrs}
    assert {link.removeprefix("#") for link in page.values("a", "href")} <= ids
    assert set(ISSUES) <= ids
    assert all(source.startswith("data:image/png;base64,") for source in page.values("img", "src"))
    assert not re.search(r"https?://|url\(|<script|<link", text)
    assert not re.search(r"\b1 (rows|groups|faces)\b", text)
    assert text.count("The command excludes rows from training only.") == text.count("<pre>") > 0
    assert all("Row " in alt for alt in page.values("img", "alt"))
    assert all(section.count("<img ") <= 5 for section in text.split("<section ")[1:])
    assert len(page.values("img", "alt")) == len(page.values("img", "src")) > 0


@pytest.mark.hard
def test_the_commands_of_the_page_train_without_the_rows() -> None:
    """In a folder with a space, on synthetic faces: those that are nearly equal are no copies of a photograph."""
    audit_settings = (*SYNTHETIC, "near.correlation=0.8", "near.bits=24", "low_contrast=25", "output=out put")
    assert run_verb("audit", *audit_settings).status == 0
    text, issues = Path("out put/audit.html").read_text(), json.loads(Path("out put/audit.json").read_text())["issues"]
    assert "same photograph" not in text
    assert "different labels</h3>" in text
    commands = [shlex.split(unescape(line)) for line in re.findall("<pre>(.*?)</pre>", text)]
    assert [words[-1] for words in commands] == ["split.exclude_issues=[low_contrast]"]
    assert issues["near_leak"]["Training"] > 0
    (command,) = commands
    assert command[:3] == ["python", "-m", "emotion.train"]
    done = run_verb("train", *command[3:], *SMALL, "trainer.max_epochs=1", "logger=csv", "hydra.run.dir=run")
    assert done.status == 0, done.err
    with Path("out put/rows.csv").open() as file:
        rows = {int(line["row"]) for line in csv.DictReader(file) if line["issue"] == "low_contrast"}
    used = np.load("run/rows.npz")
    assert not rows & {*used["train"].tolist()}
    assert record_of(Path("run")).data["exclusions"]["rows"]["train"] > 0


def test_issues_that_were_found_come_first(fer_with_issues: Path, tmp_path: Path) -> None:
    result, _, text = audited(tmp_path / "out", "low_contrast=0")
    sections = re.findall(r'<section id="(\w+)"', text)
    counts = [result["issues"][name]["rows"] if name in result["issues"] else -1 for name in sections[:-2]]
    assert sections[-2:] == ["classes", "provenance"]
    found = sum(count > 0 for count in counts)
    assert 0 < found < len(result["issues"])
    assert all(count > 0 for count in counts[:found])
    assert counts[found:] == sorted(counts[found:], reverse=True)  # then those without rows, then the skipped
    assert re.findall(r'<li><a href="#(\w+)"', text) == sections


def test_nearly_equal_faces_with_different_labels_are_to_be_reviewed(fer_with_issues: Path, tmp_path: Path) -> None:
    lines = fer_with_issues.read_text().splitlines()
    label = (int(lines[67][0]) + 1) % 7  # of row 66, which is nearly equal to row 1
    for relabeled, suggestion in ((False, "exclude"), (True, "review")):
        if relabeled:
            lines[67] = f"{label}{lines[67][1:]}"
            fer_with_issues.write_text("\n".join(lines) + "\n")
        audited(tmp_path / "out", "near.correlation=0.85")
        table = (tmp_path / "out/rows.csv").read_text()
        assert re.search(rf"^66,Training,\w+,near_duplicate,1,{suggestion},row 66$", table, re.MULTILINE)


def test_votes_find_images_without_a_face_and_resolve_conflicts(fer_with_issues: Path, tmp_path: Path) -> None:
    _, plain, _ = audited(tmp_path / "plain")
    names = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    majority = [names[int(line[0])] for line in fer_with_issues.read_text().splitlines()[1:]]
    for row in plain["conflict"]:
        majority[row] = "anger"
    majority[3] = majority[40] = "NF"
    file = write_votes(tmp_path / "votes.csv", usage_column(fer_with_issues), majority)
    result, rows, _ = audited(tmp_path / "out", f"votes={file}")
    assert rows["not_a_face"] == [3, 40]
    lines = (tmp_path / "out/rows.csv").read_text().splitlines()
    assert {line.split(",")[-2] for line in lines if ",conflict," in line} == {"angry"}
    assert set(result["skipped"]) == {"label"}


def test_missing_votes_are_reported_before_the_data_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emotion.data.cache.prepare", lambda *_: pytest.fail("the data are read"))
    with pytest.raises(UserError, match=r"^none.csv does not exist"):
        audit(compose("audit", "votes=none.csv"), Path("out"))


def test_votes_that_do_not_match_are_refused(fer_with_issues: Path, tmp_path: Path) -> None:
    usage = usage_column(fer_with_issues)
    (tmp_path / "other.csv").write_text("Usage,happiness\nTraining,1\n")
    for file, message in (
        (write_votes(tmp_path / "short.csv", usage[:-1], ["fear"] * 69), r"has 69 rows, but .*fer2013.csv has 70"),
        (write_votes(tmp_path / "turned.csv", usage[::-1], ["fear"] * 70), r"row 0: PrivateTest, but Training in"),
        (tmp_path / "other.csv", r"begins with .Usage,happiness.; expected the columns"),
        (tmp_path / "none.csv", r"does not exist. The votes of FER\+ are published"),
    ):
        with pytest.raises(UserError, match=message):
            audit(compose("audit", f"votes={file}"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("override", ["near.bits=40", "near.correlation=2", "max_images=0", "low_contrast=-1", "tta=x"])
def test_settings_out_of_range_are_refused(override: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected"):
        audit(compose("audit", "data=synthetic", override), tmp_path / "out")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="accelerator=gpu: no GPU was found; expected auto or cpu"):
        audit(compose("audit", "data=synthetic", "accelerator=gpu"), tmp_path / "out")


def test_an_image_folder_is_audited(fer_folder: Path, tmp_path: Path) -> None:
    picture = next((fer_folder / "train/happy").iterdir())
    shutil.copy(picture, picture.with_name("copy.png"))
    result, rows, text = audited(tmp_path / "out", "data=image_folder")
    assert (result["faces"], len(rows["duplicate"]), rows["blank"]) == (64, 1, [])
    assert "64 faces" in text
    (line,) = (line for line in (tmp_path / "out/rows.csv").read_text().splitlines() if ",duplicate," in line)
    assert line.rpartition(",")[2] in (f"train/happy/{picture.name}", "train/happy/copy.png")
    assert all(f"<br>train/happy/{name}<br>" in text for name in (picture.name, "copy.png"))


@pytest.mark.parametrize("name", ["synthetic portraits", "synthetic faces and others"])
def test_a_folder_named_synthetic_has_faces_like_any_other(name: str, fer_folder: Path, tmp_path: Path) -> None:
    fer_folder.rename(name)
    result, _, text = audited(tmp_path / "out", "data=image_folder", f"data_dir={name}")
    assert result["data"] == {"source": name, "digest": result["data"]["digest"], "synthetic": False, "fallback": False}
    assert "These faces are synthetic" not in text


def test_the_page_says_that_synthetic_faces_replace_fer2013(tmp_path: Path) -> None:
    few = [f"data.fallback.{part}=4" for part in ("training", "public_test", "private_test")]
    for overrides, fallback in ((SYNTHETIC, False), (few, True)):
        result, _, text = audited(tmp_path / "out", *overrides)
        assert result["data"]["synthetic"] is True
        assert result["data"]["fallback"] is fallback
        assert ("FER2013 was not found" in text) is fallback


def test_label_issues_are_among_faces_that_no_checkpoint_was_trained_on(
    small_run: Callable[..., Path], tmp_path: Path
) -> None:
    official, stratified = (
        small_run(tmp_path / split, "labels=seven", f"split={split}", "trainer.max_epochs=1")
        for split in ("official", "stratified_15")
    )
    for checkpoint, held_out in (
        (f"{official}", 56),
        (f"{stratified}", 56 + 7 * 2),
        (f"[{stratified},{official}]", 56),
    ):
        result, rows, text = audited(tmp_path / "out", *SYNTHETIC, f"checkpoint={checkpoint}")
        assert result["checkpoint"]["held_out"] == held_out
        if held_out == 56:
            assert all(row >= 7 * 16 for row in rows["label"])
            assert result["issues"]["label"]["Training"] == 0
    assert str(stratified) in text
    assert str(official) in text
    with pytest.raises(UserError, match="was trained on other data than"):
        audit(compose("audit", *SYNTHETIC, "data.seed=1", f"checkpoint={official}"), tmp_path / "other")


def test_a_missing_cleanlab_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(UserError, match=re.escape("which is not installed: pip install 'emotion[audit]'")):
        audit(compose("audit", "data=synthetic", "checkpoint=fast_cnn"), tmp_path / "out")


def test_training_excludes_the_rows_of_an_audit(fer_with_issues: Path, tmp_path: Path) -> None:
    audited(tmp_path / "out")
    file, run_dir = tmp_path / "out/rows.csv", tmp_path / "run"
    data = ("data=fer2013_csv", f"data_dir={fer_with_issues.parent}", "labels=seven", "split=official", "batch_size=16")
    exclusions = (f"split.exclude={file}", "split.exclude_issues=[leak,blank]")
    train(compose("train", *SMALL, *data, *exclusions, "trainer.max_epochs=1"), run_dir)
    record = record_of(run_dir)
    digest = hashlib.md5(file.read_bytes()).hexdigest()
    excluded = {"train": 3, "val": 0, "test": 0}
    assert record.data["exclusions"] == {"file": str(file), "digest": digest, "rows": excluded}
    assert not set(np.load(run_dir / "rows.npz")["train"]) & {64, 65, 67}
    assert record.split["train"] == 26 - 3


@pytest.mark.fer2013
def test_known_issues_of_fer2013(fer2013: Path, fer2013_faces: Faces, tmp_path: Path) -> None:
    result, rows, _ = audited(tmp_path / "out", "data=fer2013_csv", f"data_dir={fer2013.parent}", "max_images=4")
    assert (result["faces"], result["distinct_images"], result["redundant_rows"]) == (35_887, 34_034, 1_853)
    assert len({*rows["leak"], *rows["duplicate"]}) == 1_853
    in_earlier = {"PublicTest": {"Training": 280}, "PrivateTest": {"Training": 288, "PublicTest": 44, "any": 314}}
    assert result["in_earlier_parts"] == in_earlier
    assert result["issues"]["conflict"]["groups"] == 57
    assert result["issues"]["blank"]["rows"] == 12
    exclusions = {"exclude": str(tmp_path / "out/rows.csv"), "exclude_issues": ["leak", "duplicate"]}
    split = {"_target_": "emotion.data.splits.official", **exclusions}
    kept, excluded = split_with_exclusions(split, fer2013_faces, np.zeros(35_887, np.int64))
    assert excluded is not None
    assert excluded["rows"]["train"] == 28_709 - len(kept.train) > 0


@pytest.mark.fer2013
def test_ferplus_sees_no_face_in_177_images_of_fer2013(fer2013: Path, tmp_path: Path) -> None:
    file = fer2013.parent / "ferplus_votes.csv"
    if not file.is_file():
        pytest.skip("needs FER+'s ferplus_votes.csv beside fer2013.csv")
    _, rows, _ = audited(tmp_path / "out", "data=fer2013_csv", f"data_dir={fer2013.parent}", f"votes={file}")
    assert len(rows["not_a_face"]) == 177
