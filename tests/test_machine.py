"""What the machine is asked for."""

import platform
import subprocess
import sys

import pytest

ASKS_TWICE = """
import resource, torch
from emotion import machine

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64, 2**20)  # 256 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

machine.keep_memory()
print(pages(), pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_memory_that_is_kept_is_not_asked_for_again() -> None:
    said = subprocess.run([sys.executable, "-c", ASKS_TWICE], capture_output=True, text=True, check=True).stdout
    first, again = map(int, said.split())
    assert first > 100
    assert again < first / 20
