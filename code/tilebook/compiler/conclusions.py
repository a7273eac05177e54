"""What the chapter quotes and concludes of edited kernels."""

from tilebook import measure
from tilebook.measure import Record

LARGE = 2**27


def _gbps(record: Record, impl: str) -> float:
    row = record.one(impl=impl, dtype="float16", regime="cold", n=LARGE)
    return row["gbps"]


@measure.value("compiler-override")
def compiled_gbps(record: Record) -> float:
    """GB/s of the sum of 128 Mi float16 numbers as it is compiled, cold."""
    return _gbps(record, "as compiled")


@measure.value("compiler-override")
def four_gbps(record: Record) -> float:
    """The same with loads and stores of four elements."""
    return _gbps(record, "4 neighbours")


@measure.value("compiler-override")
def pair_gbps(record: Record) -> float:
    """The same with loads and stores of two elements."""
    return _gbps(record, "2 neighbours")


@measure.value("compiler-override")
def single_gbps(record: Record) -> float:
    """The same with loads and stores of one element."""
    return _gbps(record, "1 neighbour")


@measure.value("compiler-override")
def single_share(record: Record) -> float:
    """What loads and stores of one element reach, of what eight at a time do."""
    return single_gbps(record) / compiled_gbps(record)


@measure.value("compiler-override")
def uncached_gbps(record: Record) -> float:
    """The same as compiled, with loads that leave nothing in L1."""
    return _gbps(record, "L1 left out")


@measure.claim(
    "compiler-override",
    "Past the caches loads of 2 bytes reach less than loads of 16, by a tenth at most.",
)
def width_matters_little(record: Record) -> tuple[bool, str]:
    share = single_share(record)
    return 0.9 <= share < 1, f"{share:.3f} of it"
