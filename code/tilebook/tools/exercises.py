"""The chapter's exercises, from counting sectors to what the scheduler reads."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.testing import Exercise
from tilebook.tools import solutions

__all__ = ["EXERCISES"]

Arrays = Mapping[str, Any]
Shape = tuple[int, ...]

STRIDE, SIZE = 5, 2

SECTORS = Exercise(
    name="tools-sectors",
    statement=(
        "A warp's 32 lanes load float16, each five elements behind the one before, the "
        "first at the beginning of a sector. Give two whole numbers: the sectors of 32 "
        "bytes that are handed out, and how many the wanted bytes would fill."
    ),
    answer=lambda: solutions.sectors(STRIDE, SIZE),
    explain=lambda got: (
        "That would be float32."
        if isinstance(got, tuple | list) and tuple(got) == solutions.sectors(STRIDE, 4)
        else None
    ),
    rtol=0.0,
    hint="At which byte does the last lane's element lie?",
)

WARPS = ((4, 32), (1, 32), (7, 32), (16, 32))


def _requests(rng: np.random.Generator, shape: Shape) -> Arrays:
    warps = shape[0]
    lanes = np.arange(32)
    steps = rng.integers(1, 12, (warps, 1))
    # Some go backwards, and some are scattered.
    offsets = 4 * (rng.integers(0, 512, (warps, 1)) + steps * lanes)
    offsets[::3] = 4 * rng.integers(0, 4096, (len(offsets[::3]), 32))
    offsets[1::3] = offsets[1::3, ::-1]
    return {"offsets": offsets, "mask": rng.integers(0, 4, shape).clip(0, 1)}


def _sectors(offsets: np.ndarray, mask: np.ndarray) -> np.ndarray:
    pairs = zip(offsets // 32, mask, strict=True)
    return np.array([len(set(row[on != 0])) for row, on in pairs], dtype=np.int64)


REQUESTS = Exercise(
    name="tools-requests",
    statement=(
        "Write a function of `offsets` and `mask`, both int64 of (warps, 32): where "
        "each lane's four bytes lie, as multiples of four, and 0 for lanes that want "
        "nothing. It returns how many sectors of 32 bytes each warp's request takes."
    ),
    inputs=_requests,
    reference=_sectors,
    shapes=WARPS,
    extra_shape=None,
    hint="A sector counts once, however many lanes want it.",
)

# Accesses, elements.
LOGS = ((6, 3), (40, 8), (1, 1), (200, 12), (25, 40))


def _accesses(rng: np.random.Generator, shape: Shape) -> Arrays:
    count, n = shape
    program, kind = rng.integers(0, 3, (2, count))
    element = rng.integers(min(3, n - 1), max(n, 1), count)
    if n >= 3:
        # Two programs add to one element, two load another, one keeps the third.
        program[:6], element[:6] = (0, 1, 0, 2, 1, 1), (0, 0, 1, 1, 2, 2)
        kind[:6] = (2, 2, 0, 0, 1, 0)
    return {"program": program, "element": element, "kind": kind, "n": n}


def _raced(
    program: np.ndarray, element: np.ndarray, kind: np.ndarray, n: int
) -> np.ndarray:
    other = program[:, None] != program
    same = element[:, None] == element
    writes = (kind[:, None] > 0) | (kind > 0)
    atomic = (kind[:, None] == 2) & (kind == 2)
    bad = (other & same & writes & ~atomic).any(1)
    found = np.zeros(n, dtype=np.int64)
    found[element[bad]] = 1
    return found


RACE = Exercise(
    name="tools-race",
    statement=(
        "Write a function of `program`, `element` and `kind`, int64, an entry for each "
        "access of a launch, and of the number n of elements. Kinds are 0, a load; 1, "
        "a store; 2, an atomic addition. It returns n numbers: 1 where an element is "
        "raced for, else 0."
    ),
    inputs=_accesses,
    reference=_raced,
    shapes=LOGS,
    hint="Which pairs of kinds are harmless? Is a program's race with itself one?",
)

LOADS, THREADS = (128, 128, 32), 1024

FLIGHT = Exercise(
    name="tools-flight",
    statement=(
        "Before the first instruction that waits, a kernel has two LDG.E.128 and one "
        f"LDG.E. {THREADS:,} threads live on an SM. How many bytes are on their way to "
        "it at most?"
    ),
    answer=lambda: solutions.flight(LOADS, THREADS),
    explain=lambda got: (
        "Those are bits."
        if got == 8 * solutions.flight(LOADS, THREADS)
        else "That is one thread's."
        if got == solutions.flight(LOADS, 1)
        else None
    ),
    rtol=0.0,
    hint="Without a suffix a load has 32 bits.",
)

MOVED, FLOPS, MICROSECONDS = 3 * 2 * 4096**2, 2 * 4096**3, 220.0
GBPS, TFLOPS = 3000.0, 800.0

UTILISATION = Exercise(
    name="tools-utilisation",
    statement=(
        "Proton says that a product of two matrices of 4,096 by 4,096 bfloat16 takes "
        f"{MICROSECONDS:g} microseconds. Memory moves {GBPS:,.0f} GB/s, tensor cores "
        f"do {TFLOPS:g} TFLOP/s. Which part of the roofline is reached? Give a number "
        "from 0 to 1, to within 1 %."
    ),
    answer=lambda: solutions.utilisation(MOVED, FLOPS, MICROSECONDS, GBPS, TFLOPS),
    explain=lambda got: (
        "That is of the memory's limit, which is not the one that is met first."
        if isinstance(got, float)
        and abs(got - MOVED / GBPS / MICROSECONDS / 1e3) < 0.01
        else None
    ),
    hint="The limit is whichever takes longer.",
)


def _launch_rows(kernel: Any, out: Any, x: Any) -> None:
    m, n = x.shape
    if x.numel():
        kernel[(m, -(-n // 64))](x, out, m, n, BLOCK=64)


NEIGHBOUR = Exercise(
    name="tools-neighbour",
    statement=(
        "Write a kernel that stores the larger of each element and its right neighbour "
        "in the row; the last column keeps its own. It gets a program for each row and "
        "BLOCK columns. The tracer must have nothing against it."
    ),
    inputs=lambda rng, shape: {"x": rng.standard_normal(shape)},
    reference=lambda x: np.maximum(x, np.concatenate([x[:, 1:], x[:, -1:]], axis=1)),
    shapes=((4, 64), (1, 1), (3, 65), (5, 128), (2, 200), (0, 3)),
    launch=_launch_rows,
    parameters=("x_ptr", "out_ptr", "m", "n", "BLOCK"),
    required=("BLOCK",),
    hint="Which element lies behind a row's last one? And behind the last row's?",
)

NODES = ((7,), (1,), (2,), (40,), (300,))


def _tree(rng: np.random.Generator, shape: Shape) -> Arrays:
    (nodes,) = shape
    parent = np.array([0, *(rng.integers(0, i) for i in range(1, nodes))])
    return {"parent": parent, "own": rng.integers(0, 10_000, nodes)}


def _added(parent: np.ndarray, own: np.ndarray) -> np.ndarray:
    total = np.zeros_like(own)
    for node, value in enumerate(own):
        at = node
        while True:
            total[at] += value
            if at == 0:
                break
            at = parent[at]
    return total


INCLUSIVE = Exercise(
    name="tools-inclusive",
    statement=(
        "Write a function of `parent` and `own`, int64, one entry for each node of a "
        "profile's tree: the number of its parent, which is smaller than its own (the "
        "root, number 0, has 0 there), and the nanoseconds noted at it. It returns the "
        "time of each node with all that is below it. It leaves `own` as it is."
    ),
    inputs=_tree,
    reference=_added,
    shapes=NODES,
    hint="In which order is everybody's time complete before it is passed on?",
)


def _fields(rng: np.random.Generator, shape: Shape) -> Arrays:
    return {"field": rng.integers(0, 1 << 23, shape)}


def _apart(field: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    result = field // 32 % 8
    waits = sum(field // 2 ** (11 + bit) % 2 for bit in range(6))
    return field % 16, np.where(result == 7, -1, result), waits


CONTROL = Exercise(
    name="tools-control",
    statement=(
        "Write a function of `field`, int64, instructions' control fields: bits 0 to 3 "
        "are clocks to stall, bit 4 is yield, 5 to 7 the result's barrier, 8 to 10 "
        "that of the operands, 11 to 16 the mask of barriers waited for, the rest is "
        "about reuse. It returns three tensors: the clocks; the result's barrier, -1 "
        "for number 7, which means none; and how many barriers are waited for."
    ),
    inputs=_fields,
    reference=_apart,
    shapes=((8,), (1,), (1000,)),
    hint="Shift, then mask. The last mask's bits are counted, not read as a number.",
)

EXERCISES = (
    SECTORS,
    REQUESTS,
    RACE,
    FLIGHT,
    UTILISATION,
    NEIGHBOUR,
    INCLUSIVE,
    CONTROL,
)
