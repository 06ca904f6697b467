"""Training, measured: the real path against the textbook loop and against a bare one, in one process.

The three are measured in turn, `rounds` times, and the medians of the rounds' ratios are kept, so that a machine whose
speed drifts drifts for all of them.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from emotion.benchmarks.measurement import Line, Measured, busy_share, peak

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    from emotion.classifier import EmotionClassifier
    from emotion.data.datamodule import Batch, EmotionDataModule

Settings = dict[str, Any]
WARM_UP = 3  # steps before the clock starts
BUSY_STEPS = 50  # over which the share of an accelerator's time is taken
QUIET = (
    "model_summary",
    "progress_bar",
    "epoch_table",
    "time_estimate",
    "early_stopping",
    "tensorboard_pictures",
    "best_checkpoint",
    "last_checkpoint",
)


def bench_training(settings: Settings) -> Measured:
    """Faces per second of every path, their ratios, peak memory, and on an accelerator the share it computes."""
    from emotion.runtime import hardware
    from emotion.training import setup

    settings["callbacks"] = {name: part for name, part in settings["callbacks"].items() if name not in QUIET}
    settings["scheduler"] = {}  # nothing is validated, so there is nothing for a plateau to watch
    data, source = setup.make_data(settings)
    classifier = setup.make_classifier(settings, data)
    setup.decide_precision(classifier, settings)
    compiled = setup.tune(classifier, settings, short=False)
    seconds, size = settings["seconds"], settings["batch_size"]
    with tempfile.TemporaryDirectory() as folder:
        textbook = _textbook_loader(settings, data, Path(folder))
        plain_net = setup.make_classifier(settings, data)
        device = hardware.device(settings["trainer"]["accelerator"])
        paths: dict[str, Callable[[], float]] = {
            "training": lambda: _lightning(settings, data, classifier, seconds),
            "training, bare loop": lambda: _timed(_bare(settings, data, classifier.to(device)), size, seconds),
            "training, textbook": lambda: _timed(_textbook(plain_net.to(device), textbook), size, seconds),
            "loader": lambda: _timed(_endless(lambda: _fetched(data, device)), size, seconds / 2),
            "loader, textbook": lambda: _timed(_endless(lambda: textbook), size, seconds / 2),
        }
        rounds: dict[str, list[float]] = {name: [] for name in paths}
        for number in range(settings["rounds"]):
            for name, measure in paths.items():
                rounds[name].append(measure())
                print(f"round {number + 1}: {name}: {rounds[name][-1]:,.1f} faces/s", flush=True)
    rate = {name: median(values) for name, values in rounds.items()}
    name = settings["model"].get("backbone") or settings["model"]["_target_"].rsplit(".", 1)[-1]
    others = {"training, textbook": "the textbook loop", "training, bare loop": "a bare loop"}
    lines = [
        Line(f"{name} trains, batch {size}", "faces/s", rate["training"], against, rate[other])
        for other, against in others.items()
    ]
    lines += [Line(f"{name}'s faces are loaded", "faces/s", rate["loader"], "the textbook's", rate["loader, textbook"])]
    found = {
        "model": settings["model"]["_target_"],
        "precision": settings["trainer"]["precision"],
        "compiled": compiled,
        "batch_size": size,
        "data": source,
        "faces_per_second": rounds,
        "training_over_textbook": _ratio(rounds, "training", "training, textbook"),
        "loader_over_textbook": _ratio(rounds, "loader", "loader, textbook"),
        "lightning_overhead": _ratio(rounds, "training, bare loop", "training") - 1,
        "peak_memory_mb": peak(),
    }
    if classifier.device.type == "cuda":
        steps = _bare(settings, data, classifier, wait=False)
        found["device_share"] = busy_share(lambda: next(steps), BUSY_STEPS, "cuda")
        lines.append(Line(f"{name}: the accelerator computes", "share of the time", found["device_share"]))
    return Measured(found, lines)


def _ratio(rounds: dict[str, list[float]], one: str, other: str) -> float:
    """The median of the rounds' own ratios: what drifts between rounds does not count."""
    return median(a / b for a, b in zip(rounds[one], rounds[other], strict=True))


def _lightning(settings: Settings, data: "EmotionDataModule", classifier: "EmotionClassifier", seconds: float) -> float:
    """The path that `python -m emotion.train` takes, without validation; faces/s after the first steps."""
    import lightning as L

    from emotion.training import setup

    class Clock(L.Callback):
        steps, started, stopped = 0, 0.0, 0.0

        def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
            self.steps += 1
            _wait(classifier)
            if self.steps == WARM_UP:
                self.started = time.perf_counter()
            elif self.steps > WARM_UP:
                self.stopped = time.perf_counter()
                trainer.should_stop = self.stopped - self.started > seconds

    trainer = setup.make_trainer(settings, limited=False)
    trainer.limit_val_batches = 0
    trainer.callbacks.insert(0, clock := Clock())  # type: ignore[attr-defined]
    trainer.fit(classifier, datamodule=data)
    return float((clock.steps - WARM_UP) * settings["batch_size"] / (clock.stopped - clock.started))


def _timed(steps: Iterator[object], batch_size: int, seconds: float) -> float:
    """Faces/s of an endless iterator that does a batch's work each time it is asked."""
    for _ in range(WARM_UP):
        next(steps)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        next(steps)
        done += 1
    return done * batch_size / (time.perf_counter() - started)


def _endless(batches: Callable[[], Any]) -> Iterator[object]:
    while True:
        yield from batches()


def _fetched(data: "EmotionDataModule", device: "str | torch.device") -> Iterator["Batch"]:
    """An epoch of training batches on the device."""
    return (data.fetch(rows._replace(rows=rows.rows.to(device))) for rows in data.train_dataloader())


def _bare(
    settings: Settings, data: "EmotionDataModule", classifier: "EmotionClassifier", *, wait: bool = True
) -> Iterator[None]:
    """The same parts (loader, network, loss, optimiser, precision) without Lightning."""
    import torch

    from emotion.config.instantiate import build

    optimizer = build(settings["optimizer"], classifier.net.parameters())
    bf16 = str(settings["trainer"]["precision"]).startswith("bf16")
    classifier.train()
    while True:
        for faces, targets in _fetched(data, classifier.device):
            with torch.autocast(classifier.device.type, torch.bfloat16, enabled=bf16):
                loss = classifier.criterion(classifier(faces), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if wait:
                _wait(classifier)
            yield


def _textbook(classifier: "EmotionClassifier", loader: "DataLoader[Any]") -> Iterator[None]:
    """What a tutorial does: fp32, NCHW, Adam, a DataLoader with two workers."""
    import torch

    net, criterion, device = classifier.net.train(), classifier.criterion, classifier.device
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-4)
    while True:
        for faces, targets in loader:
            loss = criterion(net(faces.to(device)), targets.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            _wait(classifier)
            yield


def _textbook_loader(settings: Settings, data: "EmotionDataModule", folder: Path) -> "DataLoader[Any]":
    """An ImageFolder of torchvision over the training faces as PNG files, PIL transforms like V4's, two workers."""
    from PIL import Image
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    for row in data.split.train[:2000]:
        place = folder / f"{data.labels[row]}"
        place.mkdir(exist_ok=True)
        Image.fromarray(data.faces.images[row]).save(place / f"{row}.png")
    size = settings["input"]["size"]
    steps = [
        transforms.Grayscale(settings["input"]["channels"]),
        transforms.Resize((size, size)),
        transforms.RandomHorizontalFlip(),
        transforms.RandomAffine(15, translate=(0.1, 0.1)),
        transforms.ColorJitter(0.2, 0.2, 0.1),
        transforms.RandomApply([transforms.GaussianBlur(3)], p=0.1),
        transforms.ToTensor(),
        transforms.Normalize(settings["input"]["mean"], settings["input"]["std"]),
        transforms.RandomErasing(p=0.1, scale=(0.02, 0.1)),
    ]
    dataset = ImageFolder(str(folder), transforms.Compose(steps))
    return DataLoader(
        dataset, settings["batch_size"], shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
    )


def _wait(classifier: "EmotionClassifier") -> None:
    """Let an accelerator finish before the clock is read."""
    import torch

    if classifier.device.type == "cuda":
        torch.cuda.synchronize()
