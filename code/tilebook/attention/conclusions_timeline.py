"""What the chapter quotes and concludes of the clocks of `overlapped`."""

from tilebook import measure
from tilebook.attention.timeline import Shares
from tilebook.measure import Record

NAME = "attention-timeline"
HALF = 0.5
"""Of the time that a group weighs: the other one waits for a product for longer."""
CHEAP = 1.1
"""What looks at a clock may cost: times the time without."""
PER_BLOCK = {64: 512, 128: 1024}
"""Clocks that tensor cores need for a block's products, of both groups, by features."""


def shares(record: Record, d: int) -> Shares:
    """Medians over programs.

    Args:
        record: "attention-timeline".
        d: features.
    """
    return Shares(**record.one(op="shares", d=d)["extra"])


def _looks(record: Record, d: int) -> float:
    ms = [
        record.one(op="time", impl=name, d=d)["ms"]
        for name in ("clocked", "overlapped")
    ]
    return ms[0] / ms[1]


@measure.value(NAME)
def beside_64(record: Record) -> float:
    """Share of the time that a group weighs in which the other one waits for a product:
    64 features."""
    return shares(record, 64).beside


@measure.value(NAME)
def beside_128(record: Record) -> float:
    """The same of 128 features."""
    return shares(record, 128).beside


@measure.value(NAME)
def waits_64(record: Record) -> float:
    """Share of all time in which a group waits for a product: 64 features."""
    return shares(record, 64).waits


@measure.value(NAME)
def waits_128(record: Record) -> float:
    """The same of 128 features."""
    return shares(record, 128).waits


@measure.value(NAME)
def weighing_128(record: Record) -> float:
    """Clocks that the weights of a block take, of 64 queries and 128 keys."""
    return shares(record, 128).weighing


@measure.value(NAME)
def period_128(record: Record) -> float:
    """Clocks from a block to the next, 128 features."""
    return shares(record, 128).period


@measure.value(NAME)
def period_64(record: Record) -> float:
    """The same of 64 features."""
    return shares(record, 64).period


@measure.value(NAME)
def busy_128(record: Record) -> float:
    """Share of a block's clocks that tensor cores need for both groups' products."""
    return PER_BLOCK[128] / period_128(record)


@measure.value(NAME)
def busy_64(record: Record) -> float:
    """The same of 64 features."""
    return PER_BLOCK[64] / period_64(record)


@measure.value(NAME)
def looks_cost(record: Record) -> float:
    """Time with clocks over time without, where that is more."""
    return max(_looks(record, d) for d in PER_BLOCK)


@measure.claim(
    NAME,
    "With 128 features a group that weighs finds the other one waiting for a product "
    "for more than half of the time.",
)
def groups_fill_in(record: Record) -> tuple[bool, str]:
    found = beside_128(record)
    return found > HALF, f"{found:.2f}"


@measure.claim(
    NAME,
    "And for longer than if groups took no notice of each other, with 64 features too.",
)
def groups_take_turns(record: Record) -> tuple[bool, str]:
    found = {d: shares(record, d) for d in PER_BLOCK}
    told = "; ".join(
        f"{d} features: {x.beside:.2f} and {x.waits:.2f}" for d, x in found.items()
    )
    return all(x.beside > x.waits for x in found.values()), told


@measure.claim(NAME, "Looks at a clock cost less than a tenth of the time.")
def looks_are_cheap(record: Record) -> tuple[bool, str]:
    found = looks_cost(record)
    return found < CHEAP, f"{found:.3f} times"
