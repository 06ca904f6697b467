"""The content of a checkpoint file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from emotion.config.migrate import migrate

HYPER_PARAMETERS, DATA_HYPER_PARAMETERS = "hyper_parameters", "datamodule_hyper_parameters"
DATA_STATE, EPOCH, STATE_DICT = "EmotionDataModule", "epoch", "state_dict"
"""Lightning's names of the entries."""
DESCRIPTION = (HYPER_PARAMETERS, DATA_HYPER_PARAMETERS, DATA_STATE, EPOCH)


@dataclass(frozen=True)
class CheckpointDescription:
    """A checkpoint without its weights.

    Attributes:
        hyper_parameters: arguments of EmotionClassifier.
        data_hyper_parameters: arguments of EmotionDataModule.
        data_state: digests of the data `source` and of the `split`.
        epoch: index of the last finished epoch.
        record: the run's record, which only portable weights include.
    """

    hyper_parameters: dict[str, Any]
    data_hyper_parameters: dict[str, Any]
    data_state: dict[str, str]
    epoch: int
    record: dict[str, Any] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return tuple(self.hyper_parameters["classes"])

    def entries(self) -> dict[str, Any]:
        """Return the description under Lightning's names."""
        return {
            HYPER_PARAMETERS: self.hyper_parameters,
            DATA_HYPER_PARAMETERS: self.data_hyper_parameters,
            DATA_STATE: self.data_state,
            EPOCH: self.epoch,
        }


@dataclass(frozen=True)
class CheckpointContents(CheckpointDescription):
    """A checkpoint with its weights.

    Attributes:
        state_dict: tensors of EmotionClassifier by name.
        training_state: Lightning's other entries: optimizers, schedulers, callbacks, loops.
    """

    state_dict: dict[str, Tensor] = field(default_factory=dict)
    training_state: dict[str, Any] = field(default_factory=dict)

    def entries(self) -> dict[str, Any]:
        """Return the checkpoint as Lightning stores it."""
        return self.training_state | super().entries() | {STATE_DICT: self.state_dict}


def describe(entries: Mapping[str, Any]) -> CheckpointDescription:
    """Return the description in a checkpoint's entries, migrated to the names of this version.

    Raises:
        LookupError, TypeError, ValueError: An entry is missing or has another type.
    """
    for name in (HYPER_PARAMETERS, DATA_HYPER_PARAMETERS, DATA_STATE):
        if not isinstance(entries[name], Mapping):
            raise TypeError(f"its {name} is a {type(entries[name]).__name__}, expected a mapping")
    return CheckpointDescription(
        hyper_parameters=migrate(entries[HYPER_PARAMETERS]),
        data_hyper_parameters=migrate(entries[DATA_HYPER_PARAMETERS]),
        data_state={**entries[DATA_STATE], "source": str(entries[DATA_STATE]["source"])},
        epoch=int(entries[EPOCH]),
        record=migrate(entries.get("record")),
    )


def parse(entries: Mapping[str, Any]) -> CheckpointContents:
    """Return the content of a checkpoint's entries; raises as `describe` does."""
    described = vars(describe(entries))
    other = {name: value for name, value in entries.items() if name not in (*DESCRIPTION, STATE_DICT, "record")}
    return CheckpointContents(**described, state_dict=entries[STATE_DICT], training_state=other)
