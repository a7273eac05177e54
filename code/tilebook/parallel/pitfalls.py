"""How `parallel-pitfalls` takes its times: right, and in the ways that mislead."""

import time
from collections.abc import Callable, Sequence

import torch
import triton
import triton.testing

from tilebook import device
from tilebook.measure import Bench, Timing
from tilebook.parallel import masked

SMALL = 256
LARGE = 8192
RESIDENT = 2**21
"""Elements of a vector of which three, 24 MiB of float32, stay in a 50 MiB L2."""

LONG = 2**28

SOAK = 300
"""Products that precede a timing of the large ones."""


def _matrices(n: int) -> list[torch.Tensor]:
    where = device.torch_device()
    return [torch.randn(n, n, device=where, dtype=torch.bfloat16) for _ in range(3)]


def _vectors(n: int) -> list[torch.Tensor]:
    return [torch.randn(n, device=device.torch_device()) for _ in range(3)]


def _wall(call: Callable[[], object], *, wait: bool) -> Timing:
    """Time one call by the wall clock, as one does who doesn't know better."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if wait:
        torch.cuda.synchronize()
    ms = 1e3 * (time.perf_counter() - began)
    torch.cuda.synchronize()
    return _one(ms)


def _one(ms: float) -> Timing:
    return Timing(ms, ms, ms, (ms,))


def small_product(bench: Bench) -> None:
    """Time one and the same small product in six ways.

    Args:
        bench: gets a row per way, op "matmul", m = n = k = `SMALL`.
    """
    x, y, out = _matrices(SMALL)

    def call() -> torch.Tensor:
        return torch.mm(x, y, out=out)

    def do_bench(clock: Callable) -> Callable[[], Timing]:
        return lambda: _one(clock(call, return_mode="median"))

    call()
    ways = {
        "one call, no synchronisation": lambda: _wall(call, wait=False),
        "one call, synchronised": lambda: _wall(call, wait=True),
        "do_bench": do_bench(triton.testing.do_bench),
        "do_bench_cudagraph": do_bench(triton.testing.do_bench_cudagraph),
        "cold": lambda: bench.time_cold(call),
        "steady, same inputs": lambda: bench.time_steady(call),
    }
    for name, timing in bench.interleaved(ways).items():
        bench.row(
            impl=name,
            shape={"m": SMALL, "n": SMALL, "k": SMALL},
            dtype=torch.bfloat16,
            timing=timing,
            flops=2 * SMALL**3,
        )


def first_call(bench: Bench) -> None:
    """Time a kernel's first call, which compiles it or fetches it from the cache.

    Args:
        bench: gets the rows "first call" and "later call", op "add".
    """
    x, y, out = _vectors(RESIDENT)
    tiles = (triton.cdiv(RESIDENT, masked.BLOCK),)

    def first() -> Timing:
        # Decorated anew, the kernel is unknown in this process.
        fresh = triton.jit(masked.add_kernel.fn)
        return _wall(
            lambda: fresh[tiles](x, y, out, RESIDENT, BLOCK=masked.BLOCK), wait=True
        )

    def later() -> Timing:
        return _wall(
            lambda: masked.add_kernel[tiles](x, y, out, RESIDENT, BLOCK=masked.BLOCK),
            wait=True,
        )

    later()
    ways = {"first call": first, "later call": later}
    for name, timing in bench.interleaved(ways).items():
        bench.row(
            op="add",
            impl=name,
            ours=True,
            shape={"n": RESIDENT},
            dtype=torch.float32,
            timing=timing,
        )


def kind_of_data(bench: Bench) -> None:
    """Time a large product of random numbers and one of zeros.

    Args:
        bench: gets the rows "random" and "zeros", op "matmul", steady.
    """
    x, y, out = _matrices(LARGE)
    zero = torch.zeros_like(x)

    def soaked(call: Callable[[], object]) -> Timing:
        # The card cuts its clock only after it has been at its power limit a while.
        for _ in range(SOAK):
            call()
        return bench.time_steady(call)

    ways = {
        "random": lambda: soaked(lambda: torch.mm(x, y, out=out)),
        "zeros": lambda: soaked(lambda: torch.mm(zero, zero, out=out)),
    }
    for name, timing in bench.interleaved(ways).items():
        bench.row(
            impl=name,
            shape={"m": LARGE, "n": LARGE, "k": LARGE},
            dtype=torch.bfloat16,
            regime="steady",
            timing=timing,
            flops=2 * LARGE**3,
        )


def resident_data(bench: Bench) -> None:
    """Time an addition whose data are in the cache, and one whose data are not.

    Args:
        bench: gets the rows "same inputs" and "other inputs", op "add", steady.
    """
    sets: Sequence = [_vectors(RESIDENT) for _ in range(16)]
    calls = [lambda s=s: torch.add(s[0], s[1], out=s[2]) for s in sets]
    ways = {
        "same inputs": lambda: bench.time_steady(calls[0]),
        "other inputs": lambda: bench.time_steady(calls),
    }
    for name, timing in bench.interleaved(ways).items():
        bench.row(
            op="add",
            impl=name,
            shape={"n": RESIDENT},
            dtype=torch.float32,
            regime="steady",
            timing=timing,
            extra={"apparent_gbps": 12 * RESIDENT / timing.ms / 1e6},
        )


def no_synchronisation(bench: Bench) -> None:
    """Time a long addition by the wall clock, with and without waiting for its end.

    Args:
        bench: gets the rows "no synchronisation" and "synchronised", op "add".
    """
    x, y, out = _vectors(LONG)

    def call() -> torch.Tensor:
        return torch.add(x, y, out=out)

    call()
    ways = {
        "no synchronisation": lambda: _wall(call, wait=False),
        "synchronised": lambda: _wall(call, wait=True),
    }
    for name, timing in bench.interleaved(ways).items():
        bench.row(
            op="add",
            impl=name,
            shape={"n": LONG},
            dtype=torch.float32,
            timing=timing,
            extra={"apparent_gbps": 12 * LONG / timing.ms / 1e6},
        )
