"""Publishing: the folder, the model card, the upload to a local Hub, and loading it again."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from emotion.checkpoints import portable
from emotion.checkpoints.contents import CheckpointContents
from emotion.checkpoints.ensemble import Ensemble
from emotion.checkpoints.load import load_checkpoint, read_checkpoint
from emotion.checkpoints.locate import zoo
from emotion.checkpoints.training_data import load_data
from emotion.config.compose import CONF, compose
from emotion.data.faces import EMOTIONS
from emotion.errors import UserError
from emotion.evaluation.score import score_rows
from emotion.publish import publish
from emotion.publishing.card_facts import ModelFacts
from emotion.publishing.model_card import model_card
from emotion.records.run_record import checkpoint_title, record_of_checkpoint
from tests.conftest import record_of
from tests.images import FACES, scene
from tests.publishing.hub_stub import TOKEN, Hub, environment

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub 2.4 on httpx2
    pytest.mark.filterwarnings("ignore:SYNTHETIC"),
]

REPO, FOLDER = "some-one/faces", Path("outputs/publish/now")
WRITTEN = {"README.md", "config.json", "label_map.json", "model.safetensors"}
PUBLISH = ("checkpoint=run", f"repo={REPO}", "onnx=false")


def run_publish(*overrides: str) -> Path:
    return publish(compose("publish", *PUBLISH, *overrides), FOLDER)


def load_card(folder: Path) -> ModelCard:
    return ModelCard.load(folder / "README.md")


def describe(run: Path, **record: Any) -> CheckpointContents:  # noqa: ANN401
    """Return the description of the run's weights, with changes to its record."""
    dataclasses.replace(record_of(run), **record).write(run)
    weights = Path("exported/model.safetensors")
    weights.parent.mkdir()
    checkpoint = read_checkpoint(load_checkpoint(run).path)
    portable.write(weights, weights.with_name("config.json"), checkpoint, record_of(run).to_dict())
    return portable.read_description(weights)


def render(description: CheckpointContents) -> str:
    return model_card(ModelFacts(description), Path("exported"), REPO, None)


def test_published_classifier_loads_and_scores_as_before(run: Path, served: Hub) -> None:
    """In a child process, with the token in the environment."""
    variables = os.environ | environment(served) | {"HF_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "emotion.publish", *PUBLISH, "license=mit"]
    process = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert f"published {served.address}/{REPO}" in process.stdout
    assert served.tokens >= {f"Bearer {TOKEN}"}
    (folder,) = Path("outputs/publish").iterdir()
    assert {path.name for path in folder.iterdir()} == WRITTEN
    assert served.repos[REPO][-1].keys() == {".gitattributes", *WRITTEN}
    assert len(served.repos[REPO]) == 2  # the Hub's first commit, and one upload
    assert TOKEN not in process.stdout + process.stderr
    files = [path for path in Path.cwd().rglob("*") if path.is_file()]
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]

    published, original = (load_checkpoint(source) for source in (f"hub:{REPO}", run))
    pixels = torch.from_numpy(FACES)
    probabilities = [loaded.classifier.probabilities(pixels).detach() for loaded in (published, original)]
    torch.testing.assert_close(*probabilities, atol=2e-3, rtol=0)
    data = load_data(published, compose("export"))
    ensemble, split = Ensemble([published]), data.split
    result = score_rows(ensemble, data.faces.images, data.labels, split.test, split.train)["none"]
    record, published_record = record_of(run), record_of_checkpoint(published)
    assert published_record is not None
    assert published_record.scores == record.scores
    expected = record.test_scores["none"]["all"]["accuracy"]
    assert result.scores["all"]["accuracy"] == pytest.approx(expected, abs=0.03)  # one face of 48, for the rounding


def test_folder_of_a_dry_run_can_be_uploaded_later(run: Path, served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_publish("dry_run=true")
    assert not served.requests
    assert {path.name for path in folder.iterdir()} == WRITTEN
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nA sentence of mine.\n")
    (folder / "diary.txt").write_text("private")
    shutil.rmtree(run)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    publish(compose("publish", f"folder={folder}", f"repo={REPO}"), Path("other"))
    uploaded = served.repos[REPO][-1]
    assert uploaded["README.md"].endswith(b"A sentence of mine.\n")
    assert "diary.txt" not in uploaded


def test_settings_that_a_written_folder_would_ignore_are_refused(run: Path) -> None:
    written = publish(compose("publish", *PUBLISH, "dry_run=true"), Path("a folder"))
    arguments = ("dry_run=true", f"folder='{written}'")
    for setting in ("license=mit", "onnx=false", "output=other"):
        with pytest.raises(UserError, match=f"is uploaded as it is, so {setting.partition('=')[0]}= would have no"):
            publish(compose("publish", *arguments, f"repo={REPO}", setting), FOLDER)
    with pytest.raises(UserError, match=f"names repo={REPO}, but repo=some-one/others was passed"):
        publish(compose("publish", *arguments, "repo=some-one/others"), FOLDER)
    assert publish(compose("publish", *arguments, f"repo={REPO}"), FOLDER) == written


def test_the_printed_command_quotes_the_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(compose("publish", *PUBLISH, "dry_run=true"), Path("a folder"))
    command = capsys.readouterr().out.rpartition("to upload: python -m emotion.publish ")[2]
    assert shlex.split(command) == ["folder=a folder", f"repo={REPO}"]


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.onnx", "model.safetensors"])
def test_files_of_the_user_are_left_unchanged(name: str, run: Path) -> None:
    FOLDER.mkdir(parents=True)
    (FOLDER / name).write_text("mine")
    with pytest.raises(UserError, match=f"output={FOLDER} contains {name}; expected a new or empty folder"):
        run_publish("dry_run=true")
    assert (FOLDER / name).read_text() == "mine"


def test_missing_token_is_reported_before_anything_is_written(run: Path, served: Hub) -> None:
    with pytest.raises(UserError, match=r"no token for the Hugging Face Hub; nothing was written. Set HF_TOKEN"):
        run_publish()
    assert not FOLDER.exists()
    assert not served.requests


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        ("whoami", 401, "refuses with 401.* Use another token"),
        ("GET /api/models", 503, "the Hub answers 503; try again later"),
    ],
)
def test_refusals_are_reported_before_anything_is_written(
    request_: str, status: int, message: str, run: Path, served: Hub, token: str
) -> None:
    served.faults[request_] = (status, {})
    with pytest.raises(UserError, match=message):
        run_publish()
    assert not FOLDER.exists()


@pytest.mark.parametrize("step", ["/api/repos/create", "/commit/", "PUT /large/"])
def test_failed_upload_leaves_a_folder_and_the_command_to_retry(step: str, run: Path, served: Hub, token: str) -> None:
    served.faults[step] = (403, {})
    with pytest.raises(UserError, match=r"403") as error:
        run_publish("private=true")
    assert token not in str(error.value)
    command = str(error.value).rpartition("python -m emotion.publish ")[2]
    served.faults.clear()
    assert command.endswith("private=true")  # a retry must not publish a private repository
    publish(compose("publish", *command.split()), Path("other"))
    assert WRITTEN < served.repos[REPO][-1].keys()


def test_previous_upload_is_replaced_and_other_files_stay(run: Path, served: Hub, token: str) -> None:
    run_publish()
    first = served.repos[REPO][-1]
    served.repos[REPO].append(first | {"model.onnx": b"of a former network", "picture.png": b"of somebody else"})
    run_publish("license=mit")
    assert served.repos[REPO][-1].keys() == first.keys() | {"picture.png"}
    assert b"license: mit" in served.repos[REPO][-1]["README.md"]


@pytest.mark.parametrize("config", [b'{"model_type": "vit"}', b"{", None])
def test_foreign_repository_is_left_unchanged(config: bytes | None, run: Path, served: Hub, token: str) -> None:
    files = {"README_md": b"mine", "x_bin": b"mine"} | ({"config_json": config} if config else {})
    served.put(REPO, **files)
    with pytest.raises(UserError, match=r"something else and is left unchanged: found README.md, .*x.bin; expected"):
        run_publish()
    assert len(served.repos[REPO]) == 1
    assert not FOLDER.exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["repo=faces"], "'faces' is not a repository name"),
        (["repo=a/b@v1"], "expected OWNER/NAME without a revision"),
        (["checkpoint=null"], "expected one of checkpoint=RUN and folder=FOLDER"),
        (["folder=x"], "expected one of checkpoint=RUN and folder=FOLDER"),
        (["checkpoint=null", "folder=conf", "onnx=true"], "folder=conf has no README.md, config.json, model.safe"),
        (["license='MIT License'"], "license=MIT License: expected one that the Hub lists, such as mit"),
        (["license=foo"], "license=foo: expected one that the Hub lists, such as mit, .*, or other"),
        (["onnx=maybe"], "onnx=maybe: expected true or false"),
        (["checkpoint=[run,run]"], "names 2 checkpoints; expected one"),
        (["output=run"], "output=run contains .*checkpoints, .*; expected a new or empty folder"),
    ],
)
def test_invalid_settings_are_refused_and_nothing_is_written(overrides: list[str], message: str, run: Path) -> None:
    before = sorted(Path.cwd().rglob("*"))
    with pytest.raises(UserError, match=message):
        run_publish("dry_run=true", *overrides)
    assert sorted(Path.cwd().rglob("*")) == before


def test_card_and_label_map_agree_with_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_publish("dry_run=true", "license=apache-2.0")
    card, record = load_card(folder), record_of(run)
    scores = record.test_scores["none"]["all"]
    data = card.data.to_dict()
    expected = {"license": "apache-2.0", "library_name": "emotion", "pipeline_tag": "image-classification"}
    assert {key: data[key] for key in expected} == expected
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        "accuracy": pytest.approx(scores["accuracy"][0], abs=1e-4),
        "f1": pytest.approx(scores["macro_f1"][0], abs=1e-4),
    }
    assert data["model-index"][0]["name"] == "faces"
    assert f"| none | all ({scores['n']:,}) | {100 * scores['accuracy'][0]:.1f} [" in card.text
    assert f"commit {record.commit or 'unknown'}" in card.text
    assert f"`{record.command}`" in card.text
    assert f'emotion.load("hub:{REPO}")' in card.text
    assert "onnxruntime" not in card.text
    assert "FER2013" not in card.text
    assert not re.search(r"[{}]\w|None|nan", card.text)

    warning = "These weights were trained and evaluated on SYNTHETIC faces rendered by the package."
    assert f"\n\n**{warning}" in card.text.split("## Use")[0]
    assert f"warning: {warning}" in capsys.readouterr().out

    classes = load_checkpoint(run).classifier.classes
    assert json.loads((folder / "label_map.json").read_text()) == {
        "id2label": {str(index): name for index, name in enumerate(classes)},
        "label2id": {name: index for index, name in enumerate(classes)},
    }


@pytest.mark.parametrize(
    ("record", "warning"),
    [
        ({"commit": "1234567+changes"}, "was modified after its commit"),
        ({"commit": None}, "The commit of the code that trained these weights is unknown"),
        ({"scores": None}, "These weights have no scores"),
        ({"best": {"epoch": 7}}, "These weights have no scores"),  # the scores are of another epoch
    ],
)
def test_card_warns_of_gaps_in_the_record(record: dict[str, Any], warning: str, run: Path) -> None:
    text = render(describe(run, **record))
    assert re.search(rf"^\*\*.*{warning}.*\*\*$", text, re.MULTILINE)
    assert ("## Scores" in text) == ("model-index" in text) == ("no scores" not in warning)


def test_run_without_a_record_is_published_without_scores(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "record.json").unlink()
    text = (run_publish("dry_run=true") / "README.md").read_text()
    assert "**There is no record of the run that produced these weights" in text
    assert "## Scores" not in text
    assert "warning: There is no record" in capsys.readouterr().out


def test_card_states_the_limits_of_fer2013() -> None:
    card = load_card(publish(compose("publish", "checkpoint=fast_cnn", *PUBLISH[1:], "dry_run=true"), FOLDER))
    facts = ("57 groups", "177", "12 images", "1,853", "7,215", "436", "65 ± 5 %", "Article 5(1)(f)")
    assert [fact for fact in facts if fact not in card.text] == []
    assert card.data.datasets == ["fer2013"]
    assert "SYNTHETIC" not in card.text
    assert "Split `official`: 28,709 faces for training" in card.text
    assert "(PrivateTest)" in card.text
    assert "- distilled from outputs/records/cpu_best/cpu_best.safetensors" in card.text
    assert "another file or format" not in card.text
    assert "Epoch 70 of 70 was chosen on validation (val/acc 0.6957)" in " ".join(card.text.split())


def test_card_shows_names_of_classes_as_they_are(run: Path) -> None:
    description = describe(run, scores=None)
    names = ["<b>joy</b> | `x` 😀", *description.hyper_parameters["classes"][1:]]
    description.hyper_parameters["classes"] = names
    Path("exported/model.onnx").touch()
    text = render(description)
    assert r"Output: the probabilities of \<b\>joy\</b\> \| \`x\` 😀, " in text
    assert f"classes = {names}\n" in text


def test_card_of_synthetic_faces_claims_nothing_about_people(run: Path) -> None:
    text = render(describe(run))
    assert "The network learned nothing from people" in text
    assert "how people labeled" not in text


def test_card_of_some_classes_says_which_faces_are_left_out() -> None:
    weights = CONF.parent / "outputs/records/fast_cnn_four/fast_cnn_four.safetensors"
    overrides = (f"checkpoint={weights}", *PUBLISH[1:], "dry_run=true", "onnx=false")
    card = load_card(publish(compose("publish", *overrides), FOLDER))
    assert "left out, as the classes contain none of them: faces labeled angry, disgust, fear" in card.text
    assert "2,515 for test (of PrivateTest, without the classes left out)" in " ".join(card.text.split())
    assert {result.dataset_name for result in card.data.eval_results} == {"FER2013, 4 classes"}


@pytest.mark.parametrize("name", zoo())
def test_the_packages_weights_are_known_to_be_trained_on_the_published_file(name: str) -> None:
    assert ModelFacts(portable.read_description(zoo()[name])).is_published_file
    assert checkpoint_title(load_checkpoint(name)) == name


@pytest.mark.parametrize(
    ("reader", "expected", "unexpected"),
    [
        ("path_list.read", "Nothing is known here about the training images beyond what *Training* lists", "FER2013"),
        ("fer2013.read_csv", "another file or format and may differ", "Nothing is known"),
        ("ferplus.read", "The labels are not FER2013's but FER+'s", "Nothing is known"),
    ],
)
def test_card_states_the_limits_of_the_data(reader: str, expected: str, unexpected: str, run: Path) -> None:
    description = describe(run)
    source = {"_target_": f"emotion.data.readers.{reader}"}
    if reader == "ferplus.read":
        source["source"] = {"_target_": "emotion.data.readers.fer2013.read_csv"}  # type: ignore[assignment]
    description.data_hyper_parameters["source"] = source
    text = render(description)
    assert expected in text
    assert unexpected not in text


@pytest.mark.parametrize("reader", ["image_folder.read", "parquet.read"])
def test_images_are_fer2013_only_if_their_number_is(reader: str, run: Path) -> None:
    description = describe(run, split={"train": 25_838, "val": 2_871, "test": 7_178})
    description.data_hyper_parameters["source"] = {"_target_": f"emotion.data.readers.{reader}"}
    description.data_hyper_parameters["labels"] = {name: [name] for name in EMOTIONS}
    assert "The faces are those of FER2013" in render(description)
    description.data_hyper_parameters["labels"].pop("sad")
    own = render(description)
    assert "Nothing is known here about the training images" in own
    assert "FER2013" not in own
    assert "Other faces" in own


def test_code_in_the_card_works(run: Path, served: Hub, token: str) -> None:
    folder = run_publish("onnx=true")
    Image.fromarray(FACES[0]).save("face.png")
    cv2.imwrite("photo.jpg", scene((200, 100, 200)))
    predict, use_onnx = re.findall(r"```python\n(.*?)```", load_card(folder).text, re.DOTALL)
    exec(predict, {})
    variables: dict[str, Any] = {}
    exec(use_onnx, variables)
    expected = load_checkpoint(folder / "model.safetensors").classifier.probabilities(torch.from_numpy(FACES[:1]))
    torch.testing.assert_close(torch.from_numpy(variables["probabilities"]), expected.detach(), atol=1e-4, rtol=0)


def test_onnx_is_left_out_without_the_extra(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("emotion.publish.ONNX_PACKAGES", ("onnx", "missing_package"))
    folder = run_publish("dry_run=true", "onnx=true")
    assert {path.name for path in folder.iterdir()} == WRITTEN
    assert "model.onnx is left out because it needs missing_package, which is not installed" in capsys.readouterr().out
