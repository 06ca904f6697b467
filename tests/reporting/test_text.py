"""Text on a terminal: whole words, counted nouns, intervals only where there is one."""

import sys

import pytest

from emotion.errors import counted
from emotion.reporting.tables import markdown_table, print_table
from emotion.reporting.text import (
    console,
    escape_markdown,
    format_duration,
    format_interval,
    format_size,
    short_source,
    wrapped,
)

PATH = "outputs/v4_attention/2026-01-31_12-00-00/a-long-name"


def test_lines_fit_a_terminal_and_break_neither_words_nor_paths(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = wrapped(f"Comparing recipes takes at least two seeds of each: {PATH} has one.").splitlines()
    assert PATH in lines
    assert all(len(line) <= 40 for line in lines if line != PATH)
    print_table(f"scores of {PATH}", [{"run": PATH, "accuracy %": "50.0 [40.0, 60.0]"}])
    assert capsys.readouterr().out.count(PATH) == 2


@pytest.mark.parametrize("name", ["model=a,seed=0", PATH])
def test_every_part_of_a_table_names_its_rows(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    rows = [{"": "1", "run": name, "val/acc %": "50.0 [40.0, 60.0]", "test %": "50.0 [40.0, 60.0]"}]
    print_table("ranked", rows, left=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith("%")] == ["run", "run"]
    assert [line.split()[:-3] for line in lines if line.endswith("60.0]")] == [
        ["1", name] if name != PATH else ["1"]
    ] * 2
    assert [line for line in lines if PATH in line] == [f"1: {PATH}"] * (name == PATH)
    assert all(len(line) <= 40 for line in lines if PATH not in line)


def test_without_a_terminal_text_is_one_line() -> None:
    assert wrapped("word " * 50) == "word " * 50


def test_standard_output_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert wrapped("words") == "words"
    assert console().width == 120


def test_one_is_singular() -> None:
    assert [counted(number, "epoch") for number in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]
    assert [counted(number, noun) for number, noun in ((1, "class"), (2, "class"), (3, "batch"))] == [
        "1 class", "2 classes", "3 batches",
    ]  # fmt: skip


def test_a_source_in_a_picture_has_no_absolute_path() -> None:
    assert short_source("/home/me/data/fer2013.csv with /home/me/votes.csv") == "fer2013.csv with votes.csv"
    assert short_source("data/fer2013.csv") == "data/fer2013.csv"


def test_an_interval_is_shown_if_it_says_something() -> None:
    assert format_interval((0.5, 0.4, 0.6)) == "50.0 [40.0, 60.0]"
    assert format_interval((0, 0, 0)) == "0.0"
    assert format_interval((0, 0, 1)) == "-"  # of no observation


def test_durations_and_sizes_have_one_format() -> None:
    durations = {0.04: "0.0s", 9.4: "9.4s", 9.7: "10s", 59.4: "59s", 59.6: "1m00s", 83.8: "1m24s", 114: "1m54s"}
    assert {seconds: format_duration(seconds) for seconds in durations} == durations
    assert format_duration(6120) == "1h42m"
    assert [format_size(size) for size in (0, 2_345, 4_640_000)] == ["0.0 kB", "2.3 kB", "4.6 MB"]


def test_markdown_shows_a_text_as_it_is() -> None:
    assert escape_markdown("it's <b>joy</b> | `x` & a_b") == r"it's \<b\>joy\</b\> \| \`x\` \& a\_b"
    rows = [{"class": escape_markdown("a|b"), "command": "`x y|z`"}]
    assert markdown_table(rows).splitlines()[-1] == r"| a\|b | `x y\|z` |"
