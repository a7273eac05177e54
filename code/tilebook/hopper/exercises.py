"""The chapter's exercises, from counting bytes to a third group of warps."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from tilebook import schedules
from tilebook.hopper import solutions
from tilebook.hopper.launching import describe
from tilebook.testing import Exercise

__all__ = ["EXERCISES"]

Arrays = Mapping[str, Any]
Shape = tuple[int, ...]

ROWS, COLUMNS, TERMS = 64, 32, 16
"""Of the tiles in the exercises that are run by schedules."""
SEEDS = (0, 5, 10, 11, 13, 17, 18, 19)
"""Orders in which they are run, quick engines and slow ones."""


def terms(shape: Shape) -> int:
    """Roundings of a sum over a shape's last side."""
    return shape[-1] + 8


def _pair(rng: np.random.Generator, shape: Shape) -> Arrays:
    m, n, k = shape
    return {"a": rng.standard_normal((m, k)), "b": rng.standard_normal((k, n))}


def _scheduled(
    kernel: Any, out: Any, a: Any, b: Any, widths: int, *args: Any, **meta: Any
) -> None:
    """Run an attempt in several orders, and keep the result that is furthest off."""
    a, b, empty = (x.detach().cpu().clone() for x in (a, b, out))
    want, worst, kept = a.double() @ b.double(), -1.0, empty
    for seed in SEEDS:
        found = empty.clone()
        described = (
            describe(a, ROWS, TERMS, False),
            describe(b, TERMS, COLUMNS * widths, False),
            describe(found, ROWS, COLUMNS, False),
        )
        schedules.run(kernel, (1,), *described, *args, seed=seed, **meta)
        off = float((found.double() - want).abs().nan_to_num(float("inf")).max())
        if off > worst:
            worst, kept = off, found
    out.copy_(kept)


def _events(kernel: Any, shape: Shape, widths: int, *args: Any, **meta: Any) -> list:
    m, n, k = shape
    a, b, out = (torch.zeros(s).bfloat16() for s in ((m, k), (k, n), (m, n)))
    described = (
        describe(a, ROWS, TERMS, False),
        describe(b, TERMS, COLUMNS * widths, False),
        describe(out, ROWS, COLUMNS, False),
    )
    return schedules.run(kernel, (1,), *described, *args, **meta)[0]


def _explain_shared(got: Any) -> str | None:
    right = solutions.shared()
    if not isinstance(got, tuple | list) or len(got) != 2:
        return None
    if got[0] * 2 == right[0]:
        return "These are elements, not bytes."
    if got[0] == right[0] + 128 * 256:
        return "One place is as large as a piece, and there are two pieces."
    if got[1] > right[1]:
        return "Each of the two groups has a place of its own for its tile."
    return None


SHARED = Exercise(
    name="hopper-shared",
    statement=(
        "In bf16, a program of cooperative has tiles of 128 by 256 and four chunks of "
        "64 terms, and stores a tile in two pieces through one place for each half of "
        "its rows. One of pingpong has tiles of 128 by 128, chunks of 64 terms, and "
        "for each group a place for a whole tile; 226 KiB of shared memory are left "
        "to it. Give two whole numbers: the bytes of the first without its barriers, "
        "and the most chunks of the second."
    ),
    answer=solutions.shared,
    explain=_explain_shared,
    rtol=0.0,
    hint="What does a chunk hold, and what is a tile's place as wide as?",
)

TFLOPS = 800

L2 = Exercise(
    name="hopper-l2",
    statement=(
        f"A product of bf16 runs at {TFLOPS} TFLOP/s. Give two numbers: the GB/s that "
        "it asks of L2 with tiles of 128 by 256, and of 256 by 192."
    ),
    answer=lambda: (
        solutions.l2(128, 256, TFLOPS),
        solutions.l2(256, 192, TFLOPS),
    ),
    explain=lambda got: (
        "What is loaded for each operation is two bytes an element."
        if isinstance(got, tuple | list)
        and got
        and abs(got[0] * 2 / solutions.l2(128, 256, TFLOPS) - 1) < 0.01
        else None
    ),
    hint="How many operations does a tile do for a byte, whatever a chunk holds?",
)

END, LEAST = 1500, 0.95

ENDS = Exercise(
    name="hopper-ends",
    statement=(
        "An SM's tensor cores do 4,096 operations in a clock. A tile of 128 by 256 "
        f"ends in {END:,} clocks in which nothing is multiplied. Give two numbers: "
        "the share of the time that products take at k = 512, and the first multiple "
        f"of 64 from which on it is at least {LEAST}."
    ),
    answer=lambda: solutions.ends(128, 256, END, 512, LEAST),
    rtol=0.002,
    hint="How many clocks do a tile's products take for each term?",
)

PARITIES = Exercise(
    name="hopper-parities",
    statement=(
        "Chunks are numbered over all tiles of a program, and chunk q lives in slot "
        "q % slots. Write a function parities(chunk, slots) that returns two "
        "parities: the one to wait for at `arrived[slot]` before the chunk is "
        "multiplied, and the one that the producer waits for at `free[slot]` before "
        "it asks for the chunk."
    ),
    inputs=lambda rng, shape: {"chunk": shape[0], "slots": shape[1]},
    reference=lambda chunk, slots: (chunk // slots % 2, 1 - chunk // slots % 2),
    shapes=((0, 4), (3, 4), (4, 4), (7, 3), (8, 3), (21, 5), (1000, 7), (2, 1)),
    extra_shape=lambda rng: (int(rng.integers(0, 500)), int(rng.integers(1, 9))),
    hint="How often was the slot used before?",
)


def _launch_tile(kernel: Any, out: Any, a: Any, b: Any) -> None:
    _scheduled(kernel, out, a, b, 1)


TILE = Exercise(
    name="hopper-tile",
    statement=(
        f"Write a Gluon kernel that stores a @ b, one tile of {ROWS} by {COLUMNS} "
        f"with {2 * TERMS} terms. a_desc describes a in tiles of {ROWS} by {TERMS}, "
        f"b_desc b in tiles of {TERMS} by {COLUMNS}, out_desc the result, all bf16. "
        "Bring all four tiles at once and wait once, at one barrier. Matrices may be "
        "smaller than their tiles."
    ),
    inputs=_pair,
    reference=lambda a, b: a @ b,
    shapes=((64, 32, 32), (50, 24, 32), (64, 32, 24), (8, 8, 8)),
    extra_shape=None,
    launch=_launch_tile,
    parameters=("a_desc", "b_desc", "out_desc"),
    dtypes=("bfloat16",),
    length=terms,
    hint="What comes from outside a matrix is zeros, and they are counted.",
)


def _launch_ring(kernel: Any, out: Any, a: Any, b: Any, slots: int) -> None:
    _scheduled(kernel, out, a, b, 1, a.shape[1], SLOTS=slots)


def _groups(least: int, rows: int) -> Callable[[Any], str | None]:
    """Make what watches how many partitions multiply, and that one only loads."""

    def watch(kernel: Any) -> str | None:
        shape = (rows, COLUMNS, 5 * TERMS)
        found = _events(kernel, shape, 1, shape[2], SLOTS=2)
        who = {event.who for event in found if event.what == "multiply"}
        if len(who) != least:
            return f"{len(who)} partitions multiply, and not {least}."
        if who & {event.who for event in found if event.what == "load"}:
            return "A partition that multiplies asks for tiles, too."
        return None

    return watch


def _with_slots(rng: np.random.Generator, shape: Shape) -> Arrays:
    return {**_pair(rng, shape), "slots": int(rng.choice([2, 3, 4]))}


RING = Exercise(
    name="hopper-ring",
    statement=(
        "Write a Gluon kernel with two partitions that stores a @ b, one tile of "
        f"{ROWS} by {COLUMNS} with k terms: one brings chunks of {TERMS} terms "
        "through a ring of SLOTS slots, the other multiplies, with a product under "
        "way while it waits for the next chunk. Descriptors are those of the exercise "
        "before."
    ),
    inputs=_with_slots,
    reference=lambda a, b, slots: a @ b,
    shapes=((64, 32, 160), (64, 32, 16), (48, 16, 56), (64, 32, 104)),
    extra_shape=None,
    launch=_launch_ring,
    parameters=("a_desc", "b_desc", "out_desc", "k", "SLOTS"),
    dtypes=("bfloat16",),
    length=terms,
    watch=_groups(1, ROWS),
    required=("gl.warp_specialize",),
    hint="When is a product that has been started done with its slot?",
)

THIRD = Exercise(
    name="hopper-third",
    statement=(
        f"Give the kernel before three groups that multiply, {ROWS} rows each of "
        f"{3 * ROWS}, with the same columns of b. One partition brings three tiles of "
        "a and one of b for each chunk."
    ),
    inputs=_with_slots,
    reference=lambda a, b, slots: a @ b,
    shapes=((192, 32, 160), (192, 32, 16), (150, 24, 56)),
    extra_shape=None,
    launch=_launch_ring,
    parameters=("a_desc", "b_desc", "out_desc", "k", "SLOTS"),
    dtypes=("bfloat16",),
    length=terms,
    watch=_groups(3, 3 * ROWS),
    required=("gl.warp_specialize",),
    hint="Who has to have read a slot before it is filled again?",
)


def _launch_pieces(kernel: Any, out: Any, a: Any, b: Any) -> None:
    _scheduled(kernel, out, a, b, 4)


def _watch_pieces(kernel: Any) -> str | None:
    found = _events(kernel, (ROWS, 4 * COLUMNS, TERMS), 4)
    places = {event.on for event in found if event.what == "store"}
    if len(places) > 1:
        return f"Pieces leave from {len(places)} places: one is enough."
    return None


PIECES = Exercise(
    name="hopper-pieces",
    statement=(
        f"Write a Gluon kernel that stores a @ b, one tile of {ROWS} by "
        f"{4 * COLUMNS} with {TERMS} terms, through shared memory for a quarter of "
        f"it: out_desc has tiles of {ROWS} by {COLUMNS}, a_desc and b_desc a tile "
        "each."
    ),
    inputs=_pair,
    reference=lambda a, b: a @ b,
    shapes=((64, 128, 16), (50, 104, 16), (64, 128, 8)),
    extra_shape=None,
    launch=_launch_pieces,
    parameters=("a_desc", "b_desc", "out_desc"),
    dtypes=("bfloat16",),
    length=terms,
    watch=_watch_pieces,
    hint="What has to have left before the place is written again?",
)

EXERCISES = (
    *(SHARED, L2, ENDS),
    *(PARITIES, TILE, RING, THIRD, PIECES),
)
