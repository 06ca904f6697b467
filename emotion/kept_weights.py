"""The README's table of the weights that come with the package, from the records that travel with them."""

from typing import Any

from emotion import report, shipped
from emotion.checkpoint_places import zoo


def table() -> str:
    """Markdown: a line for each of the weights, the best on its own test part first."""
    told = {name: shipped.description(path)["record"] for name, path in zoo().items()}
    order = sorted(told, key=lambda name: -told[name]["scores"]["test"]["none"]["all"]["accuracy"][0])
    return report.markdown([_line(name, told[name]) for name in order])


def _line(name: str, record: dict[str, Any]) -> dict[str, str]:
    scores = record["scores"]["test"]
    one = scores["none"]
    split = record["config"]["split"]["_target_"].rsplit(".", 1)[-1]
    return {
        "checkpoint": f"`{name}`",
        "parameters": f"{record['parameters']:,}",
        "MB": f"{zoo()[name].stat().st_size / 1e6:.1f}",
        "classes": str(len(record["config"]["labels"])),
        "accuracy %": report.spread(one["all"]["accuracy"]),
        "macro F1 %": report.spread(one["all"]["macro_f1"]),
        "with flip views %": report.spread(scores["flip"]["all"]["accuracy"]) if "flip" in scores else "-",
        "clean rows %": report.spread(one["clean"]["accuracy"]),
        "ECE %": report.share(one["all"]["ece"]),
        "split (test faces)": f"{split} ({one['all']['n']:,})",
        "commit": record["commit"][:7],
        "command": f"`{record['command']}`",
    }
