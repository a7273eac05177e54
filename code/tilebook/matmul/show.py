"""What the chapter's cells print of compiled kernels: tables, listings, sentences."""

import functools
import re
import threading
from collections.abc import Iterable

import pandas as pd
import torch
import triton

from tilebook import compile_only
from tilebook.compile_only import Artefact
from tilebook.matmul import elsewhere, estimates, fitting, ordered, split
from tilebook.matmul.evidence import (
    RUNGS,
    SQUARE,
    ahead,
    compiled,
    first,
    launched,
    launches,
    matrix,
    task_for,
)
from tilebook.matmul.fitting import Config
from tilebook.matmul.serialised import FORMS, Form, launch
from tilebook.matmul.shapes import Shape

SIDES = Config(128, 256, 64, 8, 3)
"""The tile whose pipeline is taken apart."""
DEPTHS = (1, 2, 3, 4)
"""Stages that it is compiled with."""
CONFIGS = (
    *(SIDES, SIDES._replace(num_stages=5), SIDES._replace(num_warps=4)),
    *(Config(128, 128, 64, 8, 3), Config(128, 128, 64, 4, 4)),
    *(Config(64, 64, 64, 2, 5), Config(16, 64, 64, 4, 6)),
)
"""Tiles and warps, some of which don't fit."""
CONVERTED = {"a of bf16": torch.bfloat16, "a of int8, converted": torch.int8}
"""What `a` may be beside a `b` of bfloat16, by the heading of a column."""
PAPER = (
    *(Shape(512, 32, 512), Shape(512, 32, 2048), Shape(2048, 32, 512)),
    *(Shape(6144, 32, 1536), Shape(7680, 64, 2560), Shape(35, 8457, 1760)),
)
"""The thin products in figure 8 of Triton's first paper, the transformer's three first,
on which it was behind cuBLAS."""
_WORDS = ("none", "one", "two", "three", "four", "five")


def begin() -> threading.Thread:
    """Begin to compile what this page's slowest tables will show, in the background.

    Returns:
        The thread that does it.
    """
    tiles = (*CONFIGS, *(SIDES._replace(num_stages=stages) for stages in DEPTHS))
    here = [(launched(ordered, config)[0], "sm_90") for config in dict.fromkeys(tiles)]
    return ahead([*here, *elsewhere.wanted()])


def lines(names: Iterable[str] = tuple(RUNGS)) -> str:
    """Say what kernels of the chapter compiled to on Hopper, for bfloat16.

    Args:
        names: keys of `evidence.RUNGS`.

    Returns:
        An evidence line for each launch, after the kernel's name and its product.
    """
    said = []
    for name in names:
        rung, (m, n, k), layout = RUNGS[name]
        for artefact in compiled(rung, shape=RUNGS[name][1], layout=layout):
            whose = f"{name}, {m} x {k} x {n}, {layout}, {artefact.name}"
            said.append(f"{whose}:\n  {artefact.evidence.line()}")
    return "\n".join(said)


def loop(artefact: Artefact) -> str:
    """Cut the innermost loop out of a kernel's TTGIR.

    Args:
        artefact: a compiled kernel with a loop.

    Returns:
        Its lines, without where they come from.

    Raises:
        ValueError: there is no loop.
    """
    text = re.sub(r" loc\(.*\)$", "", artefact.ttgir, flags=re.M).splitlines()
    starts = [i for i, line in enumerate(text) if " scf.for " in line]
    if not starts:
        raise ValueError(f"{artefact.name} has no loop")
    indent = len(text[starts[-1]]) - len(text[starts[-1]].lstrip())
    end = next(
        i
        for i in range(starts[-1] + 1, len(text))
        if text[i].startswith(" " * indent + "}")
    )
    return "\n".join(text[starts[-1] : end + 1])


def pipeline(num_stages: int = SIDES.num_stages) -> str:
    """Show what a step of `ordered` waits for, multiplies and asks for.

    Args:
        num_stages: stages of its pipeline.

    Returns:
        The loop's lines that say so, in short.
    """
    shown = compile_only.excerpt(
        loop(first(ordered, SIDES._replace(num_stages=num_stages))),
        r"tt\.load|async_wait|async_copy|async_commit|fence_async|warp_group_dot"
        r"|local_alloc %",
    )
    for pattern, short in (
        (r" : .*", ""),
        (r"\bttn?g\.", ""),
        (r" \{(inputPrecision|contiguity|bCluster) = .*", ""),
        (r" mask %\w+", ""),
        (r"\{(pendings|num) = (\d+)$", r"{\1 = \2}"),
    ):
        shown = re.sub(pattern, short, shown, flags=re.M)
    # Of each value's number its name is enough.
    return re.sub(r"%(a|b|acc)_\d+", r"%\1", shown)


def depths() -> pd.DataFrame:
    """Take the pipeline of `ordered` apart, stage by stage.

    Returns:
        By `num_stages`: how many places in shared memory each operand has, bytes of
        all of them, steps asked for before the loop, copies that a step asks for,
        those that may still be on their way when it multiplies, `wgmma` groups that
        may still be under way when a step ends, and registers of a thread.
    """
    rows = {}
    for stages in DEPTHS:
        artefact = first(ordered, SIDES._replace(num_stages=stages))
        inside, whole = loop(artefact), artefact.ttgir
        copies = inside.count("async_copy_global_to_local")
        sides = f"{SIDES.block_m}x{SIDES.block_k}"
        places = re.search(rf"memdesc<(\d+)x{sides}xbf16", whole)
        waits = re.search(r"async_wait.*\{num = (\d+)", inside)
        before = whole.count("async_copy_global_to_local") - copies
        rows[stages] = {
            "places": int(places[1]) if places else 1,
            "shared bytes": artefact.evidence.shared_bytes,
            "steps asked for before": before // 2,
            "async copies in a step": copies,
            "on their way": int(waits[1]) if waits else 0,
            "wgmma under way": int(re.search(r"pendings = (\d+)", inside)[1]),
            "registers": artefact.evidence.registers,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("num_stages")


def roomy() -> pd.DataFrame:
    """Hold what tiles of `ordered` compiled to against what `fitting` says of them.

    Returns:
        By tile, warps and stages, on Hopper for bfloat16: sums of a thread, what
        `fitting.room` says, and registers, bytes spilled, bytes of shared memory,
        matrix instruction and remarks of ptxas.
    """
    task = task_for(SQUARE, "NN", torch.bfloat16)
    wide = fitting.width(task)
    rows = {}
    for config in CONFIGS:
        made = first(ordered, config).evidence
        room = fitting.room(task, config, wide)
        said = "refused" if room is None else "taken"
        if room is not None and room.num_stages < config.num_stages:
            said = f"{room.num_stages} stages"
        sides = f"{config.block_m} x {config.block_n} x {config.block_k}"
        label = f"{sides}, {config.num_warps} warps, {config.num_stages} stages"
        rows[label] = {
            "sums": estimates.accumulators(estimates.Tile(*config[:5])),
            "the model": said,
            "registers": made.registers,
            "spilled": max(made.spill_store_bytes, made.spill_load_bytes),
            "shared": made.shared_bytes,
            "unit": ", ".join(made.mma),
            "ptxas": ", ".join(sorted({notice.code for notice in made.warnings})),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


@functools.cache
def formed(form: Form, dtype: torch.dtype = torch.bfloat16) -> Artefact:
    """Compile a form of the natural product for Hopper.

    Args:
        form: one of `serialised.FORMS`.
        dtype: of `a`; `b` is of bfloat16.

    Returns:
        The kernel, for 4096 squared.
    """
    a, b = (matrix(4096, 4096, each) for each in (dtype, torch.bfloat16))
    (found,) = launches(lambda wrap: launch(form, a, b, b, wrap))
    return compile_only.compile(found.kernel, *found.args, **found.meta)


def serialised() -> pd.DataFrame:
    """Ask ptxas which forms of the natural product it serialises.

    Returns:
        By form, for each of `CONVERTED`, the number of its remark, or "clean".
    """
    rows = {
        name: {
            heading: ", ".join(
                sorted({n.code for n in formed(form, dtype).evidence.warnings})
            )
            or "clean"
            for heading, dtype in CONVERTED.items()
        }
        for name, form in FORMS.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def serialised_said(table: pd.DataFrame) -> str:
    """Put the table of `serialised` into words.

    Args:
        table: what `serialised` returned.

    Returns:
        A sentence for each column, about the Triton at hand.
    """
    said = []
    for heading, column in table.items():
        slow = [name for name, found in column.items() if found != "clean"]
        which = f": {'; '.join(slow)}" if slow else ""
        of = f"{_WORDS[len(slow)]} of {_WORDS[len(column)]}"
        said.append(f"{heading}: {of} serialised{which}.")
    return f"Triton {triton.__version__}. " + " ".join(said)


def paper() -> pd.DataFrame:
    """Count the programs that the first paper's thin products have, and can have.

    Returns:
        By product, of a weight stored as (outputs, inputs) in bfloat16: operations for
        a byte, the tiles that `ordered` makes of it, and into how many parts `split`
        cuts each sum, for how many programs.
    """
    rows = {}
    for shape in PAPER:
        task = task_for(shape, "NT", torch.bfloat16)
        whole, cut = ordered.config_for(task), split.config_for(task)
        tiles, shared = (
            -(-shape.m // config.block_m) * -(-shape.n // config.block_n)
            for config in (whole, cut)
        )
        rows[f"{shape.m} x {shape.n}, k = {shape.k}"] = {
            "operations for a byte": round(shape.flops / shape.moved(2), 1),
            "tiles": tiles,
            "parts": cut.parts,
            "programs": shared * cut.parts,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def conversions() -> pd.DataFrame:
    """Count the conversions to TF32 in products of float32.

    Returns:
        By `input_precision`, for `ordered` on Hopper with columns of `a` together:
        conversions, and kinds of matrix instructions with their number.
    """
    rows = {}
    for precision in ("tf32", "tf32x3"):
        made = first(ordered, layout="TN", dtype=torch.float32, precision=precision)
        units = ", ".join(f"{n} x {unit}" for unit, n in made.evidence.mma.items())
        rows[precision] = {
            "cvt.rna.tf32": made.ptx.count("cvt.rna.tf32"),
            "unit": units,
        }
    return pd.DataFrame.from_dict(rows, orient="index")
