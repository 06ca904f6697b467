import json
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.explain import explain
from emotion.reporting import readme_tables

OUT, RECORDS = Path("out/small"), Path("records")


@pytest.fixture
def explained(small_run: Callable[..., Path]) -> Path:
    """Explanations of drawn faces, as if made from a commit."""
    small_run(Path("run"), "trainer.max_epochs=1")
    few = (
        "method=occlusion",
        "accelerator=cpu",
        "faces=6",
        "shown=2",
        "faithfulness.faces=2",
        "faithfulness.sensitivity=2",
    )
    explain(compose("explain", "checkpoint=run", "data_dir=data", "cache_dir=cache", *few), OUT)
    changed(commit="a1" * 20)
    return OUT


def changed(**fields: object) -> None:
    path = OUT / "explain.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_kept_record_is_a_line_of_the_table_beside_maps_that_know_nothing(explained: Path) -> None:
    assert readme_tables.explanations_table(RECORDS) == ""
    kept = readme_tables.keep_explanations(explained, RECORDS)
    assert sorted(path.name for path in kept.iterdir()) == ["explain.json", "sheet.png"]
    cells = [
        [cell.strip() for cell in line.split("|")] for line in readme_tables.explanations_table(RECORDS).splitlines()
    ]
    assert [line[1:4] for line in cells[2:]] == [
        ["V4Attention", "2, drawn", method] for method in ("occlusion", "*chance*", "*middle*")
    ]
    figure = json.loads((kept / "explain.json").read_text())["explained"][0]["measures"]["deletion"]
    assert cells[2][4] == "{:.2f} [{:.2f}, {:.2f}]".format(*figure)


REFUSED = {
    "edited code": ({"commit": "a1+changes"}, "no commit holds the code"),
    "other data": ({"faces": {"source": "x.csv", "digest": "1"}}, "is of x.csv; expected the published"),
    "pictures alone": ({"explained": [{"method": "gradcam"}]}, "says nothing of how true"),
    "this machine": ({"command": "python", "config": {"data_dir": "/home/me"}}, "names places of this machine"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_evidence_is_not_kept(case: str, explained: Path) -> None:
    fields, message = REFUSED[case]
    changed(**fields)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        readme_tables.keep_explanations(explained, RECORDS)
    assert not RECORDS.exists()


def test_of_photographs_the_sheet_is_not_kept(explained: Path) -> None:
    from emotion.data.readers.fer2013 import PUBLISHED_MD5

    changed(faces={"source": "data/fer2013.csv", "digest": PUBLISHED_MD5, "n": 6})
    assert [path.name for path in readme_tables.keep_explanations(explained, RECORDS).iterdir()] == ["explain.json"]


def test_a_folder_without_a_record_is_refused() -> None:
    with pytest.raises(UserError, match=r"nothing holds no explain.json; expected a folder"):
        readme_tables.keep_explanations(Path("nothing"), RECORDS)
