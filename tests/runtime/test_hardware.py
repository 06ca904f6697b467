"""Properties of the machine."""

import platform
import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource, torch
from emotion.runtime import hardware

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64, 2**20)  # 256 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

hardware.keep_freed_memory()
print(*(pages() for _ in range(40)))
"""


@pytest.mark.hard
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_is_reused_without_page_faults() -> None:
    output = subprocess.run([sys.executable, "-c", PAGE_FAULTS], capture_output=True, text=True, check=True).stdout
    pages = [int(number) for number in output.split()]
    assert pages[0] > 100
    assert sum(pages[-10:]) < pages[0] / 20, pages  # the first allocations may not reuse gaps
