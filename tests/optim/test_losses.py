import math

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn.functional import cross_entropy as torch_cross_entropy

from emotion.config.compose import compose
from emotion.config.instantiate import instantiate
from emotion.errors import UserError
from emotion.optim.losses import FocalLoss, LDAMLoss, LogitAdjustedLoss, balanced_weights, cross_entropy
from tests.conftest import options

LOGITS, TARGETS = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
SOFT = torch.randn(20, 3, generator=torch.Generator().manual_seed(1)).softmax(1)
COUNTS = [10, 20, 40]

every_loss = pytest.mark.parametrize("loss", options("loss"))


def build(loss: str, *overrides: str, counts: list[int] = COUNTS) -> nn.Module:
    cfg = compose("train", f"loss={loss}", *overrides).loss
    criterion: nn.Module = instantiate(OmegaConf.to_container(cfg), class_counts=counts)  # type: ignore[arg-type]
    return criterion


def test_plain_cross_entropy_is_torchs() -> None:
    assert cross_entropy([9, 1, 5])(LOGITS, TARGETS) == torch_cross_entropy(LOGITS, TARGETS)


def test_balanced_weights_are_n_over_k_times_the_count() -> None:
    assert balanced_weights([7, 7, 7]).tolist() == [1, 1, 1]
    # FER2013 Training without neutral, in the order of conf/labels/six.yaml
    weights = balanced_weights([7215, 3171, 4830, 3995, 436, 4097]).tolist()
    assert [round(weight, 3) for weight in weights] == [0.548, 1.248, 0.819, 0.991, 9.076, 0.966]


def test_balanced_weights_of_a_power() -> None:
    # n ** -0.5 = 1, 1/2, 1/3; times 14 / (1 + 2 + 3)
    assert balanced_weights([1, 4, 9], 0.5).tolist() == pytest.approx([14 / 6, 14 / 12, 14 / 18])
    assert balanced_weights([7215, 3171, 436], False).tolist() == [1, 1, 1]
    assert balanced_weights([7215, 3171, 436], True).equal(balanced_weights([7215, 3171, 436], 1.0))


@pytest.mark.parametrize("power", [-0.1, float("nan")])
def test_balanced_weights_refuse_a_power_outside_0_to_1(power: float) -> None:
    with pytest.raises(ValueError, match=f"balanced={power}; expected a power from 0 to 1"):
        balanced_weights(COUNTS, power)


@pytest.mark.parametrize("power", [0, 0.3, 0.6, 1])
def test_balanced_weights_have_mean_one_over_faces(power: float) -> None:
    counts = torch.tensor([7215, 3171, 4830, 3995, 436, 4097])
    weights = balanced_weights(counts.tolist(), power)
    assert (counts * weights).sum().item() == pytest.approx(counts.sum().item(), rel=1e-6)
    assert weights[4] / weights[0] == pytest.approx((7215 / 436) ** power, rel=1e-5)


@pytest.mark.parametrize("power", [1.5, pytest.param(-0.1, marks=pytest.mark.exhaustive)])
@every_loss
def test_a_power_outside_0_to_1_is_refused(loss: str, power: float) -> None:
    with pytest.raises(UserError, match=f"balanced={power}; expected a power from 0 to 1"):
        build(loss, f"loss.balanced={power}")


@pytest.mark.parametrize("smoothing", [3, -0.1, "nan"])
@every_loss
def test_a_label_smoothing_outside_0_to_1_is_refused(loss: str, smoothing: object) -> None:
    with pytest.raises(UserError, match=f"label_smoothing={smoothing}; expected a share from 0 to 1"):
        build(loss, f"loss.label_smoothing={smoothing}")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_balanced_loss_weights_each_target(smoothing: float) -> None:
    loss = cross_entropy(COUNTS, balanced=True, label_smoothing=smoothing)(LOGITS, TARGETS)
    weight = torch.tensor([70 / 30, 70 / 60, 70 / 120])
    assert loss.allclose(torch_cross_entropy(LOGITS, TARGETS, weight, label_smoothing=smoothing))


@pytest.mark.parametrize("targets", [TARGETS, SOFT], ids=["classes", "probabilities"])
@pytest.mark.parametrize("balanced", [False, 0.6, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_loss_with_gamma_0_is_cross_entropy(smoothing: float, balanced: float, targets: torch.Tensor) -> None:
    plain = cross_entropy(COUNTS, balanced, smoothing)
    focal = FocalLoss(COUNTS, gamma=0, balanced=balanced, label_smoothing=smoothing)
    torch.testing.assert_close(focal(LOGITS, targets), plain(LOGITS, targets))


def test_focal_loss_of_known_probabilities() -> None:
    # p of the targets 0.9 and 0.1, gamma 2: (0.1^2 ln(1 / 0.9) + 0.9^2 ln(1 / 0.1)) / 2
    logits = torch.tensor([[0.9, 0.1], [0.9, 0.1]]).log()
    loss = FocalLoss([1, 1], gamma=2)(logits, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx((0.01 * 0.1053605 + 0.81 * 2.3025851) / 2, abs=1e-6)
    assert FocalLoss([1, 9])(logits[:1], torch.tensor([0])).item() == pytest.approx(0.01 * 0.1053605, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_a_certain_prediction_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[80.0, 0, 0], [0, 80.0, 0]], requires_grad=True)
    FocalLoss([1, 1, 1], gamma)(logits, torch.tensor([0, 0])).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[1, 0] < 0


def test_parameters_of_losses_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="gamma=-1; expected 0 or more"):
        FocalLoss([1, 1], gamma=-1)
    with pytest.raises(ValueError, match=r"max_margin=0\.5, scale=0; expected"):
        LDAMLoss([1, 1], scale=0)
    with pytest.raises(ValueError, match="tau=-1; expected 0 or more"):
        LogitAdjustedLoss([1, 1], tau=-1)


def test_ldam_loss_without_margin_is_cross_entropy() -> None:
    loss = LDAMLoss(COUNTS, max_margin=0, balanced=True, label_smoothing=0.1)(LOGITS, TARGETS)
    torch.testing.assert_close(loss, cross_entropy(COUNTS, balanced=True, label_smoothing=0.1)(LOGITS, TARGETS))


def test_ldam_margins_follow_the_fourth_root_of_the_counts() -> None:
    assert LDAMLoss([16, 81, 1]).margins.tolist() == pytest.approx([0.25, 0.5 / 3, 0.5])
    assert LDAMLoss([16, 81], max_margin=0.6).margins.tolist() == pytest.approx([0.6, 0.4])


def test_ldam_loss_of_known_logits() -> None:
    # target logit 2 - 0.5, other 0, scale 30: ln(1 + exp(-45)); with scale 1: ln(1 + exp(-1.5))
    logits, target = torch.tensor([[0.0, 2.0]]), torch.tensor([1])
    assert LDAMLoss([10_000, 1], scale=30)(logits, target).item() == pytest.approx(0, abs=1e-12)
    assert LDAMLoss([10_000, 1])(logits, target).item() == pytest.approx(0.2014133, abs=1e-6)
    # a soft target of margins 0.5 and 0.05 by halves: logits -0.25 and 1.975, 2.225 apart
    loss = LDAMLoss([1, 10_000])(logits, torch.tensor([[0.5, 0.5]]))
    assert loss.item() == pytest.approx(2.225 / 2 + math.log1p(math.exp(-2.225)), abs=1e-6)


def test_logit_adjusted_loss_of_known_logits() -> None:
    """Frequencies 1/7, 2/7 and 4/7: log(7) lifts the first class's to 1."""
    adjusted = LogitAdjustedLoss(COUNTS)(torch.tensor([[math.log(7), 0.0, 0.0]]), torch.tensor([0]))
    assert adjusted == pytest.approx(-math.log(1 / (1 + 2 / 7 + 4 / 7)), rel=1e-6)
    halved = LogitAdjustedLoss(COUNTS, tau=0.5)(torch.zeros(1, 3), torch.tensor([2]))
    assert halved == pytest.approx(-math.log(2 / (1 + 2**0.5 + 2)), rel=1e-6)


@pytest.mark.parametrize("targets", [TARGETS, SOFT])
def test_logit_adjusted_loss_with_tau_0_is_cross_entropy(targets: torch.Tensor) -> None:
    assert LogitAdjustedLoss(COUNTS, tau=0)(LOGITS, targets) == torch_cross_entropy(LOGITS, targets)


@every_loss
def test_every_loss_keeps_the_recipe_settings_and_has_a_gradient(loss: str) -> None:
    cfg = compose("train", f"loss={loss}", "run_dir=x")
    assert (cfg.loss.balanced, cfg.loss.label_smoothing) == (True, 0.1)  # V4's
    logits = (LOGITS / 2).requires_grad_()  # no target is likelier than its smoothed label
    value = build(loss)(logits, TARGETS)
    value.backward()
    assert value > 0
    assert logits.grad is not None
    assert (logits.grad.gather(1, TARGETS[:, None]) < 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@every_loss
def test_a_one_hot_target_has_the_loss_of_its_class(loss: str, smoothing: float) -> None:
    criterion = build(loss, "loss.balanced=0", f"loss.label_smoothing={smoothing}")
    torch.testing.assert_close(criterion(LOGITS, torch.eye(3)[TARGETS]), criterion(LOGITS, TARGETS))


@every_loss
def test_the_mean_over_one_hot_targets_divides_by_their_number(loss: str) -> None:
    criterion = build(loss, "loss.balanced=0.6")
    mean_weight = balanced_weights(COUNTS, 0.6)[TARGETS].mean()
    torch.testing.assert_close(criterion(LOGITS, torch.eye(3)[TARGETS]), criterion(LOGITS, TARGETS) * mean_weight)


def test_losses_are_linear_in_soft_targets() -> None:
    other = (TARGETS + 1) % 3
    blended = 0.3 * torch.eye(3)[TARGETS] + 0.7 * torch.eye(3)[other]
    for loss in (cross_entropy([9, 1, 5]), FocalLoss([9, 1, 5], gamma=2)):
        torch.testing.assert_close(loss(LOGITS, blended), 0.3 * loss(LOGITS, TARGETS) + 0.7 * loss(LOGITS, other))
