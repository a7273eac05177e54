"""What the chapter shows of its records: tables."""

import pandas as pd

from tilebook.attention import conclusions
from tilebook.attention.conclusions import ATTENTION, CUDNN, beside
from tilebook.measure import Record, Row

MASK = {0: "full", 1: "causal"}


def plain(row: Row) -> bool:
    """Whether a row is of heads that share nothing, and of no window."""
    shape = row["shape"]
    return shape["h"] == shape["hk"] and "window" not in shape


def lengths(record: Record, d: int = 128, causal: int = 1) -> Record:
    """Keep one kind of head, of lengths that are powers of two.

    Args:
        record: "attention-forward" or "attention-backward".
        d: features.
        causal: 1 under a mask.
    """

    def kept(row: Row) -> bool:
        s = row["shape"]["s"]
        return plain(row) and s & (s - 1) == 0

    part = record.part(kept)
    return part.part(lambda r: (r["shape"]["d"], r["shape"]["causal"]) == (d, causal))


def over_cudnn(record: Record, impl: str = ATTENTION) -> pd.DataFrame:
    """Times cuDNN's rate, in the regime where the ratio is less.

    Args:
        record: "attention-forward" or "attention-backward".
        impl: ours.

    Returns:
        By features and mask, a column for each length.
    """
    table: dict[str, dict[int, float]] = {}
    for row, ratio in beside(record.part(plain), CUDNN, impl):
        shape = row["shape"]
        line = table.setdefault(f"{shape['d']}, {MASK[shape['causal']]}", {})
        line[shape["s"]] = min(ratio.median, line.get(shape["s"], ratio.median))
    frame = pd.DataFrame.from_dict(table, orient="index").round(3)
    return frame[sorted(frame.columns)]


def others(record: Record) -> pd.DataFrame:
    """Rates of heads that share keys and of windows, in TFLOP/s.

    Args:
        record: "attention-forward" or "attention-backward".

    Returns:
        By case, a column for each implementation.
    """
    table: dict[str, dict[str, float]] = {}
    for row in record.select(regime="cold"):
        shape = row["shape"]
        if plain(row):
            continue
        shared = shape["h"] // shape["hk"]
        what = "window" if "window" in shape else f"{MASK[shape['causal']]}, {shared}:1"
        case = f"{shape['d']} features, {shape['s']:,} positions, {what}"
        table.setdefault(case, {})[row["impl"]] = row["tflops"]
    return pd.DataFrame.from_dict(table, orient="index").round(0)


def ladder(record: Record, d: int = 128, causal: int = 1) -> pd.DataFrame:
    """Rates of the rungs, in TFLOP/s.

    Args:
        record: "attention-ladder".
        d: features.
        causal: 1 under a mask.

    Returns:
        By implementation, a column for each length.
    """
    table: dict[str, dict[int, float]] = {}
    for row in lengths(record, d, causal).rows:
        table.setdefault(row["impl"], {})[row["shape"]["s"]] = row["tflops"]
    return pd.DataFrame.from_dict(table, orient="index").round(0)


def variants(record: Record) -> pd.DataFrame:
    """What options cost.

    Args:
        record: "attention-variants".

    Returns:
        By option: milliseconds, times an attention without, and flex_attention's time
        over ours where it was measured.
    """
    rows = {}
    without = record.one(impl=ATTENTION, op="plain")["ms"]
    for row in record.select(impl=ATTENTION):
        theirs = record.select(impl=conclusions.FLEX, op=row["op"])
        rows[row["op"]] = {
            "ms": row["ms"],
            "over plain": row["ms"] / without,
            "flex_attention over it": theirs[0]["ms"] / row["ms"] if theirs else None,
        }
    return pd.DataFrame.from_dict(rows, orient="index").round(3)


def errors(record: Record, op: str = "length") -> pd.DataFrame:
    """Relative errors.

    Args:
        record: "attention-error".
        op: "length", or "logits" for what grows.

    Returns:
        By type and implementation, a column for each length, or for what logits are
        multiplied by.
    """
    table: dict[tuple[str, str], dict[int, float]] = {}
    for row in record.select(op=op):
        at = row["shape"]["s" if op == "length" else "times"]
        line = table.setdefault((row["dtype"], row["impl"]), {})
        line[at] = float(f"{row['relative_error']:.2g}")
    return pd.DataFrame.from_dict(table, orient="index")
