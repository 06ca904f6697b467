"""Learning-rate schedules by step, which need the run's number of steps; schedules by epoch are torch's own."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR


def cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.05, floor: float = 0.0) -> LambdaLR:
    """Linear warm-up over the first `warmup` share of the steps, then half a cosine down to `floor` times the rate."""
    _check_shares(warmup=warmup, floor=floor)
    warmup_steps = max(1, round(warmup * total_steps))

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


def linear(optimizer: Optimizer, total_steps: int, warmup: float = 0.15) -> LambdaLR:
    """Linear warm-up over the first `warmup` share of the steps, then linear decay to 0."""
    _check_shares(warmup=warmup)
    warmup_steps = max(1, round(warmup * total_steps))

    def factor(step: int) -> float:
        return min((step + 1) / warmup_steps, max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps)))

    return LambdaLR(optimizer, factor)


def staged_cosine(
    optimizer: Optimizer, total_steps: int, epochs: int, warmup_epochs: int, floor: float = 0.0
) -> LambdaLR:
    """`cosine` with a warm-up over the first `warmup_epochs` of `epochs`, in which only the head is trained."""
    return cosine(optimizer, total_steps, min(1.0, warmup_epochs / epochs), floor)


def one_cycle(optimizer: Optimizer, total_steps: int, warmup: float = 0.3) -> OneCycleLR:
    """The one-cycle policy (Smith and Topin 2018) with the optimizer's learning rate as the maximum."""
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=peaks, total_steps=total_steps, pct_start=warmup)


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name}={share}; expected a share from 0 to 1.")
