"""What the chapter shows of its records: tables, and another's beside one of them."""

import pandas as pd

from tilebook.fp8 import scaling, shapes
from tilebook.measure import Record, Row
from tilebook.measure.record import same_case

ARTICLE = {1: 2.5, 16: 44.5, 32: 89.7, 64: 178.5, 128: 359.7}
"""TFLOP/s by rows for a weight of 4096 squared, of the Triton kernel with the copy
engine in the article on it (bibliography: pytorch2024tma), on an H100."""
SIDE = 4096
"""Of the article's weight."""
SHOWN = ("scaled_matmul", "_scaled_mm", "torch.compile")


def article_us(m: int) -> float:
    """Turn a rate of the article's into time.

    Args:
        m: rows, a key of `ARTICLE`.

    Returns:
        Microseconds.
    """
    return 2 * m * SIDE * SIDE / ARTICLE[m] / 1e6


def floor_us(record: Record, row: Row) -> float:
    """How long a copy takes for the bytes of a row.

    Args:
        record: the row's.
        row: of a product or a quantiser.

    Returns:
        Microseconds at the rate of the record's own copy.
    """
    return row["bytes"] / record.canary["open"]["copy_gbps"] / 1e3


def squares(record: Record, scaling: str = "row") -> Record:
    """Keep the square products of one scaling.

    Args:
        record: "fp8-gemm" or "fp8-ladder".
        scaling: one of `shapes.SCALINGS`.
    """
    code = shapes.CODES[scaling]
    return record.part(
        lambda row: (
            row["shape"]["scaling"] == code
            and row["shape"]["m"] == row["shape"]["n"] == row["shape"]["k"]
        )
    )


def thin(record: Record, scaling: str = "row") -> Record:
    """Keep the products of few rows with the weight of `SIDE`.

    Args:
        record: "fp8-gemm".
        scaling: one of `shapes.SCALINGS`.
    """
    code = shapes.CODES[scaling]
    return record.part(
        lambda row: (
            row["shape"]["scaling"] == code
            and row["shape"]["m"] <= max(shapes.FEW_ROWS)
            and row["shape"]["n"] == row["shape"]["k"] == SIDE
        )
    )


def decoding(record: Record, scaling: str = "row") -> pd.DataFrame:
    """Products of few rows with a weight of 4096 squared, nothing in a cache.

    Args:
        record: "fp8-gemm".
        scaling: one of `shapes.SCALINGS`.

    Returns:
        By rows: microseconds that a copy takes for the bytes, those of ours and of the
        library, the floor's share of ours, and the article's.
    """
    found: dict[int, dict[str, object]] = {}
    wanted = {"n": SIDE, "k": SIDE, "scaling": shapes.CODES[scaling]}
    for row in record.select(regime="cold", **wanted):
        m = row["shape"]["m"]
        if row["impl"] not in SHOWN or m > max(shapes.FEW_ROWS):
            continue
        line = found.setdefault(m, {"floor, µs": round(floor_us(record, row), 2)})
        line[f"{row['impl']}, µs"] = round(row["ms"] * 1e3, 2)
        if row["ours"]:
            share = floor_us(record, row) / row["ms"] / 1e3
            line["share of the floor"] = f"{share:.0%}"
        if m in ARTICLE:
            line["article, µs"] = f"{article_us(m):.1f}"
    table = pd.DataFrame.from_dict(found, orient="index").sort_index()
    last = [x for x in ("share of the floor", "article, µs") if x in table]
    table = table[[*(x for x in table if x not in last), *last]]
    return table.rename_axis("rows").fillna("")


def shares(record: Record, scaling: str = "row") -> pd.DataFrame:
    """The floor's share of the time of products of few rows, by weight.

    Args:
        record: "fp8-gemm".
        scaling: one of `shapes.SCALINGS`.

    Returns:
        By rows, a column for each weight, n by k.
    """
    found: dict[int, dict[str, str]] = {}
    wanted = {"impl": "scaled_matmul", "scaling": shapes.CODES[scaling]}
    for row in record.select(regime="cold", **wanted):
        m, n, k = (row["shape"][side] for side in "mnk")
        if m <= max(shapes.FEW_ROWS):
            share = floor_us(record, row) / row["ms"] / 1e3
            found.setdefault(m, {})[f"{n:,} x {k:,}"] = f"{share:.0%}"
    table = pd.DataFrame.from_dict(found, orient="index").sort_index()
    return table.rename_axis("rows").fillna("")


def large(record: Record) -> pd.DataFrame:
    """How many times as fast as the library large products are.

    Args:
        record: "fp8-gemm".

    Returns:
        By shape, a column for each scaling and way to sum; in the regime where the
        ratio is less. Empty where the library has none.
    """
    names = {code: name for name, code in shapes.CODES.items()}
    found: dict[str, dict[str, float]] = {}
    for end in ("", ", fast"):
        mine, peer = f"scaled_matmul{end}", f"_scaled_mm{end}"
        rivals = record.select(impl=peer)
        for row in record.select(impl=mine):
            theirs = [each for each in rivals if same_case(each, row)]
            if not theirs or row["shape"]["m"] <= max(shapes.FEW_ROWS):
                continue
            shape = " x ".join(str(row["shape"][side]) for side in "mnk")
            column = names[row["shape"]["scaling"]] + end
            ratio = round(theirs[0]["ms"] / row["ms"], 3)
            line = found.setdefault(shape, {})
            line[column] = min(line.get(column, ratio), ratio)
    table = pd.DataFrame.from_dict(found, orient="index")
    return table.rename_axis("m x n x k").fillna("")


def ladder(record: Record, scaling: str) -> pd.DataFrame:
    """TFLOP/s of the rungs on squares, in the better regime.

    Args:
        record: "fp8-ladder".
        scaling: one of `shapes.SCALINGS`.

    Returns:
        A row for each implementation, a column for each side.
    """
    found: dict[str, dict[int, float]] = {}
    for row in record.select(scaling=shapes.CODES[scaling]):
        rates = found.setdefault(row["impl"], {})
        side = row["shape"]["n"]
        rates[side] = max(rates.get(side, 0.0), round(row["tflops"], 1))
    table = pd.DataFrame.from_dict(found, orient="index")
    return table[sorted(table.columns)].rename_axis(columns="side")


def quantizers(record: Record) -> pd.DataFrame:
    """How near quantisers come to a copy, nothing in a cache.

    Args:
        record: "fp8-quantize".

    Returns:
        By what is done and by whom, a column for each matrix: the rate at which the
        bytes that have to move did, as a share of a copy's.
    """
    rate = record.canary["open"]["copy_gbps"]
    found: dict[tuple[str, str], dict[str, str]] = {}
    for row in record.select(regime="cold"):
        matrix = f"{row['shape']['m']:,} x {row['shape']['k']:,}"
        key = (row["op"].removeprefix("quantize "), row["impl"])
        found.setdefault(key, {})[matrix] = f"{row['gbps'] / rate:.2f}"
    table = pd.DataFrame.from_dict(found, orient="index").fillna("")
    table.index = pd.MultiIndex.from_tuples(table.index, names=("what", "by"))
    return table


def lost(record: Record, what: str = "product") -> pd.DataFrame:
    """What granularities lose, by input.

    Args:
        record: "fp8-error".
        what: "product", of a product with normal numbers; or "small", of the columns
            that aren't the large ones.

    Returns:
        A row for each input, a column for each granularity, per cent.
    """
    found: dict[str, dict[str, str]] = {}
    for row in record.rows:
        larger = row["shape"]["larger"]
        name = row["op"] if larger == 1 else f"{row['op']}, {larger:,} times"
        found.setdefault(name, {})[row["impl"]] = f"{row['extra'][what]:.2%}"
    table = pd.DataFrame.from_dict(found, orient="index")
    return table[[x for x in scaling.GRANULARITIES if x in table]]


def kept(record: Record) -> pd.DataFrame:
    """Bits behind the first that each way to sum kept.

    Args:
        record: "fp8-accumulate".

    Returns:
        A row for each way, a column for each place of the small term.
    """
    found: dict[str, dict[str, int]] = {}
    for row in record.rows:
        if row["op"].startswith("bits "):
            place = row["op"].removeprefix("bits ")
            found.setdefault(row["impl"], {})[place] = int(row["extra"]["kept"])
    return pd.DataFrame.from_dict(found, orient="index")


def sums(record: Record, kind: str) -> pd.DataFrame:
    """Relative errors of sums.

    Args:
        record: "fp8-accumulate".
        kind: "signed" or "positive".

    Returns:
        A row for each way to sum, a column for each number of terms.
    """
    found: dict[str, dict[int, str]] = {}
    for row in record.select(op=kind):
        error = f"{row['relative_error']:.1e}"
        found.setdefault(row["impl"], {})[row["shape"]["k"]] = error
    return pd.DataFrame.from_dict(found, orient="index").rename_axis(columns="terms")
