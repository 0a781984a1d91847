"""Asking for memory before it is read, in compiled loops.

A row at any place takes some 100 ns to come from memory, far longer than a product of 128 bytes. A loop that
waits for one row after the other pays that for each; rows that it asks for ahead come side by side.
"""

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from index.compiled import compiled

AHEAD: Final = 64  # rows of some 200 bytes: enough to keep memory busy, few enough for the first-level cache
_LINE: Final = 64  # bytes that come together

_READ, _KEEP, _DATA = 0, 3, 1  # for reading, into every cache, not instructions


@intrinsic
def _prefetch(context: Any, array: Any, place: Any) -> Any:
    """LLVM's `prefetch` for the line with the element at `place` of an array's memory."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        address, number = ir.PointerType(ir.IntType(8)), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address], kind)
        line = builder.bitcast(builder.gep(data, [values[1]]), address)
        builder.call(function, [line, number(_READ), number(_KEEP), number(_DATA)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@compiled(inline="always")
def prefetch(array: Any, place: Any, count: Any) -> None:
    """Asks for all lines of `count` elements from `place` on, counted through the array's memory."""
    # an intrinsic's first argument is Numba's own, which mypy does not know
    last = place + count - 1
    while place < last:
        _prefetch(array, place)  # type: ignore[call-arg]
        place += _LINE // array.itemsize
    _prefetch(array, last)  # type: ignore[call-arg]
