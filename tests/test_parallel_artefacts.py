"""Every kernel of the chapter compiles for every target, and what came out of it."""

import pytest
import torch

from tilebook import compile_only
from tilebook.parallel import (
    greyscale,
    grid,
    launch,
    masked,
    semantics,
    single,
    strided,
    whole,
    wide,
)

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
N = 2**20
ODD = N + 7


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def compiled(rung, n=N, dtype=torch.float32, target="sm_90", cap=None):
    vectors = [meta(n, dtype=dtype) for _ in range(3)]
    if rung is single:
        return compile_only.compile(
            rung.add_kernel, *vectors, BLOCK=4096, target=target
        )
    if rung is grid:
        return compile_only.compile(
            rung.add_kernel, *vectors, BLOCK=grid.BLOCK, target=target
        )
    if rung is whole:
        warp_size = 64 if target == "gfx942" else 32
        config = whole.config_for(dtype.itemsize, 0, warp_size=warp_size)
        return compile_only.compile(
            rung.add_kernel,
            *vectors,
            n,
            BLOCK=config.block,
            TAIL=whole.TAIL if cap else config.tail,
            num_warps=config.num_warps,
            target=target,
            **({"maxnreg": cap} if cap else {}),
        )
    return compile_only.compile(
        rung.add_kernel, *vectors, n, BLOCK=rung.BLOCK, target=target
    )


def name(rung):
    return rung.__name__.rpartition(".")[2]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rung", [single, grid, masked, strided, wide, whole], ids=name)
def test_the_ladder_moves_16_bytes_at_a_time_and_spills_nothing(rung, target):
    for dtype in (torch.float32, torch.bfloat16):
        evidence = compiled(rung, dtype=dtype, target=target).evidence
        assert evidence.spill_store_bytes == evidence.spill_load_bytes == 0
        assert evidence.stack_bytes == 0
        assert not evidence.warnings
        # Half of these blocks of bfloat16 leave a thread of gfx942 with 8 bytes only.
        narrow = target == "gfx942" and dtype.itemsize == 2 and rung is not whole
        widest = 64 if narrow else 128
        assert max(evidence.global_loads) >= widest
        assert max(evidence.global_stores) >= widest
        if target.startswith("sm_") and rung is not whole:
            assert set(evidence.global_loads) == {128}


def test_an_odd_length_narrows_masked_loads_and_not_whole_ones():
    for dtype in (torch.float32, torch.bfloat16):
        bits = 8 * dtype.itemsize
        assert set(compiled(masked, ODD, dtype).evidence.global_loads) == {bits}
        assert set(compiled(whole, ODD, dtype).evidence.global_loads) == {bits, 128}


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.bfloat16, torch.float32, torch.int64]
)
def test_registers_say_how_many_programs_fit(dtype):
    """65,536 registers, dealt out by eights to threads, whatever n is."""
    for n in (N, ODD):
        # All 2048 threads of an SM.
        assert compiled(whole, n, dtype).evidence.registers <= 32
        for cap in sorted({cap for caps in whole.CAPS.values() for _, cap in caps}):
            capped = compiled(whole, n, dtype, cap=cap).evidence
            assert cap - 8 < capped.registers <= cap
            assert 128 in capped.global_loads


def test_one_program_too_large_spills():
    vectors = [meta(N) for _ in range(3)]
    fits = compile_only.compile(single.add_kernel, *vectors, BLOCK=single.LARGEST)
    assert fits.evidence.spill_store_bytes == 0
    spilt = compile_only.compile(single.add_kernel, *vectors, BLOCK=4 * single.LARGEST)
    assert spilt.evidence.spill_store_bytes > 0


def test_64_bit_offsets_cost_no_wider_loads():
    narrow, wider = compiled(masked).evidence, compiled(wide).evidence
    assert wider.global_loads == narrow.global_loads
    assert abs(wider.registers - narrow.registers) <= 8


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("how", ["integer", "float", "wrapping"])
def test_greyscale(how, target):
    evidence = compile_only.compile(
        getattr(greyscale, f"{how}_kernel"),
        meta(600, 512, 3, dtype=torch.uint8),
        meta(600, 512, dtype=torch.uint8),
        *(600, 512, 1536, 3, 1),
        BLOCK_H=greyscale.BLOCK_H,
        BLOCK_W=greyscale.BLOCK_W,
        target=target,
    ).evidence
    assert evidence.spill_store_bytes == 0
    assert set(evidence.global_loads) == {8}


@pytest.mark.parametrize("target", TARGETS)
def test_launches(target):
    x = meta(4096)
    for kernel, arguments in (
        (launch.empty_kernel, ()),
        (launch.four_kernel, (x, x, x, 4096)),
        (launch.sixteen_kernel, (*(x,) * 12, 16, 32, 48, 64)),
    ):
        evidence = compile_only.compile(kernel, *arguments, target=target).evidence
        assert not evidence.global_loads
        assert not evidence.global_stores
    link = compile_only.compile(
        launch.link_kernel, x, x, x, 4096, BLOCK=1024, DEPENDENT=False, target=target
    )
    assert max(link.evidence.global_loads) == 128


@pytest.mark.parametrize("target", TARGETS)
def test_descriptors_are_the_tensor_memory_accelerators(target):
    vectors = launch.describe_vectors(*(meta(4096) for _ in range(3)))
    evidence = compile_only.compile(
        launch.descriptor_kernel, *vectors, BLOCK=launch.BLOCK, target=target
    ).evidence
    tma = target in ("sm_90", "sm_100")
    assert (evidence.tma_loads, evidence.tma_stores) == ((2, 1) if tma else (0, 0))
    assert bool(evidence.global_loads) == (not tma)


@pytest.mark.parametrize("target", ["sm_90", "sm_100"])
def test_a_dependent_launch_reads_its_term_before_it_waits(target):
    x = meta(4096)
    ptx = compile_only.compile(
        launch.link_kernel,
        *(x, x, x, 4096),
        BLOCK=1024,
        DEPENDENT=True,
        launch_pdl=True,
        target=target,
    ).ptx
    words = {
        "griddepcontrol.launch_dependents": "let go",
        "griddepcontrol.wait": "wait",
        "ld.global": "load",
        "st.global": "store",
    }
    order = [
        what
        for line in ptx.splitlines()
        for word, what in words.items()
        if word in line
    ]
    loads = order.count("load") // 2
    assert loads >= 1
    expected = ["let go", *["load"] * loads, "wait", *["load"] * loads]
    assert order == expected + ["store"] * loads


@pytest.mark.parametrize("target", TARGETS)
def test_semantics(target):
    ints = [meta(16, dtype=torch.int32) for _ in range(4)]
    floats = [meta(16) for _ in range(4)]
    for kernel, arguments, constants in (
        (semantics.division_kernel, ints, {"BLOCK": 16}),
        (semantics.cast_kernel, (floats[0], ints[0]), {"BLOCK": 16}),
        (semantics.extremes_kernel, floats, {"BLOCK": 16}),
        (semantics.offset_kernel, ints[:2], {"BLOCK": 2**29}),
        (
            semantics.sum_type_kernel,
            (floats[0], ints[0], ints[1]),
            {"BLOCK": 16, "TYPES": tuple(semantics.TYPES.values())},
        ),
    ):
        artefact = compile_only.compile(kernel, *arguments, target=target, **constants)
        assert artefact.evidence.spill_store_bytes == 0


@pytest.mark.parametrize(("n", "divides"), [(1, 1), (3, 2)])
def test_an_argument_of_one_is_divided_while_compiling(n, divides):
    out = meta(3, dtype=torch.int32)
    ttir = compile_only.compile(semantics.literal_kernel, out, n, A=-7, B=2).ttir
    assert ttir.count("arith.divsi") == divides
    # Python's result of -1 // 2, stored as it is; C's would be 0.
    assert ("arith.constant -1 : i32" in ttir) == (n == 1)
