"""What the chapter quotes and concludes of transposes and stencils."""

import statistics

from tilebook import measure
from tilebook.measure import Ratio, Record, Row

SQUARE = {"m": 8192, "n": 8192}
PEERS = ("torch, into out", "torch", "torch.compile")
STENCIL_PEERS = ("conv2d", "torch.compile")
LARGE_PICTURE = 8192
# Elements from which on a matrix is large: beyond what caches hold.
LARGE = 2**24


def _row(record: Record, impl: str, dtype: str = "bfloat16", **shape: int) -> Row:
    return record.one(impl=impl, dtype=dtype, regime="cold", **(shape or SQUARE))


def squares(record: Record) -> Record:
    """The part of a record that is about square matrices, for a figure.

    Args:
        record: of transposes.

    Returns:
        A record of fewer rows.
    """
    return record.part(lambda row: row["shape"]["m"] == row["shape"]["n"])


def _fastest(record: Record, names: tuple[str, ...], **case: object) -> Row:
    rows = [record.one(impl=name, **case) for name in names]
    return min(rows, key=lambda row: row["ms"])


@measure.value("tiling-transpose")
def copy_gbps(record: Record) -> float:
    """GB/s of a copy, measured around the experiment."""
    return measure.roofline.measured(record.canary).gbps


@measure.value("tiling-transpose")
def best_gbps(record: Record) -> float:
    """GB/s of `transpose` on 8192 by 8192 bfloat16, cold."""
    return _row(record, "transpose")["gbps"]


@measure.value("tiling-transpose")
def best_gbps_float32(record: Record) -> float:
    """The same in float32."""
    return _row(record, "transpose", "float32")["gbps"]


@measure.value("tiling-transpose")
def best_gbps_uint8(record: Record) -> float:
    """The same of bytes."""
    return _row(record, "transpose", "uint8")["gbps"]


@measure.value("tiling-transpose")
def share_of_copy(record: Record) -> float:
    """Bandwidth of `transpose` on 8192 by 8192 bfloat16 over that of a copy."""
    return best_gbps(record) / copy_gbps(record)


@measure.value("tiling-transpose")
def naive_share(record: Record) -> float:
    """Bandwidth of `naive` on 8192 by 8192 bfloat16 over that of a copy."""
    return _row(record, "naive")["gbps"] / copy_gbps(record)


@measure.value("tiling-transpose")
def tiled_share(record: Record) -> float:
    """Bandwidth of `tiled` on 8192 by 8192 bfloat16 over that of a copy."""
    return _row(record, "tiled")["gbps"] / copy_gbps(record)


def _over(record: Record, a: str, b: str, dtype: str = "bfloat16") -> float:
    return _row(record, a, dtype)["gbps"] / _row(record, b, dtype)["gbps"]


@measure.value("tiling-transpose")
def tiled_over_naive(record: Record) -> float:
    """What tiles are worth on 8192 by 8192 bfloat16."""
    return _over(record, "tiled", "naive")


@measure.value("tiling-transpose")
def grouped_over_tiled(record: Record) -> float:
    """What the order of tiles is worth on 8192 by 8192 bfloat16."""
    return _over(record, "grouped", "tiled")


@measure.value("tiling-transpose")
def aligned_over_grouped_1000(record: Record) -> float:
    """What the common factor of strides is worth on 1000 by 1000 bfloat16."""
    a, b = (_row(record, impl, m=1000, n=1000) for impl in ("aligned", "grouped"))
    return a["gbps"] / b["gbps"]


@measure.value("tiling-transpose")
def described_wide_over_aligned(record: Record) -> float:
    """Descriptors of wide blocks against pointers on 8192 by 8192 bfloat16."""
    return _over(record, "described, wide", "aligned")


@measure.value("tiling-transpose")
def described_wide_over_aligned_uint8(record: Record) -> float:
    """The same of bytes."""
    return _over(record, "described, wide", "aligned", "uint8")


@measure.value("tiling-transpose")
def described_over_aligned(record: Record) -> float:
    """Descriptors against pointers on 8192 by 8192 bfloat16."""
    return _over(record, "described", "aligned")


@measure.value("tiling-transpose")
def described_over_aligned_uint8(record: Record) -> float:
    """The same of bytes."""
    return _over(record, "described", "aligned", "uint8")


@measure.value("tiling-transpose")
def explicit_over_aligned(record: Record) -> float:
    """Layouts by hand against the compiler's on 8192 by 8192 bfloat16."""
    return _over(record, "explicit", "aligned")


@measure.value("tiling-transpose")
def explicit_over_aligned_uint8(record: Record) -> float:
    """The same of bytes."""
    return _over(record, "explicit", "aligned", "uint8")


@measure.value("tiling-transpose")
def odd_share(record: Record) -> float:
    """Bandwidth on 4095 by 4097 bfloat16 over that on 4096 by 4096."""
    odd = _row(record, "transpose", m=4095, n=4097)["gbps"]
    return odd / _row(record, "transpose", m=4096, n=4096)["gbps"]


@measure.value("tiling-transpose")
def over_torch(record: Record) -> float:
    """`transpose` over the faster of PyTorch's two, 8192 by 8192 bfloat16, cold."""
    case = {"dtype": "bfloat16", "regime": "cold"} | SQUARE
    return _fastest(record, PEERS[:2], **case)["ms"] / _row(record, "transpose")["ms"]


@measure.value("tiling-transpose")
def time_of_torch(record: Record) -> float:
    """The time of `transpose` over that of the faster of PyTorch's two, likewise."""
    return 1 / over_torch(record)


def _against_fastest(record: Record) -> list[tuple[str, Ratio]]:
    """Each large case by name, with our rate over the fastest peer's."""
    return [
        (f"{m} x {n} {row['dtype']} {row['regime']}", found)
        for row, found in record.against("transpose", *PEERS)
        if (m := row["shape"]["m"]) * (n := row["shape"]["n"]) >= LARGE
    ]


@measure.value("tiling-transpose")
def against_fastest_mean(record: Record) -> float:
    """Geometric mean of our rate over the fastest peer's, large matrices."""
    return statistics.geometric_mean(r.median for _, r in _against_fastest(record))


@measure.value("tiling-transpose")
def against_fastest_worst(record: Record) -> float:
    """The least of these."""
    return min(r.median for _, r in _against_fastest(record))


@measure.claim(
    "tiling-transpose",
    "On 8192 by 8192 bfloat16, transpose has at least 95 % of a copy's bandwidth, or "
    "93 % where a copy has more than 4 TB/s.",
)
def bandwidth(record: Record) -> tuple[bool, str]:
    share, copy = share_of_copy(record), measure.roofline.measured(record.canary).gbps
    # An H200's memory is faster than an H100's, and its multiprocessors are the same.
    least = 0.93 if copy > 4000 else 0.95
    return share >= least, f"{share:.3f} of a copy's {copy:,.0f} GB/s"


@measure.claim(
    "tiling-transpose",
    "On 8192 by 8192 bfloat16, transpose is at least 1.5 times as fast as PyTorch.",
)
def beats_torch(record: Record) -> tuple[bool, str]:
    times = over_torch(record)
    return times >= 1.5, f"{times:.2f} times"


@measure.claim(
    "tiling-transpose",
    "On large matrices, transpose is ahead of the fastest peer as a geometric mean.",
)
def parity(record: Record) -> tuple[bool, str]:
    slower = [f"{name}: {r.median:.3f}" for name, r in _against_fastest(record)
              if r.high < 1]  # fmt: skip
    mean = against_fastest_mean(record)
    return mean >= 1, f"mean {mean:.3f}; " + "; ".join(slower)


@measure.claim(
    "tiling-transpose", "Storing rows as columns leaves less than half the bandwidth."
)
def rows_are_slow(record: Record) -> tuple[bool, str]:
    share = naive_share(record)
    return share < 0.5, f"{share:.2f} of a copy's"


def _by_group(record: Record, dtype: str) -> dict[int, float]:
    rows = record.select(dtype=dtype, regime="cold")
    return {int(row["impl"].removeprefix("strips of ")): row["gbps"] for row in rows}


@measure.value("tiling-order")
def best_group(record: Record) -> int:
    """Rows of tiles in the fastest strip, bfloat16, cold."""
    found = _by_group(record, "bfloat16")
    return max(found, key=found.__getitem__)


@measure.value("tiling-order")
def best_group_over_plain(record: Record) -> float:
    """The fastest strip's bandwidth over that row by row, bfloat16, cold."""
    found = _by_group(record, "bfloat16")
    return max(found.values()) / found[1]


@measure.claim(
    "tiling-order",
    "No height of strips gains a hundredth against going row by row.",
)
def order_is_free(record: Record) -> tuple[bool, str]:
    times = best_group_over_plain(record)
    return times < 1.01, f"{times:.3f} times"


def _picture(record: Record, impl: str, size: int = 3) -> Row:
    side = LARGE_PICTURE
    return record.one(impl=impl, regime="cold", h=side, w=side, size=size)


@measure.value("tiling-stencil")
def blur_gbps(record: Record) -> float:
    """GB/s of `blur`, 3 by 3, on 8192 by 8192 pixels, cold."""
    return _picture(record, "blur")["gbps"]


@measure.value("tiling-stencil")
def blur_share_of_copy(record: Record) -> float:
    """Bandwidth of that over a copy's."""
    return blur_gbps(record) / measure.roofline.measured(record.canary).gbps


def _share(record: Record, impl: str, size: int) -> float:
    row = _picture(record, impl, size)
    return row["gbps"] / measure.roofline.measured(record.canary).gbps


@measure.value("tiling-stencil")
def direct_share_of_copy(record: Record) -> float:
    """Bandwidth of the way that loads all neighbours over a copy's, 3 by 3."""
    return _share(record, "direct", 3)


@measure.value("tiling-stencil")
def rows_share_of_copy(record: Record) -> float:
    """The same of the way that keeps rows, 3 by 3."""
    return _share(record, "rows", 3)


@measure.value("tiling-stencil")
def direct_share_of_copy_5(record: Record) -> float:
    """Bandwidth of the way that loads all neighbours over a copy's, 5 by 5."""
    return _share(record, "direct", 5)


@measure.value("tiling-stencil")
def rows_share_of_copy_5(record: Record) -> float:
    """The same of the way that keeps rows, 5 by 5."""
    return _share(record, "rows", 5)


@measure.value("tiling-stencil")
def blur_share_of_copy_5(record: Record) -> float:
    """The same of `blur`, 5 by 5."""
    return _share(record, "blur", 5)


@measure.value("tiling-stencil")
def rows_over_direct(record: Record) -> float:
    """What keeping rows is worth, 3 by 3."""
    return _picture(record, "direct")["ms"] / _picture(record, "rows")["ms"]


@measure.value("tiling-stencil")
def packed_over_rows(record: Record) -> float:
    """What four pixels in a word are worth, 3 by 3."""
    return _picture(record, "rows")["ms"] / _picture(record, "packed")["ms"]


@measure.value("tiling-stencil")
def over_conv2d(record: Record) -> float:
    """How many times as fast as `conv2d` on floats, 3 by 3."""
    return _picture(record, "conv2d")["ms"] / _picture(record, "blur")["ms"]


def _stencils_against_fastest(record: Record) -> list[tuple[str, Ratio]]:
    found = []
    for row in record.select(impl="blur"):
        if row["shape"]["h"] ** 2 >= LARGE:
            case = {"regime": row["regime"]} | row["shape"]
            peer = _fastest(record, STENCIL_PEERS, **case)
            name = f"{row['shape']['h']}, size {row['shape']['size']} {row['regime']}"
            found.append((name, measure.ratio(row, peer)))
    return found


@measure.value("tiling-stencil")
def stencil_worst(record: Record) -> float:
    """The least of our rates over the fastest peer's, large pictures."""
    return min(r.median for _, r in _stencils_against_fastest(record))


@measure.claim(
    "tiling-stencil", "On large pictures, blur is nowhere behind the fastest peer."
)
def stencil_parity(record: Record) -> tuple[bool, str]:
    behind = [(n, r) for n, r in _stencils_against_fastest(record) if r.high < 1]
    return not behind, "; ".join(f"{n}: {r.median:.3f}" for n, r in behind)
