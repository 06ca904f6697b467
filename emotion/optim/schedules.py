"""Learning-rate schedules that are told the run's number of steps; torch's own (by epoch) need nothing from here."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR


def cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.05, floor: float = 0.0) -> LambdaLR:
    """Linearly up over the first `warmup` share of the steps, then half a cosine down to `floor` times the rate."""
    rising = max(1, round(warmup * total_steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        fallen = min(1.0, (step - rising) / max(1, total_steps - rising))
        return floor + (1 - floor) * (1 + math.cos(math.pi * fallen)) / 2

    return LambdaLR(optimizer, factor)


def linear(optimizer: Optimizer, total_steps: int, warmup: float = 0.15) -> LambdaLR:
    """Linearly up over the first `warmup` share of the steps, then linearly down to nothing."""
    rising = max(1, round(warmup * total_steps))

    def factor(step: int) -> float:
        return min((step + 1) / rising, max(0.0, (total_steps - step) / max(1, total_steps - rising)))

    return LambdaLR(optimizer, factor)


def staged_cosine(
    optimizer: Optimizer, total_steps: int, epochs: int, warmup_epochs: int, floor: float = 0.0
) -> LambdaLR:
    """`cosine` whose warm-up is the first `warmup_epochs` of so many: those in which only the head learns."""
    return cosine(optimizer, total_steps, min(1.0, warmup_epochs / epochs), floor)


def one_cycle(optimizer: Optimizer, total_steps: int, warmup: float = 0.3) -> OneCycleLR:
    """Smith and Topin's one-cycle policy (2018), the optimiser's own rate as the peak."""
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=peaks, total_steps=total_steps, pct_start=warmup)
