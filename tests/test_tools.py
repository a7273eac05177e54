"""The tracer: it finds what is planted, and has nothing against the book's kernels."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from tilebook import (
    attention,
    compile_only,
    device,
    fp8,
    matmul,
    memory,
    microscope,
    parallel,
    softmax,
    testing,
    tiling,
    tools,
)
from tilebook.matmul import bugs as matmul_bugs
from tilebook.memory import bugs as memory_bugs
from tilebook.memory import streams, strides, sweep
from tilebook.parallel import bugs
from tilebook.softmax import bugs as softmax_bugs
from tilebook.tiling import blur, by_hand, indexed, layouts, reduce
from tilebook.tiling import bugs as tiling_bugs
from tilebook.tools import warps

PLANTED = {**bugs.GALLERY, **tiling_bugs.GALLERY}
STRAYS = {
    "no-mask": ("load of x_ptr[1000]", "store of out_ptr[1000]"),
    "off-by-one": ("store of out_ptr[1000]",),
    "int32-offset": ("load of x_ptr[-2147483648]",),
    "swapped-strides": ("store of out_ptr[960]",),
    "narrow-rows": ("load of x_ptr[-2147483648]",),
}
RACES = {
    "thread-index": ("store/store race on 257 elements", "the same value each time"),
    "moved-back": ("x_ptr[744]",),
    "lost-update": ("total_ptr[0]",),
    "in-place-neighbour": ("load/store race on 3 elements of x_ptr",),
    "packed-neighbour": ("store/store race on 212 elements of out_ptr",),
    "half-a-mask": ("race on 152 elements of out_ptr",),
    "unturned-mask": ("race on 144 elements of out_ptr",),
}
REFUSED = {"ragged-block": "power of 2", "born-in-a-branch": "'y'"}
MISSED = {"floor-grid": 232, "thread-index": 741, "swapped-strides": 560}


def traced(case, inputs):
    plan = case.launch(*inputs)
    return tools.trace(case.kernel)[plan.grid](*plan.args, **plan.meta)


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_and_the_mend_is_clean(name):
    bug = PLANTED[name]
    said = traced(bug.wrong, bug.inputs())
    every = "\n".join(said.problems())
    for words in (*STRAYS.get(name, ()), *RACES.get(name, ())):
        assert words in every
    assert bool(said.strays) == (name in STRAYS)
    assert bool(said.races) == (name in RACES)
    assert REFUSED.get(name, "") in every
    if name not in {*STRAYS, *RACES, *REFUSED}:
        assert not said.problems()
    if name in MISSED:
        (missed,) = said.unwritten.values()
        assert missed.size == MISSED[name]
    assert not traced(bug.mended, bug.inputs()).problems()


def test_the_mends_of_other_chapters_galleries_are_clean(interpreted):
    # Theirs are wrong numbers at right addresses, and tuning's twice added sum.
    for gallery in (softmax_bugs.GALLERY, matmul_bugs.GALLERY):
        for bug in gallery.values():
            with tools.tracing() as launches:
                bug.mended.run(*bug.friendly())
            assert launches, bug.name
            assert not [said for found in launches for said in found.problems()]


def floats(*shape):
    return torch.randn(shape, device=device.torch_device())


def halves(*shape):
    return floats(*shape).bfloat16()


SOFTMAX = (
    *(softmax.fused, softmax.several, softmax.persistent),
    *(softmax.ragged, softmax.online, softmax.split),
)
OWN = {
    **{
        f"add {rung.__name__.rpartition('.')[2]}": lambda rung=rung: rung.add(
            floats(1024), floats(1024)
        )
        for rung in parallel.LADDER
    },
    "add in place, strided": lambda: parallel.add(floats(9, 7).t(), floats(7, 9)),
    **{
        f"copy {rung.__name__.rpartition('.')[2]}": lambda rung=rung: rung.copy(
            floats(1024)
        )
        for rung in memory.LADDER
        if rung is not memory.engine
    },
    "copy": lambda: memory.copy(floats(5, 70).t()),
    "triad": lambda: streams.triad(floats(1000), floats(1000), 2.0),
    "block sums": lambda: streams.block_sums(floats(4096)),
    "pick": lambda: strides.pick(floats(4096), 3, 1000),
    "sweep": lambda: sweep.sweep(torch.arange(9000).int(), 2, programs=2),
    **{
        f"transpose {rung.__name__.rpartition('.')[2]}": lambda rung=rung: (
            rung.transpose(floats(40, 64))
        )
        for rung in tiling.LADDER
        if rung is not tiling.explicit
    },
    "transpose": lambda: tiling.transpose(floats(2, 33, 50)),
    "matmul by hand": lambda: by_hand.matmul(floats(20, 30), floats(30, 25)),
    "blur": lambda: blur.blur(
        torch.randint(0, 256, (20, 30), dtype=torch.uint8), size=3
    ),
    "gather": lambda: indexed.gather(floats(8, 9), 0, torch.zeros(8, 9).long()),
    "scatter_add": lambda: indexed.scatter_add(
        floats(8, 9), 0, torch.zeros(8, 9).long(), floats(8, 9)
    ),
    "total": lambda: reduce.total(floats(3, 500), 1),
    **{
        f"softmax {rung.__name__.rpartition('.')[2]}": lambda rung=rung: rung.softmax(
            floats(6, 100)
        )
        for rung in SOFTMAX
    },
    "softmax columns": lambda: softmax.softmax(floats(6, 40), 0),
    **{
        f"matmul {rung.__name__.rpartition('.')[2]}": lambda rung=rung: rung.matmul(
            halves(48, 40), halves(40, 32)
        )
        for rung in matmul.LADDER
    },
    "matmul": lambda: matmul.matmul(floats(17, 40), floats(40, 33)),
    "linear": lambda: matmul.linear(floats(17, 40), floats(33, 40), floats(33)),
    "attention": lambda: attention.attention(*(halves(1, 2, 40, 32) for _ in "qkv")),
    "quantize": lambda: fp8.quantize(floats(20, 100)),
}


@pytest.mark.parametrize("name", OWN)
def test_nothing_against_the_books_own_kernels(name, interpreted):
    with tools.tracing() as launches:
        OWN[name]()
    assert launches
    for found in launches:
        assert found.accesses
        assert not found.problems(), found.report()


def test_gradients_too(interpreted):
    x = floats(6, 100).requires_grad_()
    q = floats(1, 1, 20, 16).requires_grad_()
    with tools.tracing() as launches:
        softmax.softmax(x).sum().backward()
        attention.attention(q, q.detach(), q.detach()).sum().backward()
    assert len(launches) > 3
    assert not [said for found in launches for said in found.problems()]


# Layouts of warps.


@triton.jit
def add_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + offs, tl.load(x_ptr + offs, offs < n, 0.0), offs < n)


@triton.jit
def turned_kernel(x_ptr, out_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    rows, columns = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    x = tl.load(x_ptr + columns * ROWS + rows)
    tl.store(out_ptr + rows * COLUMNS + columns, x)


def vectors(n, dtype=torch.float32):
    return torch.zeros(n, dtype=dtype), torch.zeros(n, dtype=dtype)


LAUNCHES = {
    "vector": (add_kernel, *vectors(4096), 4096, {"BLOCK": 1024}),
    "halves": (add_kernel, *vectors(4096, torch.float16), 4096, {"BLOCK": 2048}),
    "small": (add_kernel, *vectors(4096), 4096, {"BLOCK": 256}),
    "eight warps": (add_kernel, *vectors(4096), 4096, {"BLOCK": 1024, "num_warps": 8}),
    "tile": (turned_kernel, *vectors(4096), {"ROWS": 64, "COLUMNS": 64}),
    "wide": (turned_kernel, *vectors(4096), {"ROWS": 16, "COLUMNS": 128}),
    "bytes": (turned_kernel, *vectors(4096, torch.int8), {"ROWS": 32, "COLUMNS": 64}),
}


@pytest.mark.parametrize("name", LAUNCHES)
def test_layouts_are_the_compilers(name):
    kernel, *args, meta = LAUNCHES[name]
    made = compile_only.compile(kernel, *args, **meta)
    known = set(map(tuple, layouts.blocked(made.ttgir).values()))
    found = tools.trace(kernel)[(1,)](*args, **meta)
    assert found.num_warps == meta.get("num_warps", 4)
    for access in found.accesses:
        assert tuple(warps.blocked(access, found.num_warps)) in known, made.ttgir


def test_sectors_of_strides():
    x, out = vectors(4096)
    for stride, sectors in ((1, 4), (2, 8), (8, 32), (100, 32)):
        look = microscope.look(
            strides.pick_kernel, (1,), x, out, 4096 // stride, stride, 0, BLOCK=128
        )
        (access,) = (a for a in look.accesses if a.op == "load")
        whole = 128 * stride <= 4096
        asked = warps.requests(access, 1)
        if stride == 1:
            assert asked == (1, 16, 16, 4)
        elif whole:
            assert asked == (4, 4 * sectors, 16, 1)
        else:
            assert asked.sectors == int(access.mask.sum())


def test_sectors_begin_where_memory_does():
    x, out = torch.zeros(1100), torch.zeros(1024)
    for shift, sectors, vector in ((0, 16, 4), (1, 5, 1), (2, 9, 2), (8, 16, 4)):
        found = tools.trace(add_kernel)[(1,)](x[shift:], out, 1024, BLOCK=1024)
        row = found.warps.set_index("op").loc["load"]
        assert (row["sectors"], row["vector"]) == (sectors, vector)
        assert row["least"] == 4 * vector


def test_scattered_and_ordered():
    x = torch.arange(64 * 128, dtype=torch.float32).view(64, 128)
    used = {}
    for kernel in (memory_bugs.scattered_kernel, memory_bugs.ordered_kernel):
        found = tools.trace(kernel)[(2, 2)](
            x, torch.empty_like(x), 64, 128, BLOCK_M=32, BLOCK_N=64
        )
        used[kernel.__name__] = list(found.warps["used"])
    assert used == {"scattered_kernel": [1 / 8, 1 / 8], "ordered_kernel": [1, 1]}


def case_trace(name):
    x, scale, out = torch.randn(64, 256), torch.rand(64, 2), torch.empty(64, 256)
    step = tools.case.STEPS[name]
    grid, args, meta = step.arguments(x, scale, out)
    found = tools.trace(step.kernel)[grid](*args, **meta)
    assert torch.equal(out, tools.case.reference(x, scale))
    return found


def test_what_the_compiler_cannot_prove():
    ordered = case_trace("rows along lanes")
    assert list(ordered.warps["vector"]) == [4, 1, 4]
    assert list(ordered.compiled().warps["vector"]) == [1, 1, 1]
    found = case_trace("as found").compiled()
    loads = found.warps[found.warps["argument"] == "x_ptr"]
    assert list(loads["sectors"]) == [32.0]
    assert list(loads["least"]) == [4.0]
    wide = case_trace("wide").compiled().warps
    assert list(wide["sectors"]) == [16.0, 1.0, 16.0]
    # A side of the tile's layout: scales of rows.
    assert list(wide["vector"]) == [4, 1, 4]
    assert "32.0 sectors each where 4.0 would do" in found.report()
    assert "32 sectors of 32 bytes, in which 128 of 1024" in found.requests().alt


@triton.jit
def loaded(x_ptr, offs):
    return tl.load(x_ptr + offs)


@triton.jit
def helped_kernel(x_ptr, out_ptr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.atomic_add(out_ptr + offs, loaded(x_ptr, offs))


def test_layouts_of_helpers_and_atomics_are_found_by_line():
    found = tools.trace(helped_kernel)[(1,)](*vectors(512), BLOCK=512).compiled()
    places = {("test_tools.py", a.line, a.op, 1) for a in found.accesses}
    assert places == found.layouts.keys()
    assert {op for _, _, op, _ in found.layouts} == {"load", "atomic"}
    assert "in a helper" in found.report()


def test_one_element_is_one_request_of_one_lane():
    bug = bugs.GALLERY["lost-update"]
    found = traced(bug.mended, bug.inputs())
    row = found.warps.set_index("op").loc["atomic"]
    assert (row["requests"], row["sectors"], row["vector"]) == (4, 1, 1)


# What a trace says.


def test_traffic_and_reuse():
    with tools.tracing() as launches:
        by_hand.matmul(floats(32, 32), floats(32, 32))
    (found,) = launches
    seen = {name: (t.moved, t.needed, t.reuse) for name, t in found.traffic.items()}
    assert seen["c_ptr"] == (4096, 4096, 1)
    assert seen["a_ptr"][1] == 4096
    assert seen["a_ptr"][2] == seen["a_ptr"][0] / 4096 >= 1


def test_a_report_says_all_of_it():
    bug = bugs.GALLERY["no-mask"]
    said = traced(bug.wrong, bug.inputs()).report().splitlines()
    assert said[0] == "square_unmasked_kernel: 4 programs of 4 warps, 4 touched memory"
    assert said[1].endswith("x = tl.load(x_ptr + offs)  # (BLOCK,)")
    assert "x_ptr: 4,000 bytes moved, 4,000 needed, each 1.00 times" in said
    assert said[-1].startswith("out of bounds: program (3, 0, 0)")
    clean = traced(bug.mended, bug.inputs()).report()
    assert clean.endswith("no access out of bounds, no race")
    assert "requests, 2 elements a lane, 7.8 sectors" in clean
    floor = bugs.GALLERY["floor-grid"]
    said = traced(floor.wrong, floor.inputs()).report()
    assert "out_ptr: 232 elements that nobody wrote, the first is 768" in said


def test_pictures_say_what_they_show():
    bug = bugs.GALLERY["thread-index"]
    found = traced(bug.wrong, bug.inputs())
    owners = found.picture("out_ptr")
    assert "257 elements belong to several, 741 to nobody" in owners.alt
    assert "program 0, several, several" in owners.alt
    assert owners.figure._repr_svg_().count("<path") > 1000
    request = found.requests()
    assert "8 sectors of 32 bytes, in which 256 of 256 bytes are wanted" in request.alt
    with pytest.raises(ValueError, match="line 1 touches no memory"):
        found.requests(1)
    with pytest.raises(ValueError, match="no tensor 'y'"):
        found.picture("y")
    x, out = vectors(65536)
    found = tools.trace(add_kernel)[(64,)](x, out, 65536, BLOCK=1024)
    with pytest.raises(ValueError, match="64 elements at most"):
        found.picture("x_ptr", "load")


def test_refusals():
    with pytest.raises(ValueError, match="lanes must be"):
        tools.trace(add_kernel, lanes=16)
    with pytest.raises(TypeError, match="decorated"):
        tools.trace(len)[(1,)]()


def test_every_stray_is_collected_and_the_kernel_goes_on():
    bug = bugs.GALLERY["no-mask"]
    found = traced(bug.wrong, bug.inputs())
    assert found.look.error is None
    assert [stray.op for stray in found.strays] == ["load", "store"]
    for stray in found.strays:
        assert np.array_equal(stray.elements, np.arange(1000, 1024))
        assert stray.program == (3, 0, 0)


@triton.jit
def exchange_kernel(x_ptr, out_ptr):
    tl.store(out_ptr, tl.atomic_cas(x_ptr + 5, 0, 1) + 7)
    tl.atomic_add(x_ptr + tl.arange(0, 4), 1)


def test_atomics_that_stray():
    x, out = torch.zeros(3, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    found = tools.trace(exchange_kernel)[(1,)](x, out)
    assert [(s.op, s.elements.tolist()) for s in found.strays] == [
        ("atomic", [5]),
        ("atomic", [3]),
    ]
    assert (x.tolist(), out.tolist()) == ([1, 1, 1], [7])


def test_mistakes_turn_the_tests_red():
    for old, new in (
        ("agreement.same_bytes(self.accesses, race)", "False"),
        ("tuple(args), meta, straying=True)", "tuple(args), meta)"),
    ):
        from tilebook.tools import tracer

        with testing.mutated_module(tracer, old, new):
            red = 0
            for name in ("thread-index", "no-mask"):
                try:
                    test_what_is_planted_is_found_and_the_mend_is_clean(name)
                except AssertionError:
                    red += 1
        assert red, old


def test_strays_come_from_another_process_too():
    from tilebook.microscope import run

    x, out = torch.zeros(10), torch.zeros(16)
    meta = {"BLOCK": 16}
    log = run.record_elsewhere(
        add_kernel, (1, 1, 1), (x, out, 12), meta, frozenset(), straying=True
    )
    assert log.error is None
    assert [(s.op, s.argument, s.elements.tolist()) for s in log.strays] == [
        ("load", "x_ptr", [10, 11])
    ]


@triton.jit
def added_kernel(x_ptr, rows, COLUMNS: tl.constexpr):
    desc = tl.make_tensor_descriptor(x_ptr, [rows, COLUMNS], [COLUMNS, 1], [4, COLUMNS])
    desc.atomic_add([0, 0], tl.zeros((4, COLUMNS), tl.float32) + 2.0)


def test_a_descriptor_larger_than_its_tensor():
    x = torch.zeros(2, 4)
    found = tools.trace(added_kernel)[(1,)](x, 3, COLUMNS=4)
    ((stray,),) = (found.strays,)
    assert (stray.op, stray.elements.tolist()) == ("atomic", [8, 9, 10, 11])
    assert (x == 2).all()
