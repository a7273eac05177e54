"""Triton's CPU interpreter, repaired: right answers without a GPU, and no silence.

Importing `tilebook` where there is no GPU switches it on. Three things are added to
what Triton ships: repairs of the arithmetic that differs from a GPU's (`REPAIRS`; what
still differs is listed in `LIMITS`), a check that every access stays inside the
tensors that the kernel was given (`OutOfBounds`), and a hook that sees every access
(`observing`).
"""

import importlib.util
import os
from typing import TYPE_CHECKING

from tilebook.interpreter.access import Access, Stray
from tilebook.interpreter.bounds import OutOfBounds, allow, observing, straying

if TYPE_CHECKING:
    from tilebook.interpreter.repairs import Repair

    REPAIRS: tuple[Repair, ...]

__all__ = [
    "LIMITS",
    "REPAIRS",
    "Access",
    "OutOfBounds",
    "Stray",
    "allow",
    "enable",
    "enable_without_gpu",
    "gpu_count",
    "observing",
    "straying",
    "switched_on",
]

# What still differs from a GPU, one line each; the chapters quote these.
LIMITS: tuple[str, ...] = (
    "Programs run one after another, so races don't show and spin locks between "
    "programs deadlock.",
    "tl.dot on float32 is exact to float32; a GPU rounds the inputs to TF32 unless "
    "input_precision='ieee'.",
    "Sums are added in another order than on a GPU, so the last bits differ.",
    "A masked-off lane of a tl.load without other= reads zero; on a GPU it is "
    "undefined.",
    "Loop counters are Python integers: they never overflow, and // and % of negative "
    "ones round down.",
    "tl.flip without dim raises before Triton 3.9.",
    "A variable born in only one branch or in a loop body survives it, as in Python; "
    "a compiled kernel refuses it or leaves it undefined.",
    "Float to integer out of range follows NVIDIA's instruction; other compilers may "
    "differ, and Triton leaves it undefined.",
    "Division of integers by zero gives 0; on a GPU it is undefined.",
    "tl.argmax and tl.argmin skip NaN; on a GPU the answer then depends on the order.",
    "tl.device_assert always fires; compiled it needs debug=True or TRITON_DEBUG=1.",
    "libdevice's functions are NumPy's, rounded once; the rarer ones are missing.",
    "inline_asm_elementwise, Gluon and (before Triton 3.8) tl.dot_scaled don't run.",
    "num_warps, num_stages, maxnreg, cache and eviction hints change nothing.",
)


def switched_on() -> bool:
    """Whether Triton decorates kernels for the interpreter in this process."""
    # The words, in any case, that Triton's own reader of this variable takes as true.
    value = os.environ.get("TRITON_INTERPRET", "")
    return value.lower() in ("1", "on", "true")


def gpu_count() -> int:
    """Count the GPUs visible to this process without starting CUDA.

    Returns:
        0 too where torch is missing, or TILEBOOK_DEVICE=cpu hides them.
    """
    if os.environ.get("TILEBOOK_DEVICE", "").lower() == "cpu":
        return 0
    if importlib.util.find_spec("torch") is None:
        return 0
    import torch

    return torch.cuda.device_count()


def enable_without_gpu() -> None:
    """Enable the interpreter if there is no GPU; a set TRITON_INTERPRET decides.

    Raises:
        ValueError: TILEBOOK_DEVICE holds something else than "cpu" or "gpu".
    """
    wanted = os.environ.get("TILEBOOK_DEVICE", "")
    if wanted.lower() not in ("", "cpu", "gpu"):
        raise ValueError(f"TILEBOOK_DEVICE must be cpu or gpu, got {wanted!r}")
    asked = os.environ.get("TRITON_INTERPRET")
    if switched_on() if asked else gpu_count() == 0:
        enable()


def enable() -> None:
    """Switch Triton's interpreter on in this process, repaired and watched.

    Kernels that were decorated before, Triton's own included, are converted in place.
    Calling it again does nothing more. Without Triton installed it does nothing.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    if importlib.util.find_spec("triton") is None:
        return
    from tilebook.interpreter import install

    install.install()


def __getattr__(name: str) -> object:
    # The repairs import Triton, which must not happen before its mode is settled.
    if name == "REPAIRS":
        from tilebook.interpreter.repairs import REPAIRS

        return REPAIRS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
