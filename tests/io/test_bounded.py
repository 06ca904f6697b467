import json
from pathlib import Path

import pytest

from emotion.errors import UserError
from emotion.io.atomic import write_json
from emotion.io.bounded import MAX_TEXT_BYTES, read_json_object
from emotion.io.digests import RECORD, check_recorded_digest, file_digest


def test_an_object_is_read_without_the_digest_that_former_versions_stored(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1, "sha256": "0" * 64})
    assert read_json_object(tmp_path / "x.json") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "holds a list, expected a JSON object"),
        ("[" * 100_000, "cannot be read as JSON: it is nested too deeply"),
        (json.dumps({"a": "x" * MAX_TEXT_BYTES}), "expected at most 4,000,000"),
    ],
    ids=["truncated", "list", "deep", "large"],
)
def test_other_json_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_json_object(tmp_path / "x.json")


def test_files_in_a_record_are_checked_against_their_digests(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints/best.ckpt"
    path.write_bytes(b"content")
    write_json(tmp_path / RECORD, {"files": {"checkpoints/best.ckpt": file_digest(path)}})
    check_recorded_digest(path)
    path.write_bytes(b"changed")
    with pytest.raises(UserError, match=r"does not match the SHA-256 in .*record\.json"):
        check_recorded_digest(path)
