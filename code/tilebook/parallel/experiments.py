"""What the chapter measures: the ladder, what a launch costs, measuring gone wrong."""

import torch

from tilebook import device, measure
from tilebook.measure import Bench, Provider, Row
from tilebook.parallel import (
    add,
    conclusions,
    expectations,
    grid,
    masked,
    occupancy,
    occupancy_conclusions,
    overhead,
    pitfalls,
    single,
    strided,
    timing_conclusions,
    whole,
    wide,
)

__all__ = [
    "conclusions",
    "expectations",
    "occupancy_conclusions",
    "parallel_add",
    "parallel_launch",
    "parallel_pitfalls",
    "parallel_programs",
    "timing_conclusions",
]

SIZES = (
    *(2**12, 2**14, 2**16, 98_432, 2**18, 2**20, 1_000_003, 2**22, 2**24),
    *(2**26, 2**26 + 7, 2**28, 2**30),
)
DTYPES = (torch.float32, torch.bfloat16)


def _ladder(n: int) -> dict[str, Provider]:
    """The rungs that take n elements, and the peers."""
    rungs = {"masked": masked, "strided": strided, "wide": wide, "whole": whole}
    if n % grid.BLOCK == 0:
        rungs = {"grid": grid} | rungs
    if n <= single.LARGEST and n & (n - 1) == 0:
        rungs = {"single": single} | rungs
    ours = {name: Provider(rung.add, ours=True) for name, rung in rungs.items()}
    return ours | {
        "add": Provider(add, ours=True, out=True),
        "add, new output": Provider(add, ours=True),
        "torch.add": Provider(torch.add, out=True),
        "torch.compile": measure.compiled(torch.add),
    }


@measure.experiment(
    "parallel-add",
    question="How near does each rung of add come to the memory's limit, and to "
    "PyTorch's own?",
    op="add",
    modules=(
        "parallel.single",
        "parallel.grid",
        "parallel.masked",
        "parallel.strided",
        "parallel.wide",
        "parallel.whole",
        "parallel.public",
    ),
)
def parallel_add(bench: Bench) -> list[Row]:
    where = device.torch_device()
    for dtype in DTYPES:
        for n in SIZES:

            def normal(n: int = n, dtype: torch.dtype = dtype) -> list[torch.Tensor]:
                return [torch.randn(n, device=where, dtype=dtype) for _ in range(2)]

            bench.compare(
                shape={"n": n},
                dtype=dtype,
                providers=_ladder(n),
                make_inputs=normal,
                reference=torch.add,
                bytes=3 * n * dtype.itemsize,
                along=0,
            )
    return bench.rows


@measure.experiment(
    "parallel-programs",
    question="How many programs does a GPU need at a time, and can it be too many?",
    op="add",
    modules=(
        "parallel.strided",
        "parallel.whole",
        "parallel.launch",
        "parallel.occupancy",
    ),
)
def parallel_programs(bench: Bench) -> list[Row]:
    occupancy.strides(bench)
    occupancy.caps(bench)
    return bench.rows


@measure.experiment(
    "parallel-launch",
    question="What does a launch cost the host and the GPU, and what lowers it?",
    op="launch",
    modules=("parallel.launch", "parallel.overhead", "parallel.public"),
)
def parallel_launch(bench: Bench) -> list[Row]:
    overhead.on_the_host(bench)
    overhead.in_a_graph(bench)
    overhead.in_a_chain(bench)
    return bench.rows


@measure.experiment(
    "parallel-pitfalls",
    question="How far off is each way of measuring that looks right and isn't?",
    op="matmul",
    modules=("parallel.pitfalls", "parallel.masked"),
)
def parallel_pitfalls(bench: Bench) -> list[Row]:
    pitfalls.small_product(bench)
    pitfalls.first_call(bench)
    pitfalls.kind_of_data(bench)
    pitfalls.resident_data(bench)
    pitfalls.no_synchronisation(bench)
    return bench.rows
