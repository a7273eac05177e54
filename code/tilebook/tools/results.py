"""Tables of what was measured."""

import pandas as pd

from tilebook.measure import Record
from tilebook.tools import case, conclusions, nsight


def steps(record: Record) -> pd.DataFrame:
    """Tabulate the case's steps.

    Args:
        record: of `tools-case-study`.

    Returns:
        A row for each step: µs, GB/s, and how many times as fast as the one before.
    """
    rows, before = [], None
    for name in case.STEPS:
        row = record.one(impl=name, op="scale_groups", m=conclusions.LARGE)
        gain = before / row["ms"] if before else 1.0
        rows.append((name, 1e3 * row["ms"], row["gbps"], gain))
        before = row["ms"]
    columns = ["step", "µs", "GB/s", "times the one before"]
    return pd.DataFrame(rows, columns=columns).set_index("step")


def counted(record: Record) -> pd.DataFrame:
    """Tabulate the counters that were kept of each step.

    Args:
        record: of `tools-case-study`.

    Returns:
        A row for each step, as `nsight.parse` would have it; none where nobody was
        allowed to read them.
    """
    rows = [
        {"kernel": row["impl"], **row["extra"]} for row in record.select(op="counters")
    ]
    known = ["kernel", *(counter.name for counter in nsight.COUNTERS)]
    return pd.DataFrame(rows).reindex(columns=known).dropna(axis=1, how="all")


def clocks(record: Record) -> pd.DataFrame:
    """Tabulate one kernel's time by each tool.

    Args:
        record: of `tools-proton-vs-events-vs-ncu`.

    Returns:
        A row for each size, in MiB of x; µs by each tool.
    """
    frame = pd.DataFrame(
        [
            (
                row["shape"]["m"] * row["shape"]["n"] / 2**18,
                row["impl"],
                1e3 * row["ms"],
            )
            for row in record.rows
        ],
        columns=["MiB of x", "tool", "µs"],
    )
    order = list(dict.fromkeys(frame["tool"]))
    return frame.pivot(index="MiB of x", columns="tool", values="µs")[order]
