"""What the chapter concludes of the rungs of gradients, and of who adds."""

from tilebook import measure
from tilebook.attention.adding import ENGINE, LEFT, LINES
from tilebook.attention.conclusions import behind, mean, named
from tilebook.measure import Ratio, Record, Row

NAME = "attention-backward-ladder"
TWO, WHOLE, FUSED = "backward", "backward_whole", "backward_fused"


def _beside(record: Record, rung: str, other: str) -> list[tuple[Row, Ratio]]:
    return record.against(rung, other)


def _over(record: Record, way: str, other: str) -> float:
    return record.part(lambda row: row["op"] == "add").against(way, other)[0][1].median


def rate(record: Record, way: str) -> float:
    """Terabytes that are added in a second.

    Args:
        record: "attention-backward-ladder".
        way: one of `adding.WAYS`.
    """
    row = record.one(op="add", impl=way)
    return row["extra"]["added"] / row["ms"] / 1e9


@measure.value(NAME)
def whole_over_two(record: Record) -> float:
    """Rate of one kernel whose threads add, over that of two kernels: geometric mean of
    all shapes."""
    return mean(_beside(record, WHOLE, TWO))


@measure.value(NAME)
def fused_over_two(record: Record) -> float:
    """The same of the kernel for which the engine adds."""
    return mean(_beside(record, FUSED, TWO))


@measure.value(NAME)
def fused_over_whole(record: Record) -> float:
    """The same, over the kernel whose threads add."""
    return mean(_beside(record, FUSED, WHOLE))


@measure.value(NAME)
def engine_over_lines(record: Record) -> float:
    """Rate of the engine's additions over that of threads' which add four at a time."""
    return _over(record, ENGINE, LINES)


@measure.value(NAME)
def engine_over_left(record: Record) -> float:
    """The same over that of threads which add what a product leaves them."""
    return _over(record, ENGINE, LEFT)


@measure.value(NAME)
def engine_adds(record: Record) -> float:
    """Terabytes that the engine adds in a second."""
    return rate(record, ENGINE)


@measure.value(NAME)
def lines_add(record: Record) -> float:
    """The same of threads, four numbers at a time."""
    return rate(record, LINES)


@measure.value(NAME)
def left_add(record: Record) -> float:
    """The same of threads, as a product is left."""
    return rate(record, LEFT)


@measure.claim(
    NAME,
    "One kernel whose threads add to memory is on no shape faster than two kernels.",
)
def threads_cost_more(record: Record) -> tuple[bool, str]:
    ahead = [
        f"{named(row)}: {ratio.median:.3f}"
        for row, ratio in _beside(record, WHOLE, TWO)
        if ratio.median >= 1
    ]
    return not ahead, "; ".join(ahead)


@measure.claim(
    NAME, "One kernel for which the copy engine adds is on each shape faster than both."
)
def engine_pays(record: Record) -> tuple[bool, str]:
    below = [
        each
        for other in (TWO, WHOLE)
        for each in behind(_beside(record, FUSED, other), 1.0)
    ]
    return not below, "; ".join(below)


@measure.claim(
    NAME,
    "The copy engine adds tiles to memory faster than threads do from registers, by "
    "lines or as tensor cores leave them.",
)
def engine_adds_faster(record: Record) -> tuple[bool, str]:
    lines, left = engine_over_lines(record), engine_over_left(record)
    return min(lines, left) > 1, f"{lines:.2f} and {left:.2f} times"
