"""What a tile costs before anything has been measured: who may enter the race.

A model whose terms are counts that the chapter derives: turns of programs, the tensor
cores' share of a step, bytes that L2 delivers for it, what a step waits for at least,
tiles that are stored, and bytes from memory that nobody avoids. Its constants were
fitted to some thousand ways on an H100. It ranks; it predicts no time.
"""

import math
from typing import NamedTuple

import torch

from tilebook import device
from tilebook.matmul.operands import Task

ACCUMULATORS = 128
"""Sums that a thread can hold in registers beside all else without spilling."""
L2_OVER_MEMORY = 3.0
"""How many times the memory's bandwidth L2 delivers."""
STEP_NS, LATENCY_NS, START_NS = 85.0, 1200.0, 4200.0
"""What a step along k waits for at least, what the first of its loads takes, and what
a program takes to begin and end."""
FULL, FALL = 128 * 256, 0.13
"""Elements of a tile that keeps the tensor cores busy, and the power of the share of it
with which smaller ones do less."""
PEAK, MEMORY, STORING = 0.69, 0.8, 2.6
"""Shares of the tensor cores' and of the memory's rate that are reached, and how many
times its bytes storing a tile costs."""
SEAMS = 5.0
"""Beginnings and ends that sharing costs: of shares, and of a second kernel."""
TOGETHER = 4
"""Programs of a multiprocessor at most."""
_UNKNOWN = device.DATASHEET["h100-sxm"]


class Tile(NamedTuple):
    """How a product is cut up."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int
    together: int = TOGETHER
    """Programs that are launched for a multiprocessor, at most."""


def shared_bytes(tile: Tile, itemsize: int) -> int:
    """Shared memory of a program: the pieces of both operands, for every stage.

    Args:
        tile: how the product is cut up.
        itemsize: bytes of an operand's element.
    """
    step = (tile.block_m + tile.block_n) * tile.block_k * itemsize
    return step * max(tile.num_stages, 1)


def accumulators(tile: Tile) -> int:
    """Sums that each thread holds."""
    return tile.block_m * tile.block_n // (32 * tile.num_warps)


def fits(tile: Tile, itemsize: int) -> bool:
    """Whether a program of this GPU can hold a tile; see `shared_bytes`."""
    most = device.current().shared_memory_per_block or 227 * 1024
    return shared_bytes(tile, itemsize) <= most and accumulators(tile) <= ACCUMULATORS


def rate(dtype: torch.dtype, precision: str) -> float:
    """Multiply-adds in a second that the tensor cores promise, times two.

    Args:
        dtype: of the operands.
        precision: of float32; one of `operands.PRECISIONS`.
    """
    sheet = device.current().datasheet or _UNKNOWN
    if dtype == torch.int8:
        return 1e12 * (sheet.fp8 or 2 * sheet.bf16)
    if dtype.itemsize == 2:
        return 1e12 * (sheet.bf16 if dtype == torch.bfloat16 else sheet.fp16)
    # Three products for one, or no tensor cores at all.
    return (
        1e12
        * {"tf32": sheet.tf32, "tf32x3": sheet.tf32 / 3, "ieee": sheet.fp32}[precision]
    )


def reading(task: Task) -> float:
    """Seconds in which memory moves what has to move: the operands and the result."""
    sheet = device.current().datasheet or _UNKNOWN
    size = task.a.element_size()
    moved = size * (task.m * task.k + task.k * task.n)
    moved += task.m * task.n * task.out.element_size()
    return moved / (MEMORY * sheet.hbm_gbps * 1e9) + START_NS * 1e-9


def seconds(task: Task, tile: Tile, parts: int = 1) -> float:
    """Estimate how long a product takes.

    Args:
        task: the product.
        tile: how it is cut up.
        parts: into how many the sum over k is, each a program's.

    Returns:
        Seconds, to be compared with those of other tiles and with nothing else.
    """
    here = device.current()
    sheet = here.datasheet or _UNKNOWN
    sms = here.sms or 132
    memory = sheet.hbm_gbps * 1e9
    size = task.a.element_size()
    programs = math.ceil(task.m / tile.block_m) * math.ceil(task.n / tile.block_n)
    programs *= parts
    at_a_time = min(_at_a_time(tile, size), math.ceil(programs / sms))
    turns = math.ceil(programs / (sms * at_a_time))
    steps = math.ceil(math.ceil(task.k / parts) / tile.block_k)
    elements = at_a_time * tile.block_m * tile.block_n
    # Two programs on an SM feed its tensor cores as one of twice the size would.
    busy = PEAK * min(1.0, (elements / FULL) ** FALL)
    rated = rate(task.a.dtype, task.precision) / sms
    arithmetic = 2 * elements * tile.block_k / (rated * busy)
    moved = at_a_time * (tile.block_m + tile.block_n) * tile.block_k * size
    traffic = moved / (L2_OVER_MEMORY * memory / sms)
    waiting = 1e-9 * max(STEP_NS, LATENCY_NS / max(tile.num_stages - 1, 1))
    stored = STORING * elements * task.out.element_size() / (memory / sms)
    inside = turns * (steps * max(arithmetic, traffic, waiting) + stored)
    inside += START_NS * 1e-9
    if parts > 1:
        # Sums of parts are written, read again and added by a second kernel.
        inside += 2 * 4 * parts * task.m * task.n / memory
    # Near both limits neither hides behind the other.
    return (inside**4 + reading(task) ** 4) ** 0.25


def _at_a_time(tile: Tile, itemsize: int) -> int:
    """Programs that a multiprocessor has room for."""
    shared = device.current().shared_memory_per_sm or 228 * 1024
    registers = min(255, accumulators(tile) + 64) * tile.num_warps * 32
    by_shared = shared // (shared_bytes(tile, itemsize) + 1024)
    return max(1, min(by_shared, 65536 // registers, tile.together))


def streaming(task: Task, tile: Tile, programs: int) -> float:
    """Estimate how long a product takes whose steps are shared out evenly.

    Args:
        task: the product.
        tile: how it is cut up.
        programs: how many share the work.

    Returns:
        As `seconds`: what whole turns would take for the fraction that there is, and a
        second kernel for the tiles that several had a part of.
    """
    count = math.ceil(task.m / tile.block_m) * math.ceil(task.n / tile.block_n)
    sheet = device.current().datasheet or _UNKNOWN
    shared = min(count, programs)
    again = 2 * 4 * 2 * shared * tile.block_m * tile.block_n
    whole = programs * tile.block_m
    # As many rows of tiles as fill every program once.
    full = task._replace(a=task.a.new_empty(whole, task.k, device="meta"))
    once = seconds(full._replace(b=task.b[:, : tile.block_n]), tile)
    turn = once - START_NS * 1e-9
    inside = turn * count / programs + SEAMS * START_NS * 1e-9
    return max(inside + again / (sheet.hbm_gbps * 1e9), reading(task))
