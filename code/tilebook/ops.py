"""The roof: for each operator the best kernel of any chapter.

    from tilebook import ops

    z = ops.add(x, y)

Each name is the operator that its chapter exports, or chooses among several chapters'
kernels by hardware, shape and dtype.
"""

from tilebook.attention import attention
from tilebook.fp8 import quantize, scaled_matmul
from tilebook.hopper import matmul
from tilebook.memory import copy
from tilebook.parallel import add
from tilebook.tiling import transpose
from tilebook.tiling.blur import blur
from tilebook.tiling.indexed import gather, scatter, scatter_add
from tilebook.tiling.reduce import total

__all__ = [
    "add",
    "attention",
    "blur",
    "copy",
    "gather",
    "matmul",
    "quantize",
    "scaled_matmul",
    "scatter",
    "scatter_add",
    "total",
    "transpose",
]
