"""How a process that computes is set up: its threads, tiny numbers flushed to zero, freed memory kept."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MIB = 2**20
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of glibc


@contextmanager
def settled(threads: int) -> Iterator[None]:
    """Compute with `threads` threads, numbers under 1e-38 flushed to zero and freed memory kept.

    Nodes that die leave ever smaller moments in Adam, and arithmetic on such numbers is many times slower. The threads
    are started inside, so they flush too.
    """
    import torch
    from threadpoolctl import threadpool_limits

    keep_freed_memory()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_flush_denormal(False)


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed: by default a tensor over 128 KiB goes back to the system after every step.

    Its pages are then zeroed and mapped again in the next, a third of the time of a convolutional net. 32 MiB is the
    largest threshold that glibc takes. Says whether the C library is one that can.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    settings = ((M_MMAP_THRESHOLD, 32 * MIB), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 32 * MIB))
    return bool(mallopt) and all(mallopt(name, value) for name, value in settings)
