"""Publish a classifier on the Hugging Face Hub: python -m emotion.publish checkpoint=RUN repo=owner/name."""

import re
import shlex
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from emotion.cli import verb
from emotion.config.compose import as_list
from emotion.config.instantiate import plugins_argument
from emotion.config.typed import typed
from emotion.errors import UserError, missing_extra
from emotion.io.atomic import make_folder
from emotion.reporting.text import relative_path
from emotion.runtime.announce import announce

if TYPE_CHECKING:
    from emotion.checkpoints.load import LoadedCheckpoint

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LICENSES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc
    lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa
    odbl odc-by ofl-1.1 open-mdw openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
    """.split()
)
"""The Hub's licenses: https://huggingface.co/docs/hub/repositories-licenses."""


@dataclass(frozen=True)
class PublishConfig:
    """The settings of conf/publish.yaml."""

    data_dir: str
    cache_dir: str
    checkpoint: Any
    folder: str | None
    repo: str
    license: str | None
    private: bool
    onnx: bool
    dry_run: bool
    output: str | None


def publish(cfg: DictConfig, folder: Path) -> Path:
    """Write a folder with weights, ONNX, label map and model card; upload it unless dry_run=true; return the folder.

    Raises:
        UserError: A setting is invalid, or the Hub refuses the upload.
    """
    config = typed(cfg, PublishConfig)

    from emotion.checkpoints import hub
    from emotion.publishing import upload

    _check(config)
    if hub.parse_name(config.repo)[1]:
        raise UserError(f"repo={config.repo}: expected OWNER/NAME without a revision; uploads go to the main branch.")
    if not config.dry_run:
        upload.check_access(config.repo)
    if config.folder:
        folder = _check_folder(Path(config.folder), config.repo)
    else:
        folder = Path(config.output or folder)
        _write_folder(folder, config)
    command = f"python -m emotion.publish {plugins_argument()}{shlex.quote(f'folder={folder}')} repo={config.repo}"
    command += " private=true" if config.private else ""
    if config.dry_run:
        print(f"nothing was uploaded (dry_run=true); to upload: {command}")
        return folder
    try:
        address = upload.upload(folder, config.repo, private=config.private)
    except UserError as error:
        raise UserError(f"{error}\nThe folder is complete; to try again: {command}") from error
    print(f'published {address}\nload it with: emotion.load("hub:{config.repo}")')
    return folder


def _check(config: PublishConfig) -> None:
    if bool(config.checkpoint) == bool(config.folder):
        raise UserError(
            "expected one of checkpoint=RUN and folder=FOLDER, a folder that python -m emotion.publish wrote."
        )
    given = {"license": config.license, "onnx": None if config.onnx else False, "output": config.output}
    if config.folder and (ignored := [f"{name}=" for name, value in given.items() if value is not None]):
        raise UserError(
            f"folder= is uploaded as it is, so {', '.join(ignored)} would have no effect; omit it, or write the folder "
            f"again from checkpoint=RUN."
        )
    if config.license not in (None, *LICENSES):
        raise UserError(
            f"license={config.license}: expected one that the Hub lists, such as mit, apache-2.0 or cc-by-nc-4.0, or "
            f"other: https://huggingface.co/docs/hub/repositories-licenses."
        )


def _check_folder(folder: Path, repo: str) -> Path:
    """Return the folder if an earlier `publish` wrote it completely, with a card for this repository."""
    from emotion.checkpoints import hub
    from emotion.checkpoints.load import load_checkpoint
    from emotion.publishing import upload

    if missing := [name for name in upload.FILES if name != upload.ONNX and not (folder / name).is_file()]:
        raise UserError(
            f"folder={folder} has no {', '.join(missing)}; expected a folder that python -m emotion.publish wrote."
        )
    card = (folder / upload.CARD).read_text(encoding="utf-8")
    if (named := re.findall(r"hub:([\w.-]+/[\w.-]+)", card)) and repo not in named:
        raise UserError(
            f"The card in folder={folder} names repo={named[0]}, but repo={repo} was passed; pass repo={named[0]}, or "
            f"write the folder again from checkpoint=RUN."
        )
    load_checkpoint(folder / hub.WEIGHTS)
    return folder


def _write_folder(folder: Path, config: PublishConfig) -> None:
    """Write the files of one checkpoint to a temporary folder, then move them into `folder`."""
    from emotion.checkpoints import hub
    from emotion.checkpoints.ensemble import load_ensemble
    from emotion.publishing import upload

    announce(f"reading {' and '.join(as_list(config.checkpoint))}")
    loaded = load_ensemble(config.checkpoint).loaded
    if len(loaded) > 1:
        raise UserError(
            f"checkpoint= names {len(loaded)} checkpoints; expected one. Publish each of them, or distill them into "
            f"one network: experiment=distill."
        )
    is_ours = all((folder / name).is_file() for name in (hub.WEIGHTS, upload.LABELS))
    replaced = upload.FILES if is_ours else ()
    if others := [path.name for path in folder.glob("*") if path.name not in replaced]:
        raise UserError(f"output={folder} contains {', '.join(sorted(others)[:5])}; expected a new or empty folder.")
    make_folder(folder.parent)
    with tempfile.TemporaryDirectory(prefix=".publish", dir=folder.parent) as temporary:
        scratch = Path(temporary)
        _write_files(scratch, loaded[0], config)
        folder.mkdir(exist_ok=True)
        for name in upload.FILES:
            (folder / name).unlink(missing_ok=True)
            if (scratch / name).is_file():
                (scratch / name).replace(folder / name)
                print(f"wrote {relative_path((folder / name).absolute())}")


def _write_files(folder: Path, loaded: "LoadedCheckpoint", config: PublishConfig) -> None:
    from emotion.checkpoints import hub, portable
    from emotion.checkpoints.load import read_checkpoint
    from emotion.io.atomic import write_json, write_text
    from emotion.publishing import upload
    from emotion.publishing.card_facts import ModelFacts
    from emotion.publishing.model_card import model_card
    from emotion.records.run_record import record_of_checkpoint

    weights = folder / hub.WEIGHTS
    record, checkpoint = record_of_checkpoint(loaded), read_checkpoint(loaded.path)
    portable.write(weights, folder / portable.CONFIG, checkpoint, record.to_dict() if record else None)
    if config.onnx:
        _export_onnx(weights, folder / upload.ONNX)
    facts = ModelFacts(portable.read_description(weights))
    id2label = dict(enumerate(facts.classes))
    label2id = {name: index for index, name in id2label.items()}
    write_json(folder / upload.LABELS, {"id2label": id2label, "label2id": label2id})
    write_text(folder / upload.CARD, model_card(facts, folder, config.repo, config.license))
    if config.license is None:
        print("note: without license= the card names no license, so nobody knows how the weights may be used.")
    for warning in facts.warnings:
        print(f"warning: {warning}")


def _export_onnx(weights: Path, path: Path) -> None:
    """Export the published weights as ONNX, or print why the file is left out."""
    if missing := [name for name in ONNX_PACKAGES if find_spec(name) is None]:
        print(f"note: {path.name} is left out because {missing_extra('it', missing[0], 'export')}")
        return
    from emotion.checkpoints.ensemble import load_ensemble
    from emotion.exporting.onnx import export_onnx

    announce("converting to ONNX, and comparing it with PyTorch")
    try:
        export_onnx(load_ensemble(weights), path, tta="none")
    except UserError as error:
        raise UserError(f"{error}\nTo publish without it: onnx=false.") from error


@verb("publish", positional="checkpoint", uses_torch=True)
def main(cfg: DictConfig) -> None:
    """Run `publish`."""
    publish(cfg, relative_path(Path(HydraConfig.get().runtime.output_dir)))


if __name__ == "__main__":
    main()
