"""How a producer tells the groups of its program which tile is next."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from tilebook.attention.wgmma import place_of

WORDS = gl.constexpr(3)
"""What is told of a tile: its number, its head and its first row."""


@gluon.jit
def place_next(
    tile, heads, rows,
    BLOCK_M: gl.constexpr, GROUP: gl.constexpr, CAUSAL: gl.constexpr,
):  # fmt: skip
    """Where a tile is; past the last one, where that is."""
    last = gl.cdiv(rows, BLOCK_M) * heads - 1
    return place_of(gl.minimum(tile, last), heads, rows, BLOCK_M, GROUP, CAUSAL)


@gluon.jit
def tell(
    told, told_arrived, told_free, turn, tile, heads, rows,
    BLOCK_M: gl.constexpr, GROUP: gl.constexpr, CAUSAL: gl.constexpr,
    PLACED: gl.constexpr,
):  # fmt: skip
    """Tell every group a program's next tile, and where it is if they don't work that
    out themselves."""
    at = WORDS * (turn & 1)
    mbarrier.wait(told_free.index(turn & 1), ((turn >> 1) & 1) ^ 1)
    write(told.index(at), tile)
    if PLACED:
        head, row = place_next(tile, heads, rows, BLOCK_M, GROUP, CAUSAL)
        write(told.index(at + 1), head)
        write(told.index(at + 2), row)
    mbarrier.arrive(told_arrived.index(turn & 1))


@gluon.jit
def hear(
    told, told_arrived, told_free, turn, heads, rows,
    BLOCK_M: gl.constexpr, GROUP: gl.constexpr, CAUSAL: gl.constexpr,
    PLACED: gl.constexpr,
):  # fmt: skip
    """Be told the next tile, and where it is."""
    at = WORDS * (turn & 1)
    mbarrier.wait(told_arrived.index(turn & 1), (turn >> 1) & 1)
    tile = read(told.index(at))
    head, row = 0, 0
    if PLACED:
        head, row = read(told.index(at + 1)), read(told.index(at + 2))
    mbarrier.arrive(told_free.index(turn & 1))
    if not PLACED:
        head, row = place_next(tile, heads, rows, BLOCK_M, GROUP, CAUSAL)
    return tile, head, row


@gluon.jit
def write(word, number):
    """Write a number into shared memory, by the one warp of a producer."""
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    word.store(gl.full([1], number, gl.int32, layout))


@gluon.jit
def read(word):
    """Read a number from shared memory, by a group's four warps."""
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    # Every thread reads it; the greatest of one number is that number, for all.
    return gl.max(word.load(layout), 0)
