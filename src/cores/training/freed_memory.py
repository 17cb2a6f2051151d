"""Large tensors that are freed go back to the system at once (the C library's malloc; CPU training alone)."""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT = 128 * 2**20  # bytes at the top of the heap that stay: else every step gets them anew, a page at a time
OWN = "MALLOC_MMAP_THRESHOLD_"  # by which a user says it
LARGE = 16 * 2**20  # bytes; 1 MiB would give more back and costs a half more of the CPU (benchmarks/speed.md)


def give_back_large_tensors() -> bool:
    """From now on, memory of 8 MiB or more is the system's again as soon as it is freed. Says whether that holds.

    glibc raises its own limit to 32 MiB as a program frees such pieces; smaller ones then stay with the process, where
    other sizes do not fit between them. With a limit of ours it would give the top of the heap back after 128 KiB, so
    that has one too. Other C libraries are left as they are, and so is a limit of the user's own.
    """
    if not sys.platform.startswith("linux") or OWN in os.environ:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and mallopt(M_MMAP_THRESHOLD, LARGE) == 1 and mallopt(M_TRIM_THRESHOLD, KEPT) == 1
