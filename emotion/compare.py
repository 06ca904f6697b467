"""Runs side by side, and whether they differ by more than chance: python -m emotion.compare RUN RUN ..."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from emotion.cli import bare_arguments_are, verb
from emotion.config.compose import listed
from emotion.errors import UserError
from emotion.reporting.text import near

if TYPE_CHECKING:
    from emotion.metrics.statistics import Paired, Recipes
    from emotion.records.paired_comparison import Entry, Recipe
    from emotion.records.run_record import Run


def compare(cfg: DictConfig, folder: Path) -> tuple[list["Paired"], list["Recipes"]]:
    """Print and write the tables, and what was tested: networks by their faces, recipes by their seeds.

    Each recipe's first run is held against the first of all, and each recipe against the first.

    Raises:
        UserError: something given is missing or wrong.
    """
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    tta, rows = settings["tta"], settings["rows"]
    if not settings["runs"]:
        raise UserError("no run given; expected folders of runs: python -m emotion.compare RUN RUN")
    if rows not in ("all", "clean"):
        raise UserError(f"rows={rows}: expected all or clean.")

    from emotion.io.atomic import write_text
    from emotion.records import run_folder, run_record
    from emotion.reporting import comparison, figures, ranking
    from emotion.reporting.tables import markdown, print_table

    folders = [Path(name) for name in listed(settings["runs"]) if Path(name).is_dir()]
    found = [run for folder in folders for run in run_folder.below(folder) if "scores" in run.record]
    if trials := [run for run in found if run.record["scores"] == {}]:
        ranked = ranking.ranked([run.record for run in trials], [str(near(run.folder)) for run in trials])
        print_table(f"trials of a search, which read no test: {ranking.TITLE}", ranked, left=2)
        if len(trials) == len(found):
            return [], []
    entries, recipes = read(run_record.find(listed(settings["runs"])), tta, rows)
    title = f"test, tta={tta}, rows={rows}"
    tables = comparison.tables(entries, recipes, title)
    sentences = comparison.said(entries, recipes)
    folder.mkdir(parents=True, exist_ok=True)
    text = f"# {title}\n" + "".join(f"\n{caption}\n\n{markdown(table)}" for caption, table in tables.items())
    for heading, some in sentences.items():
        text += f"\n## {heading}\n" + "".join(f"\n{sentence}\n" for sentence in some)
    write_text(folder / "comparison.md", text)
    write_text(folder / "comparison.csv", comparison.runs_csv(entries))
    write_text(folder / "recipes.csv", comparison.recipes_csv(recipes))
    figures.save(figures.comparison(*comparison.bars(entries, recipes), title), folder / "comparison.png")
    for caption, table in tables.items():
        print_table(caption, table)
    for heading, some in sentences.items():
        print("\n".join([f"{heading}:", *some, ""]))
    for name in ("comparison.md", "comparison.csv", "recipes.csv", "comparison.png"):
        print(f"wrote {near(folder / name)}")
    pairs, tests = [one.pair for one in entries], [one.test for one in recipes]
    return [one for one in pairs if not isinstance(one, str)], [one for one in tests if not isinstance(one, str)]


def read(found: Sequence["Run"], tta: str, rows: str) -> tuple[list["Entry"], list["Recipe"]]:
    """The runs in their order, and their recipes in the order of each one's first run."""
    from emotion.records import paired_comparison, run_record

    names = dict(zip(map(id, found), run_record.names(found), strict=True))
    scores = {id(run): _scores(run, tta, rows) for run in found}
    groups = run_record.seeds_of(found)
    first, *others = groups
    firsts = [group[0] for group in others]
    pairs = dict(zip(map(id, firsts), paired_comparison.pairs(first[0], firsts, tta, rows), strict=True))
    tests = ["", *paired_comparison.recipes(first, others, tta, rows)]
    short = [group[0].record["config"]["name"] for group in groups]
    named = short if len(set(short)) == len(short) else [names[id(group[0])] for group in groups]
    return (
        [paired_comparison.Entry(names[id(run)], run, scores[id(run)], pairs.get(id(run), "")) for run in found],
        [
            paired_comparison.Recipe(name, group, [scores[id(run)] for run in group], test)
            for name, group, test in zip(named, groups, tests, strict=True)
        ],
    )


def _scores(run: "Run", tta: str, rows: str) -> dict[str, Any]:
    by_views = run.record["scores"]["test"]
    if tta not in by_views:
        raise UserError(f"{run.folder} recorded scores of views {', '.join(by_views)}; found tta={tta} asked for.")
    scores: dict[str, Any] = by_views[tta][rows]
    if missing := {"n", "classes", "accuracy", "macro_f1", "ece", "nll", "brier"} - set(scores):
        raise UserError(f"{run.folder}: its record has no {', '.join(sorted(missing))}; another version wrote it.")
    return scores


@verb("compare")
def main(cfg: DictConfig) -> None:
    """Compare and report."""
    compare(cfg, Path(cfg.output or near(Path(HydraConfig.get().runtime.output_dir))))


if __name__ == "__main__":
    bare_arguments_are("runs")
    main()
