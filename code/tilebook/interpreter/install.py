"""Putting the repairs and the bounds check in place, once per process."""

import gc
import sys

from tilebook.interpreter import repairs, watch

_installed = False


def install() -> None:
    """Repair and watch the interpreter; convert kernels decorated before."""
    global _installed
    if not _installed:
        repairs.install()
        watch.install()
        _installed = True
    _convert_compiled_kernels()


def _convert_compiled_kernels() -> None:
    """Turn every compiled-mode kernel of this process into an interpreted one.

    Triton picks a kernel's class when it is decorated. Where Triton was imported
    before `tilebook`, its own library (`tl.sum` and the like) and perhaps the reader's
    kernels are compiled ones. They are converted in place, because others hold
    references to them: autotuners, importing modules, and the interpreter itself,
    which knows some of them by identity.
    """
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    for found in [o for o in gc.get_objects() if type(o) is JITFunction]:
        if found.fn.__module__ in sys.modules:
            attributes = InterpretedFunction(found.fn).__dict__
            found.__class__ = InterpretedFunction
            found.__dict__.clear()
            found.__dict__.update(attributes)
