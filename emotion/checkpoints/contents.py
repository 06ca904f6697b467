"""The content of a checkpoint file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from emotion.config.migrate import migrate

HYPER_PARAMETERS, DATA_HYPER_PARAMETERS = "hyper_parameters", "datamodule_hyper_parameters"
DATA_STATE, EPOCH, STATE_DICT = "EmotionDataModule", "epoch", "state_dict"
"""Lightning's names of the entries."""


@dataclass(frozen=True)
class CheckpointContents:
    """The content of a checkpoint; without its weights if only the description of portable weights was read."""

    hyper_parameters: dict[str, Any]  # arguments of EmotionClassifier
    data_hyper_parameters: dict[str, Any]  # arguments of EmotionDataModule
    data_state: dict[str, str]  # digests of the data `source` and of the `split`
    epoch: int  # index of the last finished one
    record: dict[str, Any] | None = None  # of the run; only portable weights include it
    state_dict: dict[str, Tensor] = field(default_factory=dict)  # of EmotionClassifier
    training_state: dict[str, Any] = field(default_factory=dict)  # Lightning's other entries: optimizers, loops, ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return tuple(self.hyper_parameters["classes"])

    def description(self) -> dict[str, Any]:
        """Return the entries other than weights and training state, under Lightning's names."""
        return {
            HYPER_PARAMETERS: self.hyper_parameters,
            DATA_HYPER_PARAMETERS: self.data_hyper_parameters,
            DATA_STATE: self.data_state,
            EPOCH: self.epoch,
        }

    def entries(self) -> dict[str, Any]:
        """Return the checkpoint as Lightning stores it."""
        return self.training_state | self.description() | {STATE_DICT: self.state_dict}


def parse(entries: Mapping[str, Any]) -> CheckpointContents:
    """Return the content of a checkpoint's entries, migrated to the names of this version.

    Raises:
        LookupError, TypeError, ValueError: An entry is missing or has another type.
    """
    for name in (HYPER_PARAMETERS, DATA_HYPER_PARAMETERS, DATA_STATE):
        if not isinstance(entries[name], Mapping):
            raise TypeError(f"its {name} is a {type(entries[name]).__name__}, expected a mapping")
    contents = CheckpointContents(
        hyper_parameters=migrate(entries[HYPER_PARAMETERS]),
        data_hyper_parameters=migrate(entries[DATA_HYPER_PARAMETERS]),
        data_state={**entries[DATA_STATE], "source": str(entries[DATA_STATE]["source"])},
        epoch=int(entries[EPOCH]),
        record=migrate(entries.get("record")),
        state_dict=entries.get(STATE_DICT, {}),
    )
    known = {*contents.description(), STATE_DICT, "record"}
    return replace(contents, training_state={name: value for name, value in entries.items() if name not in known})
