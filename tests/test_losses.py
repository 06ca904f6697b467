import pytest
import torch
from torch.nn.functional import cross_entropy as torch_cross_entropy

from emotion.losses import balanced_weights, cross_entropy

LOGITS, TARGETS = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3


def test_plain_cross_entropy_is_torchs() -> None:
    assert cross_entropy([9, 1, 5])(LOGITS, TARGETS) == torch_cross_entropy(LOGITS, TARGETS)


def test_equal_counts_weigh_equally() -> None:
    assert balanced_weights([7, 7, 7]).tolist() == [1, 1, 1]


def test_balanced_weights_are_n_over_k_times_count() -> None:
    # FER2013 Training without neutral, in the order of conf/labels/six.yaml
    weights = balanced_weights([7215, 3171, 4830, 3995, 436, 4097]).tolist()
    assert [round(weight, 3) for weight in weights] == [0.548, 1.248, 0.819, 0.991, 9.076, 0.966]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_balanced_loss_weighs_each_target(smoothing: float) -> None:
    loss = cross_entropy([10, 20, 40], balanced=True, label_smoothing=smoothing)(LOGITS, TARGETS)
    weight = torch.tensor([70 / 30, 70 / 60, 70 / 120])
    assert loss.allclose(torch_cross_entropy(LOGITS, TARGETS, weight, label_smoothing=smoothing))
