"""How long maps take: python -m emotion.bench measure=explanations [model=NAME] [explained=1000].

In turn: the network's forward and backward pass over so many drawn faces, as a training step makes them, and Grad-CAM's
maps of the same faces, from stored pixels to maps of their size. Weights are as they are drawn; they change no time.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from emotion.benchmarks.measurement import Line, Measured
from emotion.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from emotion.classifier import EmotionClassifier
    from emotion.explainers.explainer import Explainer

Settings = dict[str, Any]


def bench_explanations(settings: Settings) -> Measured:
    """Seconds of each round for both, and the ratio that they have.

    Raises:
        UserError: too few faces to measure anything.
    """
    from emotion.checkpoints import ensemble
    from emotion.checkpoints.load import Loaded
    from emotion.explainers.explainer import BATCH, Explainer
    from emotion.explainers.gradcam import GradCam
    from emotion.runtime import hardware
    from emotion.training import setup

    if settings["explained"] < BATCH:
        raise UserError(f"explained={settings['explained']}: expected at least {BATCH}, a batch.")
    data, _ = setup.make_data(settings | {"data": _drawn(settings)})
    classifier = setup.make_classifier(settings, data)
    setup.decide_precision(classifier, settings)
    classifier.tune(channels_last=settings["channels_last"])
    classifier.to(hardware.device(settings["trainer"]["accelerator"]))
    alone = ensemble.Ensemble([Loaded(Path(), classifier, {}, "", 0)])
    explainer = Explainer(alone, GradCam(), settings["trainer"]["precision"])
    pixels, labels = _faces(data, settings["explained"])
    passes: dict[str, Callable[[], None]] = {
        "forward and backward": lambda: _step(classifier, explainer, pixels, labels),
        "gradcam": lambda: _maps(explainer, pixels, labels),
    }
    rounds: dict[str, list[float]] = {name: [] for name in passes}
    for number in range(settings["rounds"] + 1):
        for name, run in passes.items():
            began = time.perf_counter()
            run()
            if number:  # the first is to warm up
                rounds[name].append(time.perf_counter() - began)
    ratio = median(maps / both for both, maps in zip(*rounds.values(), strict=True))
    rate = {name: len(pixels) / median(seconds) for name, seconds in rounds.items()}
    name = settings["model"]["_target_"].rsplit(".", 1)[-1]
    line = Line(f"{name}: Grad-CAM", "faces/s", rate["gradcam"], "forward and backward", rate["forward and backward"])
    found = {
        "model": settings["model"]["_target_"],
        "precision": settings["trainer"]["precision"],
        "faces": len(pixels),
        "seconds": rounds,
        "gradcam_over_forward_and_backward": ratio,
    }
    return Measured(found, [line])


def _drawn(settings: Settings) -> Settings:
    each = -(-settings["explained"] // 4)  # of seven classes, of which labels may leave three out
    return {"_target_": "emotion.data.readers.synthetic.read", "training": each, "public_test": 2, "private_test": 2}


def _faces(data: Any, count: int) -> tuple["Tensor", "Tensor"]:  # noqa: ANN401
    import numpy as np
    import torch

    rows = np.concatenate(data.split)[:count]
    return torch.from_numpy(data.faces.images[rows]), torch.from_numpy(data.labels[rows].astype(np.int64))


def _step(classifier: "EmotionClassifier", explainer: "Explainer", pixels: "Tensor", labels: "Tensor") -> None:
    """What a training step does before the optimiser's turn."""
    import torch
    from torch.nn.functional import cross_entropy

    from emotion.explainers.explainer import BATCH

    classifier.requires_grad_(True)
    device = classifier.device
    for some, targets in zip(torch.split(pixels, BATCH), torch.split(labels, BATCH), strict=True):
        with torch.autocast(device.type, torch.bfloat16, enabled=explainer.bf16):
            loss = cross_entropy(classifier(classifier.preprocess(some.to(device))), targets.to(device))
        torch.autograd.backward(loss)
        classifier.zero_grad()
    classifier.requires_grad_(False)


def _maps(explainer: "Explainer", pixels: "Tensor", labels: "Tensor") -> None:
    from emotion.data.transforms.preprocess import values

    explainer.maps(values(pixels), labels)
