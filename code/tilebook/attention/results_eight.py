"""What the chapter shows of the record on eight bits: tables."""

import pandas as pd

from tilebook.attention import experiments_eight
from tilebook.attention.results import MASK
from tilebook.measure import Record


def rates(record: Record) -> pd.DataFrame:
    """Rates, in TFLOP/s.

    Args:
        record: "attention-fp8".

    Returns:
        By features, mask and length, a column for each implementation.
    """
    table: dict[str, dict[str, float]] = {}
    for row in record.select(op="attention_forward"):
        shape = row["shape"]
        case = f"{shape['d']}, {MASK[shape['causal']]}, {shape['s']:,}"
        table.setdefault(case, {})[row["impl"]] = row["tflops"]
    return pd.DataFrame.from_dict(table, orient="index").round(0)


def errors(record: Record) -> pd.DataFrame:
    """Relative errors, means over heads.

    Args:
        record: "attention-fp8".

    Returns:
        By kind of operands, a column for each way.
    """
    table: dict[str, dict[str, float]] = {}
    for kind in experiments_eight.KINDS:
        for row in record.select(op=kind):
            line = table.setdefault(kind, {})
            line[row["impl"]] = float(f"{row['relative_error']:.2g}")
    return pd.DataFrame.from_dict(table, orient="index")
