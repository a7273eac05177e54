"""What the chapter shows of the record on rungs of gradients: tables."""

import pandas as pd

from tilebook.attention import adding, conclusions_backward
from tilebook.attention.results import MASK
from tilebook.measure import Record


def rungs(record: Record) -> pd.DataFrame:
    """Rates of the rungs of gradients, in TFLOP/s.

    Args:
        record: "attention-backward-ladder".

    Returns:
        By features and mask, a column for each rung.
    """
    table: dict[str, dict[str, float]] = {}
    for row in record.part(lambda row: row["op"] != "add").rows:
        shape = row["shape"]
        line = table.setdefault(f"{shape['d']}, {MASK[shape['causal']]}", {})
        line[row["impl"]] = row["tflops"]
    return pd.DataFrame.from_dict(table, orient="index").round(0)


def added(record: Record) -> pd.DataFrame:
    """What is added to memory, in TB/s.

    Args:
        record: "attention-backward-ladder".

    Returns:
        By who adds.
    """
    rates = {way: conclusions_backward.rate(record, way) for way in adding.WAYS}
    return pd.DataFrame({"TB/s added": rates}).round(2)
