"""Compare runs and test whether their differences are significant: python -m emotion.compare RUN RUN ..."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from emotion.cli import verb
from emotion.config.compose import as_list
from emotion.config.typed import check_choices, typed
from emotion.errors import UserError, counted
from emotion.reporting.text import relative_path, wrapped
from emotion.runtime.announce import announce

if TYPE_CHECKING:
    from emotion.metrics.statistics import PairedComparison, RecipeComparison
    from emotion.records.paired_comparison import Recipe, RunRow
    from emotion.reporting.tables import Table


@dataclass(frozen=True)
class CompareConfig:
    """The settings of conf/compare.yaml."""

    data_dir: str
    cache_dir: str
    runs: Any
    tta: str
    rows: str
    output: str | None


def compare(cfg: DictConfig, folder: Path) -> tuple[list["PairedComparison"], list["RecipeComparison"]]:
    """Compare runs; print tables and tests and write them to `folder`.

    The first run of each recipe is compared with the first of all on their shared faces, and each recipe with the
    first over their seeds; these are returned.

    Raises:
        UserError: A setting is invalid, or a run is missing, damaged or without the scores.
    """
    config = typed(cfg, CompareConfig)
    if not config.runs:
        raise UserError("no run given; expected folders of runs: python -m emotion.compare RUN RUN")
    check_choices(config, rows=("all", "deduplicated"))

    from emotion.records.run_folder import find_finished
    from emotion.reporting import comparison

    sources = as_list(config.runs)
    searches = _report_searches(sources)
    if not (rest := [name for name in sources if name not in searches]):
        return [], []
    finished = find_finished(rest)
    announce(f"comparing {counted(len(finished), 'run')}")
    runs, recipes = comparison.compare_runs(finished, config.tta, config.rows)
    tables = [
        *comparison.fold_tables(finished, config.tta, config.rows),
        *comparison.tables(runs, recipes, config.tta, config.rows),
    ]
    summary = comparison.summary(runs, recipes)
    _write(folder, config, runs, recipes, tables, summary)
    _print(folder, tables, summary)
    return (
        [run.pair for run in runs if not isinstance(run.pair, str)],
        [recipe.test for recipe in recipes if not isinstance(recipe.test, str)],
    )


def _report_searches(sources: Sequence[str]) -> list[str]:
    """Rank the trials of searches, which are not evaluated on test; return the sources that hold nothing else."""
    from emotion.io.folders import expand
    from emotion.records.run_folder import find_runs, print_unfinished
    from emotion.reporting import ranking
    from emotion.reporting.tables import print_table

    found = {name: [run for one in expand(name) for run in find_runs(Path(one))] for name in sources}
    evaluated = {name: [run for run in runs if run.record.scores is not None] for name, runs in found.items()}
    if trials := [run for runs in evaluated.values() for run in runs if run.record.scores == {}]:
        names = [str(relative_path(run.folder)) for run in trials]
        for title, ranked in ranking.ranking_tables([run.record for run in trials], names).items():
            print_table(f"trials of a search, not evaluated on test: {title}", ranked, left=2)
    searches = [name for name, runs in evaluated.items() if runs and not any(run.record.scores for run in runs)]
    for name in searches:
        print_unfinished(name, [run for run in found[name] if run.record.scores is None])
    return searches


def _write(
    folder: Path,
    config: CompareConfig,
    runs: "Sequence[RunRow]",
    recipes: "Sequence[Recipe]",
    tables: "Sequence[Table]",
    summary: Mapping[str, Sequence[str]],
) -> None:
    """Write the tables as Markdown, CSV and LaTeX, and the figure."""
    from emotion.io.atomic import make_folder, write_text
    from emotion.reporting import comparison, figures
    from emotion.reporting.tables import latex_table, markdown_table

    title = f"test, tta={config.tta}, rows={config.rows}"
    make_folder(folder)
    text = f"# {title}\n" + "".join(f"\n{one.title}\n\n{markdown_table(one.rows, one.left)}" for one in tables)
    for heading, sentences in summary.items():
        text += f"\n## {heading}\n" + "".join(f"\n{sentence}\n" for sentence in sentences)
    write_text(folder / "comparison.md", text)
    write_text(folder / "comparison.csv", comparison.runs_csv(runs))
    write_text(folder / "recipes.csv", comparison.recipes_csv(recipes))
    tests = comparison.test_tables(runs, recipes, config.tta, config.rows)
    latex = "\n".join(map(latex_table, [*tables, *tests]))
    write_text(folder / "comparison.tex", f"% needs \\usepackage{{booktabs}}\n{latex}")
    figure = figures.comparison(*comparison.bars(runs, recipes), title)
    figures.save(figure, folder / "comparison.png", vector=True)


def _print(folder: Path, tables: "Sequence[Table]", summary: Mapping[str, Sequence[str]]) -> None:
    from emotion.reporting.tables import print_table

    for table in tables:
        print_table(table.title, table.rows, table.left)
    for heading, sentences in summary.items():
        print("\n".join([f"{heading}:", *map(wrapped, sentences), ""]))
    print(wrapped(f"wrote comparison.md, .tex, .csv, .png and .pdf, and recipes.csv, in {relative_path(folder)}"))


@verb("compare", positional="runs", uses_torch=True)
def main(cfg: DictConfig) -> None:
    """Compare runs."""
    compare(cfg, Path(cfg.output or relative_path(Path(HydraConfig.get().runtime.output_dir))))


if __name__ == "__main__":
    main()
