"""Kernels in a web page: Triton's interpreter without its C++ library, nor PyTorch.

A page runs CPython as WebAssembly with NumPy, Triton's Python files and the parts of
this package that need no more than these. Modules from below:

* `memory`: loads, stores and atomics by address, in registered arrays only
* `libtriton`: the stand-in for Triton's library on top of that
* `arrays`: NumPy arrays as arguments of kernels
* `bench`: what a program in a page uses: inputs, outputs, comparing
* `tracing`: what each program touches, for the page's picture
* `running`: a program's text in, what it printed and touched out

`start` makes the rest of `tilebook` run on the stand-in.
"""

import os

from tilebook.browser import libtriton


def start(stand_in: bool = True) -> None:
    """Switch the interpreter on for NumPy's arrays, without a GPU or PyTorch.

    To be called before Triton is imported, in a process that began with
    TRITON_INTERPRET=0, so that importing `tilebook` didn't do that.

    Args:
        stand_in: whether to take the stand-in; False leaves Triton its own library.
    """
    if stand_in:
        libtriton.install()
    os.environ["TRITON_INTERPRET"] = "1"

    from tilebook import interpreter
    from tilebook.browser import arrays

    # First what takes arguments: the watch over them is laid on top.
    arrays.install()
    interpreter.enable()
