"""Layouts as matrices: their algebra, and each kind against the installed Triton's."""

import itertools

import numpy as np
import pytest
import torch
import triton

from tilebook import compile_only, testing
from tilebook.compiler import kinds, layouts, spelled, twins
from tilebook.compiler.layouts import Linear, conversion, layout, reach
from tilebook.softmax import evidence as softmax_evidence
from tilebook.softmax import fused, online, several
from tilebook.tiling import described, explicit, grouped, linear, tiled
from tilebook.tiling import evidence as tiling_evidence
from tilebook.tiling.layouts import Blocked

BLOCKED = (
    "#ttg.blocked<{{sizePerThread = [{}, {}], threadsPerWarp = [4, 8], "
    "warpsPerCTA = [2, 2], order = [{}, {}]}}>"
)
MMA = (
    "#ttg.nvidia_mma<{{versionMajor = {}, versionMinor = 0, warpsPerCTA = {}, "
    "instrShape = {}}}>"
)
WARPS = ([4, 1], [2, 2], [1, 4])
SHAPES = ((16, 16), (64, 64), (128, 32), (32, 128))
KEEPS_IDLE = triton.__version__.startswith(("3.6.", "3.7."))
NEEDS_SHARED = pytest.mark.skipif(
    not spelled.SHOWS_SHARED, reason="Triton 3.6 has no matrices for shared memory"
)


def alike(text, shape, **where):
    """Ours and Triton's are the same map; Triton 3.9 leaves idle registers out."""
    ours, theirs = spelled.read(text, shape), spelled.installed(text, shape, **where)
    if theirs != ours and not KEEPS_IDLE:
        ours = ours.trimmed("register")
    assert ours == theirs, (text, shape)


def test_blocked_and_sliced_layouts_are_tritons():
    for size, order in itertools.product([(1, 8), (4, 1), (2, 2)], [(1, 0), (0, 1)]):
        text = BLOCKED.format(*size, *order)
        for shape in [(4, 8), (32, 32), (64, 16), (1, 64)]:
            alike(text, shape)
            for axis in (0, 1):
                sliced = f"#ttg.slice<{{dim = {axis}, parent = {text}}}>"
                alike(sliced, (shape[1 - axis],))


@pytest.mark.parametrize("warps", WARPS, ids=str)
def test_products_layouts_are_tritons(warps):
    for shape in SHAPES:
        text = MMA.format(2, warps, [16, 8])
        alike(text, shape)
        for index, width in itertools.product((0, 1), (1, 2, 4)):
            alike(
                f"#ttg.dot_op<{{opIdx = {index}, parent = {text}, kWidth = {width}}}>",
                shape,
            )
        for side, turned in itertools.product((16, 32), ("true", "false")):
            text = (
                f"#ttg.amd_mfma<{{version = 3, warpsPerCTA = {warps}, instrShape = "
                f"[{side}, {side}, 16], isTransposed = {turned}}}>"
            )
            if min(shape) >= side:
                alike(text, shape, target="hip:gfx942")


def test_layouts_of_a_warp_group_are_tritons():
    for shape, columns in [((64, 64), 64), ((128, 256), 128), ((128, 32), 8)]:
        text = MMA.format(3, [4, 1], [16, columns, 16])
        alike(text, shape)
        alike(f"#ttg.dot_op<{{opIdx = 0, parent = {text}, kWidth = 2}}>", shape)
    for warps in ([8, 1], [4, 2]):
        alike(MMA.format(3, warps, [16, 64, 16]), (128, 128), warps=8)


@NEEDS_SHARED
def test_shared_layouts_are_tritons():
    for shape, turned in itertools.product([(16, 64), (64, 64), (8, 256)], (0, 1)):
        for vector, rows, phases in [(1, 1, 1), (8, 1, 8), (8, 2, 4), (4, 4, 2)]:
            alike(
                f"#ttg.swizzled_shared<{{vec = {vector}, perPhase = {rows}, maxPhase = "
                f"{phases}, order = {[turned, 1 - turned]}}}>",
                shape,
            )
        for swizzle, bits in itertools.product((0, 32, 64, 128), (8, 16, 32)):
            # Without exchanges, Triton 3.7 doesn't turn a tile.
            if swizzle * 8 <= bits * shape[1 - turned] and swizzle + (1 - turned):
                word = ("false", "true")[turned]
                alike(
                    f"#ttg.nvmma_shared<{{swizzlingByteWidth = {swizzle}, transposed = "
                    f"{word}, elementBitWidth = {bits}}}>",
                    shape,
                )


def test_registers_of_a_slice_hold_no_copies():
    rows = kinds.blocked((1, 4), (4, 8), (4, 1), (1, 0), (32, 32))
    assert kinds.sliced(rows, 1).bases("register") == ((16,),)
    assert kinds.sliced(rows, 1).bases("lane") == ((0,), (0,), (0,), (1,), (2,))


@pytest.mark.parametrize("vector", [1, 2, 8])
def test_swizzling_is_its_definition(vector):
    for rows, phases, columns in [(1, 8, 64), (2, 4, 32), (4, 2, 16), (1, 1, 8)]:
        found = kinds.swizzled(vector, rows, phases, (1, 0), (16, columns))
        if phases * vector > columns:
            continue
        at = found.inverse()(
            **dict(zip(("dim0", "dim1"), np.indices((16, columns)), strict=True))
        )
        row, column = np.indices((16, columns))
        group = (column // vector) ^ (row // rows % phases)
        assert (at[0] == row * columns + group * vector + column % vector).all()


def book():
    """Kernels of the book, compiled, with the layouts that the compiler chose."""
    for rung in (fused, several, online):
        yield from softmax_evidence.compiled(rung, 4096, 4096)
    for rung in (tiled, grouped, described, explicit):
        yield tiling_evidence.compiled(rung)
    half = torch.empty(64, dtype=torch.float16, device="meta")
    tile = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}
    for target in ("sm_80", "sm_90", "gfx942"):
        yield compile_only.compile(
            twins.matmul_kernel, *(half,) * 3, *(4096,) * 6, target=target, **tile
        )


def test_layouts_of_the_books_kernels_are_tritons():
    seen = set()
    for artefact in book():
        warps = artefact.metadata["num_warps"]
        where = "hip:gfx942" if artefact.target == "gfx942" else "cuda:90"
        for text, shape in spelled.used(artefact.ttgir):
            kind = spelled.kind(text)
            if kind in spelled.SHARED and (
                not spelled.SHOWS_SHARED or np.prod(shape) == 1
            ):
                continue
            if kind == "dot_op" and "amd" in text:
                with pytest.raises(ValueError, match="dot_op aren't known here"):
                    spelled.read(text, shape)
                continue
            alike(text, shape, warps=warps, target=where)
            seen.add(kind)
    wanted = {"blocked", "slice", "nvidia_mma", "dot_op", "amd_mfma"}
    assert seen >= wanted | ({"nvmma_shared"} if spelled.SHOWS_SHARED else set())


# Algebra.


def drawn(rng, rows, columns):
    """Any map."""
    made = tuple(int(x) for x in rng.integers(0, 1 << rows, columns))
    return Linear((("a", columns - 2), ("b", 2)), (("x", 2), ("y", rows - 2)), made)


@pytest.mark.parametrize("seed", range(20))
def test_a_map_is_its_matrix(seed):
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(3, 8)), int(rng.integers(3, 10))
    map_ = drawn(rng, rows, columns)
    a, b = rng.integers(0, 1 << (columns - 2), 30), rng.integers(0, 4, 30)
    bits = np.array([(a | b << (columns - 2)) >> i & 1 for i in range(columns)])
    made = map_.matrix.astype(int) @ bits % 2
    x, y = map_(a=a, b=b)
    assert (x == made[0] + 2 * made[1]).all()
    assert (y == sum(made[2 + i] << i for i in range(rows - 2))).all()
    every = {map_(a=a, b=b) for a in range(1 << columns - 2) for b in range(4)}
    assert len(every) == 1 << map_.rank
    for a, b in map_.kernel():
        assert map_(a=a, b=b) == (0, 0)
        assert a or b
    assert len(map_.kernel()) == columns - map_.rank


@pytest.mark.parametrize("seed", range(20))
def test_a_way_back_names_the_first(seed):
    rng = np.random.default_rng(seed)
    map_ = drawn(rng, 5, 8)
    if map_.rank < 5:
        with pytest.raises(ValueError, match="doesn't reach every output"):
            map_.inverse()
        return
    back = map_.inverse()
    assert back.then(map_) == Linear(map_.outputs, map_.outputs, (1, 2, 4, 8, 16))
    first = {}
    for b, a in itertools.product(range(4), range(64)):
        first.setdefault(map_(a=a, b=b), (a, b))
    assert first == {(x, y): back(x=x, y=y) for x, y in first}


def test_owners_are_the_threads_of_a_blocked_layout():
    given = Blocked((1, 4), (8, 4), (2, 2), (1, 0))
    for shape in [(64, 64), (16, 16), (8, 32)]:
        found = kinds.blocked(*given, shape)
        threads = 32 * found.owners("warp") + found.owners("lane")
        assert (threads == given.threads(shape)).all()
        steps = linear.bases(given, shape)
        assert (found.bases("register"), found.bases("lane"), found.bases("warp")) == (
            steps
        )
    one = found.bases("lane")[1]
    assert found(lane=2) == one
    assert found(lane=3) == tuple(
        a ^ b for a, b in zip(found(lane=1), one, strict=True)
    )


def test_how_far_elements_go():
    rows = kinds.blocked((1, 4), (4, 8), (4, 1), (1, 0), (32, 32))
    columns = kinds.blocked((4, 1), (8, 4), (1, 4), (0, 1), (32, 32))
    turned = layout((32, 32), **{
        "register": rows.bases("register")[::-1],
        "lane": rows.bases("lane"),
        "warp": rows.bases("warp"),
    })  # fmt: skip
    lanes = layout((32, 32), **{
        "register": rows.bases("register"),
        "lane": rows.bases("lane")[::-1],
        "warp": rows.bases("warp"),
    })  # fmt: skip
    assert reach(rows, rows) == ""
    assert reach(rows, turned) == "register"
    assert reach(rows, lanes) == "lane"
    assert reach(rows, columns) == "warp"
    # Copies: who has all of them needs nothing.
    copies = kinds.sliced(rows, 1)
    spread = kinds.blocked((1,), (32,), (4,), (0,), (32,))
    assert reach(copies, spread) == "warp"
    everywhere = layout((4,), register=[(1,), (2,)], lane=[(0,)] * 5, warp=[(0,)] * 2)
    dealt = layout((4,), register=[], lane=[(1,), (0,), (0,), (0,), (0,)],
                   warp=[(2,), (0,)])  # fmt: skip
    assert reach(everywhere, dealt) == "register"
    assert reach(dealt, everywhere) == "warp"
    change = conversion(rows, lanes)
    for lane in range(32):
        _, to, warp = change(register=0, lane=lane, warp=3)
        assert lanes(lane=to, warp=warp) == rows(lane=lane, warp=3)


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="powers of two, got 48"):
        layout((48,), lane=[(1,)])
    with pytest.raises(ValueError, match="dim0 must be below 4, got 4"):
        layout((4,), lane=[(4,)])
    with pytest.raises(ValueError, match="must be 2 numbers"):
        layout((4, 4), lane=[(1,)])
    with pytest.raises(ValueError, match="columns must be one for each bit"):
        Linear((("a", 2),), (("x", 1),), (1,))
    with pytest.raises(ValueError, match="no more bits than"):
        Linear((("a", 1),), (("x", 1),), (2,))
    rows = kinds.blocked((1, 4), (4, 8), (4, 1), (1, 0), (32, 32))
    with pytest.raises(ValueError, match="wrap must be one of register, lane, warp"):
        rows(wrap=3)
    with pytest.raises(ValueError, match="outer takes"):
        rows.then(rows)
    for text in ("nonsense!", "#ttg.blocked<{sizePerThread = [1", ""):
        with pytest.raises(ValueError, match=r"is no layout|ends too early"):
            spelled.read(text, (4,))
    with pytest.raises(ValueError, match="of kind tmem aren't known"):
        spelled.read("#ttng.tmem<{a = 1}>".replace("ttng", "ttg"), (4,))


MISTAKES = [
    (kinds, "(8, 4), (1, 0))", "(4, 8), (1, 0))"),
    (kinds, "order = (0, 1) if version == 3 else (1, 0)\n    given",
     "order = (1, 0)\n    given"),
    (kinds, "sides(2, 1), order, register", "sides(1, 2), order, register"),
    (kinds, "warp += [(0, 0)]", "warp += [(1, 0)]"),
    (kinds, "given[\"register\"] += dealer.rest(order)", "pass"),
    (kinds, ".trimmed(\"register\")", ""),
    (kinds, "if self.covered[axis] < self.shape[axis]:", "if True:"),
    (kinds, "(1 << bit) // rows % phases", "(1 << bit) // rows"),
    (layouts, "made ^= pivots[top][1]", "pass"),
    (layouts, "total = total ^ (number", "total = total | (number"),
    (layouts, "wanted ^= pivot[0]", "wanted = 0"),
]  # fmt: skip


def everything():
    test_registers_of_a_slice_hold_no_copies()
    test_blocked_and_sliced_layouts_are_tritons()
    test_products_layouts_are_tritons([2, 2])
    test_layouts_of_a_warp_group_are_tritons()
    test_swizzling_is_its_definition(2)
    for seed in range(10):
        test_a_map_is_its_matrix(seed)
        test_a_way_back_names_the_first(seed)


@pytest.mark.parametrize(("module", "old", "new"), MISTAKES, ids=lambda _: "")
def test_each_mistake_is_noticed(module, old, new):
    with (
        testing.mutated_module(module, old, new),
        pytest.raises((AssertionError, ValueError)),
    ):
        everything()
