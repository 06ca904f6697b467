"""Explain a network by attribution maps: python -m emotion.explain checkpoint=RUN [explainer=gradcam]."""

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from emotion.checkpoints.locate import announce_default, locate_all
from emotion.cli import verb
from emotion.config.compose import as_list
from emotion.config.typed import ACCELERATORS, EVALUATION_PRECISIONS, check_choices, typed
from emotion.errors import UserError, counted
from emotion.reporting.text import console, format_duration, relative_path, wrapped
from emotion.runtime.announce import announce

if TYPE_CHECKING:
    from rich.progress import Progress

    from emotion.checkpoints.ensemble import Ensemble
    from emotion.explainers.explanation import Explanation
    from emotion.explainers.faithfulness import FaithfulnessScores
    from emotion.explainers.image_set import ImageSet


WITHOUT_EFFECT = {"images": ("data_dir", "data", "labels", "split", "subset", "faces"), "rows": ("subset", "faces")}
"""Settings that have no effect if one that chooses the faces is given."""


@dataclass  # not frozen, as OmegaConf merges into it
class FaithfulnessConfig:
    """Numbers of faces to measure."""

    faces: int
    sensitivity: int


@dataclass(frozen=True)
class ExplainConfig:
    """The settings of conf/explain.yaml."""

    data_dir: str
    cache_dir: str
    detector: dict[str, Any]
    explainer: dict[str, Any]
    checkpoint: Any
    compare_with: Any
    subset: str
    faces: int
    rows: list[int] | None
    images: Any
    target: Any
    layer: str | None
    faithfulness: FaithfulnessConfig | None
    num_shown: int
    seed: int
    precision: str
    accelerator: str
    output: str | None
    data: dict[str, Any] | None = None
    labels: dict[str, Any] | None = None
    split: dict[str, Any] | None = None

    @property
    def chosen_by(self) -> str | None:
        """The setting that chooses the faces; None if they are sampled from a subset."""
        return next((name for name in WITHOUT_EFFECT if getattr(self, name) is not None), None)

    def used(self) -> dict[str, Any]:
        """Return the settings that have an effect; `explainer` has its own seed."""
        unused = {"seed", *WITHOUT_EFFECT[self.chosen_by]} if self.chosen_by else set()
        unused |= {"detector"} if self.images is None else set()
        return {name: value for name, value in asdict(self).items() if name not in unused}


def explain(cfg: DictConfig, folder: Path, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Explain faces with every network and explainer; write figures, maps.npz and explain.json; return the last.

    Raises:
        UserError: A setting is invalid, or one of `arguments` has no effect; a checkpoint, the data or an image is
            missing; or an explainer failed or an image cannot be read, after the results of the others are written.
    """
    config = typed(cfg, ExplainConfig)
    sources = [locate_all(source) for source in (config.checkpoint, config.compare_with) if source]
    announce_default("explain", config.checkpoint)
    _check(config, arguments)

    from emotion.explainers.explainer import BATCH_SIZE
    from emotion.explainers.image_set import find_target
    from emotion.records import run_record
    from emotion.runtime.precision import evaluation_precision

    announce(f"reading {' and '.join(name for names in sources for name in names)}")
    networks = _load_networks(config)
    images, failures = _load_images(config, cfg, list(networks.values()))
    target = find_target(config.target, images)
    precisions = {
        name: evaluation_precision(ensemble.members, config.precision, BATCH_SIZE, config.accelerator, config.cache_dir)
        for name, ensemble in networks.items()
    }
    explanations = _explain_with_all(networks, precisions, images, target, config, failures)
    if not explanations:
        raise UserError("\n".join(failures))
    _print_faithfulness(explanations, config)
    record = run_record.provenance("grad-cam", "captum") | {
        "config": {key: value for key, value in config.used().items() if key in cfg},
        "networks": {name: ensemble.summary() | {"precision": precisions[name]} for name, ensemble in networks.items()},
        "faces": images.summary(),
        "explanations": [explanation.summary() for explanation in explanations],
    }
    _write(folder, images, explanations, record, config.num_shown)
    if failures:
        raise UserError("\n".join([*failures, "The files hold the other maps."]))
    return record


def _explain_with_all(
    networks: dict[str, "Ensemble"],
    precisions: dict[str, str],
    images: "ImageSet",
    target: int | str,
    config: ExplainConfig,
    failures: list[str],
) -> list["Explanation"]:
    """Return the explanations of every network by every method; add a message for each that failed to `failures`."""
    from rich.progress import Progress

    screen = console()
    explanations: list[Explanation] = []
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        for name, ensemble in networks.items():
            baselines: dict[str, FaithfulnessScores] = {}  # do not depend on the method
            for method in config.explainer:
                try:
                    explanations.append(
                        _explain(name, method, ensemble, images, target, config, precisions[name], progress, baselines)
                    )
                except (UserError, RuntimeError, ValueError, MemoryError) as error:
                    is_ours = isinstance(error, UserError)
                    reason = str(error) if is_ours else f"{type(error).__name__}: {error}".splitlines()[0]
                    failures.append(f"{name}: {method} failed: {reason}")
    return explanations


def _print_faithfulness(explanations: Sequence["Explanation"], config: ExplainConfig) -> None:
    from emotion.explainers.explanation import MIN_FACES
    from emotion.reporting.tables import print_table

    measured = [explanation for explanation in explanations if explanation.scores]
    num_measured = len(explanations[0].targets[: config.faithfulness.faces]) if config.faithfulness else 0
    if num_measured >= MIN_FACES:
        for explanation in measured:
            print_table(*explanation.table())
    elif measured:
        faces = counted(num_measured, "measured face")
        print(wrapped(f"{faces}: too few for a table of faithfulness ({MIN_FACES}); explain.json has the values."))


def _write(
    folder: Path, images: "ImageSet", explanations: Sequence["Explanation"], record: dict[str, Any], num_shown: int
) -> None:
    """Write the figures, the maps and the record, and print their names."""
    import numpy as np

    from emotion.explainers import sheets
    from emotion.io.atomic import make_folder, write_atomically, write_json
    from emotion.reporting import figures

    make_folder(folder)
    (folder / "faithfulness.png").unlink(missing_ok=True)  # of a previous run
    plots = {
        "sheet.png": sheets.plot_sheet(images, explanations, num_shown),
        "averages.png": sheets.plot_class_means(images, explanations),
    }
    if measured := [explanation for explanation in explanations if explanation.scores]:
        plots["faithfulness.png"] = sheets.plot_curves(measured)
    for name, figure in plots.items():
        figures.save(figure, folder / name)
    arrays: dict[str, Any] = {f"{one.network}/{one.method}": one.maps.numpy() for one in explanations}
    arrays |= {"rows": images.rows, "targets": np.stack([one.targets.numpy() for one in explanations])}
    write_atomically(folder / "maps.npz", lambda temporary: np.savez_compressed(temporary, **arrays))
    write_json(folder / "explain.json", record)
    print("\n".join(f"wrote {relative_path(folder / name)}" for name in (*plots, "maps.npz", "explain.json")))


def _load_networks(config: ExplainConfig) -> dict[str, "Ensemble"]:
    """Load the networks onto the device, by unique names."""
    from emotion.checkpoints import ensemble
    from emotion.checkpoints.load import check_classes
    from emotion.runtime.hardware import torch_device

    sources = [config.checkpoint, *([config.compare_with] if config.compare_with else [])]
    networks = [ensemble.load_ensemble(source).to(torch_device(config.accelerator)) for source in sources]
    for other in networks[1:]:
        first = networks[0].loaded[0].path
        advice = "compare_with= needs a network of the same classes."
        check_classes(other.loaded[0].path, other.classes, networks[0].classes, f"{first} on", advice)
    if len({tuple(one.paths) for one in networks}) < len(networks):
        raise UserError(f"compare_with={config.compare_with} is the checkpoint itself; expected another one.")
    return dict(zip(_names(networks), networks, strict=True))


def _names(networks: Sequence["Ensemble"]) -> list[str]:
    """Return short names: those of the architectures, else of the runs, else of the first folders that differ."""
    from emotion.records.run_record import checkpoint_title

    parts = [[Path(path).parts for path in one.paths] for one in networks]
    choices = [[[one.name] for one in networks], [list(map(checkpoint_title, one.loaded)) for one in networks]]
    longest = max(len(path) for paths in parts for path in paths)
    choices += [[[path[-end:][0] for path in paths] for paths in parts] for end in range(1, longest + 1)]
    names = [[" + ".join(members) for members in choice] for choice in choices]
    paths = [" + ".join(one.paths) for one in networks]
    return next((choice for choice in names if len(set(choice)) == len(choice)), paths)


def _load_images(config: ExplainConfig, cfg: DictConfig, networks: list["Ensemble"]) -> tuple["ImageSet", list[str]]:
    """Load the faces to explain, and say which images cannot be read; print how many a network was trained on."""
    import numpy as np

    from emotion.checkpoints.training_data import choose_subset, load_data, training_rows
    from emotion.config.instantiate import instantiate
    from emotion.explainers.image_set import image_set_of_rows, sample_balanced
    from emotion.inference.photographs import load_photographs

    if config.images is not None:
        return load_photographs(as_list(config.images), instantiate(config.detector), networks)
    try:
        data = load_data(networks[0].loaded[0], cfg)
    except UserError as error:
        raise UserError(f"{error}\nTo explain images of your own: images=photo.jpg.") from error
    checkpoints = [loaded for network in networks for loaded in network.loaded]
    if config.rows is None:
        subset = choose_subset(config.subset, data, checkpoints)
        rows = sample_balanced(data.rows(subset), data.labels, config.faces, config.seed)
    else:
        rows = np.array(config.rows)
    images = image_set_of_rows(data, rows)
    for loaded in checkpoints:
        trained_on = training_rows(loaded, data.hparams["source"], data.faces, config.cache_dir)
        if trained_on is not None and (common := int(np.isin(rows, trained_on).sum())):
            print(f"{loaded.path} was trained on {common} of the {counted(len(rows), 'face')}.")
    return images, []


def _explain(
    name: str,
    method: str,
    ensemble: "Ensemble",
    images: "ImageSet",
    target: str | int,
    config: ExplainConfig,
    precision: str,
    progress: "Progress",
    baselines: dict[str, "FaithfulnessScores"],
) -> "Explanation":
    """Compute the maps of one explainer and their faithfulness; fill `baselines` if it is empty."""
    from emotion.config.instantiate import instantiate
    from emotion.explainers import faithfulness
    from emotion.explainers.explainer import EnsembleExplainer
    from emotion.explainers.explanation import Explanation
    from emotion.explainers.image_set import select_targets

    explainer = EnsembleExplainer(ensemble, instantiate(config.explainer[method]), precision)
    probabilities = explainer.probabilities(images.faces)
    targets = select_targets(target, probabilities, images)
    if progress.disable:
        announce(f"{name}: explaining {counted(len(targets), 'face')} by {method}")
    task = progress.add_task(f"{name}: {method}", total=len(targets))
    start = time.perf_counter()
    maps = explainer.maps(images.faces, targets, partial(progress.advance, task))
    seconds = time.perf_counter() - start
    progress.console.print(
        f"{name}: {method}, {counted(len(maps), 'face')} in {format_duration(seconds)}", highlight=False
    )
    scores = None
    if config.faithfulness:
        count = config.faithfulness.faces
        faces, targets_, maps_ = images.faces[:count], targets[:count], maps[:count]
        steps = faithfulness.SCORING_STEPS
        if not baselines:
            steps += faithfulness.RANKING_STEPS * len(faithfulness.BASELINES)
        if progress.disable:
            announce(f"{name}: measuring how faithful {method} is on {counted(len(faces), 'face')}")
        advance = partial(progress.advance, progress.add_task("  faithfulness", total=steps))
        for baseline, make_maps in faithfulness.BASELINES.items():
            if baseline not in baselines:
                baseline_maps = make_maps(maps_)
                baselines[baseline] = faithfulness.score_ranking(explainer, faces, targets_, baseline_maps, advance)
        num_sensitivity = config.faithfulness.sensitivity
        scores = faithfulness.score_maps(explainer, faces, targets_, maps_, num_sensitivity, advance)
    signed = explainer.explainer.signed
    return Explanation(name, method, signed, maps, targets, probabilities, seconds, scores, baselines)


def _check(config: ExplainConfig, arguments: Sequence[str]) -> None:
    from emotion.checkpoints.training_data import SUBSETS
    from emotion.runtime.hardware import check_gpu

    check_choices(config, subset=SUBSETS, precision=EVALUATION_PRECISIONS, accelerator=ACCELERATORS)
    check_gpu(config.accelerator)
    for name, minimum in (("faces", 1), ("num_shown", 1), ("seed", 0)):
        if getattr(config, name) < minimum:
            raise UserError(f"{name}={getattr(config, name)}: expected an integer of {minimum} or more.")
    if config.faithfulness and min(config.faithfulness.faces, config.faithfulness.sensitivity) < 2:
        raise UserError("faithfulness.faces= and faithfulness.sensitivity=: expected integers of 2 or more.")
    if config.rows is not None and config.images is not None:
        raise UserError("rows= and images= both select the faces; give one of them.")
    given = {re.split("[=.@]", argument.lstrip("+~"))[0] for argument in arguments}
    if config.chosen_by and (ignored := [name for name in WITHOUT_EFFECT[config.chosen_by] if name in given]):
        raise UserError(
            f"{config.chosen_by}= selects the faces, so {'=, '.join(ignored)}= would have no effect; omit either."
        )
    if config.rows == []:
        raise UserError("rows=[]: expected row numbers of the source: rows=[28709,30011].")
    if config.images is not None and not (config.images and isinstance(config.images, str | list)):
        raise UserError(f"images={config.images}: expected image files or folders of them: images=[a.jpg,photos].")
    if config.layer and not {"gradcam", "gradcam++"} & set(config.explainer):
        raise UserError(
            f"layer={config.layer} applies to Grad-CAM only; use explainer=gradcam, or explainer.attention.layer= for "
            f"attention."
        )


@verb("explain", positional="checkpoint", uses_torch=True)
def main(cfg: DictConfig) -> None:
    """Run `explain` into the output folder."""
    hydra = HydraConfig.get()
    explain(cfg, Path(cfg.output or relative_path(Path(hydra.runtime.output_dir))), hydra.overrides.task)


if __name__ == "__main__":
    main()
