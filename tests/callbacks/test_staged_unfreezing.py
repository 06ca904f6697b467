"""Frozen parts do not change at all; each stage trains what it names."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from emotion.callbacks.staged_unfreezing import StagedUnfreezing, freeze
from emotion.checkpoints.load import read_checkpoint
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.loggers.csv_logger import read_metrics
from emotion.models.timm_backbone import TimmBackbone
from emotion.models.v4_attention import V4Attention
from emotion.train import train

Config = Callable[..., DictConfig]
RUN = Path("run")
TRANSFER = (
    "model=resnet18", "model.backbone=test_resnet", "model.weights=random", "input.size=32", "data=synthetic",
    "data.training=16", "data.public_test=4", "data.private_test=4", "batch_size=16", "trainer.accelerator=cpu",
    "callbacks.ema.decay=0.9",
)  # fmt: skip
"""The transfer recipe on a tiny ResNet with batch normalization."""


def transfer(*overrides: str) -> DictConfig:
    return compose("train", *TRANSFER, *overrides)


def state(run: Path, name: str = "last") -> dict[str, Tensor]:
    content: dict[str, Tensor] = read_checkpoint(run / "checkpoints" / f"{name}.ckpt").state_dict
    return content


def initial_state(cfg: DictConfig) -> dict[str, Tensor]:
    """The state of a run before its first step."""
    from lightning import seed_everything

    from emotion.training.setup import make_classifier, make_data, resolve

    settings = resolve(cfg, RUN)
    seed_everything(settings.seed, verbose=False)
    data, _ = make_data(settings)
    return make_classifier(settings, data).state_dict()


def test_a_frozen_backbone_is_bit_equal_after_its_stage() -> None:
    cfg = transfer("freeze_epochs=1", "trainer.max_epochs=1")
    before = initial_state(cfg)
    train(cfg, RUN)
    backbone = [name for name in before if name.startswith("net.features.")]
    assert [name for name in backbone if "running_mean" in name]
    for checkpoint in ("last", "best"):
        after = state(RUN, checkpoint)
        assert [name for name in backbone if not after[name].equal(before[name])] == []
        assert [name for name in before if name.startswith("net.head.") and after[name].equal(before[name])] == []


def test_the_backbone_changes_after_the_frozen_stage_and_the_table_shows_both(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cfg = transfer("freeze_epochs=1", "trainer.max_epochs=2", "batch_size=8")
    before = initial_state(cfg)
    train(cfg, RUN)
    after = state(RUN)
    assert [name for name in before if name.startswith("net.") and after[name].equal(before[name])] == []
    lines = capsys.readouterr().out.splitlines()
    (header,) = (line for line in lines if line.strip().startswith("epoch"))
    for column in ("phase", "loss", "val loss", "val F1 %", "lr backbone/head", "time"):
        assert column in header
    first, second = (line.split() for line in lines if line.strip().startswith(("1/2", "2/2")))
    assert (first[1], second[1]) == ("warmup", "finetune")
    assert first[6].startswith("-/")
    assert second[6].count("e-0") + second[6].count("e+0") == 2
    estimates = [re.findall(r"1 epoch.* at most", line) for line in lines if "faces/s" in line]
    assert estimates == [["1 epoch of warmup takes at most"], ["1 epoch takes at most"]]


def test_a_number_of_blocks_trains_the_last_ones() -> None:
    net = TimmBackbone(7, 3, 32, "test_resnet")
    depths = net.depths()
    head = max(depths.values())
    for train_, first in (("head", head), (0, head), (1, head - 1), (2, head - 2), (head, 0), ("all", 0)):
        freeze(net, train_)
        assert {n for n, p in net.named_parameters() if p.requires_grad} == {n for n, d in depths.items() if d >= first}
        for name, module in net.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.training == (depths[f"{name}.weight"] >= first)


def test_batch_statistics_can_be_frozen_while_weights_are_trained() -> None:
    net = TimmBackbone(7, 3, 32, "test_resnet")
    freeze(net, "all", batch_norm="frozen")
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert not any(module.training for module in net.modules() if isinstance(module, nn.BatchNorm2d))


def test_the_heads_norm_keeps_training_while_the_backbones_is_frozen() -> None:
    net = V4Attention(6, widths=(8, 16), convs=(1, 1), reduction=4, hidden=8)
    for train_, batch_norm, backbone in (("head", "train", False), ("all", "frozen", False), ("all", "train", True)):
        freeze(net, train_, batch_norm)
        norms = {name: m.training for name, m in net.named_modules() if isinstance(m, _BatchNorm)}
        assert norms.pop("head.5") is True
        assert set(norms.values()) == {backbone}
    freeze(net.eval(), 1, "train")
    assert [net.features[i][0].body[1].training for i in (0, 1)] == [False, True]


def test_a_norm_without_weights_is_frozen_with_the_block_it_is_in() -> None:
    net = V4Attention(6, widths=(8, 16), convs=(1, 1), reduction=4, hidden=8)
    for stage in net.features:
        stage[0].body[1] = nn.BatchNorm2d(stage[0].body[1].num_features, affine=False)
    freeze(net, 1)
    assert [stage[0].body[1].training for stage in net.features] == [False, True]


def test_own_networks_can_be_trained_in_stages(small_config: Config) -> None:
    cfg = small_config("callbacks=transfer", "freeze_epochs=1", "trainer.max_epochs=1")
    before = initial_state(cfg)
    train(cfg, RUN)
    after = state(RUN)
    assert all(after[name].equal(before[name]) for name in before if name.startswith("net.features."))
    assert not after["net.head.7.weight"].equal(before["net.head.7.weight"])
    assert not after["net.head.5.running_mean"].equal(before["net.head.5.running_mean"])


def test_stages_follow_each_other() -> None:
    stages = StagedUnfreezing(
        {
            "head": {"train": "head", "epochs": 2},
            "last": {"train": 1, "epochs": 3, "batch_norm": "frozen"},
            "whole": {"train": "all", "epochs": None},
        }
    )
    assert [stages.phase(epoch) for epoch in range(7)] == ["head"] * 2 + ["last"] * 3 + ["whole"] * 2
    ending = StagedUnfreezing({"none": {"train": "head", "epochs": 0}, "one": {"train": 0, "epochs": 1}})
    assert [ending.phase(epoch) for epoch in range(3)] == ["one"] * 3


def test_a_stage_can_be_added_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    cfg = transfer(
        "callbacks.staged_unfreezing.stages.finetune={train: 1, epochs: 1}",
        "+callbacks.staged_unfreezing.stages.whole={train: all, epochs: null}",
        "freeze_epochs=1",
        "trainer.max_epochs=3",
    )
    train(cfg, RUN)
    rows = [
        line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith(("1/3", "2/3", "3/3"))
    ]
    assert [row[1] for row in rows] == ["warmup", "finetune", "whole"]


def test_rates_rise_while_only_the_head_is_trained_then_fall(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the last of seven steps an epoch, in metrics.csv and in the table."""
    train(transfer("freeze_epochs=2", "trainer.max_epochs=5"), RUN)
    lines = [line for line in capsys.readouterr().out.splitlines() if re.match(r" *[1-5]/5 ", line)]
    rows = read_metrics(RUN / "metrics.csv")
    head, backbone = ([rows[epoch][f"lr/{part}"] for epoch in range(1, 6)] for part in ("head", "backbone"))
    assert head[:2] == pytest.approx([0.5e-3, 1e-3])
    assert head[1:] == sorted(head[1:], reverse=True)
    assert [h / b for h, b in zip(head, backbone, strict=True)] == pytest.approx([10] * 5)
    assert head[-1] == pytest.approx(1e-3 * (1 + math.cos(math.pi * 20 / 21)) / 2)  # the last of 21 steps
    assert [line.split()[-2 - line.endswith("best")] for line in lines] == [
        f"{'-' if epoch < 2 else f'{backbone[epoch]:.1e}'}/{head[epoch]:.1e}" for epoch in range(5)
    ]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({}, "stages: none"),
        ({"one": {"train": "tail", "epochs": 1}}, "stage one: .*expected train=head"),
        ({"one": {"train": "head", "epochs": None}, "two": {"train": "all"}}, "stage one: epochs=None"),
        ({"one": {"train": "all", "epochs": -1}}, "stage one: epochs=-1"),
        ({"one": {"train": "all", "epoch": 1}}, "stage one: .*'epoch': 1"),
        ({"one": {"train": "all", "batch_norm": "no"}}, "batch_norm=train or frozen"),
        ({"one": {"train": True}}, "expected train=head"),
    ],
)
def test_an_invalid_stage_is_refused(stages: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        StagedUnfreezing(stages)


def test_more_blocks_than_the_network_has_are_refused() -> None:
    with pytest.raises(UserError, match="train=9: TimmBackbone has 5 blocks before its head"):
        freeze(TimmBackbone(7, 3, 32, "test_resnet"), 9)


def test_no_gradients_are_computed_for_a_frozen_part() -> None:
    net = TimmBackbone(7, 3, 32, "test_resnet")
    freeze(net, "head")
    assert not net.features(torch.randn(2, 3, 32, 32)).requires_grad


def test_an_invalid_later_stage_is_refused_before_the_first() -> None:
    cfg = transfer("callbacks.staged_unfreezing.stages.finetune={train: 99, epochs: null}")
    with pytest.raises(UserError, match="train=99: TimmBackbone has 5 blocks"):
        train(cfg, RUN)
    assert not (RUN / "metrics.csv").exists()
