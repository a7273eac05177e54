"""What the chapter quotes and concludes of reductions."""

import statistics
from collections.abc import Callable

from tilebook import measure
from tilebook.measure import Ratio, Record, Row

OPS = ("sum", "mean", "var", "argmax", "logsumexp", "topk")
PEERS = ("torch", "torch.compile")
# The rows that prose speaks of, ragged ones beside them, and from where on a matrix is
# large: beyond what caches hold.
SHAPE = {"m": 16384, "n": 4096, "dim": 1}
RAGGED = {"m": 16380, "n": 4097, "dim": 1}
LARGE = 2**24
# The mean is that many times the standard deviation.
FARTHEST = 10**6
LOST = 10**4

KEPT_UP = {"sum": 0.98, "mean": 0.98}
"""What of the fastest peer's rate these have at least, which aren't ahead of it."""


def _row(record: Record, op: str, dtype: str = "bfloat16", **shape: int) -> Row:
    case = {"op": op, "dtype": dtype, "regime": "cold"} | (shape or SHAPE)
    return record.one(impl="tilebook", **case)


def _read_gbps(record: Record) -> float:
    ends = (record.canary["open"], record.canary["close"])
    return max(end["read_gbps"] for end in ends)


def _against(record: Record, op: str) -> list[tuple[str, Ratio]]:
    """Each large case by name, with our rate over the fastest peer's."""
    return [
        (f"{m} x {n}, {row['shape']['dim']}, {row['dtype']} {row['regime']}", found)
        for row, found in record.against("tilebook", *PEERS)
        if row["op"] == op
        and (m := row["shape"]["m"]) * (n := row["shape"]["n"]) >= LARGE
    ]


def _mean(record: Record, op: str) -> float:
    return statistics.geometric_mean(r.median for _, r in _against(record, op))


@measure.value("softmax-reductions")
def read_gbps(record: Record) -> float:
    """GB/s of reading alone, measured around the experiment."""
    return _read_gbps(record)


def _declare(op: str) -> None:
    """Declare the values and the claim of one reduction."""

    def gbps(record: Record) -> float:
        return _row(record, op)["gbps"]

    def share(record: Record) -> float:
        return _row(record, op)["gbps"] / _read_gbps(record)

    def over_peers(record: Record) -> float:
        return _mean(record, op)

    def worst(record: Record) -> float:
        return min(r.median for _, r in _against(record, op))

    values: dict[str, Callable[[Record], float]] = {
        f"{op}_gbps": gbps,
        f"{op}_share": share,
        f"{op}_over_peers": over_peers,
        f"{op}_worst": worst,
    }
    for name, fn in values.items():
        fn.__name__ = name
        measure.value("softmax-reductions")(fn)

    def ahead(record: Record) -> tuple[bool, str]:
        slower = [f"{name}: {r.median:.3f}" for name, r in _against(record, op)
                  if r.high < 1]  # fmt: skip
        mean = _mean(record, op)
        return mean >= KEPT_UP.get(op, 1), f"mean {mean:.3f}; " + "; ".join(slower)

    ahead.__name__ = f"{op}_ahead"
    told = "is ahead of the fastest peer"
    if op in KEPT_UP:
        told = f"has at least {100 * KEPT_UP[op]:.0f} % of the fastest peer's rate"
    measure.claim(
        "softmax-reductions",
        f"On large inputs, {op} {told} as a geometric mean.",
    )(ahead)


for _op in OPS:
    _declare(_op)


@measure.value("softmax-reductions")
def ragged_share(record: Record) -> float:
    """Bandwidth of `sum` on rows of 4097 bfloat16 over that on rows of 4096."""
    return _row(record, "sum", **RAGGED)["gbps"] / _row(record, "sum")["gbps"]


@measure.claim(
    "softmax-reductions",
    "A sum of rows of 4096 bfloat16 has at least 92 % of the bandwidth of reading.",
)
def as_fast_as_reading(record: Record) -> tuple[bool, str]:
    share = _row(record, "sum")["gbps"] / _read_gbps(record)
    return share >= 0.92, f"{share:.3f} of reading"


@measure.claim(
    "softmax-reductions",
    "Rows of 4097 bfloat16 are summed at 90 % of the rate of rows of 4096 or more.",
)
def ragged_rows_are_no_slower(record: Record) -> tuple[bool, str]:
    share = ragged_share(record)
    return share >= 0.9, f"{share:.3f} of it"


def _errors(record: Record, impl: str) -> dict[int, Row]:
    return {row["shape"]["ratio"]: row for row in record.select(impl=impl)}


@measure.value("softmax-variance")
def shifted_error(record: Record) -> float:
    """Relative error of `var` where the mean is farthest from 0."""
    return _errors(record, "tilebook")[FARTHEST]["relative_error"]


@measure.value("softmax-variance")
def welford_error(record: Record) -> float:
    """The same of Welford's recurrence on the elements themselves."""
    return _errors(record, "welford")[FARTHEST]["relative_error"]


@measure.value("softmax-variance")
def two_pass_error(record: Record) -> float:
    """The same of two passes."""
    return _errors(record, "two passes")[FARTHEST]["relative_error"]


@measure.value("softmax-variance")
def torch_error(record: Record) -> float:
    """The same of PyTorch's."""
    return _errors(record, "torch")[FARTHEST]["relative_error"]


@measure.value("softmax-variance")
def lost_from(record: Record) -> int:
    """From which ratio on the difference of squares is off by more than all of it."""
    found = _errors(record, "difference of squares")
    return min(ratio for ratio, row in found.items() if row["relative_error"] > 1)


def _within(record: Record, impl: str) -> tuple[bool, str]:
    beyond = [
        f"{ratio}: {row['relative_error']:.2g} of {row['error_bound']:.2g}"
        for ratio, row in _errors(record, impl).items()
        if row["relative_error"] > row["error_bound"]
    ]
    return not beyond, "; ".join(beyond)


@measure.claim(
    "softmax-variance",
    "The error of var does not grow with the mean: it stays within n roundings' bound.",
)
def shifted_stays(record: Record) -> tuple[bool, str]:
    return _within(record, "tilebook")


@measure.claim(
    "softmax-variance",
    "Welford's error stays within its bound, which grows as the mean does.",
)
def welford_stays(record: Record) -> tuple[bool, str]:
    return _within(record, "welford")


@measure.claim(
    "softmax-variance",
    "The difference of two squares has lost all digits where the mean is ten thousand "
    "times the standard deviation.",
)
def difference_is_lost(record: Record) -> tuple[bool, str]:
    error = _errors(record, "difference of squares")[LOST]["relative_error"]
    return error > 1, f"{error:.2g}"


@measure.claim(
    "softmax-variance",
    "At a million times, Welford's recurrence is a thousand times as far off as var.",
)
def shift_pays(record: Record) -> tuple[bool, str]:
    times = welford_error(record) / shifted_error(record)
    return times >= 1000, f"{times:.0f} times"
