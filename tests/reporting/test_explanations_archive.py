"""Archived explanations and their table."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion.config.compose import compose
from emotion.data.readers.fer2013 import PUBLISHED_MD5
from emotion.errors import UserError
from emotion.explain import explain
from emotion.records.archive import check_explanations, keep_explanations
from emotion.reporting.readme_tables import explanations_table

OUT, RECORDS = Path("out/small"), Path("records")
SMALL = ("explainer=occlusion", "accelerator=cpu", "faces=6", "num_shown=2", "faithfulness.faces=2",
         "faithfulness.sensitivity=2")  # fmt: skip


@pytest.fixture
def explanations(small_run: Callable[..., Path]) -> Path:
    """Explanations of synthetic faces, as if made from a commit."""
    small_run(Path("run"), "trainer.max_epochs=1")
    explain(compose("explain", "checkpoint=run", "cache_dir=cache", *SMALL), OUT)
    change(commit="a1" * 20)
    return OUT


def change(**fields: object) -> None:
    path = OUT / "explain.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_explanations_are_archived_and_in_the_table(explanations: Path) -> None:
    assert explanations_table(RECORDS) == ""
    target = keep_explanations(explanations, RECORDS)
    assert sorted(path.name for path in target.iterdir()) == ["explain.json", "sheet.png"]
    title, _, *table = explanations_table(RECORDS).splitlines()
    assert title == "V4Attention, 2 faces of synthetic data:"
    rows = [[cell.strip() for cell in line.split("|")] for line in table[2:]]
    explanation = json.loads((target / "explain.json").read_text())["explanations"][0]
    methods = ["occlusion", *(f"*{name}*" for name in explanation["baselines"])]
    assert len(methods) == 3
    assert [row[1] for row in rows] == methods
    assert rows[0][2] == "{:.2f} [{:.2f}, {:.2f}]".format(*explanation["measures"]["deletion"])
    assert rows[0][5] == "{:+.2f} [{:+.2f}, {:+.2f}]".format(*explanation["gain_over_center"]["road"])
    change(faces={"source": "data/fer2013.csv", "digest": PUBLISHED_MD5, "n": 6})
    photographs = keep_explanations(explanations, Path("others"))  # whose sheet shows faces of the data set
    assert [path.name for path in photographs.iterdir()] == ["explain.json"]


REFUSED = {
    "edited code": ({"commit": "a1+changes"}, "was not made from a commit"),
    "other data": ({"faces": {"source": "x.csv", "digest": "1"}}, "faces of x.csv; expected the published"),
    "figures only": ({"explanations": [{"method": "gradcam"}]}, "has no faithfulness scores"),
    "absolute path": ({"command": "python", "config": {"data_dir": "/home/me"}}, "contains absolute paths"),
}


def test_other_explanations_are_refused(explanations: Path) -> None:
    whole = (explanations / "explain.json").read_text()
    for fields, message in REFUSED.values():
        change(**fields)
        with pytest.raises(UserError, match=message):
            check_explanations(explanations)
        (explanations / "explain.json").write_text(whole)
    with pytest.raises(UserError, match=r"nothing has no explain.json; expected a folder"):
        check_explanations(Path("nothing"))
    (explanations / "explain.json").write_text(whole[:50])
    with pytest.raises(UserError, match=r"explain.json cannot be read as JSON"):
        check_explanations(explanations)
