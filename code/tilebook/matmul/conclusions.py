"""What the chapter quotes and concludes of products."""

import statistics

from tilebook import measure
from tilebook.measure import Ratio, Record, Row

PEERS = ("cuBLAS", "torch.compile")
LARGE = 4096
"""Side of the square that the text speaks of."""
ODD = 4095
"""Rows of that product."""
THOUSAND, EVEN = (1000, 1000, 1000), (1024, 1024, 1024)
"""Products of as many tiles, whose rows begin anywhere or at a cache's lines."""
ONE_ROW = (1, 4096, 4096)
"""A product that waits for its weight."""
FITTING = (512, 10240, 8192)
"""The product whose tiles of 320 columns are a full turn."""
SMS, WARPS, CLOCK_GHZ = 132, 64, 1.7
"""Of an H100: multiprocessors, warps on each at most, and clocks in a nanosecond."""
NEXT = {"outer": "naive", "tile": "outer", "ordered": "tile"} | {
    "persistent": "ordered",
    "described": "persistent",
}
"""By rung, the one before."""


def case(row: Row) -> str:
    """Name what a record's row is about."""
    sides = " x ".join(str(row["shape"][side]) for side in "mnk")
    return f"{row['op']} {sides} {row['regime']}"


def against(record: Record, *peers: str, impl: str = "matmul") -> list[Ratio]:
    """Our rate over the fastest peer's, for each case."""
    return [ratio for _, ratio in record.against(impl, *peers)]


def mean(ratios: list[Ratio]) -> float:
    """Geometric mean of ratios."""
    return statistics.geometric_mean(ratio.median for ratio in ratios)


def behind(
    record: Record, least: float, *peers: str, impl: str = "matmul"
) -> list[str]:
    """Name the cases whose ratio to the fastest peer is below some number."""
    return [
        f"{case(row)}: {ratio.median:.3f}"
        for row, ratio in record.against(impl, *peers)
        if ratio.median < least
    ]


def tflops(record: Record, impl: str) -> float:
    """TFLOP/s of an implementation on the large square, in its better regime."""
    sides = dict.fromkeys("mnk", LARGE)
    return record.best(impl=impl, op="matmul", **sides)["tflops"]


def _against_cublas(dtype: str, words: str) -> None:
    """Declare what is quoted and claimed of one of the two half precisions."""

    @measure.value(f"matmul-{dtype}")
    def mean_over_cublas(record: Record) -> float:
        """Geometric mean over cuBLAS of all shapes and regimes."""
        return mean(against(record, "cuBLAS"))

    @measure.value(f"matmul-{dtype}")
    def worst_over_cublas(record: Record) -> float:
        """The least of these."""
        return min(ratio.median for ratio in against(record, "cuBLAS"))

    @measure.claim(
        f"matmul-{dtype}",
        f"In {words} matmul has at least 98 % of cuBLAS's rate as a geometric mean "
        "over all shapes.",
    )
    def near_cublas(record: Record) -> tuple[bool, str]:
        found = mean(against(record, "cuBLAS"))
        return found >= 0.98, f"mean {found:.3f}"

    @measure.claim(
        f"matmul-{dtype}",
        f"In {words} matmul has less than 90 % of cuBLAS's rate on two kinds of shapes "
        "alone: 1000 cubed, and layers of 512 rows.",
    )
    def behind_on_two_kinds(record: Record) -> tuple[bool, str]:
        others = record.part(
            lambda row: row["shape"]["k"] != 1000 and row["shape"]["m"] != 512
        )
        below = behind(others, 0.90, "cuBLAS")
        return not below, "; ".join(below)


_against_cublas("bf16", "bfloat16")
_against_cublas("fp16", "float16")


@measure.value("matmul-bf16")
def mean_but_odd(record: Record) -> float:
    """`mean_over_cublas` without the shape whose rows begin at odd places."""
    return mean(against(record.part(lambda row: row["shape"]["m"] != ODD), "cuBLAS"))


@measure.value("matmul-bf16")
def thousand_over_1024(record: Record) -> float:
    """Time of 1000 cubed over that of 1024 cubed, each in its best order of memory."""
    odd, even = (
        record.best(impl="matmul", **dict(zip("mnk", sides, strict=True)))["ms"]
        for sides in (THOUSAND, EVEN)
    )
    return odd / even


@measure.value("matmul-ladder")
def naive_tflops(record: Record) -> float:
    """TFLOP/s of an element for each lane, on the large square."""
    return tflops(record, "naive")


@measure.value("matmul-ladder")
def naive_clocks(record: Record) -> float:
    """Clocks that a warp takes for a term, where 64 of them share a multiprocessor."""
    terms = tflops(record, "naive") * 1e12 / 2
    clocks = SMS * CLOCK_GHZ * 1e9
    return WARPS * 32 * clocks / terms


@measure.value("matmul-ladder")
def outer_tflops(record: Record) -> float:
    """The same of outer products."""
    return tflops(record, "outer")


@measure.value("matmul-ladder")
def tile_tflops(record: Record) -> float:
    """The same of tiles for tensor cores."""
    return tflops(record, "tile")


@measure.value("matmul-ladder")
def ordered_tflops(record: Record) -> float:
    """The same of larger tiles in strips."""
    return tflops(record, "ordered")


@measure.value("matmul-ladder")
def clock_before_mhz(record: Record) -> float:
    """The multiprocessors' clock under load, before."""
    return record.provenance["clocks"]["sm_mhz_before"] or 0.0


@measure.value("matmul-ladder")
def clock_after_mhz(record: Record) -> float:
    """The same afterwards."""
    return record.provenance["clocks"]["sm_mhz_after"] or 0.0


@measure.value("matmul-ladder")
def least_over_cublas(record: Record) -> float:
    """The least of matmul's rates over cuBLAS's, on squares."""
    return min(ratio.median for ratio in against(record, "cuBLAS"))


@measure.value("matmul-ladder")
def persistent_over_ordered(record: Record) -> float:
    """What it is worth to stay."""
    return tflops(record, "persistent") / tflops(record, "ordered")


@measure.value("matmul-ladder")
def described_over_ordered(record: Record) -> float:
    """What descriptors are worth."""
    return tflops(record, "described") / tflops(record, "ordered")


@measure.claim(
    "matmul-ladder",
    "On 4096 squared each rung up to the strips is faster than the one before.",
)
def each_rung_is_faster(record: Record) -> tuple[bool, str]:
    rates = {
        name: tflops(record, name) for name in ("naive", "outer", "tile", "ordered")
    }
    falls = [
        f"{name} {rates[name]:.1f} after {before} {rates[before]:.1f}"
        for name, before in NEXT.items()
        if name in rates and rates[name] <= rates[before]
    ]
    return not falls, "; ".join(falls)


@measure.value("matmul-skinny")
def thin_mean(record: Record) -> float:
    """Geometric mean over cuBLAS of products of few rows."""
    return mean(against(record, "cuBLAS"))


@measure.value("matmul-skinny")
def one_row_us(record: Record) -> float:
    """Microseconds of a row times 4,096 by 4,096, in the better regime."""
    sides = dict(zip("mnk", ONE_ROW, strict=True))
    return record.best(impl="matmul", **sides)["ms"] * 1e3


@measure.value("matmul-skinny")
def thin_worst(record: Record) -> float:
    """The least of these."""
    return min(ratio.median for ratio in against(record, "cuBLAS"))


@measure.claim(
    "matmul-skinny",
    "Of up to 64 rows matmul makes products at least as fast as cuBLAS does, as a "
    "geometric mean.",
)
def thin_is_level(record: Record) -> tuple[bool, str]:
    found = thin_mean(record)
    return found >= 1.0, f"mean {found:.3f}"


@measure.value("matmul-turns")
def beside_over_described(record: Record) -> float:
    """Geometric mean of what tiles of two widths are worth."""
    return mean(against(record, "described", impl="beside"))


@measure.value("matmul-turns")
def beside_where_it_fits(record: Record) -> float:
    """The same of the one shape whose tiles of 320 columns are a full turn."""
    return mean(against(_fitting(record), "described", impl="beside"))


@measure.value("matmul-turns")
def raced_where_it_fits(record: Record) -> float:
    """What matmul is worth there, which has more stages to choose from."""
    return mean(against(_fitting(record), "described"))


def _fitting(record: Record) -> Record:
    sides = dict(zip("mnk", FITTING, strict=True))
    return record.part(lambda row: row["shape"] == sides)


@measure.value("matmul-turns")
def streamed_over_described(record: Record) -> float:
    """The same of steps shared out evenly."""
    return mean(against(record, "described", impl="streamed"))


@measure.value("matmul-turns")
def turns_mean(record: Record) -> float:
    """Geometric mean of matmul over cuBLAS."""
    return mean(against(record, "cuBLAS"))


@measure.claim(
    "matmul-turns",
    "Where a last turn isn't full, matmul is faster than tiles of one width, as a "
    "geometric mean.",
)
def other_widths_help(record: Record) -> tuple[bool, str]:
    found = mean(against(record, "described"))
    return found > 1.0, f"mean {found:.3f}"


def _error(record: Record, impl: str) -> float:
    rows = record.select(impl=impl)
    return max(row["relative_error"] for row in rows)


@measure.value("matmul-fp32")
def tf32_error(record: Record) -> float:
    """The largest relative error of TF32, in the Frobenius norm."""
    return _error(record, "tf32")


@measure.value("matmul-fp32")
def bf16x3_error(record: Record) -> float:
    """The same of three products of bfloat16."""
    return _error(record, "bf16x3")


@measure.value("matmul-fp32")
def tf32x3_error(record: Record) -> float:
    """The same of three products of TF32."""
    return _error(record, "tf32x3")


@measure.value("matmul-fp32")
def ieee_error(record: Record) -> float:
    """The same of float32 as it is."""
    return _error(record, "ieee")


def _over_cublas(record: Record, precision: str) -> float:
    """Rates on the large square, each in its better regime."""
    return tflops(record, precision) / tflops(record, f"cuBLAS, {precision}")


@measure.value("matmul-fp32")
def tf32_over_cublas(record: Record) -> float:
    """Rate of TF32 over cuBLAS's, on the large square."""
    return _over_cublas(record, "tf32")


@measure.value("matmul-fp32")
def ieee_over_cublas(record: Record) -> float:
    """The same of float32 as it is."""
    return _over_cublas(record, "ieee")


@measure.claim(
    "matmul-fp32",
    "Three products of TF32 err less than a hundredth of what one does.",
)
def three_are_exact(record: Record) -> tuple[bool, str]:
    share = tf32x3_error(record) / tf32_error(record)
    return share < 0.01, f"{share:.1e}"


@measure.value("matmul-int8")
def int8_mean(record: Record) -> float:
    """Geometric mean over cuBLAS of whole numbers, where it takes them."""
    taken = [row["shape"] for row in record.select(impl="cuBLAS")]
    return mean(against(record.part(lambda row: row["shape"] in taken), "cuBLAS"))


@measure.claim(
    "matmul-int8",
    "On whole numbers matmul has at least 90 % of cuBLAS's rate as a geometric mean.",
)
def int8_is_near(record: Record) -> tuple[bool, str]:
    found = int8_mean(record)
    return found >= 0.9, f"mean {found:.3f}"
