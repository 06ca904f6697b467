"""Archive runs and write the tables of the READMEs from the archive: python -m emotion.results [RUN ...]."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from emotion.cli import verb
from emotion.config.compose import as_list
from emotion.config.typed import typed
from emotion.reporting.text import relative_path


@dataclass(frozen=True)
class ResultsConfig:
    """The settings of conf/results.yaml."""

    data_dir: str
    cache_dir: str
    runs: Any
    explanations: Any
    records: str
    readme: str


def results(cfg: DictConfig) -> dict[str, str]:
    """Archive the given runs and explanations, then write the tables of everything archived; return the tables.

    `readme` gets the short table of results, README.md in `records` the detailed tables.

    Raises:
        UserError: A run is not an unchanged experiment on FER2013 from a commit, or another run of its seed is
            archived; explanations cannot be archived; or a file has no markers for its tables.
    """
    config = typed(cfg, ResultsConfig)
    from emotion.io.atomic import write_text
    from emotion.records import archive
    from emotion.records.run_folder import find_finished
    from emotion.reporting.readme_tables import README_TABLES, RECORDS_TABLES, fill, make_tables

    readme, records = Path(config.readme), Path(config.records)
    page = records / "README.md"
    skeleton = "# Records\n" + "".join(f"\n<!-- {name} -->\n<!-- end of {name} -->\n" for name in RECORDS_TABLES)
    files = {
        readme: (readme.read_text(encoding="utf-8") if readme.is_file() else "", README_TABLES),
        page: (page.read_text(encoding="utf-8") if page.is_file() else skeleton, RECORDS_TABLES),
    }
    for path, (text, required) in files.items():
        fill(path, text, dict.fromkeys(required, ""), required)
    runs = find_finished(as_list(config.runs))
    explanations = [Path(folder) for folder in as_list(config.explanations)]
    archive.check_seeds(runs)
    for run in runs:
        archive.check(run, records)
    for folder in explanations:
        archive.check_explanations(folder)
    kept = [archive.keep(run, records) for run in runs]
    kept += [archive.keep_explanations(folder, records) for folder in explanations]
    for folder in kept:
        print(f"archived {relative_path(folder.absolute())}")
    tables = make_tables(records)
    print(tables["results"])
    for path, (text, required) in files.items():
        write_text(path, fill(path, text, tables, required))
        print(f"wrote {relative_path(path.absolute())}")
    return tables


@verb("results", positional="runs", uses_torch=True)
def main(cfg: DictConfig) -> None:
    """Archive runs and write the tables."""
    results(cfg)


if __name__ == "__main__":
    main()
