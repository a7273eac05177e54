"""What the chapter quotes and concludes of copying."""

import statistics

import torch

from tilebook import measure
from tilebook.measure import Record
from tilebook.memory import narrow

LARGE = 2**24
"""Elements from which on a copy is the memory's affair alone."""
FULL = 2**26


def _gbps(record: Record, impl: str, dtype: torch.dtype, n: int) -> float:
    return record.one(impl=impl, dtype=dtype, n=n, regime="steady")["gbps"]


@measure.value("memory-copy")
def copy_gbps(record: Record) -> float:
    """GB/s of `copy` on 64 Mi float32, steady."""
    return _gbps(record, "copy", torch.float32, FULL)


@measure.value("memory-copy")
def narrow_share(record: Record) -> float:
    """Bandwidth of `narrow` over that of `wide`, 64 Mi bfloat16."""
    pair = [_gbps(record, impl, torch.bfloat16, FULL) for impl in ("narrow", "wide")]
    return pair[0] / pair[1]


@measure.value("memory-copy")
def narrow_share_float32(record: Record) -> float:
    """The same in float32."""
    pair = [_gbps(record, impl, torch.float32, FULL) for impl in ("narrow", "wide")]
    return pair[0] / pair[1]


@measure.value("memory-copy")
def narrow_gbps_float32(record: Record) -> float:
    """GB/s of `narrow` on 64 Mi float32, steady."""
    return _gbps(record, "narrow", torch.float32, FULL)


@measure.value("memory-copy")
def narrow_gbps(record: Record) -> float:
    """The same in bfloat16."""
    return _gbps(record, "narrow", torch.bfloat16, FULL)


@measure.value("memory-copy")
def narrow_programs(record: Record) -> float:
    """Programs that a nanosecond of `narrow` starts, 64 Mi float32, steady."""
    row = record.one(impl="narrow", dtype=torch.float32, n=FULL, regime="steady")
    return FULL / narrow.BLOCK / row["ms"] / 1e6


def _over_wide(record: Record, impl: str) -> float:
    """Geometric mean of a rung's bandwidth over that of `wide`, large vectors."""
    found = []
    for row in record.select(impl=impl):
        if row["shape"]["n"] >= LARGE:
            case = {k: row[k] for k in ("dtype", "regime")} | row["shape"]
            found.append(row["gbps"] / record.one(impl="wide", **case)["gbps"])
    return statistics.geometric_mean(found)


@measure.value("memory-copy")
def deep_over_wide(record: Record) -> float:
    """Several loads in flight against one, large vectors: bandwidth."""
    return _over_wide(record, "deep")


@measure.value("memory-copy")
def persistent_over_wide(record: Record) -> float:
    """As many programs as fit against one for each tile, large vectors: bandwidth."""
    return _over_wide(record, "persistent")


@measure.value("memory-copy")
def hinted_over_wide(record: Record) -> float:
    """With hints for the caches against without, large vectors: bandwidth."""
    return _over_wide(record, "hinted")


@measure.value("memory-copy")
def engine_over_wide(record: Record) -> float:
    """The copy engine against loads and stores, large vectors: bandwidth."""
    return _over_wide(record, "engine")


@measure.value("memory-copy")
def capped_over_wide(record: Record) -> float:
    """Fewer threads at a time against all that fit, large vectors: bandwidth."""
    return _over_wide(record, "capped")


def _against_torch(record: Record) -> list[measure.Ratio]:
    rows = record.against("copy", "copy_")
    return [found for row, found in rows if row["shape"]["n"] >= LARGE]


@measure.value("memory-copy")
def against_torch(record: Record) -> float:
    """Geometric mean of the rate of `copy` over that of `copy_`, large vectors."""
    return statistics.geometric_mean(r.median for r in _against_torch(record))


@measure.value("memory-copy")
def against_torch_worst(record: Record) -> float:
    """The least of these."""
    return min(r.median for r in _against_torch(record))


@measure.claim(
    "memory-copy",
    "On large vectors copy is ahead of copy_ as a geometric mean, or level with it.",
)
def parity(record: Record) -> tuple[bool, str]:
    mean = against_torch(record)
    return mean >= 1, f"{mean:.4f}"


@measure.claim(
    "memory-copy",
    "An element for each thread is slower than 16 bytes for each, in bfloat16.",
)
def narrow_is_slower(record: Record) -> tuple[bool, str]:
    share = narrow_share(record)
    return share < 1, f"{share:.2f}"
