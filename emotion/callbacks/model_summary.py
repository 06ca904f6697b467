"""Print the parts of the network and their parameters at the start of a training."""

import functools

import lightning as L
from lightning.pytorch.callbacks import ModelSummary

from emotion.classifier import EmotionClassifier
from emotion.reporting.tables import print_table


class NetworkSummary(ModelSummary):
    """Lightning's ModelSummary without metrics, loss and FLOPs (which it cannot count here).

    It is printed once per distinct network, since the runs of a sweep share a process.
    """

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the table."""
        assert isinstance(pl_module, EmotionClassifier)
        if not trainer.is_global_zero:
            return
        layers = [
            (name, type(layer).__name__, sum(parameter.numel() for parameter in layer.parameters()))
            for name, layer in pl_module.net.named_modules()
            if name and name.count(".") < self._max_depth
        ]
        print_once(type(pl_module.net).__name__, tuple(layers))


@functools.cache
def print_once(network: str, layers: tuple[tuple[str, str, int], ...]) -> None:
    """Print the names, types and parameters of layers, unless this process has printed them."""
    rows = [{"layer": name, "type": kind, "parameters": f"{parameters:,}"} for name, kind, parameters in layers]
    print_table(network, rows, left=2)
