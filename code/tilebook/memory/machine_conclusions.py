"""What the chapter quotes and concludes of strides, caches, latency and limits."""

from tilebook import device, measure
from tilebook.measure import Record, Row


def _pick(record: Record, dtype: str, stride: int, shift: int = 0) -> Row:
    return record.one(dtype=dtype, regime="steady", stride=stride, shift=shift)


@measure.value("memory-stride")
def every_second(record: Record) -> float:
    """Useful bandwidth at a stride of 2 over that at 1, float32, steady."""
    pair = [_pick(record, "float32", stride)["gbps"] for stride in (2, 1)]
    return pair[0] / pair[1]


@measure.value("memory-stride")
def every_eighth(record: Record) -> float:
    """The same at a stride of 8, one element of each sector."""
    pair = [_pick(record, "float32", stride)["gbps"] for stride in (8, 1)]
    return pair[0] / pair[1]


@measure.value("memory-stride")
def moved_share(record: Record) -> float:
    """Sectors' bandwidth at a stride of 8 over useful bandwidth at 1, float32."""
    eighth, first = (_pick(record, "float32", stride) for stride in (8, 1))
    return eighth["extra"]["moved"] / eighth["ms"] / 1e6 / first["gbps"]


@measure.value("memory-stride")
def shifted(record: Record) -> float:
    """Bandwidth of a vector that starts one element off over an aligned one's."""
    pair = [_pick(record, "float32", 1, shift)["gbps"] for shift in (1, 0)]
    return pair[0] / pair[1]


@measure.claim(
    "memory-stride",
    "Every eighth fp32 number costs more than three times as long as every one.",
)
def strides_cost(record: Record) -> tuple[bool, str]:
    times = 1 / every_eighth(record)
    return times > 3, f"{times:.1f} times"


def _swept(record: Record) -> list[tuple[float, float]]:
    """Working set in MiB and GB/s, smallest first."""
    rows = sorted(record.select(impl="sweep"), key=lambda row: row["shape"]["nbytes"])
    return [(r["shape"]["nbytes"] / 2**20, r["extra"]["swept_gbps"]) for r in rows]


@measure.value("memory-l2")
def cached_gbps(record: Record) -> float:
    """GB/s of reading what the L2 cache holds, at best."""
    return max(gbps for _, gbps in _swept(record))


@measure.value("memory-l2")
def uncached_gbps(record: Record) -> float:
    """GB/s of reading the largest working set."""
    return _swept(record)[-1][1]


@measure.value("memory-l2")
def cliff_mib(record: Record) -> float:
    """MiB of the working set at which half of the cache's gain is lost.

    Between the largest size above that and the next one, on a straight line.
    """
    middle = (cached_gbps(record) + uncached_gbps(record)) / 2
    swept = sorted(_swept(record))
    last = max(i for i, (_, gbps) in enumerate(swept) if gbps >= middle)
    if last + 1 == len(swept):
        return swept[last][0]
    (small, above), (large, below) = swept[last : last + 2]
    return small + (large - small) * (above - middle) / (above - below)


@measure.value("memory-l2")
def gaining_mib(record: Record) -> float:
    """MiB of the table beside which hints gain most."""
    sizes = {row["shape"]["nbytes"] for row in record.select(op="add_table")}
    return max(sizes, key=lambda nbytes: _hinted(record, nbytes)) / 2**20


@measure.value("memory-l2")
def l2_mib(record: Record) -> float:
    """MiB of L2 that the driver reports."""
    return record.provenance["l2_bytes"] / 2**20


@measure.claim("memory-l2", "What the L2 cache holds is read faster than memory.")
def cached_is_faster(record: Record) -> tuple[bool, str]:
    times = cached_gbps(record) / uncached_gbps(record)
    return times > 1.2, f"{times:.2f} times"


TABLE = 2**25
"""Bytes of the table whose gain from hints is quoted."""


def _hinted(record: Record, nbytes: int) -> float:
    pair = [
        record.one(op="add_table", impl=impl, nbytes=nbytes)["ms"]
        for impl in ("no hints", "hints")
    ]
    return pair[0] / pair[1]


@measure.value("memory-l2")
def hints_gain(record: Record) -> float:
    """What hints are worth beside a table of 32 MiB."""
    return _hinted(record, TABLE)


@measure.value("memory-l2")
def best_hints_gain(record: Record) -> float:
    """What they are worth beside the table that gains most."""
    rows = record.select(op="add_table", impl="hints")
    return max(_hinted(record, row["shape"]["nbytes"]) for row in rows)


NEAR, MIDDLE, FAR = 2**15, 2**23, 2**30
"""Bytes of the chains that fit into an SM's own cache, into L2, and into neither."""


def _hop_ns(record: Record, nbytes: int) -> float:
    return record.one(op="chase", nbytes=nbytes)["extra"]["ns_per_hop"]


@measure.value("memory-latency")
def l1_ns(record: Record) -> float:
    """ns of a load that the SM's own cache answers: a chain of 32 KiB."""
    return _hop_ns(record, NEAR)


@measure.value("memory-latency")
def l2_ns(record: Record) -> float:
    """ns of a load that L2 answers: a chain of 8 MiB."""
    return _hop_ns(record, MIDDLE)


@measure.value("memory-latency")
def memory_ns(record: Record) -> float:
    """ns of a load that memory answers: a chain of 1 GiB."""
    return _hop_ns(record, FAR)


LANES = 32
"""Places from which on no two lanes of a warp want the same."""


def _adds(record: Record, places: int) -> float:
    return record.one(op="count", places=places)["extra"]["adds_per_ns"]


@measure.value("memory-latency")
def one_place_adds(record: Record) -> float:
    """Atomic additions per ns where all go to one place."""
    return _adds(record, 1)


@measure.value("memory-latency")
def many_places_adds(record: Record) -> float:
    """The same over as many places as were tried."""
    return _adds(record, max(r["shape"]["places"] for r in record.select(op="count")))


@measure.claim(
    "memory-latency", "A load from memory takes longer than one from L2, that than L1."
)
def farther_is_longer(record: Record) -> tuple[bool, str]:
    near, middle, far = l1_ns(record), l2_ns(record), memory_ns(record)
    return near < middle < far, f"{near:.0f}, {middle:.0f}, {far:.0f} ns"


@measure.value("memory-latency")
def few_places_adds(record: Record) -> float:
    """The same over 32 places, one for each lane of a warp."""
    return _adds(record, LANES)


def _flying(row: Row) -> int:
    return 16 * 32 * row["shape"]["num_warps"] * row["shape"]["loads"]


@measure.value("memory-occupancy")
def best_gbps(record: Record) -> float:
    """GB/s of the best combination of warps and loads."""
    return record.best(impl="wide")["gbps"]


@measure.value("memory-occupancy")
def best_kib(record: Record) -> float:
    """KiB that a program of it loads at a time."""
    return _flying(record.best(impl="wide")) / 1024


@measure.value("memory-occupancy")
def worst_share(record: Record) -> float:
    """Bandwidth of the worst combination over that of the best."""
    rows = record.select(impl="wide")
    return min(row["gbps"] for row in rows) / best_gbps(record)


def flights(record: Record) -> list[Row]:
    """The rows of which is known how many bytes are on their way, fewest first.

    Args:
        record: of `memory-occupancy`.
    """
    rows = [row for row in record.rows if "kib" in row["extra"]]
    return sorted(rows, key=lambda row: row["extra"]["kib"])


def _starved(record: Record) -> Row:
    return flights(record)[0]


@measure.value("memory-occupancy")
def starved_kib(record: Record) -> float:
    """KiB on their way to an SM where there are fewest."""
    return _starved(record)["extra"]["kib"]


@measure.value("memory-occupancy")
def starved_share(record: Record) -> float:
    """Bandwidth there over the best of all."""
    return _starved(record)["gbps"] / max(row["gbps"] for row in flights(record))


@measure.value("memory-occupancy")
def starved_ns(record: Record) -> float:
    """The latency that the law gives for it: bytes on their way over those loaded."""
    row = _starved(record)
    return row["extra"]["kib"] * 1024 * row["extra"]["sms"] / (row["gbps"] / 2)


@measure.value("memory-occupancy")
def enough_kib(record: Record) -> float:
    """KiB on their way from which on nothing is slower than 0.97 of the best."""
    rows = flights(record)
    best = max(row["gbps"] for row in rows)
    slow = [row["extra"]["kib"] for row in rows if row["gbps"] < 0.97 * best]
    least = max(slow, default=0)
    return min(
        (row["extra"]["kib"] for row in rows if row["extra"]["kib"] > least),
        default=least,
    )


def _staged(record: Record) -> dict[int, float]:
    rows = record.select(impl="persistent")
    return {row["shape"]["stages"]: row["gbps"] for row in rows}


@measure.value("memory-occupancy")
def stages_gain(record: Record) -> float:
    """Bandwidth of the best number of stages over that of one."""
    found = _staged(record)
    return max(found.values()) / found[1]


@measure.value("memory-occupancy")
def best_stages(record: Record) -> int:
    """The best number of stages."""
    found = _staged(record)
    return max(found, key=found.__getitem__)


@measure.claim(
    "memory-occupancy",
    "With too few bytes on their way a copy has less than 0.9 of the best bandwidth.",
)
def starving_is_slow(record: Record) -> tuple[bool, str]:
    share = starved_share(record)
    return share < 0.9, f"{share:.2f} with {starved_kib(record):.0f} KiB"


@measure.value("memory-roofline")
def read_gbps(record: Record) -> float:
    """GB/s of reading alone."""
    return record.one(op="read")["gbps"]


@measure.value("memory-roofline")
def write_gbps(record: Record) -> float:
    """GB/s of writing alone."""
    return record.one(op="write")["gbps"]


@measure.value("memory-roofline")
def triad_gbps(record: Record) -> float:
    """GB/s of two vectors read for each one written."""
    return record.one(op="triad")["gbps"]


def _works(record: Record) -> list[Row]:
    return sorted(record.select(op="work"), key=lambda row: row["shape"]["steps"])


@measure.value("memory-roofline")
def peak_tflops(record: Record) -> float:
    """TFLOP/s of the ordinary cores, fp32, at best."""
    return max(row["tflops"] for row in _works(record))


@measure.value("memory-roofline")
def datasheet_tflops(record: Record) -> float:
    """TFLOP/s that the datasheet promises of them, or what came out."""
    sheet = device.DATASHEET.get(record.slug)
    return sheet.fp32 if sheet else peak_tflops(record)


@measure.value("memory-roofline")
def ridge(record: Record) -> float:
    """FLOP per byte at which the measured limits meet."""
    return 1e3 * peak_tflops(record) / max(row["gbps"] for row in _works(record))


@measure.claim(
    "memory-roofline",
    "Eight multiply-adds for each number copied take hardly longer than none: at most "
    "a tenth.",
)
def work_is_free(record: Record) -> tuple[bool, str]:
    by_steps = {row["shape"]["steps"]: row["ms"] for row in _works(record)}
    times = by_steps[8] / by_steps[0]
    return times <= 1.1, f"{times:.3f} times"
