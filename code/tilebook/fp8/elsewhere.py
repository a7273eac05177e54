"""What the chapter's kernels compile to for GPUs that aren't at hand, or that it can't
be compiled."""

import contextlib
import functools
import io
import re

import pandas as pd
import torch

from tilebook import compile_only
from tilebook.compile_only import Artefact
from tilebook.fp8 import evidence, tiled
from tilebook.fp8.products import Product
from tilebook.matmul.evidence import Launch, launches, matrix

TARGETS = ("sm_80", "sm_89", "sm_90", "sm_100", "gfx942", "gfx950")
DTYPES = {"e4m3fn": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
SIDE = 4096
CONFIG = tiled.Config(128, 128, 8, 2)
"""A tile that every target has room for."""
UNIT = re.compile(
    r"wgmma\.mma_async\S+|tcgen05\.mma\S+|\bmma\.sync\S+|v_mfma_\w+|v_wmma_\w+"
)
"""A matrix instruction in PTX or AMD's assembly."""
CONVERSION = re.compile(r"cvt\.rn\.satfinite\S*|v_cvt_(?:scalef32_)?pk_[fb][fp]8\w*")
"""An instruction that rounds to eight bits."""


def product(dtype: torch.dtype) -> Launch:
    """Record a launch of `tiled` for 4096 squared, fast, a scale a row.

    Args:
        dtype: of the codes.
    """
    a, b = (matrix(SIDE, SIDE, dtype) for _ in range(2))
    scale = torch.empty(SIDE, 1, device="meta")
    out = matrix(SIDE, SIDE, torch.bfloat16)
    made = Product(a, b.t(), scale, scale.t(), out, fast=True)
    (found,) = launches(lambda wrap: tiled.launch(made._replace(wrap=wrap), CONFIG))
    return found


def quantizer(dtype: torch.dtype) -> Launch:
    """Record a launch of the quantiser by 1 x 128.

    Args:
        dtype: of the codes.
    """
    (found,) = evidence.launched("1x128", dtype=dtype)
    return found


KINDS = {"product": product, "quantiser": quantizer}


@functools.cache
def compiled(kind: str, name: str, target: str) -> Artefact | str:
    """Compile one of the two for a target.

    Args:
        kind: a key of `KINDS`.
        name: a key of `DTYPES`.
        target: as for `compile_only.compile`.

    Returns:
        The kernel, or what the compiler says against it.
    """
    kernel, _, args, meta = KINDS[kind](DTYPES[name])
    # A compiler that fails prints its whole state.
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return compile_only.compile(kernel, *args, target=target, **meta)
        except Exception as error:
            return _said(error)


def _said(error: BaseException) -> str:
    """The compiler's own words of what it can't do, or the error's last line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if found := re.search(r"type \w+ not supported", str(error)):
        return found.group()
    return str(error).strip().rpartition("\n")[2] or type(error).__name__


def _text(artefact: Artefact) -> str:
    """The last text before machine code."""
    amd = artefact.target.startswith("gfx")
    return artefact.amdgcn if amd else artefact.ptx


def unit(artefact: Artefact) -> str:
    """Name the matrix instruction of a kernel, and the types that it takes.

    Args:
        artefact: a kernel.

    Returns:
        The first one, cut off behind its types; "none" if there is none.
    """
    found = UNIT.search(_text(artefact))
    return found.group().rstrip(",;") if found else "none"


def table() -> pd.DataFrame:
    """Compile a product and a quantiser, in both formats, for six targets.

    Returns:
        By format and target: the product's matrix instruction, and whether the
        quantiser converts in hardware; or what the compiler says.
    """
    rows = {}
    for name in DTYPES:
        for target in TARGETS:
            made, wrote = (compiled(kind, name, target) for kind in KINDS)
            rows[name, target] = {
                "product": made if isinstance(made, str) else unit(made),
                "quantiser": wrote if isinstance(wrote, str) else converts(wrote),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def converts(artefact: Artefact) -> str:
    """Name the instruction that rounds to eight bits.

    Args:
        artefact: a quantiser.

    Returns:
        The first one; "bit by bit" where there is none.
    """
    found = CONVERSION.search(_text(artefact))
    return found.group().rstrip(",;") if found else "bit by bit"
