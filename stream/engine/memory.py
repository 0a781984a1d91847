"""What the process does with memory that it no longer needs."""

import ctypes
import gc
from typing import Final

_trim: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it


def settle() -> None:
    """Leaves what is loaded by now, modules above all, out of full garbage collections.

    Hundreds of thousands of objects that are looked through each time stop the work for half a second.
    """
    gc.freeze()


def give_back() -> None:
    """Gives the system what big batches took and left in pieces between what is kept."""
    if _trim is not None:
        _trim(0)
