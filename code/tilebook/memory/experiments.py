"""What the chapter measures: a copy's ladder, strides, and bytes in flight."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from tilebook import device, measure
from tilebook.measure import Bench, Provider, Row
from tilebook.memory import (
    capped,
    conclusions,
    copy,
    deep,
    engine,
    flight,
    hinted,
    machine,
    machine_conclusions,
    narrow,
    persistent,
    strides,
    vectors,
    wide,
)
from tilebook.memory.machine import N, normal

__all__ = [
    "conclusions",
    "machine",
    "machine_conclusions",
    "memory_copy",
    "memory_occupancy",
    "memory_stride",
]

SIZES = (2**14, 98_432, 2**18, 1_000_003, 2**22, 2**24, 2**26, 2**26 + 7, 2**28)
SIZES_BRIEF = (2**18, 2**22, 2**26)
DTYPES = (torch.float32, torch.bfloat16)
PICKED = 2**24
"""Elements taken at each stride: starting must not count."""
STRIDES = (1, 2, 3, 4, 8, 16, 32, 64)
STRIDES_BRIEF = (1, 2, 8, 32)
SHIFTS = (0, 1, 2, 4, 8)
WARPS = (1, 2, 4, 8, 16)
WARPS_BRIEF = (1, 4, 16)
LOADS = (1, 2, 4, 8)
LOADS_BRIEF = (1, 4)
CAPS = (None, 40, 48, 64, 80, 96, 128, 168, 255)
CAPS_BRIEF = (None, 64, 128, 255)
"""Registers of a thread, from as few as it needs to so many that 256 threads live."""
HUNGRY = 8192
"""Words in a step of the ragged tile that make a thread ask for all registers."""
STAGES = (1, 2, 3, 4, 6)


@measure.experiment(
    "memory-copy",
    question="How near does each rung of copy come to the memory's limit, and to "
    "PyTorch's own?",
    op="copy",
    modules=(
        "memory.narrow",
        "memory.wide",
        "memory.deep",
        "memory.persistent",
        "memory.hinted",
        "memory.engine",
        "memory.capped",
        "memory.public",
    ),
)
def memory_copy(bench: Bench) -> list[Row]:
    rungs = {"narrow": narrow, "wide": wide, "deep": deep, "persistent": persistent}
    rungs["hinted"] = hinted
    if device.has("tma"):
        rungs["engine"] = engine
    rungs["capped"] = capped
    providers = {
        name: Provider(rung.copy, ours=True, out=True) for name, rung in rungs.items()
    }
    providers |= {
        "copy": Provider(copy, ours=True, out=True),
        "copy, new output": Provider(copy, ours=True),
        "copy_": Provider(lambda x, *, out: out.copy_(x), out=True),
        "torch.clone": Provider(torch.clone),
        "torch.compile": measure.compiled(lambda x: x.clone()),
    }
    for dtype in DTYPES:
        for n in bench.choose(SIZES, SIZES_BRIEF):
            bench.compare(
                shape={"n": n},
                dtype=dtype,
                providers=providers,
                make_inputs=functools.partial(normal, n, dtype),
                reference=torch.clone,
                bytes=2 * n * dtype.itemsize,
                along=0,
            )
    return bench.rows


@measure.experiment(
    "memory-stride",
    question="What do gaps between the elements cost, and a start off the beat?",
    op="pick",
    modules=("memory.strides",),
)
def memory_stride(bench: Bench) -> list[Row]:
    for dtype in DTYPES:
        for stride in bench.choose(STRIDES, STRIDES_BRIEF):
            _pick(bench, dtype, PICKED, stride, 0)
        for shift in SHIFTS[1:]:
            _pick(bench, dtype, PICKED, 1, shift)
    return bench.rows


def _pick(bench: Bench, dtype: torch.dtype, n: int, stride: int, shift: int) -> None:
    fn = functools.partial(strides.pick, stride=stride, n=n, shift=shift)
    bench.compare(
        shape={"n": n, "stride": stride, "shift": shift},
        dtype=dtype,
        providers={"pick": Provider(fn, ours=True)},
        make_inputs=functools.partial(normal, n * stride + shift, dtype),
        reference=lambda x: x[shift::stride][:n].contiguous(),
        bytes=2 * n * dtype.itemsize,
        extra={"moved": strides.moved(n, stride, dtype.itemsize)},
    )


@measure.experiment(
    "memory-occupancy",
    question="How do warps, loads, registers and stages change what is on its way, and "
    "the bandwidth?",
    op="copy",
    modules=("memory.wide", "memory.capped", "memory.persistent", "memory.flight"),
)
def memory_occupancy(bench: Bench) -> list[Row]:
    for num_warps in bench.choose(WARPS, WARPS_BRIEF):
        for loads in bench.choose(LOADS, LOADS_BRIEF):
            launch = functools.partial(
                wide.launch, wide.copy_kernel, loads=loads, num_warps=num_warps
            )
            _fly(bench, "wide", launch, {"num_warps": num_warps, "loads": loads})
    for cap in bench.choose(CAPS, CAPS_BRIEF):
        for loads in bench.choose(LOADS[:3], LOADS_BRIEF):
            tail = HUNGRY if cap else 256
            config = capped.Config(loads, capped.SHORT.num_warps, tail, cap)
            launch = functools.partial(capped.launch_as, config)
            shape = {"num_warps": config.num_warps, "loads": loads}
            _fly(bench, "capped", launch, shape | {"maxnreg": cap or 0})
    for stages in STAGES:
        fn = functools.partial(persistent.copy, stages=stages)
        _copied(bench, "persistent", fn, {"stages": stages}, {})
    return bench.rows


def _fly(
    bench: Bench, impl: str, launch: Callable[..., Any], shape: dict[str, int]
) -> None:
    """Time a way of launching a copy, and note what is on its way meanwhile."""
    words = vectors.words(*normal(4096, count=2))
    registers = getattr(launch(*words), "n_regs", None) or 32
    threads = flight.threads(registers, shape["num_warps"])

    def fn(x: torch.Tensor, *, out: torch.Tensor) -> None:
        launch(*vectors.words(x, out))

    extra = {"registers": registers, "threads": threads}
    extra["kib"] = flight.kib(threads, shape["loads"])
    _copied(bench, impl, fn, shape, extra)


def _copied(
    bench: Bench,
    impl: str,
    fn: Callable[..., Any],
    shape: dict[str, int],
    extra: dict[str, float],
) -> None:
    bench.compare(
        shape={"n": N} | shape,
        dtype=torch.float32,
        providers={impl: Provider(fn, ours=True, out=True)},
        make_inputs=functools.partial(normal, N),
        reference=torch.clone,
        bytes=8 * N,
        along=0,
        regimes=("steady",),
        extra=extra | {"sms": device.current().sms or 1},
    )
