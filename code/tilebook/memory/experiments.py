"""What the chapter measures: a copy's ladder, strides, caches, latency, occupancy."""

import functools
import math

import torch

from tilebook import device, measure
from tilebook.measure import Bench, Provider, Row
from tilebook.memory import (
    chase,
    conclusions,
    contention,
    copy,
    deep,
    engine,
    hinted,
    intensity,
    machine_conclusions,
    narrow,
    persistent,
    streams,
    strides,
    sweep,
    wide,
)

__all__ = [
    "conclusions",
    "machine_conclusions",
    "memory_copy",
    "memory_l2",
    "memory_latency",
    "memory_occupancy",
    "memory_roofline",
    "memory_stride",
]

MIB = 2**20
SIZES = (2**14, 98_432, 2**18, 1_000_003, 2**22, 2**24, 2**26, 2**26 + 7, 2**28)
DTYPES = (torch.float32, torch.bfloat16)
N = 2**26
"""Elements of a vector that no cache holds."""
STRIDES = (1, 2, 3, 4, 8, 16, 32, 64)
SHIFTS = (0, 1, 2, 4, 8)
WORKING_SETS = tuple(round(MIB * 2 ** (e / 2)) for e in range(2, 21))  # 2 MiB to 1 GiB
CHAINS = tuple(2**e for e in range(13, 31))
HOPS = 4096
WARPS = (1, 2, 4, 8, 16)
LOADS = (1, 2, 4, 8)
REGISTERS = (32, 40, 48, 64, 96, 128, 168, 255)
STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
PLACES = (1, 2, 8, 32, 256, 4096, 65_536)
ADDERS, REPEATS = 1056, 64


def _normal(n: int, dtype: torch.dtype = torch.float32, count: int = 1) -> list:
    where = device.torch_device()
    return [torch.randn(n, device=where).to(dtype) for _ in range(count)]


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
        "memory.public",
    ),
)
def memory_copy(bench: Bench) -> list[Row]:
    rungs = {"narrow": narrow, "wide": wide, "deep": deep, "persistent": persistent}
    rungs["hinted"] = hinted
    if device.has("tma"):
        rungs["engine"] = engine
    providers = {
        name: Provider(rung.copy, ours=True, out=True) for name, rung in rungs.items()
    }
    providers |= {
        "copy": Provider(copy, ours=True, out=True),
        "copy, new output": Provider(copy, ours=True),
        "copy_": Provider(lambda x, *, out: out.copy_(x), out=True),
        "torch.clone": Provider(torch.clone),
    }
    for dtype in DTYPES:
        for n in SIZES:
            bench.compare(
                shape={"n": n},
                dtype=dtype,
                providers=providers,
                make_inputs=functools.partial(_normal, n, dtype),
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
        n = N // max(STRIDES)
        for stride in STRIDES:
            _pick(bench, dtype, n, stride, 0)
        for shift in SHIFTS[1:]:
            _pick(bench, dtype, n, 1, shift)
    return bench.rows


def _pick(bench: Bench, dtype: torch.dtype, n: int, stride: int, shift: int) -> None:
    fn = functools.partial(strides.pick, stride=stride, n=n, shift=shift)
    bench.compare(
        shape={"n": n, "stride": stride, "shift": shift},
        dtype=dtype,
        providers={"pick": Provider(fn, ours=True)},
        make_inputs=functools.partial(_normal, n * stride + shift, dtype),
        reference=lambda x: x[shift::stride][:n].contiguous(),
        bytes=2 * n * dtype.itemsize,
        extra={"moved": strides.moved(n, stride, dtype.itemsize)},
    )


@measure.experiment(
    "memory-l2",
    question="How large is the cache that all programs share, and how much faster?",
    op="sweep",
    modules=("memory.sweep",),
)
def memory_l2(bench: Bench) -> list[Row]:
    where = device.torch_device()
    programs = sweep.PER_SM * (device.current().sms or 1)
    for nbytes in WORKING_SETS:
        n = nbytes // 4
        # About as many bytes for each working set, so that starting doesn't count.
        passes = max(2, round(4 * WORKING_SETS[-1] / nbytes / 8))
        x = torch.randint(-(2**20), 2**20, (n,), dtype=torch.int32, device=where)
        call = functools.partial(sweep.sweep, x, passes, programs=programs)
        if not torch.equal(call(), sweep.shares(x, passes, programs)):
            raise measure.WrongResult(f"sweep of {nbytes} bytes")
        bench.row(
            impl="sweep",
            ours=True,
            shape={"nbytes": 4 * n, "passes": passes},
            dtype=torch.int32,
            regime="other",
            timing=bench.interleaved({"": lambda call=call: bench.time_steady(call)})[
                ""
            ],
            extra={"swept_gbps": 0.0},
        )
        row = bench.rows[-1]
        row["extra"]["swept_gbps"] = 4 * n * passes / row["ms"] / 1e6
    return bench.rows


@measure.experiment(
    "memory-latency",
    question="How long does one load take, from each place where it may find its data?",
    op="chase",
    modules=("memory.chase", "memory.contention"),
)
def memory_latency(bench: Bench) -> list[Row]:
    where = device.torch_device()
    for nbytes in CHAINS:
        links = chase.chain(nbytes, device=where)
        at = torch.zeros(1, dtype=torch.int64, device=where)
        lines = nbytes // chase.LINE
        if lines <= HOPS and int(chase.chase(links, lines, at)) != 0:
            raise measure.WrongResult(f"a walk of {lines} hops does not close")
        # Each walk goes on where the last one ended: in a chain that exceeds the cache
        # no line is met again before all the others were. In one that doesn't, the
        # first hops fill the SM's own cache anew.
        timers = {
            name: lambda h=times * HOPS, links=links, at=at: bench.time_steady(
                functools.partial(chase.chase, links, h, at)
            )
            for name, times in (("short", 1), ("long", 2))
        }
        timings = bench.interleaved(timers)
        # What starting takes is in both, and drops out.
        ns = 1e6 * (timings["long"].ms - timings["short"].ms) / HOPS
        bench.row(
            impl="chase",
            ours=True,
            shape={"nbytes": nbytes},
            dtype=torch.int64,
            regime="other",
            timing=timings["long"],
            extra={"ns_per_hop": ns, "hops": HOPS},
        )
    for places in PLACES:
        call = functools.partial(
            contention.count, places, ADDERS, REPEATS, device=where
        )
        added = ADDERS * contention.BLOCK * REPEATS
        if int(call().sum()) != added:
            raise measure.WrongResult(f"count over {places} places lost some")
        timing = bench.interleaved({"": lambda call=call: bench.time_cold(call)})[""]
        bench.row(
            op="count",
            impl="atomics",
            ours=True,
            shape={"places": places},
            dtype=torch.int32,
            regime="cold",
            timing=timing,
            extra={"adds_per_ns": added / timing.ms / 1e6},
        )
    return bench.rows


@measure.experiment(
    "memory-occupancy",
    question="How do warps, loads in flight and registers change a copy's bandwidth?",
    op="copy",
    modules=("memory.wide", "memory.deep", "memory.persistent"),
)
def memory_occupancy(bench: Bench) -> list[Row]:
    def compare(shape: dict[str, int], fn) -> None:
        bench.compare(
            shape={"n": N} | shape,
            dtype=torch.float32,
            providers={"deep": Provider(fn, ours=True, out=True)},
            make_inputs=functools.partial(_normal, N),
            reference=torch.clone,
            bytes=8 * N,
            along=0,
            regimes=("steady",),
        )

    for warps in WARPS:
        for loads in LOADS:
            fn = functools.partial(deep.copy, loads=loads, num_warps=warps)
            compare({"num_warps": warps, "loads": loads, "maxnreg": 0}, fn)
    for cap in REGISTERS:
        fn = functools.partial(deep.copy, loads=8, num_warps=4, maxnreg=cap)
        compare({"num_warps": 4, "loads": 8, "maxnreg": cap}, fn)
    return bench.rows


@measure.experiment(
    "memory-roofline",
    question="What can memory and arithmetic reach, and where do their limits meet?",
    op="work",
    modules=("memory.intensity", "memory.streams"),
)
def memory_roofline(bench: Bench) -> list[Row]:
    for steps in STEPS:
        bench.compare(
            shape={"n": N, "steps": steps},
            dtype=torch.float32,
            providers={
                "work": Provider(
                    functools.partial(intensity.work, steps=steps), ours=True, out=True
                )
            },
            make_inputs=functools.partial(_normal, N),
            reference=functools.partial(intensity.worked, steps=steps),
            bytes=8 * N,
            flops=2 * steps * N,
            length=4,
            along=0,
            regimes=("steady",),
        )
    _streams(bench)
    return bench.rows


def _streams(bench: Bench) -> None:
    """Rows of op "read", "write" and "triad"."""

    def sums(x: torch.Tensor) -> torch.Tensor:
        tiles = math.ceil(x.numel() / streams.BLOCK)
        padded = torch.nn.functional.pad(x, (0, tiles * streams.BLOCK - x.numel()))
        return padded.view(tiles, streams.BLOCK).sum(1)

    kinds = {
        "read": (1, 4 * N, Provider(streams.block_sums, ours=True), sums),
        "write": (
            1,
            4 * N,
            Provider(lambda x, *, out: streams.fill(out, 3.0), ours=True, out=True),
            lambda x: torch.full_like(x, 3.0),
        ),
        "triad": (
            2,
            12 * N,
            Provider(
                lambda x, y, *, out: streams.triad(x, y, 2.0, out=out),
                ours=True,
                out=True,
            ),
            lambda x, y: x + 2 * y,
        ),
    }
    for op, (count, nbytes, provider, reference) in kinds.items():
        bench.compare(
            op=op,
            shape={"n": N},
            dtype=torch.float32,
            providers={op: provider},
            make_inputs=functools.partial(_normal, N, torch.float32, count),
            reference=reference,
            bytes=nbytes,
            length=streams.BLOCK if op == "read" else 2,
            regimes=("steady",),
        )
