"""Functions for compiled loops which have the same bits on every processor; those of libraries differ."""

from typing import Any, Final

import numpy as np

from index.compiled import compiled

# For `fastmath`: neither sums in another order, nor product and sum in one step.
IN_ORDER: Final = {"nnan", "ninf", "nsz"}
_LOG2E: Final = np.float32(1.4426950408889634)
_POWERS: Final = 2.0 ** np.arange(-126, 128).astype(np.float32)


@compiled(fastmath=IN_ORDER, inline="always")
def exp(x: Any) -> Any:
    """e^x for -80 < x < 80, to float32's last bits: 2^k times a polynomial (Taylor) of the rest."""
    y = x * _LOG2E
    k = np.floor(y + np.float32(0.5))
    f = y - k
    p = np.float32(1.5403530e-4)
    for c in (1.3333558e-3, 9.6181291e-3, 5.5504109e-2, 2.4022651e-1, 6.9314718e-1, 1.0):
        p = p * f + np.float32(c)
    return p * _POWERS[np.int64(k) + 126]


@compiled(fastmath=IN_ORDER, inline="always")
def tanh(x: Any) -> Any:
    """The hyperbolic tangent of any number, to 1e-7."""
    return np.float32(1) - np.float32(2) / (
        exp(min(max(x, np.float32(-20)), np.float32(20)) * np.float32(2)) + np.float32(1)
    )
