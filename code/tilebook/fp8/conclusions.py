"""What the chapter quotes and concludes of products in eight bits."""

from tilebook import measure
from tilebook.fp8 import shapes
from tilebook.matmul.conclusions import mean
from tilebook.matmul.shapes import Shape
from tilebook.measure import Record, Row
from tilebook.measure.record import Ratio, same_case

MODEL_BITS = 13
"""What `accumulation.modelled` keeps: what others found of Hopper, and what the probe
is there to tell."""
NEAR = {"ends": 0.93, "block": 0.95}
"""Of the library's rate, as a geometric mean of large products: what holds, with
scales at the end and by blocks. The target was 1.05 and 1.08."""
DECODING = 1.2
"""Over the library, as a geometric mean of products of few rows."""
MOST = 128
"""Rows up to which a product is one of few rows."""
ONE, MANY = Shape(1, 4096, 4096), Shape(MOST, 4096, 4096)
"""Products that wait for their weight, of the article on the copy engine."""
SQUARE = 8192
"""Side of the squares on which rungs are compared."""


def few(row: Row) -> bool:
    """Whether a row is of a product of few rows."""
    return row["shape"]["m"] <= MOST


def over(record: Record, name: str, thin: bool, fast: bool) -> list[Ratio]:
    """Ratios over the library, fast sums with fast ones and precise with precise.

    Args:
        record: "fp8-gemm".
        name: one of `shapes.SCALINGS`.
        thin: whether of few rows, or of many.
        fast: which sums.
    """
    end = ", fast" if fast else ""
    code = shapes.CODES[name]
    mine, peer = f"scaled_matmul{end}", f"_scaled_mm{end}"
    part = record.part(lambda row: row["shape"]["scaling"] == code and few(row) == thin)
    rivals = part.select(impl=peer)
    # What the library refuses there is nothing to hold against.
    kept = part.part(
        lambda row: row["impl"] != mine or any(same_case(row, r) for r in rivals)
    )
    return [ratio for _, ratio in kept.against(mine, peer)]


def _mean(record: Record, name: str, thin: bool = False, fast: bool = False) -> float:
    return mean(over(record, name, thin, fast))


@measure.value("fp8-gemm")
def tensor_over_library(record: Record) -> float:
    """Geometric mean over `_scaled_mm` of large products, one scale, precise sums."""
    return _mean(record, "tensor")


@measure.value("fp8-gemm")
def tensor_fast_over_library(record: Record) -> float:
    """The same with fast sums."""
    return _mean(record, "tensor", fast=True)


@measure.value("fp8-gemm")
def row_over_library(record: Record) -> float:
    """Geometric mean over `_scaled_mm` of large products, a scale a row, precise."""
    return _mean(record, "row")


@measure.value("fp8-gemm")
def row_fast_over_library(record: Record) -> float:
    """The same with fast sums."""
    return _mean(record, "row", fast=True)


@measure.value("fp8-gemm")
def block_over_library(record: Record) -> float:
    """Geometric mean over `_scaled_mm` of large products, scales by blocks."""
    return _mean(record, "block")


@measure.value("fp8-gemm")
def few_over_library(record: Record) -> float:
    """Geometric mean over `_scaled_mm` of products of few rows, a scale a row."""
    return _mean(record, "row", thin=True)


@measure.claim(
    "fp8-gemm",
    "With a scale for all or for each row, on large products scaled_matmul has at "
    "least 0.93 of the library's rate as a geometric mean, fast sums against fast "
    "ones and precise against precise.",
)
def near_with_scales_at_the_end(record: Record) -> tuple[bool, str]:
    found = {
        f"{name}{', fast' * fast}": _mean(record, name, fast=fast)
        for name in ("tensor", "row")
        for fast in (False, True)
    }
    told = "; ".join(f"{name} {x:.3f}" for name, x in found.items())
    return min(found.values()) >= NEAR["ends"], told


@measure.claim(
    "fp8-gemm",
    "With scales by blocks, on large products scaled_matmul has at least 0.95 of the "
    "library's rate as a geometric mean.",
)
def near_by_blocks(record: Record) -> tuple[bool, str]:
    found = block_over_library(record)
    return found >= NEAR["block"], f"{found:.3f}"


@measure.claim(
    "fp8-gemm",
    "On products of one to 128 rows, a scale a row, it takes at most five sixths of "
    "the library's time as a geometric mean.",
)
def ahead_with_few_rows(record: Record) -> tuple[bool, str]:
    found = few_over_library(record)
    return found >= DECODING, f"{found:.3f}"


def _by_rows(record: Record, impl: str, peer: str) -> float:
    """Geometric mean of ratios, fast sums against fast ones and precise against
    precise."""
    ends = ("", ", fast")
    pairs = [record.against(f"{impl}{end}", f"{peer}{end}") for end in ends]
    return mean([ratio for found in pairs for _, ratio in found])


@measure.value("fp8-compiled")
def compiled_over_library(record: Record) -> float:
    """What torch.compile makes of the library's call, over the call, with a scale a
    row; as a geometric mean of fast and precise sums."""
    return 1 / _by_rows(record, "_scaled_mm", "torch.compile")


@measure.value("fp8-compiled")
def first_over_library(record: Record) -> float:
    """Ours over the library's call, where the race of our kernels had to compile
    them."""
    return _by_rows(record, "scaled_matmul", "_scaled_mm")


@measure.claim(
    "fp8-compiled",
    "With a scale a row, a search by torch.compile finds nothing that is 5 % faster "
    "than the library's call.",
)
def nothing_better_is_compiled(record: Record) -> tuple[bool, str]:
    found = compiled_over_library(record)
    return found <= 1.05, f"{found:.3f}"


def _thin(record: Record, shape: Shape) -> Row:
    """Ours of the article's products, a scale a row, nothing in a cache."""
    sides = shape._asdict() | {"scaling": shapes.CODES["row"]}
    return record.best(impl="scaled_matmul", regime="cold", **sides)


@measure.value("fp8-gemm")
def one_row_us(record: Record) -> float:
    """Microseconds of one row with a weight of 4096 squared, nothing in a cache."""
    return _thin(record, ONE)["ms"] * 1e3


@measure.value("fp8-gemm")
def most_rows_us(record: Record) -> float:
    """The same for 128 rows."""
    return _thin(record, MANY)["ms"] * 1e3


@measure.value("fp8-gemm")
def one_row_floor_us(record: Record) -> float:
    """What a copy takes for the bytes of the one row's product, in microseconds."""
    row = _thin(record, ONE)
    return row["bytes"] / record.canary["open"]["copy_gbps"] / 1e3


@measure.value("fp8-gemm")
def one_row_share(record: Record) -> float:
    """That, as a share of the time taken."""
    return one_row_floor_us(record) / one_row_us(record)


def _rung(record: Record, impl: str, scaling: str = "row") -> float:
    sides = {"m": SQUARE, "n": SQUARE, "scaling": shapes.CODES[scaling]}
    return record.best(impl=impl, **sides)["tflops"]


@measure.value("fp8-ladder")
def tiled_tflops(record: Record) -> float:
    """TFLOP/s of tiles by pointers on 8192 squared, fast sums."""
    return _rung(record, "tiled, fast")


@measure.value("fp8-ladder")
def described_over_tiled(record: Record) -> float:
    """Descriptors over pointers, fast sums."""
    return _rung(record, "described, fast") / _rung(record, "tiled, fast")


@measure.value("fp8-ladder")
def cooperative_over_described(record: Record) -> float:
    """Warps of their own over none, fast sums."""
    return _rung(record, "cooperative, fast") / _rung(record, "described, fast")


@measure.value("fp8-ladder")
def folded_over_cooperative(record: Record) -> float:
    """A store under the next tile's products over one before them, fast sums."""
    return _rung(record, "folded, fast") / _rung(record, "cooperative, fast")


@measure.value("fp8-ladder")
def described_precise(record: Record) -> float:
    """Precise sums over fast ones, both by the compiler's pipeline."""
    return _rung(record, "described") / _rung(record, "described, fast")


@measure.value("fp8-ladder")
def promoted_over_described(record: Record) -> float:
    """Two groups of warps over the compiler's pipeline, precise sums."""
    return _rung(record, "promoted") / _rung(record, "described")


@measure.value("fp8-ladder")
def blocks_cost(record: Record) -> float:
    """Scales by blocks over scales by rows, the best of two groups of warps each."""
    return _rung(record, "carried", "block") / _rung(record, "paired")


@measure.value("fp8-ladder")
def paired_over_promoted(record: Record) -> float:
    """Two blocks under way over one, scales by blocks."""
    return _rung(record, "paired", "block") / _rung(record, "promoted", "block")


@measure.value("fp8-ladder")
def paired_over_promoted_by_rows(record: Record) -> float:
    """The same with scales by rows."""
    return _rung(record, "paired") / _rung(record, "promoted")


@measure.value("fp8-ladder")
def carried_over_paired(record: Record) -> float:
    """Scales through shared memory over scales in registers, by blocks."""
    return _rung(record, "carried", "block") / _rung(record, "paired", "block")


@measure.value("fp8-ladder")
def promotion_costs(record: Record) -> float:
    """What sums in two levels cost beside fast ones: the ratio of their rates."""
    return _rung(record, "paired") / _rung(record, "folded, fast")


@measure.value("fp8-accumulate")
def alike(record: Record) -> float:
    """The least share of results that the model gives to the last bit."""
    rows = [row for kind in ("signed", "positive") for row in record.select(op=kind)]
    return min(row["extra"]["alike"] for row in rows if "alike" in row["extra"])


@measure.claim(
    "fp8-accumulate",
    "The model gives at least 999 of 1,000 results of up to 4,096 terms bit for bit, "
    "fast or precise.",
)
def the_model_holds(record: Record) -> tuple[bool, str]:
    found = alike(record)
    return found >= 0.999, f"{found:.4f}"


@measure.claim(
    "fp8-ladder",
    "By blocks, Gluon's two groups of warps are ahead of the compiler's pipeline.",
)
def groups_hide_promotion(record: Record) -> tuple[bool, str]:
    code = shapes.CODES["block"]
    rates = [
        record.best(impl=name, scaling=code)["tflops"]
        for name in ("carried", "described")
    ]
    return rates[0] > rates[1], f"{rates[0]:.0f} and {rates[1]:.0f} TFLOP/s"
