"""What the chapter quotes and concludes of quantisers, of errors and of sums."""

import math

from tilebook import measure
from tilebook.fp8.rows import LONGEST
from tilebook.matmul.conclusions import mean
from tilebook.measure import Record

SHARE = 0.88
"""Of the rate of a copy, for quantisers that read once."""
ONCE = ("row", "1x128", "128x128")


@measure.value("fp8-quantize")
def least_share_of_copy(record: Record) -> float:
    """The least rate of a quantiser that reads once, as a share of a copy's."""
    return min(_share(record, f"quantize {granularity}") for granularity in ONCE)


def _share(record: Record, op: str, longest: float = math.inf) -> float:
    """The least of ours, over matrices with rows up to a length, as a share of a copy's
    rate."""
    found = [
        row["gbps"]
        for row in record.select(op=op, regime="cold")
        if row["ours"] and row["shape"]["k"] <= longest
    ]
    return min(found) / record.canary["open"]["copy_gbps"]


@measure.value("fp8-quantize")
def tensor_share(record: Record) -> float:
    """The least rate of the quantiser with one scale, as a share of a copy's."""
    return _share(record, "quantize tensor")


@measure.value("fp8-quantize")
def delayed_share(record: Record) -> float:
    """The same with a scale that is known before."""
    return _share(record, "delayed")


@measure.value("fp8-quantize")
def turned_share(record: Record) -> float:
    """The same of the transpose by 1 x 128."""
    return _share(record, "1x128 of the transpose")


@measure.value("fp8-quantize")
def both_share(record: Record) -> float:
    """The same of a matrix and its transpose by 1 x 128, from one reading."""
    return _share(record, "both 1x128")


@measure.value("fp8-quantize")
def silu_share(record: Record) -> float:
    """The same of silu times another matrix by 1 x 128."""
    return _share(record, "silu 1x128")


@measure.value("fp8-quantize")
def norm_share(record: Record) -> float:
    """The same of the RMS norm by rows."""
    return _share(record, "norm row")


@measure.value("fp8-quantize")
def norm_held_share(record: Record) -> float:
    """The same of rows of which an SM's registers hold two."""
    return _share(record, "norm row", LONGEST)


@measure.value("fp8-quantize")
def mx_share(record: Record) -> float:
    """The same with powers of two by 1 x 32."""
    return _share(record, "mx")


@measure.value("fp8-quantize")
def over_compiled(record: Record) -> float:
    """Geometric mean over torch.compile of the quantisers that both have."""
    ratios = []
    for granularity in ("tensor", *ONCE):
        part = record.part(
            lambda row, name=granularity: row["op"] == f"quantize {name}"
        )
        ratios += [ratio for _, ratio in part.against("quantize", "torch.compile")]
    return mean(ratios)


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
def student_product_error(record: Record) -> float:
    """The same where `a` has heavy tails."""
    return _error(record, "student", "row", "product")


@measure.value("fp8-error")
def powers_product_error(record: Record) -> float:
    """Relative error of a product of normal numbers in MXFP8, powers rounded down."""
    return _error(record, "gaussian", "mx", "product")


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
def limited_off(record: Record) -> float:
    """The same with max_num_imprecise_acc=128."""
    return _off(record, "max_num_imprecise_acc=128", "positive")


def _both(record: Record) -> tuple[float, float]:
    """Errors of the longest sum of positive terms that was modelled: the model's and
    the card's."""
    rows = record.select(op="positive", impl="modelled, fast")
    model = max(rows, key=lambda row: row["shape"]["k"])
    card = record.one(op="positive", impl="fast", k=model["shape"]["k"])
    return model["relative_error"], card["relative_error"]


@measure.value("fp8-accumulate")
def modelled_off(record: Record) -> float:
    """Relative error of the longest sum that was modelled, as the model has it."""
    return _both(record)[0]


@measure.value("fp8-accumulate")
def as_long_off(record: Record) -> float:
    """The same as the card has it."""
    return _both(record)[1]


@measure.value("fp8-accumulate")
def signed_fast_off(record: Record) -> float:
    """Relative error of the longest sum of terms of both signs, fast."""
    return _off(record, "fast", "signed")


@measure.claim(
    "fp8-accumulate",
    "The longest sum of positive terms is off ten times as far when tensor cores take "
    "all of it as when they take 128 terms at a time.",
)
def promotion_mends(record: Record) -> tuple[bool, str]:
    fast, precise = fast_off(record), precise_off(record)
    return fast > 10 * precise, f"{fast:.3g} and {precise:.3g}"
