"""What the machine is asked for."""

import platform
import subprocess
import sys

import pytest

ASKS_AGAIN = """
import resource, torch
from emotion.runtime import hardware

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64, 2**20)  # 256 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

hardware.keep_freed_memory()
print(*(pages() for _ in range(40)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_memory_that_is_kept_is_in_the_end_not_asked_for_again() -> None:
    said = subprocess.run([sys.executable, "-c", ASKS_AGAIN], capture_output=True, text=True, check=True).stdout
    pages = [int(number) for number in said.split()]
    assert pages[0] > 100
    assert sum(pages[-10:]) < pages[0] / 20, pages  # the first few may lie beside one another
