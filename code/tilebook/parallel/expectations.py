"""What the chapter expects of a card's memory before it measures: Little's law."""

from tilebook import device, measure
from tilebook.measure import Record


@measure.value("parallel-add")
def datasheet_tbps(record: Record) -> float:
    """TB/s that the datasheet promises of this GPU's memory."""
    return measure.roofline.promised_gbps(record.slug, record.canary) / 1e3


LATENCY_NS = 700
"""What a load from memory takes, about; the chapter on memory measures it."""


def in_flight(record: Record) -> float:
    """Bytes on their way that keep the datasheet's bandwidth busy: Little's law.

    Args:
        record: of any experiment.

    Returns:
        Bytes on the whole GPU.
    """
    gbps = measure.roofline.promised_gbps(record.slug, record.canary)
    return gbps * LATENCY_NS


@measure.value("parallel-add")
def in_flight_mb(record: Record) -> float:
    """MB on their way that keep the datasheet's bandwidth busy."""
    return in_flight(record) / 1e6


@measure.value("parallel-add")
def in_flight_kb_per_sm(record: Record) -> float:
    """The same in KB for each of 132 SMs, or as many as the datasheet says."""
    sheet = device.DATASHEET.get(record.slug)
    return in_flight(record) / 1e3 / ((sheet and sheet.sms) or 132)
