"""Properties of this machine: precision, device, compiler, memory allocator and the name for records."""

import contextlib
import ctypes
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from emotion.errors import UserError, counted


def native_precision(choice: str | int, accelerator: str) -> str | int:
    """Return `choice`, or for "auto" bf16-mixed if the device computes in bfloat16 natively, else 32-true."""
    if choice != "auto":
        return choice
    if uses_gpu(accelerator):
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "32-true"


def uses_gpu(accelerator: str) -> bool:
    """Return whether a trainer with this `accelerator` computes on a CUDA device."""
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def check_gpu(accelerator: str, setting: str = "accelerator=gpu") -> None:
    """Raise UserError if a GPU is required, by `setting`, and there is none."""
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError(f"{setting}: no GPU was found; expected auto or cpu.")


def torch_device(accelerator: str) -> torch.device:
    """Return the device of a single-process trainer with this `accelerator`."""
    return torch.device("cuda" if uses_gpu(accelerator) else "cpu")


def can_compile(accelerator: str) -> bool:
    """Return whether torch.compile finds its compiler: Triton on a GPU, a C++ compiler on a processor."""
    if uses_gpu(accelerator):
        return True
    return any(shutil.which(compiler) for compiler in (os.environ.get("CXX", "g++"), "clang++"))


def keep_freed_memory() -> None:
    """Make glibc keep freed memory instead of returning it to the system; a no-op with other C libraries.

    Requesting the pages of large tensors again takes a sixth of a training step of V4 on a processor. The price is
    fragmentation: the process uses a seventh more memory.
    Settings: https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if platform.libc_ver()[0] == "glibc":
        library, trim_threshold, mmap_max = ctypes.CDLL(None), -1, -4
        library.mallopt(trim_threshold, 2**31 - 1)  # free bytes at the end of the heap before it shrinks
        library.mallopt(mmap_max, 0)  # no allocation gets pages of its own, which are returned when freed


def device_name(accelerator: str) -> str:
    """Return the name of the GPU, or of the processor and the number of threads."""
    if uses_gpu(accelerator):
        return torch.cuda.get_device_name()
    return f"{_processor_name()}, {counted(torch.get_num_threads(), 'thread')}"


@contextlib.contextmanager
def flushed_denormals() -> Iterator[None]:
    """Compute with 0 instead of numbers below 1e-38 within the block, on processors.

    Weight decay leads the weights of inactive channels there, and slows a training step up to a hundred times.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Run torch on one thread within the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _processor_name() -> str:
    """Return the model name, which `platform.processor` lacks on Linux."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
