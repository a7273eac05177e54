"""What the chapter quotes and concludes of Hopper's products."""

from tilebook import measure
from tilebook.hopper import figures
from tilebook.hopper.results import cold
from tilebook.matmul import shapes
from tilebook.matmul.conclusions import against, behind, mean
from tilebook.measure import Record, Row

LARGE = 4096
"""Side of the square that the text speaks of."""
ROWS = 512
"""Of the products that the targets are about: fewer have another chapter's kernels."""
SHORT, LONG = 512, 16384
"""Terms of the sums that the text speaks of."""
LAYERS = {pair for sides in shapes.LAYERS.values() for pair in sides.values()}
MEAN, WORST = 1.0, 0.92
THOUSAND = 1000
"""Side of a square whose rows begin within cache lines."""


def fits(row: Row) -> bool:
    """Whether a row is of a square of a power of two, or a language model's layer, with
    as many rows as these kernels are for, or of the short sums."""
    m, n, k = (row["shape"][side] for side in "mnk")
    square = m == n and THOUSAND not in (m, n, k) and n % 8 == 0
    return m >= ROWS and (square or (n, k) in LAYERS)


def _thousand(row: Row) -> bool:
    return row["shape"]["m"] == THOUSAND


@measure.value("hopper-matmul")
def mean_over_cublas(record: Record) -> float:
    """Geometric mean over cuBLAS of squares and layers of at least 512 rows."""
    return mean(against(record.part(fits), "cuBLAS"))


@measure.value("hopper-matmul")
def squares_over_cublas(record: Record) -> float:
    """The same of squares alone, inputs in memory."""

    def square(row: Row) -> bool:
        m, n, k = (row["shape"][side] for side in "mnk")
        return fits(row) and m == n == k and row["regime"] == "cold"

    return mean(against(record.part(square), "cuBLAS"))


@measure.value("hopper-matmul")
def worst_over_cublas(record: Record) -> float:
    """The least ratio of squares and layers of at least 512 rows."""
    return min(ratio.median for ratio in against(record.part(fits), "cuBLAS"))


@measure.value("hopper-matmul")
def thousand_over_cublas(record: Record) -> float:
    """Geometric mean of the ratios of 1000 cubed."""
    return mean(against(record.part(_thousand), "cuBLAS"))


@measure.claim(
    "hopper-matmul",
    "On squares of powers of two and layers of language models, of at least 512 rows, "
    "matmul is at least as fast as cuBLAS as a geometric mean.",
)
def ahead_of_cublas(record: Record) -> tuple[bool, str]:
    found = mean_over_cublas(record)
    return found >= MEAN, f"mean {found:.3f}"


@measure.claim(
    "hopper-matmul",
    "On none of them, sums of 512 terms included, has matmul less than 92 % of "
    "cuBLAS's rate; on 1000 cubed it has.",
)
def nowhere_behind(record: Record) -> tuple[bool, str]:
    below = behind(record.part(fits), WORST, "cuBLAS")
    found = thousand_over_cublas(record)
    return not below and found < WORST, "; ".join([*below, f"1000: {found:.3f}"])


def _rate(record: Record, impl: str) -> float:
    return cold(record, impl, **dict.fromkeys("mnk", LARGE))


@measure.value("hopper-ladder")
def made_over_described(record: Record) -> float:
    """What descriptors cost that the kernel makes."""
    return _rate(record, "made") / _rate(record, "described")


@measure.value("hopper-ladder")
def automatic_over_described(record: Record) -> float:
    """What the compiler's partitions are worth."""
    return _rate(record, "automatic") / _rate(record, "described")


@measure.value("hopper-ladder")
def pipelined_over_described(record: Record) -> float:
    """What the same pipeline is worth, written out."""
    return _rate(record, "pipelined") / _rate(record, "described")


@measure.value("hopper-ladder")
def cooperative_over_pipelined(record: Record) -> float:
    """What a producer is worth."""
    return _rate(record, "cooperative") / _rate(record, "pipelined")


@measure.value("hopper-ladder")
def folded_over_cooperative(record: Record) -> float:
    """What it is worth to store under the next tile's products."""
    return _rate(record, "folded") / _rate(record, "cooperative")


@measure.value("hopper-ladder")
def pingpong_over_cooperative(record: Record) -> float:
    """What a tile to each group is worth."""
    return _rate(record, "pingpong") / _rate(record, "cooperative")


@measure.value("hopper-ladder")
def widths_over_folded(record: Record) -> float:
    """What 256 by 192 is worth beside 128 by 256, on large squares."""
    return _rate(record, "widths") / _rate(record, "folded")


EVEN = 6144
"""Side of the square on which both have as much to do."""


@measure.value("hopper-ladder")
def widths_where_even(record: Record) -> float:
    """The same where both have whole turns alike."""
    sides = dict.fromkeys("mnk", EVEN)
    return cold(record, "widths", **sides) / cold(record, "folded", **sides)


@measure.value("hopper-ladder")
def folded_tflops(record: Record) -> float:
    """TFLOP/s of the best schedule."""
    return _rate(record, "folded")


@measure.claim(
    "hopper-ladder",
    "On 4096 squared the store that is folded into the next tile is faster than the "
    "one that is waited for, and ping-pong, whose tiles are half as large, isn't.",
)
def tiles_before_turns(record: Record) -> tuple[bool, str]:
    folded, turns = folded_over_cooperative(record), pingpong_over_cooperative(record)
    return folded > 1 >= turns, f"folded {folded:.3f}, ping-pong {turns:.3f}"


def _times(record: Record, impl: str, other: str, k: int) -> float:
    return cold(record, impl, k=k) / cold(record, other, k=k)


@measure.value("hopper-k-sweep")
def folded_short(record: Record) -> float:
    """Of `folded` over `cooperative`, where sums are short."""
    return _times(record, "folded", "cooperative", SHORT)


@measure.value("hopper-k-sweep")
def folded_long(record: Record) -> float:
    """The same where they are long."""
    return _times(record, "folded", "cooperative", LONG)


@measure.value("hopper-k-sweep")
def pingpong_short(record: Record) -> float:
    """Of `pingpong` over `cooperative`, where sums are short."""
    return _times(record, "pingpong", "cooperative", SHORT)


@measure.value("hopper-k-sweep")
def pingpong_long(record: Record) -> float:
    """The same where they are long."""
    return _times(record, "pingpong", "cooperative", LONG)


@measure.value("hopper-k-sweep")
def producer_short(record: Record) -> float:
    """Of `cooperative` over `pipelined`, where sums are short."""
    return _times(record, "cooperative", "pipelined", SHORT)


@measure.value("hopper-k-sweep")
def producer_long(record: Record) -> float:
    """The same where they are long."""
    return _times(record, "cooperative", "pipelined", LONG)


DRAWN = 1024
"""Terms of the product whose timeline is drawn."""


@measure.value("hopper-k-sweep")
def folded_drawn(record: Record) -> float:
    """Of `folded` over `cooperative` at the length of the timeline's sums."""
    return _times(record, "folded", "cooperative", DRAWN)


@measure.claim(
    "hopper-k-sweep",
    "The shorter the sums, the more a hidden store is worth: at k = 512 more than at "
    "k = 16384.",
)
def short_sums_gain(record: Record) -> tuple[bool, str]:
    short, long = folded_short(record), folded_long(record)
    return short > long, f"{short:.3f} and {long:.3f}"


OVER = (512, 22016, 4096)
"""The layer with most of a turn left over, of which the text speaks."""


def _cut(record: Record, impl: str, other: str) -> float:
    shape = dict(zip("mnk", OVER, strict=True))
    return cold(record, impl, **shape) / cold(record, other, **shape)


@measure.value("hopper-remainder")
def remainder_over_folded(record: Record) -> float:
    """Of whole turns and a remainder over wide tiles alone."""
    return _cut(record, "remainder", "folded")


@measure.value("hopper-remainder")
def remainder_over_cublas(record: Record) -> float:
    """The same over cuBLAS."""
    return _cut(record, "remainder", "cuBLAS")


@measure.claim(
    "hopper-remainder",
    "Where three fifths of a turn of wide tiles are left over, at 512 by 22,016, a "
    "turn of narrower tiles for them is worth 1.02 times the rate.",
)
def a_turn_of_its_own(record: Record) -> tuple[bool, str]:
    found = remainder_over_folded(record)
    return found >= 1.02, f"{found:.3f}"


def _hidden(record: Record, name: str) -> float:
    return figures.hidden(figures.measured(record)[name])


@measure.value("hopper-timeline")
def cooperative_hidden(record: Record) -> float:
    """Share of the time of stores in which a group multiplies."""
    return _hidden(record, "cooperative")


@measure.value("hopper-timeline")
def folded_hidden(record: Record) -> float:
    """The same of `folded`."""
    return _hidden(record, "folded")


@measure.value("hopper-timeline")
def pingpong_hidden(record: Record) -> float:
    """The same of `pingpong`."""
    return _hidden(record, "pingpong")


def _clocks(record: Record, name: str) -> tuple[float, float]:
    return figures.clocks(figures.measured(record)[name])


@measure.value("hopper-timeline")
def cooperative_products(record: Record) -> float:
    """Clocks from the first of a tile's products to the last."""
    return _clocks(record, "cooperative")[0]


@measure.value("hopper-timeline")
def cooperative_end(record: Record) -> float:
    """Clocks from a tile's last product to the next one's first."""
    return _clocks(record, "cooperative")[1]


@measure.value("hopper-timeline")
def folded_products(record: Record) -> float:
    """Clocks of a tile's products, with the tile before being stored."""
    return _clocks(record, "folded")[0]


@measure.value("hopper-timeline")
def folded_end(record: Record) -> float:
    """Clocks from a tile's last product to the next one's first."""
    return _clocks(record, "folded")[1]


@measure.value("hopper-timeline")
def by_the_clocks(record: Record) -> float:
    """What a tile and its end take in `cooperative`, over the same in `folded`."""
    return sum(_clocks(record, "cooperative")) / sum(_clocks(record, "folded"))


@measure.claim(
    "hopper-timeline",
    "In `folded` and in ping-pong products are under way for nine tenths of the time "
    "that stores take, and in `cooperative` for less than that.",
)
def stores_are_hidden(record: Record) -> tuple[bool, str]:
    plain, folded, turns = (
        _hidden(record, name) for name in ("cooperative", "folded", "pingpong")
    )
    said = f"cooperative {plain:.2f}, folded {folded:.2f}, ping-pong {turns:.2f}"
    return min(folded, turns) >= 0.9 > plain, said


def _us(record: Record, impl: str, regime: str) -> float:
    return record.one(impl=impl, regime=regime)["ms"] * 1e3


@measure.value("hopper-descriptors")
def host_cost_us(record: Record) -> float:
    """Microseconds of the host for three descriptors, beside pointers."""
    return _us(record, "host descriptors", "host") - _us(record, "pointers", "host")


@measure.value("hopper-descriptors")
def made_cost_us(record: Record) -> float:
    """Microseconds of the card for three descriptors that each program makes."""
    made = _us(record, "the kernel's descriptors", "cold")
    return made - _us(record, "host descriptors", "cold")


@measure.claim(
    "hopper-descriptors",
    "Descriptors of the host cost its time, those of the kernel the card's.",
)
def somebody_pays(record: Record) -> tuple[bool, str]:
    host, card = host_cost_us(record), made_cost_us(record)
    return host > 0 and card > 0, f"{host:.2f} and {card:.2f} µs"
