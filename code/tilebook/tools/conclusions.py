"""What the chapter quotes and concludes of its measurements."""

from tilebook import measure
from tilebook.measure import Record
from tilebook.tools import case

LARGE, SMALL = 16384, 256
STUDY, THREE = "tools-case-study", "tools-proton-vs-events-vs-ncu"
ENOUGH = 5.0
"""How many times as fast the case must end as it began."""
AGREE = 0.1
"""How far apart three tools may be on a kernel that takes long."""


def _ms(record: Record, step: str) -> float:
    return record.one(impl=step, op="scale_groups", m=LARGE)["ms"]


def _us(record: Record, tool: str, m: int) -> float:
    return 1e3 * record.one(impl=tool, m=m)["ms"]


@measure.value(STUDY)
def found_ms(record: Record) -> float:
    """Milliseconds of the kernel as it was found, 16,384 rows, cold."""
    return _ms(record, "as found")


@measure.value(STUDY)
def smaller_ms(record: Record) -> float:
    """The same with a tile that fits into registers."""
    return _ms(record, "smaller tile")


@measure.value(STUDY)
def ordered_ms(record: Record) -> float:
    """The same with lanes along rows."""
    return _ms(record, "rows along lanes")


@measure.value(STUDY)
def undivided_ms(record: Record) -> float:
    """The same without a division for each number."""
    return _ms(record, "no division")


@measure.value(STUDY)
def wide_ms(record: Record) -> float:
    """The same with loads of 16 bytes and more threads."""
    return _ms(record, "wide")


@measure.value(STUDY)
def times(record: Record) -> float:
    """How many times as fast the last step is as the first."""
    return _ms(record, "as found") / _ms(record, "wide")


@measure.value(STUDY)
def wide_gbps(record: Record) -> float:
    """GB/s of the last step."""
    return record.one(impl="wide", op="scale_groups", m=LARGE)["gbps"]


@measure.value(STUDY)
def torch_ms(record: Record) -> float:
    """Milliseconds of PyTorch's product with a broadcast scale."""
    return _ms(record, "torch")


@measure.claim(STUDY, f"The case ends at least {ENOUGH:g} times as fast as it began.")
def much_faster(record: Record) -> tuple[bool, str]:
    found = times(record)
    return found >= ENOUGH, f"{found:.1f} times"


@measure.claim(STUDY, "Each step is faster than the one before.")
def every_step_helps(record: Record) -> tuple[bool, str]:
    ms = [_ms(record, step) for step in case.STEPS]
    said = ", ".join(f"{each:.3f}" for each in ms)
    return ms == sorted(ms, reverse=True), f"{said} ms"


@measure.value(THREE)
def long_events_us(record: Record) -> float:
    """Microseconds of the case's last step by events, cold, 16,384 rows."""
    return _us(record, "events, cold", LARGE)


@measure.value(THREE)
def long_proton_us(record: Record) -> float:
    """The same by Proton, on operands that take turns."""
    return _us(record, "Proton", LARGE)


@measure.value(THREE)
def long_ncu_us(record: Record) -> float:
    """The same by ncu, from flushed caches."""
    return _us(record, "ncu", LARGE)


@measure.value(THREE)
def short_events_us(record: Record) -> float:
    """Microseconds by events, cold, 256 rows."""
    return _us(record, "events, cold", SMALL)


@measure.value(THREE)
def short_graph_us(record: Record) -> float:
    """The same for each of many launches in a graph."""
    return _us(record, "events, in a graph", SMALL)


@measure.value(THREE)
def short_proton_us(record: Record) -> float:
    """The same by Proton, on operands that take turns."""
    return _us(record, "Proton", SMALL)


@measure.value(THREE)
def short_ncu_us(record: Record) -> float:
    """The same by ncu, from flushed caches."""
    return _us(record, "ncu", SMALL)


@measure.claim(
    THREE, f"On 256 MiB the tools' times are within {AGREE:.0%} of one another."
)
def long_ones_agree(record: Record) -> tuple[bool, str]:
    tools = ("events, cold", "events, in a graph", "Proton", "ncu")
    us = [_us(record, tool, LARGE) for tool in tools]
    return max(us) <= (1 + AGREE) * min(us), ", ".join(f"{x:.1f}" for x in us)


@measure.claim(THREE, "Of the shortest launch events see more than Proton does.")
def events_see_more(record: Record) -> tuple[bool, str]:
    events, proton = short_events_us(record), short_proton_us(record)
    return events > proton, f"{events:.2f} and {proton:.2f} µs"
