"""Publish a classifier on the Hugging Face Hub: python -m emotion.publish checkpoint=RUN repo=owner/name."""

import json
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from emotion.cli import verb
from emotion.errors import UserError
from emotion.reporting.text import near

if TYPE_CHECKING:
    from emotion.checkpoints.load import Loaded

Settings = dict[str, Any]

NEEDED_FOR_ONNX = ("onnx", "onnxscript", "onnxruntime")


def publish(cfg: DictConfig, folder: Path) -> Path:
    """The folder with weights, ONNX, label map and model card, laid in the repository unless dry_run=true.

    Raises:
        UserError: something given is missing or wrong, or the Hub refuses it.
    """
    from emotion.checkpoints import hub
    from emotion.publishing import upload

    settings: Settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    _check(settings)
    repo = settings["repo"]
    if hub.named(repo)[1]:
        raise UserError(f"repo={repo}: expected OWNER/NAME alone; what is published is the newest of it.")
    if not settings["dry_run"]:
        upload.check(repo)
    if settings["folder"]:
        folder = _whole(Path(settings["folder"]))
    else:
        folder = Path(settings["output"] or folder)
        _write(folder, settings)
    again = f"python -m emotion.publish folder={folder} repo={repo}" + (" private=true" if settings["private"] else "")
    if settings["dry_run"]:
        print(f"nothing was uploaded (dry_run=true); to do so: {again}")
        return folder
    try:
        address = upload.upload(folder, repo, private=settings["private"])
    except UserError as error:
        raise UserError(f"{error}\nThe folder is whole; to try again: {again}") from error
    print(f'published {address}\nload it with: emotion.load("hub:{repo}")')
    return folder


def _check(settings: Settings) -> None:
    if not isinstance(settings["repo"], str):
        raise UserError(f"repo={settings['repo']}: expected OWNER/NAME.")
    if bool(settings["checkpoint"]) == bool(settings["folder"]):
        raise UserError("expected one of checkpoint=RUN and folder=FOLDER, which python -m emotion.publish wrote.")
    for name in ("private", "onnx", "dry_run"):
        if not isinstance(settings[name], bool):
            raise UserError(f"{name}={settings[name]}: expected true or false.")
    known = settings["license"]
    if known is not None and not (isinstance(known, str) and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", known)):
        raise UserError(
            f"license={known}: expected the Hub's spelling of one, such as mit, apache-2.0 or cc-by-nc-4.0."
        )


def _whole(folder: Path) -> Path:
    """The folder of an earlier `publish`; raises UserError where it is none."""
    from emotion.checkpoints import hub
    from emotion.checkpoints.load import load_checkpoint
    from emotion.publishing import upload

    if missing := [name for name in upload.FILES if name != upload.ONNX and not (folder / name).is_file()]:
        raise UserError(
            f"folder={folder} has no {', '.join(missing)}; expected one that python -m emotion.publish wrote."
        )
    load_checkpoint(folder / hub.WEIGHTS)
    return folder


def _write(folder: Path, settings: Settings) -> None:
    """All files of one checkpoint, made beside `folder` and moved into it together."""
    from emotion.checkpoints import ensemble
    from emotion.publishing import upload

    loaded = ensemble.load(settings["checkpoint"]).loaded
    if len(loaded) > 1:
        raise UserError(
            f"checkpoint= names {len(loaded)} checkpoints; one is published. Publish each, or teach one network by "
            f"them: experiment=distill."
        )
    if others := [path.name for path in folder.glob("*") if path.name not in upload.FILES]:
        raise UserError(f"output={folder} holds {', '.join(sorted(others)[:5])}; expected a new or empty folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".publish", dir=folder.parent) as place:
        made = Path(place)
        _make(made, loaded[0], settings)
        folder.mkdir(exist_ok=True)
        for name in upload.FILES:
            (folder / name).unlink(missing_ok=True)
            if (made / name).is_file():
                (made / name).replace(folder / name)
                print(f"wrote {near((folder / name).absolute())}")


def _make(folder: Path, loaded: "Loaded", settings: Settings) -> None:
    from emotion.checkpoints import hub, portable
    from emotion.checkpoints.load import read_checkpoint
    from emotion.io.atomic import write_text
    from emotion.publishing import model_card, upload
    from emotion.publishing.card_facts import Facts
    from emotion.records import run_record

    weights = folder / hub.WEIGHTS
    portable.write(weights, folder / portable.CONFIG, read_checkpoint(loaded.path), run_record.record_of(loaded))
    if settings["onnx"]:
        _export(weights, folder / upload.ONNX)
    facts, classes = Facts(portable.description(weights)), loaded.classifier.classes
    maps = {"id2label": dict(enumerate(classes)), "label2id": {name: index for index, name in enumerate(classes)}}
    write_text(folder / upload.LABELS, json.dumps(maps, indent=2) + "\n")
    write_text(folder / upload.CARD, model_card.card(facts, folder, settings["repo"], settings["license"]))
    if settings["license"] is None:
        print("note: no license= is given, and the card names none: nobody is told what they may do with the weights.")
    for doubt in facts.doubts:
        print(f"warning: {doubt}")


def _export(weights: Path, path: Path) -> None:
    """The ONNX file of the weights as they travel; says so where it is left out."""
    from emotion.checkpoints import ensemble

    if missing := [name for name in NEEDED_FOR_ONNX if find_spec(name) is None]:
        print(f"note: {path.name} is left out, as it needs {', '.join(missing)}: pip install 'emotion[export]'.")
        return
    from emotion.exporting.onnx import export_onnx

    try:
        export_onnx(ensemble.load(weights), path, tta="none")
    except UserError as error:
        raise UserError(f"{error}\nTo publish without it: onnx=false.") from error


@verb("publish")
def main(cfg: DictConfig) -> None:
    """Publish."""
    publish(cfg, near(Path(HydraConfig.get().runtime.output_dir)))


if __name__ == "__main__":
    main()
