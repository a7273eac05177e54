"""What the chapter quotes and concludes of eight bits."""

from tilebook import measure
from tilebook.fp8 import shapes
from tilebook.matmul.conclusions import mean
from tilebook.measure import Record, Row
from tilebook.measure.record import Ratio, same_case

MODEL_BITS = 13
"""What `accumulation.modelled` keeps: what others found of Hopper, and what the probe
is there to tell."""
AHEAD = {"tensor": 1.05, "row": 1.05, "block": 1.08}
"""Over the library, as a geometric mean of large products."""
DECODING = 1.2
"""Over the library, as a geometric mean of products of few rows."""
SHARE = 0.88
"""Of the rate of a copy, for quantisers that read once."""
ONCE = ("row", "1x128", "128x128")
MOST = 128
"""Rows up to which a product is one of few rows."""


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
    "least 1.05 times the library's rate as a geometric mean, fast sums against fast "
    "ones and precise against precise.",
)
def ahead_with_scales_at_the_end(record: Record) -> tuple[bool, str]:
    found = {
        f"{name}{', fast' * fast}": _mean(record, name, fast=fast)
        for name in ("tensor", "row")
        for fast in (False, True)
    }
    told = "; ".join(f"{name} {x:.3f}" for name, x in found.items())
    return min(found.values()) >= AHEAD["row"], told


@measure.claim(
    "fp8-gemm",
    "With scales by blocks, on large products scaled_matmul has at least 1.08 times "
    "the library's rate as a geometric mean.",
)
def ahead_by_blocks(record: Record) -> tuple[bool, str]:
    found = block_over_library(record)
    return found >= AHEAD["block"], f"{found:.3f}"


@measure.claim(
    "fp8-gemm",
    "On products of one to 128 rows, a scale a row, it takes at most five sixths of "
    "the library's time as a geometric mean.",
)
def ahead_with_few_rows(record: Record) -> tuple[bool, str]:
    found = few_over_library(record)
    return found >= DECODING, f"{found:.3f}"


@measure.value("fp8-ladder")
def promotion_costs(record: Record) -> float:
    """What sums in two levels cost beside fast ones: the ratio of their rates."""
    rows = {"m": 8192, "n": 8192, "k": 8192, "scaling": shapes.CODES["row"]}
    fast = record.best(impl="folded, fast", **rows)["tflops"]
    return record.best(impl="promoted", **rows)["tflops"] / fast


@measure.claim(
    "fp8-ladder",
    "By blocks, Gluon's two groups of warps are ahead of the compiler's pipeline.",
)
def groups_hide_promotion(record: Record) -> tuple[bool, str]:
    code = shapes.CODES["block"]
    rates = [
        record.best(impl=name, scaling=code)["tflops"]
        for name in ("promoted", "described")
    ]
    return rates[0] > rates[1], f"{rates[0]:.0f} and {rates[1]:.0f} TFLOP/s"


@measure.value("fp8-quantize")
def least_share_of_copy(record: Record) -> float:
    """The least rate of a quantiser that reads once, as a share of a copy's."""
    ops = [f"quantize {granularity}" for granularity in ONCE]
    best: dict[tuple, float] = {}
    for row in record.rows:
        if row["op"] in ops and row["ours"] and row["regime"] == "cold":
            key = (row["op"], *row["shape"].values())
            best[key] = max(best.get(key, 0.0), row["gbps"])
    return min(best.values()) / record.canary["open"]["copy_gbps"]


@measure.claim(
    "fp8-quantize",
    "Quantisers that read each element once reach at least 88 % of the rate of a copy.",
)
def near_a_copy(record: Record) -> tuple[bool, str]:
    found = least_share_of_copy(record)
    return found >= SHARE, f"{found:.3f}"


MODERATE, EXTREME = 2**10, 2**18
"""How much larger outliers are of which the text speaks."""


def _error(
    record: Record, kind: str, granularity: str, what: str, larger: int = 1
) -> float:
    row = record.one(op=kind, impl=granularity, larger=larger)
    return row["extra"][what]


def _small(record: Record, granularity: str, larger: int) -> float:
    return _error(record, "outliers", granularity, "small", larger)


@measure.value("fp8-error")
def gaussian_product_error(record: Record) -> float:
    """Relative error of a product of normal numbers, a scale a row."""
    return _error(record, "gaussian", "row", "product")


@measure.value("fp8-error")
def moderate_error_by_tensor(record: Record) -> float:
    """Relative error of the other columns where some are 2^10 times larger, one
    scale."""
    return _small(record, "tensor", MODERATE)


@measure.value("fp8-error")
def extreme_error_by_tensor(record: Record) -> float:
    """The same where some are 2^18 times larger."""
    return _small(record, "tensor", EXTREME)


@measure.value("fp8-error")
def extreme_error_by_blocks(record: Record) -> float:
    """The same with scales by 1 x 128."""
    return _small(record, "1x128", EXTREME)


@measure.claim(
    "fp8-error",
    "On normal numbers no scale in float32 leaves a product's error a tenth larger "
    "than another does, nor do columns that are 2^10 times larger make one scale cost "
    "the others a tenth.",
)
def floats_forgive(record: Record) -> tuple[bool, str]:
    plain = [
        _error(record, "gaussian", name, "product")
        for name in ("tensor", "row", "1x128", "128x128")
    ]
    calm = _error(record, "gaussian", "tensor", "small")
    found = moderate_error_by_tensor(record)
    told = f"{min(plain):.4f} to {max(plain):.4f}; {calm:.4f}, then {found:.4f}"
    return max(plain) < 1.1 * min(plain) and found < 1.1 * calm, told


@measure.claim(
    "fp8-error",
    "Where a few columns are 2^18 times larger, one scale leaves the others with an "
    "error of half their size or more, and scales by 1 x 128 keep those that share "
    "none with them.",
)
def granularity_is_for_extremes(record: Record) -> tuple[bool, str]:
    one, by_blocks = extreme_error_by_tensor(record), extreme_error_by_blocks(record)
    return one > 0.5 and by_blocks < 0.75 * one, f"{one:.3f} and {by_blocks:.3f}"


def _kept(record: Record, impl: str, place: str) -> int:
    (row,) = record.select(op=f"bits {place}", impl=impl)
    return int(row["extra"]["kept"])


def _off(record: Record, impl: str, kind: str) -> float:
    last = max(row["shape"]["k"] for row in record.select(op=kind))
    (row,) = record.select(op=kind, impl=impl, k=last)
    return row["relative_error"]


@measure.value("fp8-accumulate")
def bits_kept(record: Record) -> int:
    """Bits behind the first that tensor cores keep of a sum."""
    return _kept(record, "fast", "next instruction")


@measure.value("fp8-accumulate")
def fast_off(record: Record) -> float:
    """Relative error of the longest sum of positive terms, fast."""
    return _off(record, "fast", "positive")


@measure.value("fp8-accumulate")
def precise_off(record: Record) -> float:
    """The same, precise."""
    return _off(record, "precise", "positive")


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
    "fp8-accumulate",
    "The longest sum of positive terms is off ten times as far when tensor cores take "
    "all of it as when they take 128 terms at a time.",
)
def promotion_mends(record: Record) -> tuple[bool, str]:
    fast, precise = fast_off(record), precise_off(record)
    return fast > 10 * precise, f"{fast:.3g} and {precise:.3g}"
