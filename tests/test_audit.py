import csv
import hashlib
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig

from emotion.audit import audit
from emotion.config.compose import compose
from emotion.data.faces import Rows
from emotion.data.issues import FAULTS
from emotion.data.readers.ferplus import VOTED
from emotion.data.splits import parted
from emotion.errors import UserError
from emotion.train import train
from tests.conftest import SMALL, csv_lines


@pytest.fixture
def faulty(tmp_path: Path, few_faces: Rows) -> Path:
    """A fer2013.csv with one or two faults of each kind, at known rows behind 63 sound ones: 21 of each usage."""
    sound, labels, _ = few_faces[:3]
    added = [
        (sound[0], labels[0], 0),  # 63: 0 again
        (sound[30], labels[30], 0),  # 64: a PublicTest row
        (sound[50], (labels[50] + 1) % 7, 0),  # 65: a PrivateTest row under another label
        (np.roll(sound[1], 1, 1), labels[1], 0),  # 66: nearly 1
        (np.full_like(sound[0], 9), 0, 0),  # 67: blank
        (100 + sound[2] // 100, labels[2], 2),  # 68: pale
        (sound[31], labels[31], 2),  # 69: a PublicTest row in PrivateTest
    ]
    columns = [np.array(column, np.uint8) for column in zip(*added, strict=True)]
    rows = Rows(*(np.concatenate(pair) for pair in zip(few_faces[:3], columns, strict=True)), [""] * 70)
    path = tmp_path / "data" / "fer2013.csv"
    path.parent.mkdir()
    path.write_text("\n".join(csv_lines(rows)) + "\n")
    return path


def votes(path: Path, usage: list[str], seen: list[str]) -> Path:
    cells = [",".join("9" if name == what else "1" for name in VOTED) for what in seen]
    lines = [f"{use},x.png,{cell}" for use, cell in zip(usage, cells, strict=True)]
    path.write_text("\n".join([f"Usage,Image name,{','.join(VOTED)}", *lines]) + "\n")
    return path


def audited(folder: Path, *overrides: str) -> tuple[dict[str, object], dict[str, list[int]], str]:
    result = audit(compose("audit", *overrides), folder)
    assert json.loads((folder / "audit.json").read_text()) == result
    with (folder / "rows.csv").open() as file:
        table = list(csv.DictReader(file))
    listed = {name: [int(line["row"]) for line in table if line["fault"] == name] for name in FAULTS}
    return result, listed, (folder / "audit.html").read_text()


def test_every_fault_is_found_where_it_is(faulty: Path, tmp_path: Path) -> None:
    result, listed, _ = audited(tmp_path / "out", "near.correlation=0.85", "low_contrast=4")
    assert (result["faces"], result["pictures"], result["redundant"]) == (70, 66, 4)
    assert listed["leak"] == [31, 64, 65]
    assert listed["duplicate"] == [63]
    assert listed["conflict"] == [50, 65]
    assert 66 in listed["near_duplicate"]
    assert listed["blank"] == [67]
    assert listed["low_contrast"] == [68]
    assert result["also_in"] == {
        "PublicTest": {"Training": 1},
        "PrivateTest": {"Training": 1, "PublicTest": 1, "any": 2},
    }
    assert set(result["not_looked_for"]) == {"not_a_face", "label"}  # type: ignore[call-overload]


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str, name: str) -> list[str]:
        return [str(attrs[name]) for found, attrs in self.tags if found == tag and name in attrs]


def test_the_page_stands_alone_and_every_link_of_it_leads_somewhere(faulty: Path, tmp_path: Path) -> None:
    _, _, text = audited(tmp_path / "out", "pictures=5")
    page = Page(text)
    ids = {str(attrs["id"]) for _, attrs in page.tags if "id" in attrs}
    assert {link.removeprefix("#") for link in page.of("a", "href")} <= ids
    assert set(FAULTS) <= ids
    assert all(source.startswith("data:image/png;base64,") for source in page.of("img", "src"))
    assert not re.search(r"https?://|url\(|<script|<link", text)
    assert all("Row " in alt for alt in page.of("img", "alt"))
    sections = text.split("<section ")[1:]
    assert all(section.count("<img ") <= 5 for section in sections)
    assert len(page.of("img", "alt")) == len(page.of("img", "src")) > 0


def test_votes_tell_what_is_no_face_and_settle_conflicts(faulty: Path, tmp_path: Path) -> None:
    usage = [line.rsplit(",", 1)[1] for line in faulty.read_text().splitlines()[1:]]
    seen = ["NF" if row in (3, 40) else "anger" for row in range(70)]
    file = votes(tmp_path / "votes.csv", usage, seen)
    result, listed, _ = audited(tmp_path / "out", f"votes={file}")
    assert listed["not_a_face"] == [3, 40]
    lines = (tmp_path / "out/rows.csv").read_text().splitlines()
    assert {line.split(",")[-1] for line in lines if ",conflict," in line} == {"angry"}
    assert set(result["not_looked_for"]) == {"label"}  # type: ignore[call-overload]


def test_votes_that_do_not_fit_are_refused(faulty: Path, tmp_path: Path) -> None:
    usage = [line.rsplit(",", 1)[1] for line in faulty.read_text().splitlines()[1:]]
    short = votes(tmp_path / "short.csv", usage[:-1], ["fear"] * 69)
    turned = votes(tmp_path / "turned.csv", usage[::-1], ["fear"] * 70)
    (tmp_path / "other.csv").write_text("Usage,happiness\nTraining,1\n")
    for file, said in (
        (short, r"has 69 rows and .*fer2013.csv has 70"),
        (turned, r"row 0 is PrivateTest there and Training in"),
        (tmp_path / "other.csv", r"begins with .Usage,happiness.; expected the header"),
        (tmp_path / "none.csv", r"is not there. The votes of FER\+ are published"),
    ):
        with pytest.raises(UserError, match=said):
            audit(compose("audit", f"votes={file}"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("override", ["near.bits=40", "near.correlation=2", "pictures=0", "low_contrast=-1", "tta=x"])
def test_settings_out_of_range_are_refused(override: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected"):
        audit(compose("audit", "data=synthetic", override), tmp_path / "out")


def test_an_image_folder_is_audited(fer_folder: Path, tmp_path: Path) -> None:
    result, listed, text = audited(tmp_path / "out", "data=image_folder")
    assert result["faces"] == 63
    assert result["redundant"] == 0
    assert listed["blank"] == []
    assert "63 faces" in text


@pytest.fixture
def run(small_config: Callable[..., DictConfig], tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    train(small_config(f"run_dir={folder}", "labels=seven", "split=official", "trainer.max_epochs=1"), folder)
    return folder


def test_label_faults_are_looked_for_among_held_out_faces_alone(run: Path, tmp_path: Path) -> None:
    drawn = ("data=synthetic", "data.training=16", "data.public_test=4", "data.private_test=4")
    result, listed, _ = audited(tmp_path / "out", *drawn, f"checkpoint={run}", "accelerator=cpu")
    assert result["checkpoint"]["held_out"] == 56  # type: ignore[index]
    assert all(row >= 7 * 16 for row in listed["label"])
    assert result["faults"]["label"]["Training"] == 0  # type: ignore[index]
    with pytest.raises(UserError, match="was trained on other data than"):
        audit(compose("audit", *drawn, "data.seed=1", f"checkpoint={run}"), tmp_path / "other")


def test_of_several_checkpoints_a_held_out_face_is_new_to_all(
    run: Path, small_config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    train(small_config(f"run_dir={other}", "labels=seven", "split=stratified_15", "trainer.max_epochs=1"), other)
    drawn = ("data=synthetic", "data.training=16", "data.public_test=4", "data.private_test=4", "accelerator=cpu")
    alone, _, _ = audited(tmp_path / "alone", *drawn, f"checkpoint={other}")
    result, listed, text = audited(tmp_path / "out", *drawn, f"checkpoint=[{other},{run}]")
    assert alone["checkpoint"]["held_out"] == 56 + 7 * 2  # type: ignore[index]
    assert result["checkpoint"]["held_out"] == 56  # type: ignore[index]
    assert all(row >= 7 * 16 for row in listed["label"])
    assert str(other) in text
    assert str(run) in text


def test_a_missing_cleanlab_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(UserError, match=re.escape("pip install 'emotion[audit]'")):
        audit(compose("audit", "data=synthetic", "checkpoint=fast_cnn"), tmp_path / "out")


def test_a_run_leaves_out_what_an_audit_listed(faulty: Path, tmp_path: Path) -> None:
    audited(tmp_path / "out")
    file, run_dir = tmp_path / "out/rows.csv", tmp_path / "run"
    data = ("data=fer2013_csv", f"data_dir={faulty.parent}", "labels=seven", "split=official", "batch_size=16")
    left_out = (f"split.drop={file}", "split.drop_faults=[leak,blank]")
    train(compose("train", *SMALL, *data, *left_out, "trainer.max_epochs=1"), run_dir)
    record = json.loads((run_dir / "record.json").read_text())
    digest = hashlib.md5(file.read_bytes()).hexdigest()
    rows = {"train": 3, "val": 0, "test": 0}
    assert record["data"]["dropped"] == {"file": str(file), "digest": digest, "rows": rows}
    assert not set(np.load(run_dir / "rows.npz")["train"]) & {64, 65, 67}
    assert record["split"]["train"] == 26 - 3


def test_without_leaks_and_duplicates_every_picture_is_there_once(faulty: Path, tmp_path: Path) -> None:
    result, listed, _ = audited(tmp_path / "out")
    assert len({*listed["leak"], *listed["duplicate"]}) == result["redundant"]


@pytest.mark.fer2013
def test_known_faults_of_fer2013(fer2013: Path, tmp_path: Path) -> None:
    result, listed, _ = audited(tmp_path / "out", "data=fer2013_csv", f"data_dir={fer2013.parent}", "pictures=4")
    assert (result["faces"], result["pictures"], result["redundant"]) == (35_887, 34_034, 1_853)
    assert len({*listed["leak"], *listed["duplicate"]}) == 1_853
    within = {"PublicTest": {"Training": 280}, "PrivateTest": {"Training": 288, "PublicTest": 44, "any": 314}}
    assert result["also_in"] == within
    assert result["faults"]["conflict"]["groups"] == 57  # type: ignore[index]
    assert result["faults"]["blank"]["rows"] == 12  # type: ignore[index]
    usage = np.repeat(np.arange(3, dtype=np.uint8), (28_709, 3_589, 3_589))
    chosen = {"drop": str(tmp_path / "out/rows.csv"), "drop_faults": ["leak", "duplicate"]}
    split = {"_target_": "emotion.data.splits.official", **chosen}
    kept, left_out = parted(split, usage, np.zeros(35_887, np.int64))
    assert left_out is not None
    assert left_out["rows"]["train"] == 28_709 - len(kept.train) > 0


@pytest.mark.fer2013
def test_ferplus_sees_no_face_in_177_of_fer2013(fer2013: Path, tmp_path: Path) -> None:
    file = fer2013.parent / "ferplus_votes.csv"
    if not file.is_file():
        pytest.skip("needs FER+'s ferplus_votes.csv beside fer2013.csv")
    _, listed, _ = audited(tmp_path / "out", "data=fer2013_csv", f"data_dir={fer2013.parent}", f"votes={file}")
    assert len(listed["not_a_face"]) == 177
