"""A network that scores the brightness of one corner, so that the correct map is known."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from emotion.checkpoints.ensemble import Ensemble
from emotion.checkpoints.load import LoadedCheckpoint
from emotion.classifier import EmotionClassifier
from emotion.config.compose import compose
from emotion.models.blocks import FaceNetwork, SpatialAttention
from tests.models.test_models import recipe

SIDE, CORNER = 48, 24


class CornerAttention(SpatialAttention):
    """Pass the upper left corner only."""

    def attention(self, maps: Tensor) -> Tensor:
        mask = torch.zeros_like(maps[:, :1])
        mask[..., :CORNER, :CORNER] = 1.0
        return mask


class CornerNetwork(FaceNetwork):
    """Two classes: bright, whose logit is four times the mean of the corner, and dark, whose logit is 0."""

    def __init__(self) -> None:
        super().__init__()
        convolution = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        nn.init.constant_(convolution.weight, 1 / 9)
        linear = nn.Linear(2, 2, bias=False)
        linear.weight.data = torch.tensor([[2.0, 2.0], [0.0, 0.0]]) * (SIDE / CORNER) ** 2
        self.features = nn.Sequential(CornerAttention(), convolution, nn.ReLU(inplace=True))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


def classifier_of(net: nn.Module, classes: int, channels: int, size: int) -> EmotionClassifier:
    """Wrap `net` in a frozen classifier whose input needs no normalization."""
    cfg = compose("train", "run_dir=x")
    classifier = EmotionClassifier(
        model=recipe("simple_cnn")[0],
        input={"size": size, "channels": channels, "mean": [0.0], "std": [1.0]},
        classes=[f"class {number}" for number in range(classes)],
        class_counts=[1.0] * classes,
        loss=dict(cfg.loss),
        optimizer=dict(cfg.optimizer),
        scheduler={},
    )
    classifier.net = net
    return classifier.eval().requires_grad_(False)


def ensemble_of(*classifiers: EmotionClassifier) -> Ensemble:
    return Ensemble([LoadedCheckpoint(Path("nowhere"), classifier, {}, {}, 0) for classifier in classifiers])


@pytest.fixture
def corner() -> EmotionClassifier:
    return classifier_of(CornerNetwork(), 2, 1, SIDE)


@pytest.fixture
def bright_faces() -> Tensor:
    """Four almost white faces (4, 1, 48, 48)."""
    return 0.9 + 0.1 * torch.rand(4, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
