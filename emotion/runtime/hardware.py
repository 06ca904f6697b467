"""What the machine at hand does best: precision, memory format, compilation, and its name for the record."""

import contextlib
import ctypes
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch


def resolve_precision(choice: str | int, accelerator: str) -> str | int:
    """`choice`, or for "auto" bf16-mixed where the processor computes in bfloat16 and 32-true elsewhere."""
    if choice != "auto":
        return choice
    if uses_gpu(accelerator):
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "32-true"


def uses_gpu(accelerator: str) -> bool:
    """Whether a trainer with this `accelerator` computes on a CUDA device."""
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def torch_device(accelerator: str) -> torch.device:
    """Where a trainer with this `accelerator` computes, of one process."""
    return torch.device("cuda" if uses_gpu(accelerator) else "cpu")


def can_compile(accelerator: str) -> bool:
    """Whether torch.compile has the compiler it needs: Triton on an accelerator, a C++ compiler on a processor."""
    if uses_gpu(accelerator):
        return True
    return any(shutil.which(compiler) for compiler in (os.environ.get("CXX", "g++"), "clang++"))


def keep_freed_memory() -> None:
    """Have glibc keep the memory that is freed, where the C library is glibc; the process stays as large as it was.

    It hands large tensors back to the system at once, and having them again, page by page, is a sixth of a step of V4
    on a processor. Blocks that do not fit a gap lie beside it until the gaps are enough: V4 takes a seventh more.
    Its settings: https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if platform.libc_ver()[0] == "glibc":
        library, trim_threshold, mmap_max = ctypes.CDLL(None), -1, -4
        library.mallopt(trim_threshold, 2**31 - 1)  # bytes free at the heap's end before they go back
        library.mallopt(mmap_max, 0)  # nothing gets pages of its own, which go back as they are freed


def device_name(accelerator: str) -> str:
    """The accelerator's or processor's name and the number of threads."""
    if uses_gpu(accelerator):
        return torch.cuda.get_device_name()
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Torch computes on one thread meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
