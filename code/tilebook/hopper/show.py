"""What the chapter's cells print: compiled kernels, counts, and what schedules say."""

import functools
import inspect
import itertools
import re
import threading
from collections.abc import Iterable
from types import ModuleType

import pandas as pd
import torch
import triton

from tilebook import compile_only, schedules
from tilebook._gluon import async_load
from tilebook.compile_only import Artefact
from tilebook.hopper import (
    automatic,
    cooperative,
    elsewhere,
    folded,
    made,
    pingpong,
    pipelined,
    places,
    smallest,
    widths,
)
from tilebook.hopper.figures import END, OPERATIONS
from tilebook.hopper.launching import describe
from tilebook.matmul import described, evidence
from tilebook.matmul.evidence import SQUARE, first, launched, launches, matrix, task_for
from tilebook.parallel import masked
from tilebook.testing import mutants, mutated_module
from tilebook.tiling.show import ttgir

RUNGS: dict[str, ModuleType] = {
    "described": described,
    "made": made,
    "automatic": automatic,
    "pipelined": pipelined,
    "cooperative": cooperative,
    "folded": folded,
    "pingpong": pingpong,
    "widths": widths,
}
CONFIGS = {"automatic": elsewhere.LARGE}
"""Where a rung's own choice doesn't compile with every Triton."""
GROUPS = ("automatic", "cooperative", "folded", "pingpong", "widths")
"""Rungs whose warps are in groups."""
THREADS = 128
"""Of a group: `setmaxnreg` is for four warps at a time."""
TERMS = (256, 512, 1024, 2048, 4096, 8192, 16384)
TILES = (
    *((64, 256), (128, 128), (128, 160), (128, 192)),
    *((128, 256), (128, 320), (256, 192)),
)
"""Rows and columns of tiles, some of them in two widths."""
RATE = 800
"""TFLOP/s for which L2's part is counted."""
PACKED = """\
            left, right = packed(left), packed(right)
        else:
            left = packed(sums)
            right = left
"""
UNPACKED = """\
            pass
        else:
            left = sums
            right = left
"""
"""How `folded` ends without `packed`."""
HANDED = """\
        mbarrier.wait(handed.index(1 - WHICH), (turn & 1) ^ (1 - WHICH))
"""
"""Where a group of `pingpong` waits for its turn."""


def begin() -> threading.Thread:
    """Begin to compile what this page's slowest tables will show, in the background.

    Returns:
        The thread that does it.
    """
    here = [
        (launched(module, CONFIGS.get(name), layout="NT")[0], "sm_90")
        for name, module in RUNGS.items()
    ]
    return evidence.ahead([*here, *elsewhere.wanted(), *places.wanted()])


def compiled(name: str) -> Artefact:
    """Compile a rung for 4096 squared, rows of both operands along k.

    Args:
        name: a key of `RUNGS`.
    """
    return first(RUNGS[name], CONFIGS.get(name), layout="NT")


def lines(names: Iterable[str]) -> str:
    """Say what rungs compiled to on Hopper, for bfloat16.

    Args:
        names: keys of `RUNGS`.

    Returns:
        An evidence line for each, after its name.
    """
    return "\n".join(f"{name}:\n  {compiled(name).evidence.line()}" for name in names)


@functools.cache
def product() -> Artefact:
    """Compile the smallest product, 64 by 128 with 64 terms, in bfloat16."""
    a, b, out = (
        matrix(*sides, torch.bfloat16) for sides in ((64, 64), (64, 128), (64, 128))
    )
    args = smallest.product_arguments(a, b, out)
    return compile_only.compile(smallest.product_kernel, *args, num_warps=4)


def product_ptx() -> str:
    """Show what the smallest product asks of copy engine, barrier and tensor cores.

    Returns:
        Those lines of its PTX, each run of alike ones once, with their number.
    """
    wanted = r"mbarrier|cp\.async\.bulk|wgmma|fence\.|stmatrix"
    found = []
    for line in product().ptx.splitlines():
        code = re.sub(r"^\s*(?:@%p\d+ )?", "", line).partition(" ")[0].rstrip(";")
        if re.match(wanted, code):
            found.append(code.replace("::bytes", ""))
    runs = ((code, len(list(run))) for code, run in itertools.groupby(found))
    return "\n".join(f"{n} x {code}" for code, n in runs)


def unfenced() -> str:
    """Run the smallest product without its fence, under schedules.

    Returns:
        What schedules says.
    """
    rows, columns, terms = smallest.SIDES
    a, b, out = (
        torch.ones(sides, dtype=torch.bfloat16)
        for sides in ((rows, terms), (terms, columns), (rows, columns))
    )
    edit = {"no fence": ("    fence_async_shared()\n", "")}
    ((_, kernel),) = mutants(smallest.product_kernel, edit)
    try:
        schedules.run(kernel, (1,), *smallest.product_arguments(a, b, out))
    except schedules.ScheduleError as error:
        return str(error)
    return "nothing"


def handed(slots: int = 2) -> str:
    """Run the smallest hand-over under schedules and tell its beginning.

    Args:
        slots: of its ring.

    Returns:
        A line for each event until a slot is used again.
    """
    x = torch.zeros(4 * smallest.BLOCK[0], smallest.BLOCK[1], dtype=torch.bfloat16)
    meta = {"SLOTS": slots, "REGISTERS": 24}
    args = smallest.handed_arguments(x, torch.empty_like(x))
    (events,) = schedules.run(smallest.handed_kernel, (1,), *args, seed=3, **meta)
    said = []
    for event in events:
        said.append(f"{event.who:12s} {event.what:7s} {event.on}")
        if event.what == "load" and len([x for x in said if " load " in x]) > slots:
            break
    return "\n".join(said)


def registers() -> pd.DataFrame:
    """Read from PTX what registers the groups of warps have.

    Returns:
        By rung: registers of a thread at the launch, in the first group and in those
        that were asked for by `setmaxnreg`, and the sum of all threads.

    Raises:
        ValueError: PTX doesn't say what TTGIR asks for.
    """
    rows = {}
    for name in GROUPS:
        artefact = compiled(name)
        launched_with = int(re.search(r"\.maxnreg (\d+)", artefact.ptx)[1])
        asked = re.search(r"requestedRegisters = array<i32: ([\d, ]+)>", artefact.ttgir)
        others = [int(number) for number in asked[1].split(",")]
        groups = artefact.metadata["num_warps"] * 32 // THREADS
        own = launched_with * groups - sum(others)
        set_to = {int(n) for n in re.findall(r"setmaxnreg\S+\s+(\d+);", artefact.ptx)}
        if not {own, *others} <= set_to:
            raise ValueError(f"{name}: {own} and {others} are not among {set_to}")
        rows[name] = {
            "at the launch": launched_with,
            "first group": own,
            "second": others[0],
            "third": others[1],
            "of all threads": THREADS * (own + sum(others)),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def tiles() -> pd.DataFrame:
    """Count what tiles ask of L2.

    Returns:
        By sides: operations for a byte; TB/s that a product at `RATE` asks L2 for; and
        the same if two programs, one above the other, shared what they read of `b`.
    """
    rows = {}
    for m, n in TILES:
        alone, shared = (m * n * tall / (m * tall + n) for tall in (1, 2))
        rows[f"{m} x {n}"] = {
            "operations for a byte": round(alone, 1),
            f"TB/s at {RATE} TFLOP/s": round(RATE / alone, 1),
            "in a cluster of two": round(RATE / shared, 1),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def ends(end: int = END, rows: int = 128, columns: int = 256) -> pd.DataFrame:
    """Count what the end of a tile costs, by the length of its sums.

    Args:
        end: clocks in which nothing is multiplied.
        rows: of a tile.
        columns: of it.

    Returns:
        By k: clocks of a tile's products, and the share of all that they are.
    """
    found = {}
    for k in TERMS:
        clocks = 2 * rows * columns * k // OPERATIONS
        found[k] = {"products": clocks, "busy": round(clocks / (clocks + end), 3)}
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("k")


@functools.cache
def unpacked() -> Artefact:
    """Compile `folded` without `packed`, which lets ptxas round where it likes."""
    task = task_for(SQUARE, "NT", torch.bfloat16)
    with mutated_module(folded, PACKED, UNPACKED):
        (found,) = launches(lambda wrap: folded.launch(task._replace(wrap=wrap)))
        return compile_only.compile(found.kernel, *found.args, **found.meta)


def rounding() -> str:
    """Say what ptxas makes of `folded`, as it is and without `packed`.

    Returns:
        Two evidence lines, and the remark.
    """
    without = unpacked()
    said = "; ".join(notice.text for notice in without.evidence.warnings)
    return (
        f"folded:\n  {compiled('folded').evidence.line()}\n"
        f"without packed:\n  {without.evidence.line()}\n  {said}"
    )


def specialised(name: str, who: int = 1) -> str:
    """Show a partition of a case of `elsewhere` in TTGIR.

    Args:
        name: a key of `elsewhere.CASES`.
        who: 0 for the first, 1 for the next.

    Returns:
        The lines with barriers, copies and products; of a kernel without partitions
        those of its loop.
    """
    artefact = elsewhere.compiled(name)
    wanted = r"wait_barrier|arrive_barrier|async_tma_copy|warp_group_dot"
    text = artefact.ttgir
    if elsewhere.partitions(artefact) > 1:
        parts = re.split(r"^\s+(?:default \{|partition\d+\()", text, flags=re.M)
        text = parts[1 + who]
    shown = ttgir(Artefact(name, "sm_90", {"ttgir": text}, {}), wanted)
    shown = re.sub(r" \{async_task_id = array<i32: \d>[^}]*\}", "", shown)
    shown = re.sub(r" : (?:memdesc|tensordesc|tensor)<.*", "", shown)
    shown = re.sub(r"ttn?g\.|inputPrecision = 0 : i32, |, %\w+(?= \{pend)", "", shown)
    lines = (line.strip() for line in shown.splitlines())
    return "\n".join(line for line in lines if line != "...")


def cluster() -> str:
    """Compile an addition for clusters of two programs, and show what says so."""
    x = torch.empty(4096, device="meta")
    made = compile_only.compile(
        masked.add_kernel, x, x, x, 4096, BLOCK=1024, num_ctas=2, target="sm_90"
    )
    return compile_only.excerpt(made.ptx, r"cluster")


def multicast() -> str:
    """Say whether this Triton's Gluon can bring a tile to several programs at once."""
    names = inspect.signature(async_load).parameters
    has = "has an" if "multicast" in names else "has no"
    return (
        f"Triton {triton.__version__}: {async_load.__name__} {has} argument multicast"
    )


def unhanded(seeds: int = 24) -> str:
    """Run ping-pong in many orders without the wait that hands over.

    Args:
        seeds: how many orders.

    Returns:
        How many are right, wrong, and never end.
    """
    m, n, k = 64, 96, 64
    luck = torch.Generator().manual_seed(1)
    a, b = (
        torch.randint(-1, 2, sides, generator=luck).bfloat16()
        for sides in ((m, k), (k, n))
    )
    meta = {"BLOCK_M": 64, "BLOCK_N": 32, "BLOCK_K": 16, "STAGES": 2, "GROUP": 8}
    meta |= {"A_TURNED": False, "B_TURNED": False, "REGISTERS": 232}
    found = {"right": 0, "wrong": 0, "without an end": 0}
    with mutated_module(pingpong, HANDED, ""):
        for seed in range(seeds):
            out = torch.full((m, n), float("nan"), dtype=torch.bfloat16)
            described = (describe(a, 64, 16, False), describe(b, 16, 32, False))
            args = (*described, describe(out, 64, 32, False), None, m, n, k)
            try:
                schedules.run(pingpong.matmul_kernel, (1,), *args, seed=seed, **meta)
                how = "right" if torch.equal(out, a @ b) else "wrong"
            except schedules.Deadlock:
                how = "without an end"
            except schedules.ScheduleError:
                how = "wrong"
            found[how] += 1
    counts = ", ".join(f"{count} {how}" for how, count in found.items())
    return f"{seeds} orders: {counts}"
