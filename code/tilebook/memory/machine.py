"""What the chapter measures of the machine: caches, latency, atomics, the roofline."""

import functools
import math

import torch

from tilebook import device, measure
from tilebook.measure import Bench, Provider, Row
from tilebook.memory import chase, contention, intensity, streams, sweep, table

MIB = 2**20
N = 2**26
"""Elements of a vector that no cache holds."""
# 2 MiB to 1 GiB in steps of sqrt(2), whole tiles.
WORKING_SETS = tuple(round(16 * 2 ** (e / 2)) * MIB // 16 for e in range(2, 21))
WORKING_SETS_BRIEF = WORKING_SETS[::2]
TABLES = (2**21, 2**23, 2**24, 2**25, 2**26)
"""Bytes of a table that is read beside a stream."""
TABLES_BRIEF = (2**21, 2**25, 2**26)
CHAINS = tuple(2**e for e in range(13, 31))
CHAINS_BRIEF = tuple(2**e for e in (13, 15, 17, 19, 21, 23, 24, 25, 26, 28, 30))
HOPS = 4096
STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
STEPS_BRIEF = (0, 8, 32, 64, 128, 512)
PLACES = (1, 2, 8, 32, 256, 4096, 65_536)
ADDERS, REPEATS = 1056, 64


def normal(n: int, dtype: torch.dtype = torch.float32, count: int = 1) -> list:
    """Make vectors of random numbers.

    Args:
        n: elements of each.
        dtype: of them.
        count: how many vectors.
    """
    where = device.torch_device()
    return [torch.randn(n, device=where).to(dtype) for _ in range(count)]


@measure.experiment(
    "memory-l2",
    question="How large is the cache that all programs share, and how much faster?",
    op="sweep",
    modules=("memory.sweep", "memory.table"),
)
def memory_l2(bench: Bench) -> list[Row]:
    _sweeps(bench)
    _tables(bench)
    return bench.rows


def _sweeps(bench: Bench) -> None:
    where = device.torch_device()
    programs = sweep.PER_SM * (device.current().sms or 1)
    for nbytes in bench.choose(WORKING_SETS, WORKING_SETS_BRIEF):
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


def _tables(bench: Bench) -> None:
    """Rows of op "add_table": with hints and without."""
    providers = {
        name: Provider(
            functools.partial(table.add_table, hints=hints), ours=True, out=True
        )
        for name, hints in (("no hints", False), ("hints", True))
    }
    for nbytes in bench.choose(TABLES, TABLES_BRIEF):
        tiles = nbytes // (4 * table.BLOCK)
        bench.compare(
            op="add_table",
            shape={"n": N, "nbytes": nbytes},
            dtype=torch.float32,
            providers=providers,
            make_inputs=lambda tiles=tiles: [
                *normal(N),
                torch.randn(tiles, table.BLOCK, device=device.torch_device()),
            ],
            reference=table.added,
            # What has to come from memory if the table stays in L2.
            bytes=8 * N + nbytes,
            regimes=("steady",),
            length=2,
        )


@measure.experiment(
    "memory-latency",
    question="How long does one load take, from each place where it may find its data?",
    op="chase",
    modules=("memory.chase", "memory.contention"),
)
def memory_latency(bench: Bench) -> list[Row]:
    where = device.torch_device()
    for nbytes in bench.choose(CHAINS, CHAINS_BRIEF):
        links = chase.chain(nbytes, device=where)
        at = torch.zeros(1, dtype=torch.int64, device=where)
        lines = nbytes // chase.LINE
        if lines <= HOPS and int(chase.chase(links, lines, at)) != 0:
            raise measure.WrongResult(f"a walk of {lines} hops does not close")
        # Each walk goes on where the last one ended: in a chain that exceeds the cache
        # no line is met again before all the others were. In one that doesn't, the
        # first hops fill the SM's own cache anew; L2 is filled before, for all the
        # walks together may not come round.
        timers = {
            name: lambda h=times * HOPS, links=links, at=at: bench.time_steady(
                functools.partial(chase.chase, links, h, at), before=links.sum
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
    "memory-roofline",
    question="What can memory and arithmetic reach, and where do their limits meet?",
    op="work",
    modules=("memory.intensity", "memory.streams"),
)
def memory_roofline(bench: Bench) -> list[Row]:
    for steps in bench.choose(STEPS, STEPS_BRIEF):
        bench.compare(
            shape={"n": N, "steps": steps},
            dtype=torch.float32,
            providers={
                "work": Provider(
                    functools.partial(intensity.work, steps=steps), ours=True, out=True
                )
            },
            make_inputs=functools.partial(normal, N),
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
            make_inputs=functools.partial(normal, N, torch.float32, count),
            reference=reference,
            bytes=nbytes,
            length=streams.BLOCK if op == "read" else 2,
            regimes=("steady",),
        )
