"""Read a source once into memory-mapped arrays and say what is in it: python -m emotion.prepare [data=NAME]."""

from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.progress import Progress
from rich.table import Table

from emotion.cli import verb
from emotion.data.cache import prepare
from emotion.data.faces import USAGES, Faces, Part
from emotion.data.readers.fer2013 import PUBLISHED_MD5
from emotion.data.sources import locate, not_found
from emotion.reporting.text import console


def run(cfg: DictConfig) -> Faces:
    """Prepare what `data` names, with a progress bar; print counts per class and usage.

    Raises:
        UserError: something given is missing or wrong.
    """
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    source = locate(settings["data"])
    if source.stand_in:
        print(f"*** {not_found(settings['data'])} ***\n")
    out = console()
    with Progress(console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("reading faces", total=None)
        faces = prepare(source.reader, settings["cache_dir"], lambda n, all_: bar.update(task, completed=n, total=all_))
    out.print(_counts(faces))
    for part in faces.parts or (Part(faces.source, faces.digest),):
        print(f"{part.source}: {_provenance(part)}")
    print(f"prepared in {settings['cache_dir']}")
    return faces


def _counts(faces: Faces) -> Table:
    height, width = faces.images.shape[1:3]
    table = Table(title=f"{len(faces):,} faces of {width}x{height}", title_justify="left")
    table.add_column("usage")
    for name in (*faces.classes, "all"):
        table.add_column(name, justify="right")
    counts = faces.counts()
    for usage, row in zip(USAGES, counts, strict=True):
        if row.any():
            table.add_row(usage, *(f"{n:,}" for n in (*row, row.sum())))
    table.add_section()
    table.add_row("all", *(f"{n:,}" for n in (*counts.sum(0), counts.sum())))
    return table


def _provenance(part: Part) -> str:
    if part.digest == PUBLISHED_MD5:
        return f"MD5 {PUBLISHED_MD5}, the published file"
    if part.source.endswith("fer2013.csv"):
        return f"MD5 {part.digest}, NOT the published file ({PUBLISHED_MD5})"
    return f"digest {part.digest}"


@verb("prepare")
def main(cfg: DictConfig) -> None:
    """Prepare and report."""
    run(cfg)


if __name__ == "__main__":
    main()
