"""Read a source into the cache and print its counts: python -m emotion.prepare [data=NAME]."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.progress import Progress

from emotion.cli import verb
from emotion.config.typed import typed
from emotion.data.cache import prepare
from emotion.data.faces import USAGES, Component, Faces
from emotion.data.readers.fer2013 import PUBLISHED_MD5
from emotion.data.sources import other_forms, select_source, synthetic_warning
from emotion.errors import counted
from emotion.reporting.tables import print_table
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
    if source.is_fallback:
        print(wrapped(f"*** {synthetic_warning(config.data)} ***") + "\n")
    out = console()
    with Progress(console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("reading faces", total=None)
        faces = prepare(source.config, config.cache_dir, lambda n, total: bar.update(task, completed=n, total=total))
    height, width = faces.images.shape[1:3]
    print_table(f"{counted(len(faces), 'face')} of {width}x{height}", _count(faces))
    for component in faces.components or (Component(faces.source, faces.digest),):
        print(f"{component.source}: {_provenance(component)}")
    for note in faces.notes:
        print(note)
    for kind, path in other_forms(config.data):
        print(f"also found, not read: {path} (data={kind})")
    print(f"prepared in {config.cache_dir}")
    return faces


def _count(faces: Faces) -> list[dict[str, str]]:
    """Return the rows of the table: the faces by usage and class."""
    counts = dict(zip(USAGES, faces.counts(), strict=True)) | {"all": faces.counts().sum(0)}
    return [
        {"usage": usage} | {name: f"{n:,}" for name, n in zip((*faces.classes, "all"), (*row, row.sum()), strict=True)}
        for usage, row in counts.items()
        if row.any()
    ]


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
