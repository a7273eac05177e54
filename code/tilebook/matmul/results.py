"""What the chapter shows of its records: parts of them, and tables."""

import pandas as pd

from tilebook.matmul import first_call, shapes
from tilebook.matmul.conclusions_linear import ENDED_PEERS
from tilebook.measure import Record, Row

OPS = {"matmul": "NN", "matmul_nt": "NT", "matmul_tn": "TN"}
"""The layout of a record's row, by its operator."""


def squares(record: Record, layout: str = "NN") -> Record:
    """Keep the square products of one layout.

    Args:
        record: of one of the chapter's experiments.
        layout: one of `shapes.LAYOUTS`.
    """

    def wanted(row: Row) -> bool:
        sides = set(row["shape"].values())
        return len(sides) == 1 and OPS.get(row["op"]) == layout

    return record.part(wanted)


def layers(record: Record, impl: str = "matmul", regime: str = "cold") -> pd.DataFrame:
    """How many times as fast as cuBLAS a model's layers are, by rows of tokens.

    Args:
        record: "matmul-bf16", "matmul-fp16" or "matmul-skinny".
        impl: whose rate is meant.
        regime: "cold" or "steady".

    Returns:
        A row for each layer of `shapes.LAYERS`, a column for each number of rows that
        the record has, and ratios of rates.
    """
    found: dict[str, dict[int, float]] = {}
    names = {
        (n, k): f"{model} {layer}"
        for model, sides in shapes.LAYERS.items()
        for layer, (n, k) in sides.items()
    }
    for row, ratio in record.against(impl, "cuBLAS"):
        shape = row["shape"]
        name = names.get((shape["n"], shape["k"]))
        known = (row["op"], row["regime"]) == ("matmul_nt", regime)
        # The larger model's layer is a square, too, of more rows.
        if name and known and shape["m"] <= max(shapes.ROWS):
            found.setdefault(name, {})[shape["m"]] = round(ratio.median, 3)
    table = pd.DataFrame.from_dict(found, orient="index")
    ordered = [name for name in names.values() if name in table.index]
    return table.loc[ordered, sorted(table.columns)].rename_axis(columns="rows")


def others(record: Record, regime: str = "cold") -> pd.DataFrame:
    """How many times as fast as cuBLAS everything else is: layouts beside each other.

    Args:
        record: "matmul-bf16" or "matmul-fp16".
        regime: "cold" or "steady".

    Returns:
        A row for each shape that is no layer's, with the ratio of rates by layout and
        TFLOP/s for rows beside rows (NN).
    """
    found: dict[str, dict[str, str]] = {}
    layer_sides = {pair for sides in shapes.LAYERS.values() for pair in sides.values()}
    for row, ratio in record.against("matmul", "cuBLAS"):
        m, n, k = (row["shape"][side] for side in "mnk")
        if row["regime"] != regime or ((n, k) in layer_sides and not m == n == k):
            continue
        name = f"{m} x {n} x {k}"
        layout = OPS[row["op"]]
        found.setdefault(name, {})[layout] = f"{ratio.median:.3f}"
        if layout == "NN":
            found[name]["TFLOP/s"] = f"{row['tflops']:.1f}"
    table = pd.DataFrame.from_dict(found, orient="index").rename_axis("m x n x k")
    wanted = [x for x in (*OPS.values(), "TFLOP/s") if x in table]
    # Not every shape is measured in every layout.
    return table.reindex(columns=wanted).fillna("")


def turns(record: Record, regime: str = "cold") -> pd.DataFrame:
    """TFLOP/s of products of few more tiles than multiprocessors.

    Args:
        record: "matmul-turns".
        regime: "cold" or "steady".

    Returns:
        A row for each shape, a column for each implementation.
    """
    found: dict[str, dict[str, float]] = {}
    for row in record.select(regime=regime):
        name = " x ".join(str(row["shape"][side]) for side in "mnk")
        found.setdefault(name, {})[row["impl"]] = round(row["tflops"], 1)
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("m x n x k")


def ends(record: Record) -> pd.DataFrame:
    """What a layer's end costs, beside the fastest peer.

    Args:
        record: "matmul-epilogue".

    Returns:
        A row for each shape, a column for each end; how many times as fast as the
        fastest of its peers, in the regime where that is less.
    """
    found: dict[str, dict[str, float]] = {}
    for row, ratio in record.against("linear", *ENDED_PEERS):
        name = " x ".join(str(row["shape"][side]) for side in "mnk")
        end = row["op"].removeprefix("linear, ")
        before = found.setdefault(name, {}).get(end, ratio.median)
        found[name][end] = min(before, ratio.median)
    table = pd.DataFrame.from_dict(found, orient="index").round(3)
    return table.rename_axis("m x n x k")


def first_calls(record: Record) -> pd.DataFrame:
    """Seconds of first calls.

    Args:
        record: "matmul-autotune-cost".

    Returns:
        A row for each shape and implementation, a column for each call.
    """
    calls = [*first_call.CALLS, first_call.NEXT]
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in record.rows:
        name = " x ".join(str(row["shape"][side]) for side in "mnk")
        seconds = found.setdefault((name, row["impl"]), {})
        seconds[row["op"]] = round(row["ms"] / 1e3, 3)
    table = pd.DataFrame.from_dict(found, orient="index", columns=calls)
    return table.rename_axis(["m x n x k", "implementation"])


def precisions(record: Record) -> pd.DataFrame:
    """What a precision costs, and what it is worth.

    Args:
        record: "matmul-fp32".

    Returns:
        A row for each implementation: TFLOP/s on the largest square, in the better
        regime, and the relative error there.
    """
    most = max(row["shape"]["k"] for row in squares(record).rows)
    found = {}
    for row in squares(record).rows:
        if row["shape"]["k"] != most:
            continue
        seen = found.setdefault(row["impl"], {"TFLOP/s": 0.0, "relative error": 0.0})
        seen["TFLOP/s"] = max(seen["TFLOP/s"], round(row["tflops"], 1))
        seen["relative error"] = max(seen["relative error"], row["relative_error"] or 0)
    table = pd.DataFrame.from_dict(found, orient="index")
    table["relative error"] = table["relative error"].map("{:.1e}".format)
    return table
