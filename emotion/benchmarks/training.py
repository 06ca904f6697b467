"""Training speed: python -m emotion.bench measure=training [model=NAME] [seconds=8].

Compares `python -m emotion.train` with a baseline, the loop and data loader of a tutorial, and with a bare loop of the
same parts without Lightning. All alternate in one process.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from emotion.benchmarks.config import BenchConfig
from emotion.benchmarks.measurement import BenchResult, Measurement, alternate, endless, peak_memory, utilization
from emotion.errors import UserError, counted

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    from emotion.classifier import EmotionClassifier
    from emotion.data.datamodule import Batch, EmotionDataModule

TRAINING_CALLBACKS = ("ema", "staged_unfreezing", "learning_rates")
"""Callbacks that take part in training steps; the others only report, save or stop."""
WARM_UP_STEPS = 3
UTILIZATION_STEPS = 50
MAX_BASELINE_FACES = 2000


def run(config: BenchConfig) -> BenchResult:
    """Measure faces per second of training and loading, their ratios, peak memory and the utilization of a GPU."""
    from emotion.runtime.hardware import torch_device
    from emotion.training import setup

    callbacks = {name: callback for name, callback in config.callbacks.items() if name in TRAINING_CALLBACKS}
    config = replace(config, callbacks=callbacks, scheduler={})  # no validation, which a plateau schedule needs
    data, description = setup.make_data(config)
    classifier = setup.make_classifier(config, data)
    config = setup.resolve_precision(config, classifier)
    compiled = setup.optimize_for_device(classifier, config, may_compile=True)
    seconds, size = config.seconds, config.batch_size
    with tempfile.TemporaryDirectory() as folder:
        baseline_loader = _baseline_loader(config, data, Path(folder))
        baseline_classifier = setup.make_classifier(config, data)
        device = torch_device(config.trainer["accelerator"])
        paths: dict[str, Callable[[], float]] = {
            "training": lambda: _train(config, data, classifier),
            "training, bare loop": lambda: _rate(_bare_loop(config, data, classifier.to(device)), size, seconds),
            "training, baseline": lambda: _rate(
                _baseline_loop(baseline_classifier.to(device), baseline_loader), size, seconds
            ),
            "loader": lambda: _rate(endless(lambda: _batches(data, device)), size, seconds / 2),
            "loader, baseline": lambda: _rate(endless(lambda: baseline_loader), size, seconds / 2),
        }
        rounds = alternate(paths, config.rounds)
    rate = {name: median(values) for name, values in rounds.items()}
    name = config.network
    measurements = [
        Measurement(f"{name}: training, batch {size}", "faces/s", rate["training"], baseline, rate[key])
        for key, baseline in (("training, baseline", "a tutorial's loop"), ("training, bare loop", "a bare loop"))
    ]
    measurements.append(
        Measurement(f"{name}: loading", "faces/s", rate["loader"], "a tutorial's loader", rate["loader, baseline"])
    )
    details = {
        "model": config.model["_target_"],
        "precision": config.trainer["precision"],
        "compiled": compiled,
        "batch_size": size,
        "data": description,
        "faces_per_second": rounds,
        "training_over_baseline": _median_ratio(rounds, "training", "training, baseline"),
        "loader_over_baseline": _median_ratio(rounds, "loader", "loader, baseline"),
        "lightning_overhead": _median_ratio(rounds, "training, bare loop", "training") - 1,
        "peak_memory_mb": peak_memory(),
    }
    if classifier.device.type == "cuda":
        steps = _bare_loop(config, data, classifier, synchronize=False)
        details["utilization"] = utilization(lambda: next(steps), UTILIZATION_STEPS, "cuda")
        measurements.append(Measurement(f"{name}: GPU utilization", "share of time", details["utilization"]))
    return BenchResult(details, measurements)


def _median_ratio(rounds: dict[str, list[float]], name: str, other: str) -> float:
    """Return the median of the ratios in each round, which a drift of the machine's speed does not affect."""
    return median(a / b for a, b in zip(rounds[name], rounds[other], strict=True))


def _train(config: BenchConfig, data: "EmotionDataModule", classifier: "EmotionClassifier") -> float:
    """Train as `python -m emotion.train` does, without validation; return faces/s after the warm-up.

    Raises:
        UserError: The settings end the training within the warm-up.
    """
    import lightning as L

    from emotion.training.setup import make_trainer

    class Clock(L.Callback):
        steps, started, stopped = 0, 0.0, 0.0

        def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
            self.steps += 1
            _synchronize(classifier)
            if self.steps == WARM_UP_STEPS:
                self.started = time.perf_counter()
            elif self.steps > WARM_UP_STEPS:
                self.stopped = time.perf_counter()
                trainer.should_stop = self.stopped - self.started > config.seconds

    trainer = make_trainer(config)
    trainer.limit_val_batches = 0
    trainer.callbacks.insert(0, clock := Clock())  # type: ignore[attr-defined]
    trainer.fit(classifier, datamodule=data)
    if clock.steps <= WARM_UP_STEPS:
        raise UserError(
            f"measure=training: training took {counted(clock.steps, 'step')}; expected more than the {WARM_UP_STEPS} "
            f"of the warm-up. Raise trainer.max_epochs or trainer.limit_train_batches, or lower batch_size."
        )
    return float((clock.steps - WARM_UP_STEPS) * config.batch_size / (clock.stopped - clock.started))


def _rate(steps: Iterator[object], batch_size: int, seconds: float) -> float:
    """Return the faces/s of an endless iterator that processes a batch per item."""
    for _ in range(WARM_UP_STEPS):
        next(steps)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        next(steps)
        count += 1
    return count * batch_size / (time.perf_counter() - started)


def _batches(data: "EmotionDataModule", device: "str | torch.device") -> Iterator["Batch"]:
    """Return an epoch of training batches on the device."""
    return (data.fetch(rows._replace(rows=rows.rows.to(device))) for rows in data.train_dataloader())


def _bare_loop(
    config: BenchConfig, data: "EmotionDataModule", classifier: "EmotionClassifier", *, synchronize: bool = True
) -> Iterator[None]:
    """Train with the same loader, network, loss, optimizer and precision, without Lightning."""
    import torch

    from emotion.config.instantiate import instantiate

    optimizer = instantiate(config.optimizer, classifier.net.parameters())
    bf16 = str(config.trainer["precision"]).startswith("bf16")
    classifier.train()
    while True:
        for faces, targets in _batches(data, classifier.device):
            with torch.autocast(classifier.device.type, torch.bfloat16, enabled=bf16):
                loss = classifier.criterion(classifier(faces), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if synchronize:
                _synchronize(classifier)
            yield


def _baseline_loop(classifier: "EmotionClassifier", loader: "DataLoader[Any]") -> Iterator[None]:
    """Train as in a tutorial: fp32, NCHW, Adam."""
    import torch

    net, criterion, device = classifier.net.train(), classifier.criterion, classifier.device
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-4)
    while True:
        for faces, targets in loader:
            loss = criterion(net(faces.to(device)), targets.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            _synchronize(classifier)
            yield


def _baseline_loader(config: BenchConfig, data: "EmotionDataModule", folder: Path) -> "DataLoader[Any]":
    """Return a tutorial's loader: torchvision's ImageFolder of PNG files, PIL transforms like V4's, two workers."""
    from PIL import Image
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    for row in data.split.train[:MAX_BASELINE_FACES]:
        class_folder = folder / f"{data.labels[row]}"
        class_folder.mkdir(exist_ok=True)
        Image.fromarray(data.faces.images[row]).save(class_folder / f"{row}.png")
    size = config.input["size"]
    steps = [
        transforms.Grayscale(config.input["channels"]),
        transforms.Resize((size, size)),
        transforms.RandomHorizontalFlip(),
        transforms.RandomAffine(15, translate=(0.1, 0.1)),
        transforms.ColorJitter(0.2, 0.2, 0.1),
        transforms.RandomApply([transforms.GaussianBlur(3)], p=0.1),
        transforms.ToTensor(),
        transforms.Normalize(config.input["mean"], config.input["std"]),
        transforms.RandomErasing(p=0.1, scale=(0.02, 0.1)),
    ]
    dataset = ImageFolder(str(folder), transforms.Compose(steps))
    return DataLoader(dataset, config.batch_size, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True)


def _synchronize(classifier: "EmotionClassifier") -> None:
    """Wait for the GPU before the clock is read."""
    import torch

    if classifier.device.type == "cuda":
        torch.cuda.synchronize()
