"""What the chapter quotes and concludes of softmax, forward."""

import statistics

from tilebook import measure
from tilebook.measure import Ratio, Record, Row
from tilebook.softmax.peers import NAMES

FROM, TO = 1024, 32768
"""Lengths of rows over which softmax is compared as a mean."""
COPYING = 4096
"""From here up to `TO` softmax is held against a copy."""
SHORT, UNEVEN, LONG, ODD, SHARED = 256, 4097, 131072, 50257, 262144
"""Lengths that the text looks at by themselves, beside these; rows of the last are more
than a multiprocessor holds, and are shared by several."""
ALONE, SOME = (1, 2**20), (16, 131072)
"""Matrices of few rows that the text looks at."""
ROWS = 132
"""Multiprocessors of an H100: as many rows keep all of them busy."""


def length(row: Row) -> int:
    """Elements of a row of the matrix that a record's row is about."""
    return row["shape"]["n"]


def case(row: Row) -> str:
    """Name what a record's row is about."""
    return f"{row['shape']['m']} x {length(row)} {row['dtype']} {row['regime']}"


def copy_of(record: Record) -> float:
    """GB/s of a copy, measured around an experiment."""
    return measure.roofline.measured(record.canary).gbps


def against(record: Record, impl: str) -> list[tuple[Row, Ratio]]:
    """Each row of an implementation, held against the fastest peer."""
    return record.against(impl, *NAMES)


def _many(row: Row) -> bool:
    return row["shape"]["m"] >= ROWS


def _middle(record: Record, impl: str = "softmax") -> list[tuple[Row, Ratio]]:
    """Rows of bfloat16 of the lengths that count, cold, against the fastest peer."""
    return [
        (row, found)
        for row, found in against(record, impl)
        if row["dtype"] == "bfloat16"
        and row["regime"] == "cold"
        and FROM <= length(row) <= TO
        and _many(row)
    ]


def mean_of(found: list[tuple[Row, Ratio]]) -> float:
    """Geometric mean of ratios."""
    return statistics.geometric_mean(ratio.median for _, ratio in found)


def gbps_of(record: Record, impl: str, n: int, dtype: str = "bfloat16") -> float:
    """GB/s of an implementation on many rows, cold."""
    rows = record.select(impl=impl, dtype=dtype, regime="cold", n=n)
    return max(row["gbps"] for row in rows if _many(row))


def _peer(record: Record, n: int, dtype: str = "bfloat16") -> float:
    found = [
        row["gbps"]
        for row in record.select(dtype=dtype, regime="cold", n=n)
        if row["impl"] in NAMES and _many(row)
    ]
    return max(found)


@measure.value("softmax-forward")
def copy_gbps(record: Record) -> float:
    """GB/s of a copy, measured around the experiment."""
    return copy_of(record)


@measure.value("softmax-forward")
def naive_gbps(record: Record) -> float:
    """GB/s of PyTorch step by step, 4096 bfloat16 a row, by compulsory traffic."""
    return gbps_of(record, "naive", COPYING)


@measure.value("softmax-forward")
def naive_share(record: Record) -> float:
    """Bandwidth of the steps over a copy's, by the eight elements that they move."""
    return 4 * naive_gbps(record) / copy_of(record)


@measure.value("softmax-forward")
def fused_gbps(record: Record) -> float:
    """GB/s of a row per program, 4096 bfloat16 a row."""
    return gbps_of(record, "fused", COPYING)


@measure.value("softmax-forward")
def fused_over_naive(record: Record) -> float:
    """How many times as fast as the steps one kernel is, 4096 bfloat16 a row."""
    return fused_gbps(record) / naive_gbps(record)


@measure.value("softmax-forward")
def several_over_fused(record: Record) -> float:
    """What several rows per program are worth, 256 bfloat16 a row."""
    return gbps_of(record, "several", SHORT) / gbps_of(record, "fused", SHORT)


@measure.value("softmax-forward")
def persistent_over_fused(record: Record) -> float:
    """What a walk with the next row ahead is worth, 32768 bfloat16 a row."""
    return gbps_of(record, "persistent", TO) / gbps_of(record, "fused", TO)


@measure.value("softmax-forward")
def ragged_over_fused(record: Record) -> float:
    """What the row's ends apart are worth, 4097 bfloat16 a row."""
    return gbps_of(record, "ragged", UNEVEN) / gbps_of(record, "fused", UNEVEN)


@measure.value("softmax-forward")
def online_gbps(record: Record) -> float:
    """GB/s of two passes, 131072 bfloat16 a row."""
    return gbps_of(record, "online", LONG)


@measure.value("softmax-forward")
def online_moved(record: Record) -> float:
    """Elements that memory moves for each of a row, if it is all that limits."""
    return 2 * copy_of(record) / online_gbps(record)


@measure.value("softmax-forward")
def best_long_gbps(record: Record) -> float:
    """GB/s of `softmax`, 131072 bfloat16 a row."""
    return gbps_of(record, "softmax", LONG)


@measure.value("softmax-forward")
def peer_long_gbps(record: Record) -> float:
    """GB/s of the fastest peer there."""
    return _peer(record, LONG)


@measure.value("softmax-forward")
def long_over_online(record: Record) -> float:
    """`softmax` over two passes, 131072 bfloat16 a row."""
    return best_long_gbps(record) / online_gbps(record)


@measure.value("softmax-forward")
def long_over_peers(record: Record) -> float:
    """`softmax` over the fastest peer, 131072 bfloat16 a row."""
    return best_long_gbps(record) / peer_long_gbps(record)


def split_over_online(record: Record, shape: tuple[int, int]) -> float:
    """How many times as fast parts of rows are as whole ones, on a matrix."""
    m, n = shape
    names = ("split", "online")
    parts, whole = (
        record.best(impl=name, dtype="bfloat16", regime="cold", m=m, n=n)["ms"]
        for name in names
    )
    return whole / parts


@measure.value("softmax-forward")
def split_alone(record: Record) -> float:
    """What parts are worth to a single row of 2^20 bfloat16, over two passes."""
    return split_over_online(record, ALONE)


def _alone(record: Record, impl: str) -> float:
    """Milliseconds of a single row of 2^20 bfloat16."""
    (m, n), dtype = ALONE, "bfloat16"
    return record.best(impl=impl, dtype=dtype, regime="cold", m=m, n=n)["ms"]


@measure.value("softmax-forward")
def alone_bytes_per_ns(record: Record) -> float:
    """Bytes that a single program moves in a ns, which reads its row twice."""
    return 3 * 2 * ALONE[1] / _alone(record, "online") / 1e6


@measure.value("softmax-forward")
def split_alone_us(record: Record) -> float:
    """Microseconds of a single row of 2^20 bfloat16 in parts."""
    return 1e3 * _alone(record, "split")


@measure.value("softmax-forward")
def split_some(record: Record) -> float:
    """What parts are worth to 16 rows of 131072 bfloat16, over two passes."""
    return split_over_online(record, SOME)


@measure.value("softmax-forward")
def shared_gbps(record: Record) -> float:
    """GB/s of `softmax`, 262144 bfloat16 a row: `cooperative` where it is chosen."""
    return gbps_of(record, "softmax", SHARED)


@measure.value("softmax-forward")
def shared_over_online(record: Record) -> float:
    """The same over two passes."""
    return shared_gbps(record) / gbps_of(record, "online", SHARED)


@measure.value("softmax-forward")
def shared_over_peers(record: Record) -> float:
    """The same over the fastest peer."""
    return shared_gbps(record) / _peer(record, SHARED)


@measure.value("softmax-forward")
def odd_share(record: Record) -> float:
    """Bandwidth of `softmax` at 50257 bfloat16 a row over that of a copy."""
    return gbps_of(record, "softmax", ODD) / copy_of(record)


@measure.value("softmax-forward")
def over_peers_mean(record: Record) -> float:
    """Geometric mean over the fastest peer, bfloat16, 1 Ki to 32 Ki, cold."""
    return mean_of(_middle(record))


@measure.value("softmax-forward")
def over_peers_even(record: Record) -> float:
    """The same where every row starts at a multiple of 16 bytes."""
    return mean_of([pair for pair in _middle(record) if length(pair[0]) % 8 == 0])


@measure.value("softmax-forward")
def over_peers_uneven(record: Record) -> float:
    """The same where hardly one does, at 4097."""
    return gbps_of(record, "softmax", UNEVEN) / _peer(record, UNEVEN)


@measure.value("softmax-forward")
def over_peers_worst(record: Record) -> float:
    """The least of all ratios to the fastest peer: every dtype, shape and regime."""
    return min(ratio.median for _, ratio in against(record, "softmax"))


@measure.value("softmax-forward")
def share_of_copy_least(record: Record) -> float:
    """The least share of a copy's bandwidth, bfloat16, 4 Ki to 32 Ki, cold."""
    return min(
        row["gbps"] / copy_of(record)
        for row, _ in _middle(record)
        if length(row) >= COPYING
    )


@measure.claim(
    "softmax-forward",
    "With bfloat16 rows of 1 Ki to 32 Ki, 4,097 among them, softmax is at least 1.03 "
    "times as fast as the fastest peer as a geometric mean.",
)
def ahead(record: Record) -> tuple[bool, str]:
    mean = over_peers_mean(record)
    return mean >= 1.03, f"mean {mean:.3f}"


@measure.claim(
    "softmax-forward",
    "With bfloat16 rows of 4 Ki to 32 Ki, softmax has at least 94 % of the bandwidth "
    "of a copy.",
)
def near_a_copy(record: Record) -> tuple[bool, str]:
    below = [
        f"{case(row)}: {row['gbps'] / copy_of(record):.3f}"
        for row, _ in _middle(record)
        if length(row) >= COPYING and row["gbps"] < 0.94 * copy_of(record)
    ]
    return not below, "; ".join(below)


@measure.claim(
    "softmax-forward",
    "With bfloat16 rows of 131,072, softmax is at least 1.3 times as fast as the "
    "fastest peer.",
)
def long_rows(record: Record) -> tuple[bool, str]:
    times = long_over_peers(record)
    return times >= 1.3, f"{times:.2f} times"


@measure.claim(
    "softmax-forward",
    "On no shape and dtype is softmax below 95 % of the fastest peer's speed.",
)
def nowhere_behind(record: Record) -> tuple[bool, str]:
    behind = [
        f"{case(row)}: {ratio.median:.3f}"
        for row, ratio in against(record, "softmax")
        if ratio.median < 0.95
    ]
    return not behind, "; ".join(behind)
