"""What the chapter measures: every shape against cuBLAS, the ladder, thin products."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tilebook import measure
from tilebook.matmul import (
    accuracy,
    beside,
    conclusions,
    conclusions_linear,
    described,
    experiments_linear,
    naive,
    ordered,
    outer,
    persistent,
    precision,
    public,
    shapes,
    split,
    streamed,
    tile,
    vectors,
)
from tilebook.matmul.operands import result_dtype
from tilebook.matmul.shapes import Shape
from tilebook.measure import Bench, Provider, Row

__all__ = [
    "conclusions",
    "conclusions_linear",
    "experiments_linear",
    "matmul_bf16",
    "matmul_fp16",
    "matmul_fp32",
    "matmul_int8",
    "matmul_ladder",
    "matmul_skinny",
    "matmul_turns",
]

Case = tuple[Shape, str]

MODULES = ("matmul.public",)
CASES = shapes.cases()
CASES_BRIEF: tuple[Case, ...] = (
    *((shapes.SQUARES[i], layout) for i in (3, 4) for layout in ("NN", "NT")),
    *((shape, "NN") for shape in (shapes.SQUARES[1], shapes.ODD[0])),
    *((Shape(m, 4096, 4096), "NT") for m in (16, 4096)),
    (shapes.ODD[1], "NN"),
)
SEARCHED: tuple[Case, ...] = (
    *((shape, "NN") for shape in shapes.SQUARES[1:5]),
    *((Shape(m, 4096, 4096), "NT") for m in (1, 16, 128, 4096)),
    (shapes.ODD[1], "NN"),
)
"""Where torch.compile is a peer, too: it searches for longer than all else takes."""
SEARCHED_BRIEF: tuple[Case, ...] = ((shapes.SQUARES[3], "NN"),)
REGIMES = ("cold", "steady")
REGIMES_BRIEF = ("steady",)
RUNGS: dict[str, Callable[..., torch.Tensor]] = {
    "naive": naive.matmul,
    "outer": outer.matmul,
    "tile": tile.matmul,
    "ordered": ordered.matmul,
    "persistent": persistent.matmul,
    "described": described.matmul,
}
SLOW = ("naive", "outer")
SLOWEST = 2.0 * 4096**3
"""Operations from which on the rungs without tensor cores are left out."""
LADDER = tuple(Shape(n, n, n) for n in (512, 1024, 1536, 2048, 3072, 4096, 6144, 8192))
LADDER_BRIEF = LADDER[1::2]
THIN_ROWS = (1, 4, 16, 32, 64)
THIN = shapes.layers(THIN_ROWS)
THIN_BRIEF = tuple(shape for shape in THIN if (shape.n, shape.k) == (4096, 4096))
THIN_RUNGS: dict[str, Callable[..., torch.Tensor]] = {
    "ordered": ordered.matmul,
    "split": split.matmul,
    "streamed": streamed.matmul,
    "vectors": vectors.matmul,
}
TURN_ROWS = (128, 512)
TURNS = tuple(
    shape for shape in shapes.layers(TURN_ROWS) if shape.n in (10240, 12288, 22016)
)
"""Products of few more tiles than multiprocessors."""
TURNS_BRIEF = TURNS[-1:]
TURN_RUNGS: dict[str, Callable[..., torch.Tensor]] = {
    "described": described.matmul,
    "beside": beside.matmul,
    "streamed": streamed.matmul,
}
MOST_ROWS = 8
"""Rows up to which `vectors` takes a product."""
PRECISE = (
    *(Shape(n, n, n) for n in (1024, 2048, 4096, 8192)),
    *(Shape(64, 4096, 4096), Shape(1000, 1000, 1000)),
)
PRECISE_BRIEF = PRECISE[2:3]
LOOSE = {"tf32": 2.0**-9, "half": 2.0**-6}
"""Relative errors allowed where operands or sums are rounded to fewer bits than the
result has, as the Frobenius norm's: half a unit of their eleven bits for each operand,
and more for sums in half precision, which lose a bit of each term."""


def _place(a: torch.Tensor, b: torch.Tensor, *_: Any) -> torch.Tensor:
    dtype = result_dtype(a.dtype)
    return torch.empty(a.shape[0], b.shape[1], dtype=dtype, device=a.device)


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.dtype == torch.int8:
        # Whole numbers that large are exact in float64.
        return (a.double() @ b.double()).int()
    return a @ b


def cublas(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    """Multiply as cuBLAS does, into a matrix that is there."""
    return torch.mm(a, b, out=out)


def compare(
    bench: Bench, shape: Shape, layout: str, dtype: torch.dtype, **providers: Provider
) -> list[Row]:
    op = "matmul" if layout == "NN" else f"matmul_{layout.lower()}"
    out = result_dtype(dtype).itemsize
    return bench.compare(
        op=op,
        shape=shape._asdict(),
        dtype=dtype,
        providers=providers,
        make_inputs=functools.partial(shapes.operands, shape, layout, dtype),
        make_output=_place,
        reference=_product,
        bytes=shape.moved(dtype.itemsize, out),
        flops=shape.flops,
        regimes=bench.choose(REGIMES, REGIMES_BRIEF),
        length=accuracy.length(shape.k),
    )


def rungs_of(
    bench: Bench,
    shape: Shape,
    layout: str,
    rungs: Mapping[str, Callable[..., torch.Tensor]],
    multiply: Callable[..., torch.Tensor] = public.matmul,
) -> None:
    """Compare kernels of a chapter with what chooses among them, and with cuBLAS.

    Args:
        bench: gets the rows.
        shape: of the product.
        layout: one of `shapes.LAYOUTS`.
        rungs: kernels by name.
        multiply: what chooses.
    """
    compare(
        bench,
        shape,
        layout,
        torch.bfloat16,
        **{name: Provider(fn, ours=True) for name, fn in rungs.items()},
        matmul=Provider(multiply, ours=True),
        cuBLAS=Provider(cublas, out=True),
    )


def against_cublas(
    bench: Bench,
    dtype: torch.dtype,
    multiply: Callable[..., torch.Tensor] = public.matmul,
) -> list[Row]:
    """Compare a chapter's `matmul` with cuBLAS on every case.

    Args:
        bench: gets the rows.
        dtype: of the operands.
        multiply: the chapter's.

    Returns:
        The rows.
    """
    searched = bench.choose(SEARCHED, SEARCHED_BRIEF)
    for shape, layout in bench.choose(CASES, CASES_BRIEF):
        providers = {
            "matmul": Provider(multiply, ours=True),
            "cuBLAS": Provider(cublas, out=True),
        }
        if (shape, layout) in searched:
            providers["torch.compile"] = measure.compiled(torch.matmul)
        compare(bench, shape, layout, dtype, **providers)
    return bench.rows


@measure.experiment(
    "matmul-bf16",
    question="How near does matmul come to cuBLAS in bfloat16, whatever the shape?",
    op="matmul",
    modules=MODULES,
)
def matmul_bf16(bench: Bench) -> list[Row]:
    return against_cublas(bench, torch.bfloat16)


@measure.experiment(
    "matmul-fp16",
    question="How near does matmul come to cuBLAS in float16, whatever the shape?",
    op="matmul",
    modules=MODULES,
)
def matmul_fp16(bench: Bench) -> list[Row]:
    return against_cublas(bench, torch.float16)


@measure.experiment(
    "matmul-ladder",
    question="What is each rung worth?",
    op="matmul",
    modules=MODULES,
)
def matmul_ladder(bench: Bench) -> list[Row]:
    for shape in bench.choose(LADDER, LADDER_BRIEF):
        fast = shape.flops <= SLOWEST
        rungs = {k: fn for k, fn in RUNGS.items() if fast or k not in SLOW}
        rungs_of(bench, shape, "NN", rungs)
    return bench.rows


@measure.experiment(
    "matmul-skinny",
    question="How near to the memory's limit is a product of few rows?",
    op="matmul",
    modules=MODULES,
)
def matmul_skinny(bench: Bench) -> list[Row]:
    for shape in bench.choose(THIN, THIN_BRIEF):
        few = shape.m <= MOST_ROWS
        rungs = {k: fn for k, fn in THIN_RUNGS.items() if few or k != "vectors"}
        rungs_of(bench, shape, "NT", rungs)
    return bench.rows


@measure.experiment(
    "matmul-turns",
    question="What does a last turn cost that isn't full?",
    op="matmul",
    modules=MODULES,
)
def matmul_turns(bench: Bench) -> list[Row]:
    for shape in bench.choose(TURNS, TURNS_BRIEF):
        rungs_of(bench, shape, "NT", TURN_RUNGS)
    return bench.rows


@measure.experiment(
    "matmul-fp32",
    question="What does a precision cost, and what is it worth?",
    op="matmul",
    modules=("matmul.public", "matmul.precision"),
)
def matmul_fp32(bench: Bench) -> list[Row]:
    for shape in bench.choose(PRECISE, PRECISE_BRIEF):
        found = {
            name: Provider(
                functools.partial(public.matmul, precision=name),
                ours=True,
                bound=LOOSE["tf32"] if name == "tf32" else None,
            )
            for name in ("tf32", "tf32x3", "ieee")
        }
        # Two bfloat16 have sixteen bits of a number's twenty-four.
        found["bf16x3"] = Provider(precision.bf16x3, ours=True, bound=2.0**-14)
        found |= {
            "cuBLAS, tf32": Provider(_tf32, out=True, bound=LOOSE["tf32"]),
            "cuBLAS, ieee": Provider(cublas, out=True),
        }
        compare(bench, shape, "NN", torch.float32, **found)
    return bench.rows


def _tf32(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        return torch.mm(a, b, out=out)
    finally:
        torch.set_float32_matmul_precision(before)


@measure.experiment(
    "matmul-int8",
    question="How near does matmul come to cuBLAS on whole numbers?",
    op="matmul",
    modules=MODULES,
)
def matmul_int8(bench: Bench) -> list[Row]:
    for shape in bench.choose(PRECISE, PRECISE_BRIEF):
        found = {"matmul": Provider(public.matmul, ours=True)}
        # cuBLAS takes multiples of eight, and more than sixteen rows.
        if not any(side % 8 for side in shape) and shape.m > 16:
            found["cuBLAS"] = Provider(torch._int_mm)
        compare(bench, shape, "NT", torch.int8, **found)
    return bench.rows
