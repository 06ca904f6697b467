"""The README's table of how true explanations are, from kept records of python -m emotion.explain and nothing else."""

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from emotion import report
from emotion.data.fer2013_csv import PUBLISHED_MD5
from emotion.errors import UserError
from emotion.files import write_atomically

RECORD, SHEET = "explain.json", "sheet.png"
DRAWN = "synthetic faces"
PLACE = Path("explanations")
"""Below the folder of records."""


def keep(folder: Path, records: Path) -> Path:
    """Copy the record of explanations that lie in `folder`; of drawn faces, which nobody has, the sheet too.

    Raises:
        UserError: no such record, one of other data, not from a commit, or one that names places of this machine.
    """
    path = folder / RECORD
    if not path.is_file():
        raise UserError(f"{folder} holds no {RECORD}; expected a folder that python -m emotion.explain wrote.")
    text = path.read_text()
    record = json.loads(text)
    if not all("measures" in one for one in record["explained"]):
        raise UserError(f"{path} says nothing of how true the maps are; expected one with faithfulness.")
    if record["faces"]["digest"] != PUBLISHED_MD5 and record["faces"]["source"] != DRAWN:
        raise UserError(f"{path} is of {record['faces']['source']}; expected the published fer2013.csv or drawn faces.")
    if not (record["commit"] or "+changes").isalnum():
        raise UserError(f"{path}: no commit holds the code that it ran; commit first, then explain again.")
    if places := re.findall(r'"((?:/|~|[A-Z]:)[^"]*)"', text):
        raise UserError(f"{path} names places of this machine ({places[0]}); run it with data_dir=data.")
    kept = records / PLACE / folder.name
    kept.mkdir(parents=True, exist_ok=True)
    for name in (RECORD, SHEET) if record["faces"]["source"] == DRAWN else (RECORD,):
        write_atomically(kept / name, partial(shutil.copyfile, folder / name))
    return kept


def table(records: Path) -> str:
    """Markdown: a line for each network and method of every kept record, and for maps that know nothing."""
    lines = []
    for path in sorted((records / PLACE).glob(f"*/{RECORD}")):
        record = json.loads(path.read_text())
        said: set[str] = set()
        for one in record["explained"]:
            blank = f" ({one['blank']} of {record['faces']['n']} blank)" if one["blank"] else ""
            measured = (one["measures"], record, one["n"]["deletion"])
            lines.append(_line(one["network"], one["method"] + blank, *measured))
            lines[-1]["truer than the middle (ROAD)"] = _spread(one["truer_than_middle"]["road"], signed=True)
        for one in record["explained"]:
            if one["network"] not in said:
                said.add(one["network"])
                for name, measures in one["unknowing"].items():
                    lines.append(_line(one["network"], f"*{name}*", measures, record, one["n"]["deletion"]))
    return report.markdown(lines, left=3) if lines else ""


def _line(network: str, method: str, measures: dict[str, Any], record: dict[str, Any], faces: int) -> dict[str, str]:
    shares = " / ".join(f"{100 * measures[name][0]:.0f}" for name in ("brows", "eyes", "nose", "mouth"))
    return {
        "network": network,
        "faces": f"{faces}, {'drawn' if record['faces']['source'] == DRAWN else 'FER2013'}",
        "method": method,
        "deletion, lower is truer": _spread(measures["deletion"]),
        "insertion, higher": _spread(measures["insertion"]),
        "ROAD, higher": _spread(measures["road"]),
        "truer than the middle (ROAD)": "-",
        "sensitivity, lower is steadier": _spread(measures.get("sensitivity")),
        "% on brows / eyes / nose / mouth": shares,
        "alike with all weights shuffled": _spread(measures.get("shuffled all")),
    }


def _spread(figure: list[float | None] | None, *, signed: bool = False) -> str:
    if figure is None or None in figure:
        return "-"
    sign = "+" if signed else ""
    return "{0:{3}.2f} [{1:{3}.2f}, {2:{3}.2f}]".format(*figure, sign)
