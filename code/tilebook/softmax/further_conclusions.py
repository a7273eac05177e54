"""What the chapter quotes and concludes of gradients, crossovers and errors."""

from tilebook import measure
from tilebook.measure import Record, Row
from tilebook.softmax import conclusions
from tilebook.softmax.conclusions import (
    against,
    case,
    copy_of,
    gbps_of,
    length,
    mean_of,
)


@measure.value("softmax-backward")
def gradient_copy_gbps(record: Record) -> float:
    """GB/s of a copy, measured around the experiment."""
    return copy_of(record)


@measure.value("softmax-backward")
def gradient_gbps(record: Record) -> float:
    """GB/s of the gradient, 4096 bfloat16 a row."""
    return gbps_of(record, "gradient", conclusions.COPYING)


@measure.value("softmax-backward")
def gradient_long_gbps(record: Record) -> float:
    """GB/s of the gradient, 131072 bfloat16 a row."""
    return gbps_of(record, "gradient", conclusions.LONG)


@measure.value("softmax-backward")
def gradient_twice_gbps(record: Record) -> float:
    """GB/s of two passes over both tensors there."""
    return gbps_of(record, "long", conclusions.LONG)


@measure.value("softmax-backward")
def gradient_mean(record: Record) -> float:
    """Geometric mean over the fastest peer, bfloat16, cold, all lengths."""
    found = [
        (row, ratio)
        for row, ratio in against(record, "gradient")
        if row["dtype"] == "bfloat16" and row["regime"] == "cold"
    ]
    return mean_of(found)


@measure.value("softmax-backward")
def gradient_worst(record: Record) -> float:
    """The least of all ratios to the fastest peer."""
    return min(ratio.median for _, ratio in against(record, "gradient"))


@measure.claim(
    "softmax-backward",
    "The gradient has everywhere at least 99 % of the fastest peer's rate.",
)
def gradient_nowhere_behind(record: Record) -> tuple[bool, str]:
    behind = [
        f"{case(row)}: {ratio.median:.3f}"
        for row, ratio in against(record, "gradient")
        if ratio.median < 0.99
    ]
    return not behind, "; ".join(behind)


@measure.claim(
    "softmax-backward",
    "With bfloat16 the gradient is at least 1.1 times as fast as the fastest peer's "
    "as a geometric mean.",
)
def gradient_ahead(record: Record) -> tuple[bool, str]:
    mean = gradient_mean(record)
    return mean >= 1.1, f"mean {mean:.3f}"


def best_rungs(record: Record) -> dict[int, str]:
    """The fastest rung by the length of a row.

    Args:
        record: of crossovers.

    Returns:
        Names of rungs.
    """
    found: dict[int, Row] = {}
    for row in record.rows:
        if row["impl"] != "softmax":
            best = found.setdefault(length(row), row)
            if row["ms"] < best["ms"]:
                found[length(row)] = row
    return {n: row["impl"] for n, row in sorted(found.items())}


@measure.value("softmax-crossovers")
def choice_worst(record: Record) -> float:
    """The least of the chosen rung's speed over the fastest rung's."""
    found = []
    for row in record.select(impl="softmax"):
        rivals = [r for r in record.rows if r["shape"] == row["shape"]]
        found.append(min(r["ms"] for r in rivals) / row["ms"])
    return min(found)


@measure.claim(
    "softmax-crossovers",
    "On matrices of 64 Mi elements the rung that is chosen is within 5 % of the "
    "fastest.",
)
def choice_is_good(record: Record) -> tuple[bool, str]:
    least = choice_worst(record)
    return least >= 0.95, f"{least:.3f}"


@measure.value("softmax-error")
def worst_units(record: Record) -> float:
    """The largest error of an element of ours in float32, in units of 2^-24."""
    rows = record.select(impl="softmax", dtype="float32")
    return max(row["extra"]["worst"] for row in rows)


@measure.value("softmax-error")
def worst_units_torch(record: Record) -> float:
    """The same of PyTorch's."""
    rows = record.select(impl="torch", dtype="float32")
    return max(row["extra"]["worst"] for row in rows)


@measure.value("softmax-error")
def naive_error(record: Record) -> float:
    """Relative error of PyTorch step by step in bfloat16, inputs of normal size."""
    rows = record.select(impl="naive", dtype="bfloat16", exponent=0)
    return max(row["relative_error"] for row in rows)


@measure.value("softmax-error")
def fused_error(record: Record) -> float:
    """The same of `softmax`."""
    rows = record.select(impl="softmax", dtype="bfloat16", exponent=0)
    return max(row["relative_error"] for row in rows)


@measure.claim(
    "softmax-error",
    "In bfloat16 and float16 softmax is off by what one rounding of the result costs, "
    "at every scale.",
)
def rounded_once(record: Record) -> tuple[bool, str]:
    off = [
        f"{row['shape']} {row['dtype']}: {row['relative_error']:.2g}"
        for row in record.select(impl="softmax")
        if row["dtype"] in ("bfloat16", "float16")
        and row["relative_error"] > row["extra"]["rounding"]
    ]
    return not off, "; ".join(off)
