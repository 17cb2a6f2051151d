"""Large tensors that are freed go back to the system at once (the C library's malloc; CPU training alone)."""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT = 2047 * 2**20  # bytes at the top of the heap that stay: all that this setting can say
OWN = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}  # by which a user says it
LARGE = 16 * 2**20  # bytes, more than the cells of two masks of SAM's, which come and go in every layer


def give_back_large_tensors() -> bool:
    """From now on, memory of 16 MiB or more is the system's again as soon as it is freed. Says whether that holds.

    glibc raises its own limit to 32 MiB as a program frees such pieces; smaller ones then stay with the process, where
    other sizes do not fit between them. Where the limit is ours it gives the top of the heap back from 128 KiB on, and
    every step would get it anew, page by page: so the top stays. Other C libraries are left as they are, and so is a
    limit of the user's own.
    """
    if not sys.platform.startswith("linux") or OWN & set(os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and mallopt(M_MMAP_THRESHOLD, LARGE) == 1 and mallopt(M_TRIM_THRESHOLD, KEPT) == 1
