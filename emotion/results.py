"""The README's tables, from kept records and nothing else: python -m emotion.results [RUN ...]."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from emotion.cli import bare_arguments_are, verb
from emotion.config.compose import listed
from emotion.errors import UserError
from emotion.reporting.text import near

BEGIN, END = "<!-- results: written by python -m emotion.results -->", "<!-- end of results -->"
BEGIN_EXPLANATIONS = "<!-- explanations: written by python -m emotion.results -->"
END_EXPLANATIONS = "<!-- end of explanations -->"
BEGIN_WEIGHTS, END_WEIGHTS = "<!-- weights: written by python -m emotion.results -->", "<!-- end of weights -->"


def results(cfg: DictConfig) -> str:
    """Keep the records of given runs and explanations, write the tables of all that is kept into the README; the runs'.

    Raises:
        UserError: a run that is not an experiment as it stands, on FER2013, from a commit; another run of its seed is
            kept; explanations that cannot be kept; or the README has no place for the tables.
    """
    from emotion.io.atomic import write_text
    from emotion.records import archive, run_record
    from emotion.reporting import readme_tables

    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    records, readme = Path(settings["records"]), Path(settings["readme"])
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    places = [(BEGIN, END), (BEGIN_EXPLANATIONS, END_EXPLANATIONS), (BEGIN_WEIGHTS, END_WEIGHTS)]
    for begin, end in places:
        if end not in text.partition(begin)[2]:
            raise UserError(f"{readme} has no place for a table; expected a line {begin} and below it {end}.")
    chosen = run_record.find(listed(settings["runs"]))
    for run in chosen:
        archive.check(run, records)
    for run in chosen:
        print(f"kept {near(archive.keep(run, records).absolute())}")
    for folder in listed(settings["explanations"]):
        print(f"kept {near(readme_tables.keep_explanations(Path(folder), records).absolute())}")
    written, explained = (
        readme_tables.results_tables(run_record.find([str(records)])),
        readme_tables.explanations_table(records),
    )
    for (begin, end), table in zip(places, (written, explained, readme_tables.weights_table()), strict=True):
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}\n\n{table}\n{end}{rest.partition(end)[2]}"
    write_text(readme, text)
    print(f"{written}\n{explained}\nwrote {near(readme.absolute())}")
    return written


@verb("results")
def main(cfg: DictConfig) -> None:
    """Keep, write, show."""
    results(cfg)


if __name__ == "__main__":
    bare_arguments_are("runs")
    main()
