"""The roof: for each operator the best kernel of any chapter.

    from tilebook import ops

    z = ops.add(x, y)

Each name is the operator that its chapter exports, or chooses among several chapters'
kernels by hardware, shape and dtype.
"""

from tilebook.parallel import add

__all__ = ["add"]
