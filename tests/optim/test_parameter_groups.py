"""Learning rates by part: every parameter is in one group, at the rate of its depth."""

import pytest
from torch import nn

from emotion.errors import UserError
from emotion.models.blocks import FaceNetwork
from emotion.models.timm_backbone import TimmBackbone
from emotion.models.v4_attention import V4Attention
from emotion.optim.parameter_groups import parameter_groups

NETWORKS = {
    "own": lambda: V4Attention(6, widths=(8, 16), convs=(1, 1), reduction=4, hidden=8),
    "timm": lambda: TimmBackbone(6, 3, 32, "test_resnet"),
}


@pytest.fixture(params=NETWORKS)
def net(request: pytest.FixtureRequest) -> FaceNetwork:
    network: FaceNetwork = NETWORKS[request.param]()
    return network


@pytest.mark.parametrize(("backbone_lr", "decay"), [(None, 1.0), (1e-4, 1.0), (None, 0.5), (1e-4, 0.5)])
def test_every_parameter_is_in_one_group(net: FaceNetwork, backbone_lr: float | None, decay: float) -> None:
    groups = parameter_groups(net, 1e-3, backbone_lr, decay)
    parameters = [parameter for group in groups for parameter in group["params"]]
    assert len(parameters) == len({id(p) for p in parameters}) == len(list(net.parameters()))


def test_one_rate_is_one_unnamed_group(net: FaceNetwork) -> None:
    (group,) = parameter_groups(net, 1e-3, None, 1.0)
    assert list(group) == ["params"]


@pytest.mark.parametrize("backbone_lr", [1e-4, 0.0])
def test_the_head_has_its_own_rate(net: FaceNetwork, backbone_lr: float) -> None:
    backbone, head = parameter_groups(net, 1e-3, backbone_lr, 1.0)
    assert (backbone["name"], backbone["lr"], head["name"], head["lr"]) == ("backbone", backbone_lr, "head", 1e-3)
    assert {id(p) for p in head["params"]} == {id(p) for p in net.head.parameters()}


def test_the_rate_of_each_block_is_that_of_the_next_times_the_decay(net: FaceNetwork) -> None:
    *blocks, head = parameter_groups(net, 1e-3, 1e-4, 0.5)
    rates = [group["lr"] for group in blocks]
    assert rates == pytest.approx([1e-4 * 0.5**n for n in reversed(range(len(blocks)))])
    assert [group["lr"] for group in parameter_groups(net, 1e-4, None, 0.5)] == pytest.approx([*rates, 1e-4])
    depths = net.depths()
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    assert [{depths[names[id(p)]] for p in group["params"]} for group in blocks] == [{n} for n in range(len(blocks))]
    assert head["lr"] == 1e-3
    first = next(iter(net.features.parameters()))
    assert isinstance(first, nn.Parameter)
    assert any(first is parameter for parameter in blocks[0]["params"])


@pytest.mark.parametrize(
    ("backbone_lr", "decay"), [(-1, 1.0), (None, 0), (None, -1), (None, 1.5), ("x", 1.0), (None, "x")]
)
def test_invalid_rates_are_refused(net: FaceNetwork, backbone_lr: object, decay: object) -> None:
    with pytest.raises(UserError, match=r"expected a rate of at least 0 or null, and a factor above 0 and at most 1"):
        parameter_groups(net, 1e-3, backbone_lr, decay)  # type: ignore[arg-type]
