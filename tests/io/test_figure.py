import ast
import io

from emotion.io.figure import Figure
from tests.conftest import ROOT


def test_dollar_signs_are_shown_as_they_are() -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.set_xticks([0, 1], ["$_a$", "b"])
    axes.set(title="won_$100_$200.mp4", ylabel=r"$\frac$")
    figure.savefig(io.BytesIO())
    assert not any(text.get_parse_math() for text in (axes.title, axes.yaxis.label, *axes.get_xticklabels()))


def test_figures_of_the_package_are_this_module_s() -> None:
    for path in (ROOT / "emotion").rglob("*.py"):
        if path.match("emotion/io/figure.py") or "Figure(" not in (text := path.read_text(encoding="utf-8")):
            continue
        imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
        assert {one.module for one in imports if "Figure" in [n.name for n in one.names]} == {"emotion.io.figure"}, path
