"""Print the parts of the network and their parameters at the start of a training."""

import lightning as L
from lightning.pytorch.callbacks import ModelSummary

from emotion.classifier import EmotionClassifier
from emotion.reporting.tables import print_table


class NetworkSummary(ModelSummary):
    """Lightning's ModelSummary without metrics, loss and FLOPs (which it cannot count here)."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the table."""
        assert isinstance(pl_module, EmotionClassifier)
        if not trainer.is_global_zero:
            return
        layers = [
            {
                "layer": name,
                "type": type(layer).__name__,
                "parameters": f"{sum(parameter.numel() for parameter in layer.parameters()):,}",
            }
            for name, layer in pl_module.net.named_modules()
            if name and name.count(".") < self._max_depth
        ]
        print_table(type(pl_module.net).__name__, layers, left=2)
