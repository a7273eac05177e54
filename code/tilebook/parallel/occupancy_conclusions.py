"""What the chapter quotes and concludes of how many programs and threads add."""

from tilebook import measure
from tilebook.measure import Record, Row
from tilebook.parallel import conclusions, expectations, occupancy, strided


def _strides(record: Record, per_sm: int, stages: int) -> Row:
    return record.one(impl="strided", per_sm=per_sm, stages=stages)


def _share(record: Record, row: Row) -> float:
    return row["gbps"] / conclusions.copy_gbps(record)


@measure.value("parallel-programs")
def one_per_sm(record: Record) -> float:
    """Share of a copy's bandwidth with one striding program on each SM."""
    return _share(record, _strides(record, 1, 1))


@measure.value("parallel-programs")
def eight_per_sm(record: Record) -> float:
    """The same with eight."""
    return _share(record, _strides(record, 8, 1))


@measure.value("parallel-programs")
def most_per_sm(record: Record) -> float:
    """The same with the most that were tried."""
    return _share(record, _strides(record, max(occupancy.PER_SM), 1))


@measure.value("parallel-programs")
def two_pipelined(record: Record) -> float:
    """The same with two, each of which has four tiles on their way."""
    return _share(record, _strides(record, 2, max(occupancy.STAGES)))


@measure.value("parallel-programs")
def two_per_sm(record: Record) -> float:
    """The same with two, each of which has one tile on its way."""
    return _share(record, _strides(record, 2, 1))


@measure.value("parallel-programs")
def turn_ns(record: Record) -> float:
    """Nanoseconds of one turn of the loop, one program on each SM."""
    row = _strides(record, 1, 1)
    turns = row["shape"]["n"] / (strided.BLOCK * row["extra"]["sms"])
    return 1e6 * row["ms"] / turns


def _by_threads(record: Record) -> list[Row]:
    return sorted(record.select(impl="whole"), key=lambda row: row["shape"]["threads"])


def _fastest(record: Record) -> Row:
    return max(_by_threads(record), key=lambda row: row["gbps"])


READ = 2 / 3
"""Of the bytes that an addition moves, those that are loaded."""


@measure.value("parallel-programs")
def threads_due(record: Record) -> float:
    """Threads per SM, 32 bytes of loads each, that Little's law asks for."""
    sms = _fastest(record)["extra"]["sms"]
    return READ * expectations.in_flight(record) / sms / 32


@measure.value("parallel-programs")
def implied_ns(record: Record) -> float:
    """ns of a load, if the fewest threads tried always had theirs on the way."""
    row = _by_threads(record)[0]
    flying = 32 * row["shape"]["threads"] * row["extra"]["sms"]
    return flying / (READ * row["gbps"])


@measure.value("parallel-programs")
def threads_all(record: Record) -> int:
    """Threads of whole tiles on an SM where nothing but their slots limits them."""
    return _by_threads(record)[-1]["shape"]["threads"]


@measure.value("parallel-programs")
def threads_best(record: Record) -> int:
    """The number of threads on an SM that moves most."""
    return _fastest(record)["shape"]["threads"]


@measure.value("parallel-programs")
def threads_least(record: Record) -> int:
    """The smallest number of threads that was tried."""
    return _by_threads(record)[0]["shape"]["threads"]


@measure.value("parallel-programs")
def least_share(record: Record) -> float:
    """Bandwidth of the smallest number of threads over that of the best."""
    return _by_threads(record)[0]["gbps"] / _fastest(record)["gbps"]


@measure.value("parallel-programs")
def fewer_gain(record: Record) -> float:
    """Bandwidth of the best number of threads over that of all of them."""
    return _fastest(record)["gbps"] / _by_threads(record)[-1]["gbps"]


@measure.value("parallel-programs")
def descriptors_share(record: Record) -> float:
    """Bandwidth through tensor descriptors over that of the pointers at their best."""
    return record.one(impl="descriptors")["gbps"] / _fastest(record)["gbps"]


@measure.claim(
    "parallel-programs",
    "A grid-stride loop with one program on each SM moves less than seven tenths of "
    "what a copy does.",
)
def one_is_too_few(record: Record) -> tuple[bool, str]:
    share = one_per_sm(record)
    return share < 0.7, f"{share:.2f}"


@measure.claim(
    "parallel-programs",
    "With two on each SM, loading four tiles ahead is worth a tenth and more.",
)
def pipelining_helps(record: Record) -> tuple[bool, str]:
    gain = two_pipelined(record) / two_per_sm(record)
    return gain >= 1.1, f"{gain:.2f} times"


@measure.claim(
    "parallel-programs",
    "Whole tiles move most with a quarter or more of an SM's thread slots empty.",
)
def fewer_are_faster(record: Record) -> tuple[bool, str]:
    share = threads_best(record) / threads_all(record)
    gain = fewer_gain(record)
    return share <= 0.75 and gain > 1, f"{share:.2f} of the slots, {gain:.4f} times"
