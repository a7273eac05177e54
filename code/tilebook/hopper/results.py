"""What the chapter shows of its records: parts of them, and tables."""

import pandas as pd

from tilebook.measure import Record

KIND = {"host": "host, µs", "cold": "GPU, µs"}


def best(record: Record, impl: str, **shape: int) -> float:
    """TFLOP/s of an implementation on a shape, in its better regime.

    Args:
        record: "hopper-ladder" or "hopper-k-sweep".
        impl: its name.
        shape: sides of the product.
    """
    return record.best(impl=impl, op="matmul_nt", **shape)["tflops"]


def ladder(record: Record) -> pd.DataFrame:
    """TFLOP/s of the rungs on squares, in the better regime.

    Args:
        record: "hopper-ladder".

    Returns:
        A row for each implementation, a column for each side.
    """
    found: dict[str, dict[int, float]] = {}
    for row in record.rows:
        rates = found.setdefault(row["impl"], {})
        side = row["shape"]["n"]
        rates[side] = max(rates.get(side, 0.0), round(row["tflops"], 1))
    table = pd.DataFrame.from_dict(found, orient="index")
    return table[sorted(table.columns)].rename_axis(columns="side")


def sums(record: Record) -> pd.DataFrame:
    """How many times as fast as cuBLAS schedules are, by the length of sums.

    Args:
        record: "hopper-k-sweep".

    Returns:
        A row for each k, a column for each of our implementations; the ratio in the
        regime where it is less.
    """
    found: dict[int, dict[str, float]] = {}
    for impl in dict.fromkeys(row["impl"] for row in record.rows if row["ours"]):
        for row, ratio in record.against(impl, "cuBLAS"):
            mine = found.setdefault(row["shape"]["k"], {})
            mine[impl] = round(min(mine.get(impl, ratio.median), ratio.median), 3)
    table = pd.DataFrame.from_dict(found, orient="index")
    return table.sort_index().rename_axis("k")


def cuts(record: Record) -> pd.DataFrame:
    """How many times as fast as cuBLAS products with something left over are.

    Args:
        record: "hopper-remainder".

    Returns:
        A row for each product, by its sides, a column for each implementation of ours;
        the ratio in the regime where it is less.
    """
    found: dict[str, dict[str, float]] = {}
    for impl in dict.fromkeys(row["impl"] for row in record.rows if row["ours"]):
        for row, ratio in record.against(impl, "cuBLAS"):
            sides = " x ".join(str(row["shape"][side]) for side in "mnk")
            mine = found.setdefault(sides, {})
            mine[impl] = round(min(mine.get(impl, ratio.median), ratio.median), 3)
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("m, n, k")


def descriptors(record: Record) -> pd.DataFrame:
    """What a launch of a small product costs the host and the card.

    Args:
        record: "hopper-descriptors".

    Returns:
        A row for each way to say where the matrices lie, microseconds of both.
    """
    found: dict[str, dict[str, float]] = {}
    for row in record.rows:
        mine = found.setdefault(row["impl"], {})
        mine[KIND[row["regime"]]] = round(row["ms"] * 1e3, 2)
    return pd.DataFrame.from_dict(found, orient="index")
