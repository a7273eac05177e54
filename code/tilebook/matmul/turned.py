"""Tiles that are turned on their way to the tensor cores, and where that happens.

`tl.dot(tl.trans(x), y)` has three ways on Hopper. A tile in shared memory is turned by
reading it otherwise, which costs nothing. One in registers can be stored and read back
so. Or it stays in registers, as the first operand of `wgmma` may. On Triton from 3.4 on
and before 3.7.1 programs that do the last were seen to give wrong results.
"""

import re
from collections.abc import Iterator

import pandas as pd
import torch
import triton

from tilebook.compile_only import Artefact
from tilebook.matmul import described, ordered
from tilebook.matmul.evidence import first
from tilebook.matmul.versions import suspect

CASES = {
    "described, bf16": (described, torch.bfloat16, "tf32"),
    "described, fp32, tf32x3": (described, torch.float32, "tf32x3"),
    "ordered, fp32, tf32x3": (ordered, torch.float32, "tf32x3"),
}
"""Module, dtype and precision by name; columns of `a` lie together in all of them."""

_LINE = re.compile(r"^\s*%(\w+)(?::\d+)? = (\S+) (.*)$")
_NAME = re.compile(r"%(\w+)")
_LOADS = ("tt.load", "ttg.local_load", "tt.descriptor_load")


def in_registers(artefact: Artefact) -> bool:
    """Whether a tile is turned in registers, and goes from there to `wgmma`.

    Args:
        artefact: a kernel compiled for Hopper.

    Returns:
        True if the first operand of a `wgmma` comes out of `tt.trans` and isn't stored
        to shared memory in between.
    """
    text = re.sub(r" loc\(.*\)$", "", artefact.ttgir, flags=re.M)
    made = {
        found[1]: (found[2], found[3])
        for line in text.splitlines()
        if (found := _LINE.match(line))
    }
    return any(
        op == "tt.trans"
        for first_operand in _register_operands(made)
        for op in _before(first_operand, made)
    )


def _register_operands(made: dict[str, tuple[str, str]]) -> Iterator[str]:
    """Names of the tiles that `wgmma` takes from registers as its first operands."""
    for op, rest in made.values():
        if op == "ttng.warp_group_dot":
            names, _, types = rest.rpartition(" : ")
            if types.startswith("tensor<"):
                yield _NAME.findall(names)[0]


def _before(name: str, made: dict[str, tuple[str, str]]) -> Iterator[str]:
    """Operations that a tile comes from, back to where it was loaded."""
    waiting, seen = [name], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in made:
            continue
        seen.add(name)
        op, rest = made[name]
        yield op
        # What is loaded is where its values come from; a product isn't its operands.
        if op not in _LOADS and op != "ttng.warp_group_dot":
            waiting += _NAME.findall(rest.partition(" : ")[0])


def table() -> pd.DataFrame:
    """Compile products whose first operand lies by columns, and see who turns it.

    Returns:
        A row for each of `CASES`: whether `wgmma` takes a tile that was turned in
        registers.
    """
    rows = {
        name: {
            "turned in registers": in_registers(
                first(rung, layout="TN", dtype=dtype, precision=precision)
            )
        }
        for name, (rung, dtype, precision) in CASES.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def said(found: pd.DataFrame, version: str = triton.__version__) -> str:
    """Put the table and the version into words.

    Args:
        found: what `table` returned.
        version: of the Triton that compiled it.

    Returns:
        A sentence about what to do.
    """
    names = found.index[found["turned in registers"]].tolist()
    if not names:
        return f"Triton {version}: nothing here is turned in registers."
    listed = "; ".join(names)
    if suspect(version):
        return (
            f"Triton {version} is one of those in doubt, and these are turned in "
            f"registers: {listed}. Check them on the card before they are trusted."
        )
    return f"Triton {version} is not in doubt. Turned in registers: {listed}."
