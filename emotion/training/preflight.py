"""Checks before a long run: does a batch pass, do the weights fit the classes, do gradients flow, can it learn at all?

python -m emotion.train model=NAME debug=preflight
"""

import copy
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn

from emotion.classifier import EmotionClassifier
from emotion.config.instantiate import build
from emotion.data.datamodule import SHUFFLED, EmotionDataModule
from emotion.errors import UserError
from emotion.io.atomic import write_text
from emotion.records import run_record
from emotion.reporting.tables import print_table
from emotion.runtime.hardware import description

Settings = Mapping[str, Any]

MEAN, DEVIATION = 0.4, 3.0  # pixels left at 0 to 1 (0.51, 0.26) fail both, those left at 0 to 255 by far
LOGITS = 0.6  # deviation s of untrained logits: torch's linear layers make sqrt(1/3) of unit features. The loss of n
# faces then exceeds that of equal logits by s^2 / 2, give or take s / sqrt(n).
IMBALANCE = 1.5  # weights are of the source's faces, and the rows that a split leaves differ from them a little


@dataclass(frozen=True)
class Check:
    """What was looked at, and what was seen."""

    name: str
    found: str
    expected: str
    ok: bool


class ByClass(NamedTuple):
    """Training faces, faces that the sampler draws in an epoch, weight in the loss: (K,) each."""

    faces: Tensor
    drawn: Tensor
    weights: Tensor


def preflight(classifier: EmotionClassifier, data: EmotionDataModule, settings: Settings, run_dir: Path) -> float:
    """Check copies of a run's parts, print what was found, write preflight.json; the share of faces learnt by heart.

    Learning takes the longest and is tried only where all else is well.

    Raises:
        UserError: a check has failed.
    """
    asked = settings["preflight"]
    if min(asked[name] for name in ("faces", "batch_size", "steps", "accuracy")) <= 0 or asked["accuracy"] > 1:
        raise UserError(f"preflight={asked}; expected faces, batch_size and steps from 1, accuracy above 0, at most 1.")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    by_class = counted(classifier, data)
    classes = class_table(by_class, data.classes)
    print_table(f"{len(data.split.train):,} training faces", classes)
    checks = [*class_checks(by_class, data.classes), *batch_checks(classifier, data, settings)]
    share = 0.0
    if all(check.ok for check in checks):
        share, check = learning_check(classifier, data, settings)
        checks.append(check)
    rows = [{"check": c.name, "found": c.found, "expected": c.expected, "ok": "yes" if c.ok else "NO"} for c in checks]
    name = settings["model"].get("backbone") or settings["model"]["_target_"].rsplit(".", 1)[-1]
    where = f"{description(settings['trainer']['accelerator'])}, {settings['trainer']['precision']}"
    print_table(f"{name}, {where}", rows, left=4)
    result = {
        "command": run_record.command(),
        "commit": run_record.commit(),
        "config": dict(settings),
        "classes": classes,
    }
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / "preflight.json"
    write_text(path, json.dumps(result | {"checks": [asdict(check) for check in checks]}, indent=2) + "\n")
    print(f"wrote {path}", flush=True)
    if failing := [f"{c.name} (found {c.found}; expected {c.expected})" for c in checks if not c.ok]:
        untried = "" if checks[-1].name.startswith("overfit") else " Whether it learns was not tried."
        raise UserError(f"preflight: {len(failing)} of {len(checks)} checks failed: {', '.join(failing)}.{untried}")
    return share


def counted(classifier: EmotionClassifier, data: EmotionDataModule) -> ByClass:
    """The run's own; a loss without weights weighs each class 1."""
    drawn = torch.cat([batch.rows for batch in data.train_dataloader()]).numpy()
    faces, seen = (np.bincount(data.labels[rows], minlength=len(data.classes)) for rows in (data.split.train, drawn))
    weight = getattr(classifier.criterion, "weight", None)
    weights = torch.ones(len(data.classes)) if weight is None else weight.detach().cpu()
    return ByClass(torch.from_numpy(faces).double(), torch.from_numpy(seen).double(), weights.double())


def class_table(by_class: ByClass, classes: Sequence[str]) -> list[dict[str, str]]:
    """A row a class, with its share of the faces and of the loss: faces drawn times weight."""
    loss = by_class.drawn * by_class.weights
    columns = (by_class.faces, by_class.faces / by_class.faces.sum(), *by_class[1:], loss / loss.sum())
    names = ("faces", "share %", "drawn an epoch", "weight", "of the loss %")
    formats = ("{:,.0f}", "{:.1%}", "{:,.0f}", "{:.4g}", "{:.1%}")
    return [
        {"class": name, **{n: f.format(v).rstrip("%") for n, f, v in zip(names, formats, row, strict=True)}}
        for name, row in zip(classes, torch.stack(columns, 1).tolist(), strict=True)
    ]


def class_checks(by_class: ByClass, classes: Sequence[str]) -> Iterator[Check]:
    """Every class is there; its weight is one, and the weights do not add to what imbalance the sampler leaves."""
    absent = [name for name, n in zip(classes, by_class.faces, strict=True) if not n]
    yield Check("classes: absent", ", ".join(absent) or "none", "none", not absent)
    sound = bool((by_class.weights.isfinite() & (by_class.weights > 0)).all())
    yield Check("classes: weights", _range(by_class.weights), "finite, above 0", sound)
    drawn = by_class.drawn.clamp(min=1)
    before, after = (float(n.max() / n.min()) for n in (drawn, drawn * by_class.weights))
    found = f"{after:.3g}, as drawn {before:.3g}"
    expected = f"at most {IMBALANCE} x as drawn"
    yield Check("classes: imbalance", found, expected, after <= IMBALANCE * before)


def batch_checks(classifier: EmotionClassifier, data: EmotionDataModule, settings: Settings) -> Iterator[Check]:
    """One training batch through network and loss and back, as the run would take it."""
    trainer = _trainer(settings)
    device, plugin = trainer.strategy.root_device, trainer.precision_plugin
    trial = copy.deepcopy(classifier)
    plugin.convert_module(trial).to(device).train()
    trial.tune(channels_last=settings["channels_last"])
    rows = next(iter(data.train_dataloader()))
    faces, targets = data.fetch(rows._replace(rows=rows.rows.to(device)))
    wanted = (len(rows.rows), settings["input"]["channels"], *2 * [settings["input"]["size"]])
    yield Check("forward: faces", _shape(faces), " x ".join(map(str, wanted)), faces.shape == wanted)
    mean, deviation = float(faces.mean()), float(faces.std())
    near = abs(mean) <= MEAN and 1 / DEVIATION <= deviation <= DEVIATION
    expected = f"0 +- {MEAN}, {1 / DEVIATION:.2f} to {DEVIATION:g}"
    yield Check("forward: mean, std", f"{mean:.2f}, {deviation:.2f}", expected, near)
    try:
        with plugin.train_step_context():
            logits = trial(faces)
            loss = trial.criterion(logits, targets)
            uniform = float(trial.criterion(torch.zeros_like(logits), targets))
        loss.backward()
    except (RuntimeError, ValueError, IndexError) as error:  # shapes, types or labels that do not fit
        yield Check("forward and back", str(error).splitlines()[0], "no error", False)
        return
    wanted = (len(faces), len(data.classes))
    yield Check("forward: logits", _shape(logits), " x ".join(map(str, wanted)), logits.shape == wanted)
    yield Check("forward: range", _range(logits.detach()), "finite", bool(logits.isfinite().all()))
    found = float(loss.detach())
    said = f"{found:.3f}; ln {len(data.classes)} = {math.log(len(data.classes)):.3f}"
    spread = LOGITS**2 / 2 + 3 * LOGITS / math.sqrt(effective(trial.criterion, targets))
    near_by = settings["preflight"]["loss"] or spread
    expected = f"{uniform:.3f} +- {near_by:.2f}, uniform"  # as logits that are all equal have it
    yield Check("forward: loss", said, expected, abs(found - uniform) <= near_by)
    yield from _gradient_checks(trial.net, settings["trainer"].get("gradient_clip_val"))


def effective(criterion: nn.Module, targets: Tensor) -> float:
    """How many equally weighted faces vary as much in their mean as these."""
    weight = getattr(criterion, "weight", None)
    if weight is None:
        return len(targets)
    each = weight[targets] if targets.ndim == 1 else targets @ weight
    return float(each.sum() ** 2 / (each**2).sum())


def _gradient_checks(net: nn.Module, bound: float | None) -> Iterator[Check]:
    learning = {name: p for name, p in net.named_parameters() if p.requires_grad}
    lacking = [name for name, p in learning.items() if p.grad is None]
    yield Check("gradient: lacking", ", ".join(lacking) or "none", "none", not lacking)
    norms = {name: float(p.grad.norm()) for name, p in learning.items() if p.grad is not None}
    broken = [name for name, norm in norms.items() if not math.isfinite(norm)]
    yield Check("gradient: not finite", ", ".join(broken) or "none", "none", not broken)
    parts: dict[str, list[float]] = {}
    for name, norm in norms.items():
        parts.setdefault(name.split(".")[0], []).append(norm)
    for name, inside in parts.items():
        yield Check(f"gradient: {name}", f"{math.hypot(*inside):.3g}", "above 0", math.hypot(*inside) > 0)
    total = math.hypot(*norms.values())
    clipped = f", clipped to {bound:g}" if bound and total > bound else ""
    expected = f"above 0; clip at {bound:g}" if bound else "above 0; never clipped"
    yield Check("gradient: all", f"{total:.3g}{clipped}", expected, total > 0 and math.isfinite(total))


def learning_check(classifier: EmotionClassifier, data: EmotionDataModule, settings: Settings) -> tuple[float, Check]:
    """Whether a copy learns a few faces by heart with the recipe's optimiser, its rates constant; the share learnt."""
    asked = settings["preflight"]
    size = min(asked["batch_size"], settings["batch_size"])
    given = {"overfit": asked["faces"], "batch_size": size, "sampler": SHUFFLED}
    few = EmotionDataModule(**{**data.hparams, **given})
    trial = copy.deepcopy(classifier)
    trial.hparams["scheduler"] = {}
    trial.tune(channels_last=settings["channels_last"])
    few.setup()
    passes = max(1, asked["steps"] // len(few.train_dataloader()))
    stop = EarlyStopping("val/acc", mode="max", patience=passes + 1, stopping_threshold=asked["accuracy"] - 1e-6)
    trainer = _trainer(settings, max_epochs=passes, callbacks=[stop])
    trainer.fit(trial, datamodule=few)
    share = float(trainer.callback_metrics["val/acc"])
    found = f"{100 * share:.1f} % after {trainer.global_step} steps"
    expected = f"{100 * asked['accuracy']:.0f} % within {passes * len(few.train_dataloader())} steps"
    return share, Check(f"overfit {len(few.split.train)} faces", found, expected, share >= asked["accuracy"] - 1e-6)


def _trainer(settings: Settings, max_epochs: int = 1, callbacks: Sequence[Callback] = ()) -> Trainer:
    """The run's own in what rules a step, silent and without a trace in all else."""
    ruling = ("_target_", "accelerator", "precision", "gradient_clip_val", "gradient_clip_algorithm")
    trainer: Trainer = build(
        {name: value for name, value in settings["trainer"].items() if name in ruling},
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


def _shape(values: Tensor) -> str:
    return " x ".join(map(str, values.shape))


def _range(values: Tensor) -> str:
    return f"{float(values.min()):.3g} to {float(values.max()):.3g}"
