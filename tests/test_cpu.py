"""How a process that computes is set up."""

import subprocess
import sys

import pytest
import torch

from atelier import cpu

FAULTS = """
import resource
from atelier.cpu import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def used():
    block = bytearray(8 * 2**20)
    block[::4096] = bytes(len(block) // 4096)

{keep}
used()
before = faults()
for _ in range(20):
    used()
print(faults() - before)
"""


def tiny() -> torch.Tensor:
    return torch.tensor([1e-38]) / 16


def test_tiny_numbers_are_zero_inside_and_only_there():
    assert tiny().item() > 0
    with cpu.settled(1):
        assert tiny().item() == 0 and torch.get_num_threads() == 1
    with pytest.raises(KeyError), cpu.settled(1):
        raise KeyError
    assert tiny().item() > 0


def test_its_threads_flush_too():
    """In a process of its own: threads are started once and keep what they have taken over."""
    code = """
import torch
from atelier import cpu
with cpu.settled(2):
    print(torch.full((400_000,), 1e-38).div(16).count_nonzero().item())
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "0\n"


@pytest.mark.skipif(not cpu.keep_freed_memory(), reason="the C library has no mallopt")
def test_freed_memory_is_used_again_without_asking_the_system():
    faults = {}
    for keep in ("", "keep_freed_memory()"):
        done = subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True)
        faults[keep] = int(done.stdout)
    assert faults["keep_freed_memory()"] < 100 < 1000 < faults[""]
