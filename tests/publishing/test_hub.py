"""Downloads of classifiers from the Hugging Face Hub, and what is refused before downloading."""

import json
from pathlib import Path

import pytest
import torch

import emotion
from emotion.checkpoints import hub, portable
from emotion.checkpoints.load import load_checkpoint, read_checkpoint
from emotion.errors import UserError
from tests.conftest import record_of
from tests.images import FACES
from tests.publishing.hub_stub import TOKEN, Hub

REPO, NAME = "some-one/faces", "hub:some-one/faces"
pytestmark = pytest.mark.filterwarnings("ignore:SYNTHETIC")
PICKLE = b"\x80\x04not to be opened"


@pytest.fixture
def files(run: Path) -> dict[str, bytes]:
    """The run's weights and description, named for `Hub.put`."""
    checkpoint = read_checkpoint(load_checkpoint(run).path)
    portable.write(Path("w.safetensors"), Path("w.json"), checkpoint, record_of(run).to_dict())
    return {"model_safetensors": Path("w.safetensors").read_bytes(), "config_json": Path("w.json").read_bytes()}


def with_config(files: dict[str, bytes], **entries: object) -> dict[str, bytes]:
    return files | {"config_json": json.dumps(json.loads(files["config_json"]) | entries).encode()}


def test_loads_a_classifier_and_downloads_two_files_only(served: Hub, files: dict[str, bytes]) -> None:
    served.put(REPO, **files, pytorch_model_bin=PICKLE)
    predictor = emotion.load(NAME, detector="none", device="cpu")
    probabilities = torch.stack([torch.from_numpy(face.probs) for (face,) in predictor.predict(list(FACES))])
    expected = load_checkpoint("w.safetensors").classifier.probabilities(torch.from_numpy(FACES)).detach()
    torch.testing.assert_close(probabilities, expected, atol=1e-6, rtol=0)
    assert served.downloaded() == {"config.json", "model.safetensors"}


def test_both_files_are_of_the_named_revision(served: Hub, files: dict[str, bytes]) -> None:
    served.put(REPO, **with_config(files, epoch=41))
    served.put(REPO, **with_config(files, epoch=42))
    assert load_checkpoint(NAME).epoch == 42
    assert load_checkpoint(f"{NAME}@{1:040x}").epoch == 41
    with pytest.raises(UserError, match=f"{NAME}@v9: the repository has no branch, tag or commit v9"):
        load_checkpoint(f"{NAME}@v9")


@pytest.mark.parametrize("reason", ["offline", "outage", "unreachable"])
def test_cached_files_are_used_without_the_hub(
    reason: str,
    served: Hub,
    files: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    served.put(REPO, **files)
    before = hub.download(REPO)
    if reason == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    elif reason == "outage":
        served.faults["/api/models"] = (503, {})
    else:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert hub.download(REPO) == before
    assert (f"Using the cached copy of commit {1:040x}" in capsys.readouterr().err) == (reason != "offline")
    with pytest.raises(UserError, match=r"hub:some-one/other: .* The local cache has no copy of hub:some-one/other"):
        hub.download("some-one/other")


@pytest.mark.parametrize(
    ("request_", "status", "headers", "message"),
    [
        ("/api/models", 404, {"X-Error-Code": "RepoNotFound"}, "no such repository, or a private one that the token"),
        ("/api/models", 403, {"X-Error-Code": "GatedRepo"}, "gated: request access at http.*/some-one/faces, then set"),
        ("/resolve/", 403, {"X-Error-Code": "GatedRepo"}, f"{NAME} is gated"),
        ("/api/models", 401, {}, "the Hub refuses with 401: it is a fault. Use another token: HF_TOKEN"),
        ("/api/models", 500, {}, "the Hub answers 500; try again later. The local cache has no copy"),
        ("/api/models", 418, {"X-Error-Message": f"what is {TOKEN}?"}, "with 418: its answer quotes the token"),
    ],
)
def test_errors_of_the_hub_are_one_line_without_the_token(
    request_: str, status: int, headers: dict[str, str], message: str, served: Hub, token: str, files: dict[str, bytes]
) -> None:
    served.put(REPO, **files)
    served.faults[request_] = (status, headers)
    with pytest.raises(UserError, match=message) as error:
        hub.download(REPO)
    assert len(str(error.value).splitlines()) == 1
    assert token not in str(error.value)
    assert "model.safetensors" not in served.downloaded()


def test_pickles_are_refused_and_never_downloaded(served: Hub) -> None:
    served.put(REPO, pytorch_model_bin=PICKLE, config_json=b"{}")
    with pytest.raises(UserError, match=r"has no model.safetensors; found .* pytorch_model.bin: pickles are never"):
        hub.download(REPO)
    served.put("some-one/empty", **{"_gitattributes": b""})
    with pytest.raises(UserError, match=r"has no config.json and no model.safetensors; found .gitattributes. Expected"):
        hub.download("some-one/empty")
    assert not served.downloaded()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": None}, "does not describe a classifier of this package: found format None"),
        ({"hyper_parameters": {"model": {"_target_": "os.system"}}}, "names os.system, which is"),
    ],
)
def test_foreign_descriptions_are_refused_before_the_weights_are_downloaded(
    entries: dict[str, object], message: str, served: Hub, files: dict[str, bytes]
) -> None:
    served.put(REPO, **with_config(files, **entries))
    with pytest.raises(UserError, match=f"{NAME}: .*config.json {message}"):
        hub.download(REPO)
    assert served.downloaded() == {"config.json"}


@pytest.mark.parametrize(("name", "size"), [("model.safetensors", 2_000_000_001), ("config.json", 4_000_001)])
def test_files_that_are_too_large_are_not_downloaded(name: str, size: int, served: Hub) -> None:
    served.put(REPO, model_safetensors=b"", config_json=b"")
    served.sizes[name] = size
    with pytest.raises(UserError, match=f"{name} has {size:,} bytes, expected at most .* It was not downloaded"):
        hub.download(REPO)
    assert not served.downloaded()


@pytest.mark.parametrize(
    "name",
    [
        "faces",
        "/faces",
        "a/b/c",
        "a/",
        "a/..",
        "a/b@",
        "a/b@../../x",
        "a/b@/etc",
        "a--b/c",
        "a/b.git",
        "ä/b",
        "a/b c",
        "",
    ],
)
def test_invalid_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="is not a repository name of the Hugging Face Hub; expected OWNER/NAME"):
        load_checkpoint(f"hub:{name}")
