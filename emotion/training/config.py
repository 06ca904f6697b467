"""The config of a training run, typed."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from emotion.config.instantiate import network_name
from emotion.config.migrate import migrate


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of conf/train.yaml. Those with a default may be missing from the configs of older runs."""

    name: str
    seed: int
    run_dir: str
    data_dir: str = "data"
    cache_dir: str = "data/.prepared"

    data: dict[str, Any]
    labels: dict[str, Any]  # class name -> the data's classes in it; empty for the data's own
    split: dict[str, Any]
    sampler: dict[str, Any] = field(default_factory=lambda: {"_target_": "emotion.data.dataloader.shuffled"})
    input: dict[str, Any]
    augment: dict[str, Any]
    mixup: dict[str, Any] = field(default_factory=dict)
    target: str = "majority"
    overfit: int = 0
    batch_size: int

    model: dict[str, Any]
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    backbone_lr: float | None = None
    layer_decay: float = 1.0
    distillation: dict[str, Any] | None = None

    trainer: dict[str, Any]
    callbacks: dict[str, Any]
    logger: dict[str, Any]
    monitor: dict[str, Any]
    patience: int = 10
    freeze_epochs: int = 3
    ema_decay: float = 0.999
    compile: dict[str, Any]
    channels_last: bool
    tta: str
    verbose: bool = False

    published: dict[str, Any] | None = None
    resume: str | None = None
    study: dict[str, Any] | None = None
    preflight: dict[str, Any] = field(default_factory=lambda: {"run": False})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Make a config from a mapping, such as a record's config; entries that are not fields are dropped."""
        content = migrate(content)
        return cls(**{one.name: content[one.name] for one in dataclasses.fields(cls) if one.name in content})

    def to_dict(self) -> dict[str, Any]:
        """Return the config as a dictionary."""
        return dataclasses.asdict(self)

    @property
    def network(self) -> str:
        """Name of the timm backbone or of the network's class."""
        return network_name(self.model)
