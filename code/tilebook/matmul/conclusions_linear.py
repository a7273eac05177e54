"""What the chapter quotes and concludes of layers, and of first calls."""

from tilebook import measure
from tilebook.matmul import first_call
from tilebook.matmul.conclusions import against, mean
from tilebook.measure import Record

ENDED_PEERS = ("cuBLAS, then PyTorch", "torch.compile")
TALL = 4096
"""Rows of the layers that the claim is about."""
LONGEST_FIRST_CALL = 6.0
"""Seconds, the search included."""


@measure.value("matmul-epilogue")
def ended_mean(record: Record) -> float:
    """Geometric mean of `linear` over the fastest peer."""
    return mean(against(record, *ENDED_PEERS, impl="linear"))


@measure.claim(
    "matmul-epilogue",
    "Of 4,096 rows, a layer that ends in the product's own kernel is faster than the "
    "fastest peer's, as a geometric mean.",
)
def tall_layers_are_ahead(record: Record) -> tuple[bool, str]:
    found = ended_mean(record.part(lambda row: row["shape"]["m"] == TALL))
    return found > 1.0, f"mean {found:.3f}"


@measure.value("matmul-autotune-cost")
def longest_first_call_s(record: Record) -> float:
    """Seconds of the longest first call."""
    return _longest_s(record, first_call.CALLS[0])


@measure.value("matmul-autotune-cost")
def longest_next_process_s(record: Record) -> float:
    """Seconds of the longest first call in a process that finds a remembered way."""
    return _longest_s(record, first_call.NEXT)


def _longest_s(record: Record, call: str) -> float:
    return max(row["ms"] for row in record.select(impl="matmul", op=call)) / 1e3


@measure.claim(
    "matmul-autotune-cost",
    "The first call of a new shape takes at most 6 seconds, the search included.",
)
def first_calls_are_short(record: Record) -> tuple[bool, str]:
    longest = longest_first_call_s(record)
    return longest <= LONGEST_FIRST_CALL, f"{longest:.1f} s"


@measure.claim(
    "matmul-autotune-cost",
    "A choice survives the process: the first call of the next one takes less than "
    "half as long.",
)
def choices_survive(record: Record) -> tuple[bool, str]:
    share = longest_next_process_s(record) / longest_first_call_s(record)
    return share < 0.5, f"{share:.2f} of it"
