"""Read a source into the cache and print its counts: python -m emotion.prepare [data=NAME]."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.progress import Progress
from rich.table import Table

from emotion.cli import verb
from emotion.config.typed import typed
from emotion.data.cache import prepare
from emotion.data.faces import USAGES, Component, Faces
from emotion.data.readers.fer2013 import PUBLISHED_MD5
from emotion.data.sources import other_forms, select_source, synthetic_warning
from emotion.reporting.text import console, wrapped


@dataclass(frozen=True)
class PrepareConfig:
    """The settings of conf/prepare.yaml."""

    data: dict[str, Any]
    data_dir: str
    cache_dir: str


def run(cfg: DictConfig) -> Faces:
    """Prepare the source of `data` with a progress bar; print counts per class and usage.

    Raises:
        UserError: A file or setting is missing or invalid.
    """
    config = typed(cfg, PrepareConfig)
    source = select_source(config.data)
    if source.is_synthetic:
        print(wrapped(f"*** {synthetic_warning(config.data)} ***") + "\n")
    out = console()
    with Progress(console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("reading faces", total=None)
        faces = prepare(source.config, config.cache_dir, lambda n, total: bar.update(task, completed=n, total=total))
    out.print(_count_table(faces))
    for component in faces.components or (Component(faces.source, faces.digest),):
        print(f"{component.source}: {_provenance(component)}")
    for note in faces.notes:
        print(note)
    for kind, path in other_forms(config.data):
        print(f"also found, not read: {path} (data={kind})")
    print(f"prepared in {config.cache_dir}")
    return faces


def _count_table(faces: Faces) -> Table:
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


def _provenance(component: Component) -> str:
    if component.digest == PUBLISHED_MD5:
        return f"MD5 {PUBLISHED_MD5}, the published file"
    if "fer2013" in Path(component.source).name:
        return f"MD5 {component.digest}, NOT the published file ({PUBLISHED_MD5})"
    return f"digest {component.digest}"


@verb("prepare")
def main(cfg: DictConfig) -> None:
    """Run the verb."""
    run(cfg)


if __name__ == "__main__":
    main()
