"""The memory that a long computation frees and soon asks for again."""

import ctypes
import sys

# Numbers of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Lets the C library keep what is freed, instead of handing large blocks back to the system after every update.

    On CPUs the activations of an update are freed and allocated anew thousands of times a minute, and a page that was
    handed back costs a fault when it is touched again. It holds for the rest of the process.

    Returns:
        Whether the library took the settings; only GNU's knows them.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
