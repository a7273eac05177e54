"""Shared memory and barriers, worked out by us, are Triton's on the book's kernels."""

import re

import numpy as np
import pytest

from tilebook import testing
from tilebook.compiler import barriers, catalogue, flow, layouts, sharing, spelled
from tilebook.compiler.sharing import Buffer

NAMES = (
    *("softmax fused", "softmax several", "softmax persistent", "softmax online"),
    *("softmax split 1", "softmax split 2", "transpose tiled", "transpose grouped"),
    *("transpose aligned", "transpose described", "transpose explicit"),
    *("product naive", "product ordered", "product persistent", "product batched"),
    *("product described", "product streamed", "product here, sm_80, 1"),
    *("product here, sm_80, 2", "product here, sm_80, 4", "product here, sm_90, 1"),
    *("product here, sm_90, 2", "product here, sm_90, 4"),
)
ENGINE = {"transpose described", "product described", "product streamed"}
"""Kernels that the copy engine serves."""
ONCE = {"product here, sm_90, 1"}
"""Ours is larger: read by `ldmatrix`, a tile is converted in two rounds."""
FEWER = {"product ordered", "product persistent", "product batched"}
"""Triton 3.9 has no barrier before the loop's first copy there; we have."""


def test_the_kernels_are_these():
    assert tuple(catalogue.kernels()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_tritons(name):
    found = catalogue.memory(name)
    assert found.theirs == catalogue.kernels()[name].metadata["shared"]
    assert found.collisions == 0
    assert (found.ours > found.theirs) == (name in ONCE)
    assert found.ours >= found.theirs
    if name in ONCE:
        ptx = catalogue.kernels()[name].ptx
        assert "ldmatrix" in ptx
        assert "stmatrix" not in ptx


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ENGINE])
def test_barriers_are_tritons(name):
    module = catalogue.allocated(name)
    explicit = catalogue.explicit_barriers(name)
    found = barriers.needed(module, slots=explicit is not None)
    between = {*found.before, *(x + 1 for x in found.after)}
    if explicit is not None:
        more = between - explicit
        assert explicit <= between
        assert len(more) == (name in FEWER)
        ops = {op.number: op for block in flow.read(module) for op in block.operations}
        assert all(ops[x].name == "ttg.async_copy_global_to_local" for x in more)
        assert more <= found.before
        return
    # Before 3.9 barriers are seen in PTX only, with those within operations.
    assert found == barriers.needed(module, slots=False)
    assert found.before >= barriers.needed(module).before
    # Where `ldmatrix` reads, a conversion may have rounds, with a barrier between.
    several = name in FEWER or "sm_90" in name
    counted = catalogue.counted(name) - len(between) - catalogue.inside(name)
    assert counted == 0 or (several and counted in (1, 2))


@pytest.mark.parametrize("name", ["transpose described", "product streamed"])
def test_what_the_copy_engine_touches_is_refused(name):
    with pytest.raises(ValueError, match=r"what ttng\.\w+ does to shared memory"):
        barriers.needed(catalogue.allocated(name))


def test_the_table_has_every_kernel():
    found = catalogue.table()
    assert list(found.index) == list(NAMES)
    same = (found["bytes, Triton's"] == found["bytes, ours"]).sum()
    assert same == len(NAMES) - len(ONCE) >= 20
    assert {name for name in NAMES if found["between, ours"][name] == ""} == ENGINE
    ours, theirs = found["between, ours"], found.get("between, Triton's")
    for name in set(NAMES) - ENGINE:
        if theirs is not None:
            assert ours[name] - theirs[name] == (name in FEWER)
        else:
            more = found["in Triton's PTX"][name] - ours[name]
            more -= found["inside, ours"][name]
            assert more == 0 or ("product" in name and more in (1, 2))


def test_the_loop_that_is_shown():
    shown = catalogue.loop("product ordered").splitlines()
    marks = [number for number, line in enumerate(shown) if "barrier" in line]
    assert len(marks) == 2
    # One is behind the wait, one before the first copy: 3.9 has the first only.
    assert shown[marks[0] - 1] == "ttg.async_wait"
    assert shown[marks[1] + 1].startswith("ttg.async_copy_global_to_local ")
    copies = [number for number, line in enumerate(shown) if "async_copy" in line]
    products = [number for number, line in enumerate(shown) if "_dot %" in line]
    assert len(copies) == 2
    assert marks[0] < products[0] < marks[1] < copies[0]


def test_conversions_within_warps_need_no_memory():
    seen = set()
    for name in NAMES:
        if name in ENGINE:
            continue
        module = catalogue.allocated(name)
        sizes = sharing.Sizes(module)
        for block in flow.read(module):
            for op in block.operations:
                if op.name == "ttg.convert_layout":
                    needs = "allocation.offset" in op.text
                    assert needs == (sizes.of(op)[0] > 0), (name, op.text)
                    seen.add(needs)
    assert seen == {True}


# By hand.

MODULE = """\
#blocked = #ttg.blocked<{sizePerThread = [1], threadsPerWarp = [32], \
warpsPerCTA = [4], order = [0]}>
#shared = #ttg.swizzled_shared<{vec = 1, perPhase = 1, maxPhase = 1, order = [0]}>
module {
  tt.func public @f(%p: !tt.ptr<i32>, %n: i32) {
    %c0 = arith.constant 0 : i32
    %c1 = arith.constant 1 : i32
    %x = tt.make_range {end = 128 : i32, start = 0 : i32} : tensor<128xi32, #blocked>
    %a = ttg.local_alloc {allocation.offset = 0 : i32} : () -> \
!ttg.memdesc<2x128xi32, #shared, #smem, mutable>
    %b = ttg.local_alloc %x {allocation.offset = 1024 : i32} : \
(tensor<128xi32, #blocked>) -> !ttg.memdesc<128xi32, #shared, #smem>
    %s0 = ttg.memdesc_index %a[%c0] : !ttg.memdesc<2x128xi32, #shared, #smem, mutable>
    %s1 = ttg.memdesc_index %a[%c1] : !ttg.memdesc<2x128xi32, #shared, #smem, mutable>
    ttg.local_store %x, %s0 : tensor<128xi32, #blocked> -> !ttg.memdesc<128xi32>
    ttg.local_store %x, %s1 : tensor<128xi32, #blocked> -> !ttg.memdesc<128xi32>
    %y = ttg.local_load %s0 : !ttg.memdesc<128xi32> -> tensor<128xi32, #blocked>
    cf.br ^bb1(%c0, %s0 : i32, !ttg.memdesc<128xi32>)
  ^bb1(%i: i32, %v: !ttg.memdesc<128xi32>):  // 2 preds: ^bb0, ^bb2
    %more = arith.cmpi slt, %i, %n : i32
    cf.cond_br %more, ^bb2, ^bb3
  ^bb2:  // pred: ^bb1
    %z = ttg.local_load %v : !ttg.memdesc<128xi32> -> tensor<128xi32, #blocked>
    %j = arith.addi %i, %c1 : i32
    cf.br ^bb1(%j, %s1 : i32, !ttg.memdesc<128xi32>)
  ^bb3:  // pred: ^bb1
    %w = ttg.local_load %b : !ttg.memdesc<128xi32> -> tensor<128xi32, #blocked>
    %d = ttg.local_alloc %x {allocation.offset = 1536 : i32} : \
(tensor<128xi32, #blocked>) -> !ttg.memdesc<128xi32, #shared, #smem>
    %u = ttg.local_load %d : !ttg.memdesc<128xi32> -> tensor<128xi32, #blocked>
    tt.return
  }
}
"""


def test_lives_go_around_loops():
    pieces = {piece.name: piece for piece in sharing.buffers(MODULE)}
    ops = {
        op.results[:1] or op.number: op.number
        for block in flow.read(MODULE)
        for op in block.operations
    }
    assert [piece.size for piece in pieces.values()] == [1024, 512, 512]
    # %b is not looked at in the loop, but after it.
    assert flow.live(flow.read(MODULE))["%b"] >= {ops["%z",], ops["%j",]}
    # %a is carried by %v, up to the last operation of the loop.
    assert pieces["%a"].start == ops["%a",]
    assert pieces["%a"].end == ops["%j",] + 2
    assert pieces["%b"].end == ops["%w",] + 1
    assert (pieces["%d"].start, pieces["%d"].end) == (ops["%d",], ops["%u",] + 1)
    places = {x.name: at for x, at in sharing.allocate(list(pieces.values())).items()}
    # When %d comes, %a is gone, and %b too.
    assert places == {"%a": 0, "%b": 1024, "%d": 0}
    assert sharing.total(sharing.allocate(list(pieces.values()))) == 1536


def test_barriers_by_hand():
    ops = {
        (op.results or (op.number,))[0]: op.number
        for block in flow.read(MODULE)
        for op in block.operations
    }
    # Slots apart: the first load needs one, and nothing is pending behind it.
    assert barriers.needed(MODULE).before == {ops["%y"], ops["%u"]}
    whole = barriers.needed(MODULE, slots=False)
    assert whole.before == {ops["%y"] - 1, ops["%y"], ops["%u"]}
    # In the place that %a had, %d is written where others may read still.
    moved = barriers.needed(MODULE, {"%d": 0})
    assert moved.before == {ops["%y"], ops["%d"], ops["%u"]}
    assert not moved.after
    assert not moved.within


@pytest.mark.parametrize("seed", range(20))
def test_places_are_apart(seed):
    rng = np.random.default_rng(seed)
    pieces = []
    for n in range(12):
        start, size = int(rng.integers(0, 30)), int(rng.integers(1, 9)) * 16
        end = start + int(rng.integers(1, 12))
        pieces.append(
            Buffer(str(n), size, int(2 ** rng.integers(4, 8)), start, end, None)
        )
    placed = sharing.allocate(pieces)
    assert sharing.collisions(placed) == []
    assert all(at % piece.align == 0 for piece, at in placed.items())
    at_once = max(
        sum(x.size for x in pieces if x.start <= t < x.end) for t in range(45)
    )
    assert at_once <= sharing.total(placed) <= sum(x.size + x.align for x in pieces)


def test_collisions_are_seen():
    a, b = Buffer("a", 32, 16, 0, 5, 0), Buffer("b", 32, 16, 4, 9, 16)
    c = Buffer("c", 32, 16, 5, 9, 16)
    assert sharing.collisions({a: 0, b: 16, c: 48}) == [("b", "a")]
    assert sharing.collisions({a: 0, c: 16}) == []
    assert sharing.total({}) == 0


def test_what_is_not_read_is_said():
    with pytest.raises(ValueError, match="one function is read"):
        flow.read(MODULE.replace("ttg.local_store", "ttg.warp_specialize"))
    with pytest.raises(ValueError, match=r"what tt\.scan needs isn't known"):
        sharing.buffers(
            re.sub(
                r"tt\.make_range \{", "tt.scan {allocation.offset = 0 : i32, ", MODULE
            )
        )


MISTAKES = [
    (flow, "uses[block.label] | behind - makes[block.label]", "uses[block.label]"),
    (flow, "alive -= set(op.results)", "pass"),
    (flow, 'op.name.startswith(("ttg.memdesc_", "arith.select"))', "False"),
    (sharing, "max(at) + 1", "max(at)"),
    (sharing, "other.meets(each) and", ""),
    (sharing, "-(-behind // each.align) * each.align", "behind"),
    (barriers, "if op.number in self.before:", "if False:"),
    (barriers, "pending.read | pending.written", "pending.written"),
    (barriers, "states[label].joined(left)", "left"),
    (barriers, "return Pending(read=written)", "return Pending()"),
]  # fmt: skip


def everything():
    catalogue.kernels.cache_clear()
    catalogue.lowered.cache_clear()
    for name in ("softmax persistent", "product here, sm_80, 4", "product persistent"):
        test_memory_is_tritons(name)
        test_barriers_are_tritons(name)
    test_lives_go_around_loops()
    test_barriers_by_hand()
    for seed in range(6):
        test_places_are_apart(seed)


@pytest.mark.parametrize(("module", "old", "new"), MISTAKES, ids=lambda _: "")
def test_each_mistake_is_noticed(module, old, new):
    with testing.mutated_module(module, old, new), pytest.raises(AssertionError):
        everything()


def test_layouts_are_read_where_they_are_used():
    assert layouts.reach(
        spelled.read("#ttg.slice<{dim = 0, parent = #ttg.blocked<{sizePerThread = "
                     "[1, 4], threadsPerWarp = [1, 32], warpsPerCTA = [4, 1], order = "
                     "[1, 0]}>}>", (128,)),
        spelled.read("#ttg.blocked<{sizePerThread = [1], threadsPerWarp = [32], "
                     "warpsPerCTA = [4], order = [0]}>", (128,)),
    ) == "lane"  # fmt: skip
