"""Publishing: the folder, the card, the upload to a Hub on loopback and the way back."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from emotion.checkpoints import portable
from emotion.checkpoints.ensemble import Ensemble
from emotion.checkpoints.load import load_checkpoint, read_checkpoint
from emotion.checkpoints.training_data import data_of
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.evaluation.score import score_rows
from emotion.publish import publish
from emotion.publishing.card_facts import Facts
from emotion.publishing.model_card import card
from emotion.records import run_record
from emotion.records.run_record import read_record, write_record
from tests.pictures import FOUND, scene
from tests.publishing.hub_stub import TOKEN, Hub, environment, serving

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub 2.4 on httpx2

REPO, RUN, FOLDER = "some-one/faces", Path("run"), Path("outputs/publish/now")
WRITTEN = {"README.md", "config.json", "label_map.json", "model.safetensors"}
PUBLISH = ("checkpoint=run", f"repo={REPO}", "onnx=false")


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    """Of the small V4 on six classes."""
    return small_run(RUN, "trainer.max_epochs=1")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(monkeypatch) as hub:
        yield hub


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch, served: Hub) -> str:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return TOKEN


def published(*overrides: str) -> Path:
    return publish(compose("publish", *PUBLISH, *overrides), FOLDER)


def read_back(folder: Path) -> ModelCard:
    return ModelCard.load(folder / "README.md")


def test_what_was_published_comes_back(run: Path, served: Hub) -> None:
    """As people do it: processes of their own, the token from the environment."""
    there = os.environ | environment(served) | {"HF_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "emotion.publish", *PUBLISH, "license=mit"]
    done = subprocess.run(command, env=there, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"published {served.address}/{REPO}" in done.stdout
    assert served.tokens >= {f"Bearer {TOKEN}"}
    folder = next(Path("outputs/publish").iterdir())
    assert {path.name for path in folder.iterdir()} == WRITTEN
    assert served.repos[REPO][-1].keys() == {".gitattributes", *WRITTEN}
    assert len(served.repos[REPO]) == 2  # what the Hub makes, and one commit
    assert TOKEN not in done.stdout + done.stderr
    written = [path for path in Path.cwd().rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    back, before = (load_checkpoint(source) for source in (f"hub:{REPO}", run))
    pixels = torch.from_numpy(FOUND)
    shares = [one.classifier.probabilities(pixels).detach() for one in (back, before)]
    torch.testing.assert_close(*shares, atol=2e-3, rtol=0)
    data = data_of(back, {"cache_dir": "cache", "data_dir": "data"})
    split = data.split
    judged = score_rows(Ensemble([back]), data.faces.images, data.labels, split.test, split.train)["none"]
    record, kept = read_record(run), run_record.record_of(back)
    assert record is not None
    assert kept is not None
    assert kept["scores"] == record["scores"]
    expected = record["scores"]["test"]["none"]["all"]["accuracy"]
    assert judged.scores["all"]["accuracy"] == pytest.approx(expected, abs=0.03)  # a face of 48, for the rounding


def test_a_dry_run_asks_nobody_and_its_folder_can_be_uploaded_later(
    run: Path, served: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = published("dry_run=true")
    assert not served.asked
    assert {path.name for path in folder.iterdir()} == WRITTEN
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nAnd a word of mine.\n")
    (folder / "diary.txt").write_text("of nobody's concern")
    shutil.rmtree(run)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    publish(compose("publish", f"folder={folder}", f"repo={REPO}"), Path("other"))
    there = served.repos[REPO][-1]
    assert there["README.md"].endswith(b"And a word of mine.\n")
    assert "diary.txt" not in there


def test_without_a_token_nothing_is_made(run: Path, served: Hub) -> None:
    with pytest.raises(UserError, match=r"no token for the Hugging Face Hub, and nothing was made. Set HF_TOKEN"):
        published()
    assert not FOLDER.exists()
    assert not served.asked


REFUSED = {
    "a token that the Hub does not take": ("whoami", 401, r"refuses with 401.* Give another token"),
    "the Hub is down": ("GET /api/models", 503, "the Hub answers 503; try again later"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_uploaded_is_not_made(why: str, run: Path, served: Hub, token: str) -> None:
    part, status, message = REFUSED[why]
    served.faults[part] = (status, {})
    with pytest.raises(UserError, match=message):
        published()
    assert not FOLDER.exists()


@pytest.mark.parametrize("step", ["/api/repos/create", "/commit/", "PUT /large/"])
def test_an_upload_that_fails_leaves_a_folder_to_try_again_with(step: str, run: Path, served: Hub, token: str) -> None:
    served.faults[step] = (403, {})
    with pytest.raises(UserError, match=r"403") as error:
        published("private=true")
    assert token not in str(error.value)
    again = str(error.value).rpartition("python -m emotion.publish ")[2]
    served.faults.clear()
    assert again.endswith("private=true")  # whoever tries again does not make it public
    publish(compose("publish", *again.split()), Path("other"))
    assert WRITTEN < served.repos[REPO][-1].keys()


def test_what_we_published_before_gives_way_and_nothing_of_it_stays(run: Path, served: Hub, token: str) -> None:
    published()
    first = served.repos[REPO][-1]
    served.repos[REPO].append(first | {"model.onnx": b"of a former network", "picture.png": b"somebody's own"})
    published("license=mit")
    assert served.repos[REPO][-1].keys() == first.keys() | {"picture.png"}
    assert b"license: mit" in served.repos[REPO][-1]["README.md"]


@pytest.mark.parametrize("config", [b'{"model_type": "vit"}', b"{", None])
def test_a_repository_of_something_else_is_left_alone(config: bytes | None, run: Path, served: Hub, token: str) -> None:
    files = {"README_md": b"mine", "x_bin": b"mine"} | ({"config_json": config} if config else {})
    served.put(REPO, **files)
    with pytest.raises(UserError, match=r"something else, which is left alone: found README.md, .*x.bin; expected"):
        published()
    assert len(served.repos[REPO]) == 1
    assert not FOLDER.exists()


MISTAKES = {
    "no name": (["repo=faces"], "'faces' names no repository"),
    "a revision": (["repo=a/b@v1"], "expected OWNER/NAME alone"),
    "nothing to publish": (["checkpoint=null"], "expected one of checkpoint=RUN and folder=FOLDER"),
    "both": (["folder=x"], "expected one of checkpoint=RUN and folder=FOLDER"),
    "no folder of ours": (["checkpoint=null", "folder=conf"], "folder=conf has no README.md, config.json, model.safe"),
    "a licence's full name": (["license='MIT License'"], "license=MIT License: expected the Hub's spelling of one"),
    "neither true nor false": (["onnx=maybe"], "onnx=maybe: expected true or false"),
    "several": (["checkpoint=[run,run]"], "names 2 checkpoints; one is published"),
    "a folder with other things": (
        ["output=run"],
        r"output=run holds .*checkpoints, .*; expected a new or empty folder",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_before_anything_is_written(mistake: str, run: Path) -> None:
    given, message = MISTAKES[mistake]
    before = sorted(Path.cwd().rglob("*"))
    with pytest.raises(UserError, match=message):
        published("dry_run=true", *given)
    assert sorted(Path.cwd().rglob("*")) == before


def test_the_card_says_what_the_record_says(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = published("dry_run=true", "license=apache-2.0")
    found, record = read_back(folder), read_record(run)
    assert record is not None
    scores = record["scores"]["test"]["none"]["all"]
    data = found.data.to_dict()
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == (
        "apache-2.0",
        "emotion",
        "image-classification",
    )
    assert {one.metric_type: one.metric_value for one in found.data.eval_results} == {
        "accuracy": pytest.approx(scores["accuracy"][0], abs=1e-4),
        "f1": pytest.approx(scores["macro_f1"][0], abs=1e-4),
    }
    assert data["model-index"][0]["name"] == "faces"
    assert f"| none | all ({scores['n']:,}) | {100 * scores['accuracy'][0]:.1f} [" in found.text
    assert f"commit {record['commit']}" in found.text
    assert f"`{record['command']}`" in found.text
    assert f'emotion.load("hub:{REPO}")' in found.text
    assert "onnxruntime" not in found.text
    assert not re.search(r"[{}]\w|None|nan", found.text)


def test_drawn_faces_are_said_in_bold_at_the_top(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = published("dry_run=true")
    said = "These weights were trained and judged on SYNTHETIC faces, drawn by the package."
    head = read_back(folder).text.split("## Use")[0]
    assert f"\n\n**{said}" in head
    assert f"warning: {said}" in capsys.readouterr().out
    assert "FER2013" not in read_back(folder).text


def told_of(run: Path, **record: object) -> Facts:
    """Of the run's weights as they travel, with other things in their record."""
    folder = Path("as_it_travels")
    folder.mkdir(exist_ok=True)
    write_record(run, (read_record(run) or {}) | record)
    loaded = load_checkpoint(run)
    weights = folder / "model.safetensors"
    portable.write(weights, folder / "config.json", read_checkpoint(loaded.path), run_record.record_of(loaded))
    return Facts(portable.description(weights))


DOUBTS = {
    "changes since the commit": ({"commit": "1234567+changes"}, "was changed since its commit"),
    "no commit": ({"commit": None}, "It is not known which commit"),
    "no scores": ({"scores": None}, "There are no scores of these weights"),
    "the scores of another epoch": ({"best": {"epoch": 7}}, "There are no scores of these weights"),
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_a_doubt_stands_in_the_card(doubt: str, run: Path) -> None:
    record, said = DOUBTS[doubt]
    facts = told_of(run, **record)
    text = card(facts, Path("as_it_travels"), REPO, None)
    assert re.search(rf"^\*\*.*{said}.*\*\*$", text, re.MULTILINE)
    assert ("## Scores" in text) == ("scores" not in doubt)
    assert ("model-index" in text) == ("scores" not in doubt)


def test_a_run_without_a_record_is_published_without_scores(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "record.json").unlink()
    text = (published("dry_run=true") / "README.md").read_text()
    assert "**There is no record of the run that made these weights" in text
    assert "## Scores" not in text
    assert "warning: There is no record" in capsys.readouterr().out


def test_what_is_wrong_with_fer2013_stands_where_the_faces_are_its(capsys: pytest.CaptureFixture[str]) -> None:
    folder = publish(compose("publish", "checkpoint=attention_cnn", *PUBLISH[1:], "dry_run=true"), FOLDER)
    found = read_back(folder)
    for fact in ("57 groups", "177", "12 are", "1,853", "7,215", "436", "65 ± 5 %", "Article\n5(1)(f)"):
        assert fact in found.text
    assert found.data.datasets == ["fer2013"]
    assert "SYNTHETIC" not in found.text
    assert "Split `stratified`, fraction 0.15, seed 0" in found.text
    assert "(PublicTest and PrivateTest together)" in found.text
    assert "another file or form of it" not in found.text


def test_other_data_has_no_limits_of_fer2013(run: Path) -> None:
    facts = told_of(run)
    facts._source["_target_"] = "emotion.data.readers.path_list.read"
    text = card(facts, Path("as_it_travels"), REPO, None)
    assert "FER2013" not in text
    assert "no more is known here than stands under *Training*" in text
    facts._source["_target_"] = "emotion.data.readers.fer2013.read_csv"
    text = card(facts, Path("as_it_travels"), REPO, None)
    assert "1,853" in text
    assert "another file or form of it" in text


def test_a_label_map_goes_both_ways(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = published("dry_run=true")
    maps: dict[str, Any] = json.loads((folder / "label_map.json").read_text())
    classes = load_checkpoint(run).classifier.classes
    assert maps["label2id"] == {name: index for index, name in enumerate(classes)}
    assert maps["id2label"] == {str(index): name for index, name in enumerate(classes)}


def test_the_code_of_a_card_does_what_it_says(run: Path, served: Hub, token: str) -> None:
    folder = published("onnx=true")
    Image.fromarray(FOUND[0]).save("face.png")
    cv2.imwrite("photo.jpg", scene((200, 100, 200)))
    predicting, with_onnx = re.findall(r"```python\n(.*?)```", read_back(folder).text, re.DOTALL)
    exec(predicting, {})
    said: dict[str, Any] = {}
    exec(with_onnx, said)
    expected = load_checkpoint(folder / "model.safetensors").classifier.probabilities(torch.from_numpy(FOUND[:1]))
    torch.testing.assert_close(torch.from_numpy(said["probabilities"]), expected.detach(), atol=1e-4, rtol=0)


def test_without_the_extra_onnx_is_left_out(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("emotion.publish.NEEDED_FOR_ONNX", ("onnx", "nothing_of_that_name"))
    folder = published("dry_run=true", "onnx=true")
    assert {path.name for path in folder.iterdir()} == WRITTEN
    assert "model.onnx is left out, as it needs nothing_of_that_name: pip install" in capsys.readouterr().out
