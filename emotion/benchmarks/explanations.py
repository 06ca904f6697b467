"""Speed of Grad-CAM: python -m emotion.bench measure=explanations [model=NAME] [faces=1000].

Compares Grad-CAM maps, from stored pixels to maps of their size, with the forward and backward pass of a training step
on the same synthetic faces. The weights are random, which does not change the speed.
"""

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from emotion.benchmarks.config import BenchConfig
from emotion.benchmarks.measurement import BenchResult, Measurement, alternate, synthetic_classifier, timed
from emotion.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from emotion.classifier import EmotionClassifier

FORWARD_BACKWARD, GRADCAM = "forward and backward", "gradcam"


def run(config: BenchConfig) -> BenchResult:
    """Measure the seconds of each round of both, and the median of their ratios."""
    import numpy as np
    import torch

    from emotion.checkpoints.ensemble import Ensemble
    from emotion.checkpoints.load import LoadedCheckpoint
    from emotion.data.transforms.preprocess import to_float
    from emotion.explainers.explainer import BATCH_SIZE, EnsembleExplainer
    from emotion.explainers.gradcam import GradCam
    from emotion.runtime.hardware import torch_device
    from emotion.training.setup import resolve_precision

    if config.faces < BATCH_SIZE:
        raise UserError(f"faces={config.faces}: expected at least {BATCH_SIZE}, a batch.")
    classifier, data, _ = synthetic_classifier(config, training=-(-config.faces // 4))  # of at least 4 classes
    precision = resolve_precision(config, classifier).trainer["precision"]
    classifier.optimize_for_device(channels_last=config.channels_last)
    classifier.to(torch_device(config.trainer["accelerator"]))
    explainer = EnsembleExplainer(Ensemble([LoadedCheckpoint(Path(), classifier, {}, {}, 0)]), GradCam(), precision)
    rows = np.concatenate(data.split)[: config.faces]
    pixels, labels = torch.from_numpy(data.faces.images[rows]), torch.from_numpy(data.labels[rows].astype(np.int64))

    passes = {
        FORWARD_BACKWARD: timed(
            lambda: _forward_backward(
                classifier, torch.split(pixels, BATCH_SIZE), torch.split(labels, BATCH_SIZE), explainer.bf16
            )
        ),
        GRADCAM: timed(lambda: explainer.maps(to_float(pixels), labels)),
    }
    seconds = {name: times[1:] for name, times in alternate(passes, config.rounds + 1).items()}  # after a warm-up round
    rates = {name: len(pixels) / median(times) for name, times in seconds.items()}
    details = {
        "model": config.model["_target_"],
        "precision": precision,
        "faces": len(pixels),
        "seconds": seconds,
        "gradcam_over_forward_and_backward": median(maps / both for both, maps in zip(*seconds.values(), strict=True)),
    }
    name, both = f"{config.network}: Grad-CAM", rates[FORWARD_BACKWARD]
    return BenchResult(details, [Measurement(name, "faces/s", rates[GRADCAM], FORWARD_BACKWARD, both)])


def _forward_backward(
    classifier: "EmotionClassifier", batches: "tuple[Tensor, ...]", labels: "tuple[Tensor, ...]", bf16: bool
) -> None:
    """Run a training step without its optimizer for each batch."""
    import torch
    from torch.nn.functional import cross_entropy

    classifier.requires_grad_(True)
    device = classifier.device
    for pixels, targets in zip(batches, labels, strict=True):
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = cross_entropy(classifier(classifier.preprocess(pixels.to(device))), targets.to(device))
        torch.autograd.backward(loss)
        classifier.zero_grad()
    classifier.requires_grad_(False)
