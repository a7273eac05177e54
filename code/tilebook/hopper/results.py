"""What the chapter shows of its records: parts of them, and tables."""

import pandas as pd

from tilebook.measure import Ratio, Record, Row

KIND = {"host": "host, µs", "cold": "GPU, µs"}


def cold(record: Record, impl: str, **shape: int) -> float:
    """TFLOP/s of an implementation on a shape, inputs in memory.

    Args:
        record: "hopper-ladder" or "hopper-k-sweep".
        impl: its name.
        shape: sides of the product.
    """
    return record.one(impl=impl, op="matmul_nt", regime="cold", **shape)["tflops"]


def ladder(record: Record) -> pd.DataFrame:
    """TFLOP/s of the rungs on squares, inputs in memory.

    Args:
        record: "hopper-ladder".

    Returns:
        A row for each implementation, a column for each side.
    """
    found: dict[str, dict[int, float]] = {}
    for row in record.select(regime="cold"):
        rates = found.setdefault(row["impl"], {})
        rates[row["shape"]["n"]] = round(row["tflops"], 1)
    table = pd.DataFrame.from_dict(found, orient="index")
    return table[sorted(table.columns)].rename_axis(columns="side")


def sums(record: Record) -> pd.DataFrame:
    """How many times as fast as cuBLAS schedules are, by the length of sums.

    Args:
        record: "hopper-k-sweep".

    Returns:
        A row for each k, a column for each of our implementations; inputs in memory.
    """
    found: dict[int, dict[str, float]] = {}
    for impl in dict.fromkeys(row["impl"] for row in record.rows if row["ours"]):
        for row, ratio in _against_cublas(record, impl):
            found.setdefault(row["shape"]["k"], {})[impl] = round(ratio.median, 3)
    table = pd.DataFrame.from_dict(found, orient="index")
    return table.sort_index().rename_axis("k")


def cuts(record: Record) -> pd.DataFrame:
    """How many times as fast as cuBLAS products with something left over are.

    Args:
        record: "hopper-remainder".

    Returns:
        A row for each product, by its sides, a column for each implementation of ours;
        inputs in memory.
    """
    found: dict[str, dict[str, float]] = {}
    for impl in dict.fromkeys(row["impl"] for row in record.rows if row["ours"]):
        for row, ratio in _against_cublas(record, impl):
            sides = " x ".join(str(row["shape"][side]) for side in "mnk")
            found.setdefault(sides, {})[impl] = round(ratio.median, 3)
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("m, n, k")


def _against_cublas(record: Record, impl: str) -> list[tuple[Row, Ratio]]:
    return record.part(lambda row: row["regime"] == "cold").against(impl, "cuBLAS")


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
