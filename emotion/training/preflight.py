"""Checks before a long run: batch shapes, class weights, the loss, gradients, and whether the network can learn.

python -m emotion.train model=NAME debug=preflight
"""

import copy
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn

from emotion.classifier import EmotionClassifier
from emotion.config.instantiate import instantiate
from emotion.data.datamodule import SHUFFLED, EmotionDataModule
from emotion.errors import UserError, counted, first_line
from emotion.io.atomic import make_folder, write_json
from emotion.records.run_record import provenance
from emotion.reporting.tables import print_table
from emotion.runtime.hardware import device_name
from emotion.training import setup
from emotion.training.config import TrainConfig

MAX_MEAN, MAX_STD_FACTOR = 0.4, 3.0  # pixels that are not normalized fail both: 0.51 and 0.26 if from 0 to 1
LOGIT_STD = 0.6  # of an untrained network: torch's linear layers give sqrt(1/3) for unit features. The loss of n faces
# exceeds that of equal logits by LOGIT_STD^2 / 2, with a standard error of LOGIT_STD / sqrt(n).
MAX_IMBALANCE = 1.5  # class weights count the faces of the source, and a split's own counts differ a little


@dataclass(frozen=True)
class Check:
    """A check and its result."""

    name: str
    found: str
    expected: str
    ok: bool


class ClassCounts(NamedTuple):
    """By class, (K,) each: training faces, faces that the sampler draws in an epoch, weight in the loss."""

    faces: Tensor
    sampled: Tensor
    weights: Tensor


def preflight(config: TrainConfig) -> float:
    """Check the run of a config instead of training it; see `check_run`.

    Raises:
        UserError: A part of the run cannot be built, or a check failed.
    """
    L.seed_everything(config.seed, verbose=False)
    data, _ = setup.make_data(config)
    classifier = setup.make_classifier(config, data)
    setup.load_weights(classifier, config)
    return check_run(classifier, data, setup.resolve_precision(config, classifier))


def check_run(classifier: EmotionClassifier, data: EmotionDataModule, config: TrainConfig) -> float:
    """Check copies of a run's parts, print the results and write preflight.json; return the share of faces learned.

    Overfitting a few faces takes longest and is tried only if the other checks pass.

    Raises:
        UserError: A check failed.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    counts = count_classes(classifier, data)
    classes = class_table(counts, data.classes)
    print_table(counted(len(data.split.train), "training face"), classes)
    checks = [*class_checks(counts, data.classes), *batch_checks(classifier, data, config)]
    learned = 0.0
    if all(check.ok for check in checks):
        learned, check = learning_check(classifier, data, config)
        checks.append(check)
    rows = [{"check": c.name, "found": c.found, "expected": c.expected, "ok": "yes" if c.ok else "NO"} for c in checks]
    device = device_name(config.trainer["accelerator"])
    print_table(f"{config.network}, {device}, {config.trainer['precision']}", rows, left=4)
    path = Path(config.run_dir) / "preflight.json"
    make_folder(path.parent)
    result = {"config": config.to_dict(), "classes": classes, "checks": [asdict(check) for check in checks]}
    write_json(path, provenance() | result)
    print(f"wrote {path}", flush=True)
    if failed := [f"{c.name} (found {c.found}; expected {c.expected})" for c in checks if not c.ok]:
        untried = "" if checks[-1].name.startswith("overfit") else " Learning was not tried."
        raise UserError(f"preflight: {len(failed)} of {len(checks)} checks failed: {', '.join(failed)}.{untried}")
    return learned


def count_classes(classifier: EmotionClassifier, data: EmotionDataModule) -> ClassCounts:
    """Count the run's faces by class; without weights in the loss, each class has weight 1."""
    sampled = torch.cat([batch.rows for batch in data.train_dataloader()]).numpy()
    faces, drawn = (np.bincount(data.labels[rows], minlength=len(data.classes)) for rows in (data.split.train, sampled))
    weight = getattr(classifier.criterion, "weight", None)
    weights = torch.ones(len(data.classes)) if weight is None else weight.detach().cpu()
    return ClassCounts(torch.from_numpy(faces).double(), torch.from_numpy(drawn).double(), weights.double())


def class_table(counts: ClassCounts, classes: Sequence[str]) -> list[dict[str, str]]:
    """Return a row per class, with its share of the faces and of the loss (faces sampled times weight)."""
    loss = counts.sampled * counts.weights
    columns = {
        "faces": ("{:,.0f}", counts.faces),
        "share %": ("{:.1f}", 100 * counts.faces / counts.faces.sum()),
        "sampled per epoch": ("{:,.0f}", counts.sampled),
        "weight": ("{:.4g}", counts.weights),
        "share of loss %": ("{:.1f}", 100 * loss / loss.sum()),
    }
    return [
        {"class": name} | {column: form.format(float(values[i])) for column, (form, values) in columns.items()}
        for i, name in enumerate(classes)
    ]


def class_checks(counts: ClassCounts, classes: Sequence[str]) -> Iterator[Check]:
    """Check that no class is absent, weights are valid, and weights do not increase the sampler's imbalance."""
    absent = [name for name, n in zip(classes, counts.faces, strict=True) if not n]
    yield Check("classes: absent", ", ".join(absent) or "none", "none", not absent)
    valid = bool((counts.weights.isfinite() & (counts.weights > 0)).all())
    yield Check("classes: weights", _range(counts.weights), "finite, above 0", valid)
    sampled = counts.sampled.clamp(min=1)
    before, after = (float(n.max() / n.min()) for n in (sampled, sampled * counts.weights))
    found, expected = f"{after:.3g}, sampled {before:.3g}", f"at most {MAX_IMBALANCE} x sampled"
    yield Check("classes: imbalance", found, expected, after <= MAX_IMBALANCE * before)


def batch_checks(classifier: EmotionClassifier, data: EmotionDataModule, config: TrainConfig) -> Iterator[Check]:
    """Check one training batch, forward and backward, as the run would compute it."""
    trainer = _make_trainer(config)
    device, plugin = trainer.strategy.root_device, trainer.precision_plugin
    trial = copy.deepcopy(classifier)
    plugin.convert_module(trial).to(device).train()
    trial.optimize_for_device(channels_last=config.channels_last)
    batch = next(iter(data.train_dataloader()))
    faces, targets = data.fetch(batch._replace(rows=batch.rows.to(device)))
    yield _shape_check("faces", faces, (len(batch.rows), config.input["channels"], *2 * [config.input["size"]]))
    mean, std = float(faces.mean()), float(faces.std())
    normalized = abs(mean) <= MAX_MEAN and 1 / MAX_STD_FACTOR <= std <= MAX_STD_FACTOR
    expected = f"0 +- {MAX_MEAN}, {1 / MAX_STD_FACTOR:.2f} to {MAX_STD_FACTOR:g}"
    yield Check("forward: mean, std", f"{mean:.2f}, {std:.2f}", expected, normalized)
    try:
        with plugin.train_step_context():
            logits = trial(faces)
            loss = trial.criterion(logits, targets)
            uniform = float(trial.criterion(torch.zeros_like(logits), targets))
        loss.backward()
    except (RuntimeError, ValueError, IndexError) as error:  # shapes, types or labels that do not fit
        yield Check("forward and back", first_line(error), "no error", False)
        return
    yield _shape_check("logits", logits, (len(faces), len(data.classes)))
    yield Check("forward: range", _range(logits.detach()), "finite", bool(logits.isfinite().all()))
    num_classes, value = len(data.classes), float(loss.detach())
    tolerance = config.preflight["loss"]
    if not tolerance:
        tolerance = LOGIT_STD**2 / 2 + 3 * LOGIT_STD / math.sqrt(effective_size(trial.criterion, targets))
    found, expected = (
        f"{value:.3f}; ln {num_classes} = {math.log(num_classes):.3f}",
        f"{uniform:.3f} +- {tolerance:.2f}",
    )
    yield Check("forward: loss", found, f"{expected}, uniform", abs(value - uniform) <= tolerance)
    yield from _gradient_checks(trial.net, config.trainer.get("gradient_clip_val"))


def effective_size(criterion: nn.Module, targets: Tensor) -> float:
    """Return how many equally weighted faces have a mean loss of the same variance as these targets."""
    weight = getattr(criterion, "weight", None)
    if weight is None:
        return len(targets)
    weights = weight[targets] if targets.ndim == 1 else targets @ weight
    return float(weights.sum() ** 2 / (weights**2).sum())


def learning_check(classifier: EmotionClassifier, data: EmotionDataModule, config: TrainConfig) -> tuple[float, Check]:
    """Overfit a copy on a few faces with the recipe's optimizer at a constant rate; return the share learned."""
    settings = config.preflight
    batch_size = min(settings["batch_size"], config.batch_size)
    changes = {"overfit": settings["faces"], "batch_size": batch_size, "sampler": SHUFFLED}
    few = EmotionDataModule(**{**data.hparams, **changes})
    few.setup()
    trial = copy.deepcopy(classifier)
    trial.hparams["scheduler"] = {}
    trial.optimize_for_device(channels_last=config.channels_last)
    epochs = max(1, settings["steps"] // len(few.train_dataloader()))
    threshold = settings["accuracy"] - 1e-6
    stop = EarlyStopping("val/acc", mode="max", patience=epochs + 1, stopping_threshold=threshold)
    trainer = _make_trainer(config, epochs, [stop])
    trainer.fit(trial, datamodule=few)
    learned = float(trainer.callback_metrics["val/acc"])
    found = f"{100 * learned:.1f} % after {counted(trainer.global_step, 'step')}"
    expected = f"{100 * settings['accuracy']:.0f} % within {counted(epochs * len(few.train_dataloader()), 'step')}"
    return learned, Check(f"overfit {counted(len(few.split.train), 'face')}", found, expected, learned >= threshold)


def _gradient_checks(net: nn.Module, clip_value: float | None) -> Iterator[Check]:
    trained = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    lacking = [name for name, parameter in trained.items() if parameter.grad is None]
    yield Check("gradient: lacking", ", ".join(lacking) or "none", "none", not lacking)
    norms = {name: float(parameter.grad.norm()) for name, parameter in trained.items() if parameter.grad is not None}
    broken = [name for name, norm in norms.items() if not math.isfinite(norm)]
    yield Check("gradient: not finite", ", ".join(broken) or "none", "none", not broken)
    for part in dict.fromkeys(name.partition(".")[0] for name in norms):
        norm = math.hypot(*(norm for name, norm in norms.items() if name.partition(".")[0] == part))
        yield Check(f"gradient: {part}", f"{norm:.3g}", "above 0", norm > 0)
    total = math.hypot(*norms.values())
    clipped = f", clipped to {clip_value:g}" if clip_value and total > clip_value else ""
    expected = f"above 0; clip at {clip_value:g}" if clip_value else "above 0; never clipped"
    yield Check("gradient: all", f"{total:.3g}{clipped}", expected, total > 0 and math.isfinite(total))


def _make_trainer(config: TrainConfig, max_epochs: int = 1, callbacks: Sequence[Callback] = ()) -> L.Trainer:
    """Return a trainer that steps like the run's, but prints and writes nothing."""
    names = ("_target_", "accelerator", "precision", "gradient_clip_val", "gradient_clip_algorithm")
    trainer: L.Trainer = instantiate(
        {name: value for name, value in config.trainer.items() if name in names},
        devices=1,
        max_epochs=max_epochs,
        callbacks=list(callbacks),
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    return trainer


def _shape_check(name: str, values: Tensor, expected: Sequence[int]) -> Check:
    found, wanted = (" x ".join(map(str, shape)) for shape in (values.shape, expected))
    return Check(f"forward: {name}", found, wanted, found == wanted)


def _range(values: Tensor) -> str:
    return f"{float(values.min()):.3g} to {float(values.max()):.3g}"
