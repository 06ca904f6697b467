"""Show and check what a network looks at: python -m emotion.explain checkpoint=RUN [method=gradcam] [beside=RUN]."""

import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from emotion.checkpoints.locate import locate_all
from emotion.cli import verb
from emotion.config.compose import is_whole
from emotion.errors import UserError
from emotion.reporting.text import duration, near

if TYPE_CHECKING:
    from rich.progress import Progress

    from emotion.checkpoints.ensemble import Ensemble
    from emotion.explainers.explanation import Explained, Subjects

Settings = dict[str, Any]


def explain(cfg: DictConfig, folder: Path) -> Settings:
    """What explain.json says of the maps of every network and method; writes it with the maps and pictures of them.

    Raises:
        UserError: something given is missing or wrong.
    """
    settings: Settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    for source in filter(None, (settings["checkpoint"], settings["beside"])):
        locate_all(source)
    _check(settings)
    import numpy as np
    from rich.progress import Progress

    from emotion.explainers import figures as sheets
    from emotion.explainers.explainer import BATCH
    from emotion.explainers.explanation import subjects_of
    from emotion.io.atomic import write_atomically, write_text
    from emotion.records import run_record
    from emotion.reporting import figures
    from emotion.reporting.tables import print_table
    from emotion.reporting.text import console
    from emotion.runtime.precision import precision_of

    networks = _networks(settings)
    subjects = subjects_of(list(networks.values()), settings)
    asked = settings["precision"], BATCH, settings["accelerator"], settings["cache_dir"]
    precisions = {name: precision_of(one.members, *asked) for name, one in networks.items()}
    screen = console()
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        explained = [
            one
            for name, ensemble in networks.items()
            for one in _explained(name, ensemble, subjects, settings, precisions[name], progress)
        ]
    result = {
        "command": run_record.command(),
        "commit": run_record.commit(),
        "versions": run_record.versions() | run_record.versions_of("grad-cam", "captum"),
        "config": settings,
        "networks": {name: one.described() | {"precision": precisions[name]} for name, one in networks.items()},
        "faces": subjects.described(),
        "explained": [one.described() for one in explained],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faithfulness.png").unlink(missing_ok=True)  # of a former run, where this one draws none
    pictures = {
        "sheet.png": sheets.sheet(subjects, explained, settings["shown"]),
        "averages.png": sheets.averages(subjects, explained),
    }
    if measured := [one for one in explained if one.truth]:
        pictures["faithfulness.png"] = sheets.curves(measured)
        for one in measured:
            print_table(*one.table())
    for name, figure in pictures.items():
        figures.save(figure, folder / name)
    columns: dict[str, Any] = {f"{one.network}/{one.method}": one.maps.numpy() for one in explained}
    columns |= {"rows": subjects.rows, "targets": np.stack([one.targets.numpy() for one in explained])}
    write_atomically(folder / "maps.npz", lambda temporary: np.savez_compressed(temporary, **columns))
    write_text(folder / "explain.json", json.dumps(result, indent=2) + "\n")
    print("\n".join(f"wrote {near(folder / name)}" for name in (*pictures, "maps.npz", "explain.json")))
    return result


def _networks(settings: Settings) -> dict[str, "Ensemble"]:
    """The network to explain and the one beside it, on the device, by names that tell them apart."""
    from emotion.checkpoints import ensemble
    from emotion.checkpoints.load import check_classes
    from emotion.runtime import hardware

    device = hardware.device(settings["accelerator"])
    asked = [settings["checkpoint"], *([settings["beside"]] if settings["beside"] else [])]
    loaded = [ensemble.load(source).to(device) for source in asked]
    for other in loaded[1:]:
        check_classes(other.loaded[0].path, other.classes, loaded[0].classes)
    names = [one.name for one in loaded]
    if len(set(names)) < len(names):
        names = [" + ".join(one.paths) for one in loaded]
    if len(set(names)) < len(names):
        raise UserError(f"beside={settings['beside']} is the checkpoint itself; expected another one.")
    return dict(zip(names, loaded, strict=True))


def _explained(
    network: str,
    ensemble: "Ensemble",
    subjects: "Subjects",
    settings: Settings,
    precision: str,
    progress: "Progress",
) -> list["Explained"]:
    """Every method's maps of one network, and what they are worth."""
    from emotion.config.instantiate import build
    from emotion.explainers import faithfulness
    from emotion.explainers.explainer import Explainer
    from emotion.explainers.explanation import Explained, targets_of

    asked, some = settings["faithfulness"], slice((settings["faithfulness"] or {}).get("faces"))
    methods = {name: build(config) for name, config in settings["method"].items()}
    found: list[Explained] = []
    unknowing: dict[str, faithfulness.Truth] = {}
    for name, method in methods.items():
        explainer = Explainer(ensemble, method, precision)
        probabilities = explainer.probabilities(subjects.faces)
        targets = targets_of(settings["target"], probabilities, subjects)
        bar = progress.add_task(f"{network}: {name}", total=len(targets))
        began = time.perf_counter()
        maps = explainer.maps(subjects.faces, targets, partial(progress.advance, bar))
        seconds = time.perf_counter() - began
        progress.console.print(f"{network}: {name}, {len(maps)} faces in {duration(seconds)}", highlight=False)
        truth = None
        if asked:
            told = (subjects.faces[some], targets[some])
            bar = progress.add_task("  are they true?", total=faithfulness.PARTS + (0 if unknowing else 6))
            got_on = partial(progress.advance, bar)
            for whose, know_nothing in faithfulness.UNKNOWING.items():
                if whose not in unknowing:
                    unknowing[whose] = faithfulness.ranked(explainer, *told, know_nothing(maps[some]), got_on)
            truth = faithfulness.measure(explainer, *told, maps[some], asked["sensitivity"], got_on)
        signed = method.signed
        found.append(Explained(network, name, signed, maps, targets, probabilities, seconds, truth, unknowing))
    return found


def _check(settings: Settings) -> None:
    import torch

    expected = {
        "subset": ("train", "val", "test"),
        "precision": ("auto", "32-true", "bf16-mixed"),
        "accelerator": ("auto", "cpu", "gpu") if torch.cuda.is_available() else ("auto", "cpu"),
    }
    for name, choices in expected.items():
        if settings[name] not in choices:
            raise UserError(f"{name}={settings[name]}: expected {', '.join(choices)}.")
    for name, least in (("faces", 1), ("shown", 1), ("seed", 0)):
        if not is_whole(settings[name], least):
            raise UserError(f"{name}={settings[name]}: expected a whole number of {least} or more.")
    asked = settings["faithfulness"]
    sizes = [asked.get(name) for name in ("faces", "sensitivity")] if isinstance(asked, dict) else [None]
    if asked is not None and not all(is_whole(size, 2) for size in sizes):
        raise UserError(f"faithfulness={asked}: expected faces and sensitivity, whole numbers of 2 or more, or null.")
    rows, images = settings["rows"], settings["images"]
    if rows is not None and images is not None:
        raise UserError("rows= and images= both name the faces; expected one of them.")
    if rows is not None and not (isinstance(rows, list) and rows and all(is_whole(row, 0) for row in rows)):
        raise UserError(f"rows={rows}: expected row numbers of the source: rows=[28709,30011].")
    if images is not None and not (images and isinstance(images, str | list)):
        raise UserError(f"images={images}: expected picture files or folders of them: images=[a.jpg,photos].")
    if settings["layer"] and not {"gradcam", "gradcam++"} & set(settings["method"]):
        raise UserError(
            f"layer={settings['layer']} is Grad-CAM's; expected method=gradcam, or method.attention.layer=."
        )
    if settings["output"] and Path(settings["output"]).is_file():
        raise UserError(f"output={settings['output']} is a file; expected a folder.")


@verb("explain")
def main(cfg: DictConfig) -> None:
    """Explain and report."""
    explain(cfg, Path(cfg.output or near(Path(HydraConfig.get().runtime.output_dir))))


if __name__ == "__main__":
    main()
