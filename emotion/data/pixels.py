"""A source's pixels where batches are made of them: on the network's device if they fit there, else on the host."""

import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHARE = 0.4  # of an accelerator's free memory that pixels may take; the network needs the rest


class Pixels:
    """Pixels (N, H, W) or (N, H, W, 3), taken some rows at a time to `device`.

    FER2013 is 83 MB: copied once, a batch costs no copy. What is larger than `share` of the device's free memory stays
    memory-mapped on the host, and a batch is gathered there. On a processor nothing is copied but the batch.
    """

    def __init__(self, images: NDArray[np.uint8], device: torch.device, share: float = SHARE) -> None:
        self.device = device
        self.resident = images.nbytes <= share * _free(device)
        self._pixels = torch.from_numpy(images)
        if self.resident:
            self._pixels = self._pixels.to(device)

    def take(self, rows: Tensor) -> Tensor:
        """The pixels of `rows` (B,), uint8, on the device; the rows are wanted there if the pixels are, else not."""
        if self.resident:
            return self._pixels[rows.to(self.device, non_blocking=True)]
        pinned = self.device.type == "cuda"
        batch = torch.empty((len(rows), *self._pixels.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        torch.index_select(self._pixels, 0, rows.cpu(), out=batch)
        return batch.to(self.device, non_blocking=True)


def _free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else sys.maxsize
