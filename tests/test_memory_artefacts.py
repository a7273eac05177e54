"""What the chapter says of the compiled kernels, on every target."""

import pytest
import torch

from tilebook import compile_only
from tilebook.memory import (
    capped,
    chase,
    contention,
    deep,
    engine,
    hinted,
    intensity,
    narrow,
    persistent,
    streams,
    strided,
    strides,
    sweep,
    wide,
)

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
N = 2**20


def meta(n=N, dtype=torch.int64):
    return torch.empty(n, dtype=dtype, device="meta")


def compiled(kernel, *args, target="sm_90", **options):
    return compile_only.compile(kernel, *args, target=target, **options).evidence


def clean(evidence):
    assert evidence.spill_store_bytes == evidence.spill_load_bytes == 0
    assert not evidence.warnings
    return evidence


def copied(rung, target="sm_90", dtype=torch.int64, n=N, **options):
    x, out = meta(n, dtype), meta(n, dtype)
    if rung is narrow:
        more = {"BLOCK": narrow.BLOCK, "num_warps": narrow.NUM_WARPS}
        return compiled(rung.copy_kernel, x, out, n, target=target, **more)
    loads = deep.LOADS if rung is deep else 1
    more = {"BLOCK": wide.block_of(x, loads=loads), "num_warps": wide.NUM_WARPS}
    if rung is capped:
        config = options.get("config", capped.config_for(n * dtype.itemsize))
        more = {"BLOCK": 16 * 128 * config.loads // dtype.itemsize, "num_warps": 4}
        more |= {"TAIL": config.tail, "LOAD": config.load, "STORE": config.store}
        more |= {"maxnreg": config.maxnreg} if config.maxnreg else {}
    if rung is persistent:
        more["STAGES"] = options.get("stages", persistent.STAGES)
    if rung is hinted:
        more |= {"LOAD": "", "KEEP": "evict_first", "STORE": ".cs", "LEAVE": ""}
    kernel = wide.copy_kernel if rung is deep else rung.copy_kernel
    return compiled(kernel, x, out, n, target=target, **more)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rung", [narrow, wide, deep, persistent, hinted, capped])
def test_every_rung_compiles_and_spills_nothing(rung, target):
    clean(copied(rung, target))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_narrow_loads_are_as_narrow_as_elements_and_wide_ones_are_not(dtype):
    bits = 8 * dtype.itemsize
    assert set(copied(narrow, dtype=dtype).global_loads) == {bits}
    assert set(copied(narrow, dtype=dtype).global_stores) == {bits}
    for n in (N, N + 7):
        evidence = copied(wide, dtype=dtype, n=n)
        assert evidence.global_loads[128] == evidence.global_stores[128] == 1


@pytest.mark.parametrize("gpu", capped.CAPS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_a_cap_is_what_a_thread_holds(gpu, dtype):
    for _, config in capped.CAPS[gpu]:
        # What the ragged tail may spill under the cap, only the tail pays for.
        evidence = copied(capped, dtype=dtype, config=config)
        assert not evidence.warnings
        assert evidence.registers == config.maxnreg
        assert evidence.global_loads[128] == config.loads
        assert evidence.global_stores[128] == config.loads


def test_deep_has_several_loads_on_their_way():
    evidence = copied(deep)
    assert evidence.global_loads[128] == deep.LOADS


def test_persistent_loads_ahead_through_shared_memory():
    ahead = copied(persistent)
    assert ahead.async_copies > 0
    tile = 16 * 32 * wide.NUM_WARPS
    assert ahead.shared_bytes >= (persistent.STAGES - 1) * tile
    assert copied(persistent, stages=1).async_copies == 0


@pytest.mark.parametrize("target", ["sm_90", "sm_100"])
def test_the_engine_moves_tiles_past_the_registers(target):
    matrix = torch.empty(4096, engine.COLUMNS, dtype=torch.int32, device="meta")
    described = [engine.describe(matrix, engine.ROWS) for _ in range(2)]
    evidence = clean(
        compiled(
            engine.copy_kernel,
            *described,
            4096 // engine.ROWS,
            STAGES=engine.STAGES,
            num_warps=1,
            target=target,
        )
    )
    assert evidence.tma_loads == engine.STAGES
    assert evidence.tma_stores == 1
    assert evidence.mbarriers == engine.STAGES
    assert not evidence.global_loads
    assert not evidence.global_stores
    ring = engine.STAGES * engine.ROWS * engine.COLUMNS * 4
    assert ring <= evidence.shared_bytes <= ring + 1024


@pytest.mark.parametrize("target", TARGETS)
def test_the_kernels_that_ask_questions_compile(target):
    x, y, out = (meta(N, torch.float32) for _ in range(3))
    longs, ints, block = meta(), meta(N, torch.int32), {"BLOCK": streams.BLOCK}
    places, strided_by = {"BLOCK": contention.BLOCK}, {"BLOCK": strides.BLOCK}
    launches = [
        (streams.sum_kernel, x, out, N, block),
        (streams.fill_kernel, out, 1.5, N, block),
        (streams.triad_kernel, x, y, out, 1.5, N, block),
        (strides.pick_kernel, x, out, N, 3, 1, strided_by),
        (sweep.sweep_kernel, ints, ints, N, 3, {"BLOCK": sweep.BLOCK}),
        (contention.count_kernel, ints, 1000, 5, places),
        (intensity.work_kernel, x, out, N, 9, 0.5, 1.0, {"BLOCK": intensity.BLOCK}),
        (chase.chase_kernel, longs, longs, 100, {"num_warps": 1}),
    ]
    for kernel, *args, options in launches:
        clean(compiled(kernel, *args, target=target, **options))
    dims = ((300, 40, 7), (280, 1, 40), (1, 300, 12_000))
    for wide_count in (False, True):
        options = {"NDIM": 3, "WIDE": wide_count, "BLOCK": strided.BLOCK}
        clean(compiled(strided.copy_kernel, x, out, N, *dims, target=target, **options))


def test_a_volatile_load_is_not_taken_out_of_its_loop():
    x = meta(N, torch.int32)
    artefact = compile_only.compile(
        sweep.sweep_kernel, x, x, N, 3, BLOCK=sweep.BLOCK, target="sm_90"
    )
    assert "ld.volatile.global" in artefact.ptx


def test_work_is_one_instruction_a_step():
    x = meta(N, torch.float32)
    artefact = compile_only.compile(
        intensity.work_kernel, x, x, N, 9, 0.5, 1.0, BLOCK=1024, target="sm_90"
    )
    assert "fma.rn.f32" in artefact.ptx
    assert "mul.rn.f32" not in artefact.ptx
