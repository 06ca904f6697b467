"""Classifiers from the Hugging Face Hub: what is fetched, and what is refused before it is."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import emotion
from emotion.checkpoints import hub, portable
from emotion.checkpoints.load import load_checkpoint, read_checkpoint
from emotion.errors import UserError
from emotion.io import digests
from emotion.records import run_record
from tests.pictures import FOUND
from tests.publishing.hub_stub import TOKEN, Hub, serving

REPO, NAME = "some-one/faces", "hub:some-one/faces"
PICKLE = b"\x80\x04nothing that anybody should open"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(monkeypatch) as hub:
        yield hub


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    """Of the small V4 on six classes."""
    return small_run(Path("run"), "trainer.max_epochs=1")


@pytest.fixture
def files(run: Path) -> dict[str, bytes]:
    """The run's weights and their description, by name but for the dot."""
    loaded = load_checkpoint(run)
    portable.write(Path("w.safetensors"), Path("w.json"), read_checkpoint(loaded.path), run_record.record_of(loaded))
    return {"model_safetensors": Path("w.safetensors").read_bytes(), "config_json": Path("w.json").read_bytes()}


def changed(files: dict[str, bytes], **told: object) -> dict[str, bytes]:
    return files | {"config_json": json.dumps(digests.sealed(json.loads(files["config_json"]) | told)).encode()}


def test_what_lies_on_the_hub_is_asked_like_any_checkpoint(served: Hub, files: dict[str, bytes]) -> None:
    served.put(REPO, **files, pytorch_model_bin=PICKLE)
    own = load_checkpoint("w.safetensors")
    predictor = emotion.load(NAME, detector="none", accelerator="cpu")
    shares = torch.stack([torch.from_numpy(face.shares) for (face,) in predictor.predict(list(FOUND))])
    expected = own.classifier.probabilities(torch.from_numpy(FOUND)).detach()
    torch.testing.assert_close(shares, expected, atol=1e-6, rtol=0)
    assert served.fetched() == {"config.json", "model.safetensors"}


def test_both_files_are_of_the_revision_that_is_named(served: Hub, files: dict[str, bytes]) -> None:
    served.put(REPO, **changed(files, epoch=41))
    served.put(REPO, **changed(files, epoch=42))
    assert load_checkpoint(NAME).epoch == 42
    assert load_checkpoint(f"{NAME}@{1:040x}").epoch == 41
    with pytest.raises(UserError, match=f"{NAME}@v9: the repository has no branch, tag or commit v9"):
        load_checkpoint(f"{NAME}@v9")


@pytest.mark.parametrize("why", ["offline", "an outage", "no way there"])
def test_what_was_fetched_is_there_without_the_hub(
    why: str, served: Hub, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served.put(REPO, **files)
    before = hub.fetched(REPO)
    if why == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    elif why == "an outage":
        served.faults["/api/models"] = (503, {})
    else:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert hub.fetched(REPO) == before
    assert (f"Taken instead: the copy here, of commit {1:040x}" in capsys.readouterr().err) == (why != "offline")
    with pytest.raises(UserError, match=r"hub:some-one/other: .* No copy of hub:some-one/other lies in this machine's"):
        hub.fetched("some-one/other")


FORBIDDEN = {
    "not there": (404, {"X-Error-Code": "RepoNotFound"}, "no such repository, or a private one and no token"),
    "gated": (403, {"X-Error-Code": "GatedRepo"}, "is gated: ask for access at http.*/some-one/faces, then give a tok"),
    "a token that is refused": (401, {}, r"the Hub refuses with 401: it is a fault. Give another token: HF_TOKEN"),
    "a fault of the Hub": (500, {}, "the Hub answers 500; try again later. No copy of"),
    "a token that is quoted": (418, {"X-Error-Message": f"what is {TOKEN}?"}, "with 418: its answer quotes the token"),
}


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_a_refusal_of_the_hub_is_one_line(
    kind: str, served: Hub, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    status, headers, message = FORBIDDEN[kind]
    served.put(REPO, **files)
    served.faults["/api/models"] = (status, headers)
    with pytest.raises(UserError, match=message) as error:
        hub.fetched(REPO)
    assert len(str(error.value).splitlines()) == 1
    assert TOKEN not in str(error.value)
    assert not served.fetched()


def test_a_file_that_is_gated_is_said_to_be(served: Hub, files: dict[str, bytes]) -> None:
    served.put(REPO, **files)
    served.faults["/resolve/"] = (403, {"X-Error-Code": "GatedRepo"})
    with pytest.raises(UserError, match=f"{NAME} is gated"):
        hub.fetched(REPO)


def test_a_pickle_is_refused_and_never_fetched(served: Hub) -> None:
    served.put(REPO, pytorch_model_bin=PICKLE, config_json=b"{}")
    with pytest.raises(UserError, match=r"has no model.safetensors; found .* pytorch_model.bin: a pickle, which"):
        hub.fetched(REPO)
    served.put("some-one/empty", **{"_gitattributes": b""})
    with pytest.raises(UserError, match=r"has no config.json and no model.safetensors; found .gitattributes. Expected"):
        hub.fetched("some-one/empty")
    assert not served.fetched()


FOREIGN = {
    "another library's": ({"format": None}, "describes no classifier of ours: found format None"),
    "one that would run code": ({"hyper_parameters": {"loss": {"_target_": "os.system"}}}, "names os.system, which is"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_description_is_refused_before_its_weights_are_fetched(
    kind: str, served: Hub, files: dict[str, bytes]
) -> None:
    told, message = FOREIGN[kind]
    served.put(REPO, **changed(files, **told))
    with pytest.raises(UserError, match=f"{NAME}: .*config.json {message}"):
        hub.fetched(REPO)
    assert served.fetched() == {"config.json"}


@pytest.mark.parametrize(("name", "bytes_"), [("model.safetensors", 2_000_000_001), ("config.json", 4_000_001)])
def test_what_is_too_large_is_not_fetched(name: str, bytes_: int, served: Hub, files: dict[str, bytes]) -> None:
    served.put(REPO, **files)
    served.sizes[name] = bytes_
    with pytest.raises(UserError, match=f"{name} has {bytes_:,} bytes; expected .* at most. It was not fetched"):
        hub.fetched(REPO)
    assert not served.fetched()


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
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="names no repository of the Hugging Face Hub; expected OWNER/NAME"):
        load_checkpoint(f"hub:{name}")
