"""What the chapter quotes and concludes of policies of the cache."""

from tilebook import measure
from tilebook.measure import Record

GUEST = 24
"""MiB of the next kernel's, of which the text speaks."""


def _gain(record: Record, policy: str, *, op: str = "softmax", after: int = 0) -> float:
    """How many times as fast as without a policy, bfloat16."""
    wanted = {"op": op, "dtype": "bfloat16", "after": after}
    one, other = (record.one(impl=impl, **wanted) for impl in (policy, "normal"))
    return other["ms"] / one["ms"]


@measure.value("softmax-policies")
def last_gain(record: Record) -> float:
    """Softmax with "evict_last" for its loads against without, bfloat16."""
    return _gain(record, "last")


def _rounds(record: Record, policy: str) -> measure.Ratio:
    """The softmax's gain, round by round."""
    wanted = {"op": "softmax", "dtype": "bfloat16", "after": 0}
    return measure.ratio(*(record.one(impl=x, **wanted) for x in (policy, "normal")))


@measure.value("softmax-policies")
def last_gain_low(record: Record) -> float:
    """The least of the rounds behind `last_gain`."""
    return _rounds(record, "last").low


@measure.value("softmax-policies")
def last_gain_high(record: Record) -> float:
    """The largest of them."""
    return _rounds(record, "last").high


@measure.value("softmax-policies")
def first_gain_low(record: Record) -> float:
    """The least of the rounds behind `first_gain`."""
    return _rounds(record, "first").low


@measure.value("softmax-policies")
def first_gain_high(record: Record) -> float:
    """The largest of them."""
    return _rounds(record, "first").high


@measure.value("softmax-policies")
def first_gain(record: Record) -> float:
    """Softmax with "evict_first" for its loads against without, bfloat16."""
    return _gain(record, "first")


@measure.value("softmax-policies")
def last_gain_backward(record: Record) -> float:
    """The gradient with "evict_last" against without, bfloat16."""
    return _gain(record, "last", op="softmax_backward")


@measure.value("softmax-policies")
def last_gain_with_guest(record: Record) -> float:
    """Softmax and two readings of `GUEST` MiB, "evict_last" against none, bfloat16."""
    return _gain(record, "last", after=GUEST)


@measure.value("softmax-policies")
def guest_mib(record: Record) -> float:
    """MiB that are read twice there."""
    row = record.one(op="softmax", impl="last", dtype="bfloat16", after=GUEST)
    return float(row["shape"]["after"])


@measure.value("softmax-policies")
def guest_us(record: Record) -> float:
    """Microseconds that the two readings lose by "evict_last", bfloat16."""
    took = {
        (impl, after): record.one(
            op="softmax", dtype="bfloat16", impl=impl, after=after
        )["ms"]
        for impl in ("last", "normal")
        for after in (0, GUEST)
    }
    readings = [took[impl, GUEST] - took[impl, 0] for impl in ("last", "normal")]
    return 1e3 * (readings[0] - readings[1])


@measure.claim(
    "softmax-policies",
    '"evict_last" for what is read once is worth 0.5 % or more, both ways.',
)
def keeping_pays(record: Record) -> tuple[bool, str]:
    gains = last_gain(record), last_gain_backward(record)
    return min(gains) >= 1.005, " and ".join(f"{gain:.3f}" for gain in gains)


@measure.claim("softmax-policies", '"evict_first" for it costs as much, or more.')
def dropping_costs(record: Record) -> tuple[bool, str]:
    gain = first_gain(record)
    return gain <= 0.995, f"{gain:.3f}"
