"""What every explanation method is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from emotion.classifier import EmotionClassifier


class Method(Protocol):
    """Called with a classifier in evaluation mode, its parameters without gradients; leaves it as it was.

    `signed`: whether a map has negative values, which speak against the class; else it goes from 0 up.
    """

    signed: bool

    def __call__(self, classifier: EmotionClassifier, faces: Tensor, targets: Tensor) -> Tensor:
        """Normalised faces (B, C, S, S) and the classes to explain (B,) to maps (B, S, S) of what counted for them."""
        ...


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Equal draws each time, and the former state of the generators afterwards; captum draws by NumPy's global one."""
    before = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002
