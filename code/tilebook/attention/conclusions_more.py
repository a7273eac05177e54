"""What the chapter quotes and concludes of options and errors."""

from tilebook import measure
from tilebook.attention.conclusions import ATTENTION, CUDNN, FLEX, beside, mean, named
from tilebook.measure import Record

ERROR = 1.1
"""How much larger than cuDNN's an error may be."""
GROWTH = 1.5
"""How much larger at the largest length than at the smallest."""


def _cost(record: Record, option: str) -> float:
    ms = [record.one(impl=ATTENTION, op=op)["ms"] for op in (option, "plain")]
    return ms[0] / ms[1]


@measure.value("attention-variants")
def softcap_costs(record: Record) -> float:
    """Time with a cap over time without."""
    return _cost(record, "softcap")


@measure.value("attention-variants")
def slopes_cost(record: Record) -> float:
    """The same of ALiBi's slopes."""
    return _cost(record, "slopes")


@measure.value("attention-variants")
def bias_costs(record: Record) -> float:
    """The same of a bias (s, s) in bfloat16."""
    return _cost(record, "bias")


@measure.value("attention-variants")
def sinks_cost(record: Record) -> float:
    """The same of sinks."""
    return _cost(record, "sinks")


@measure.value("attention-variants")
def dropout_costs(record: Record) -> float:
    """The same of dropout."""
    return _cost(record, "dropout")


@measure.value("attention-variants")
def grouped_costs(record: Record) -> float:
    """The same with eight heads of queries to one of keys."""
    return _cost(record, "grouped")


@measure.value("attention-variants")
def variants_over_flex(record: Record) -> float:
    """Geometric mean over flex_attention, of what that has."""
    return mean(beside(record, FLEX))


@measure.claim(
    "attention-variants",
    "No option that flex_attention has, too, is slower here than what torch.compile "
    "makes of that.",
)
def ahead_of_flex(record: Record) -> tuple[bool, str]:
    found = beside(record, FLEX)
    below = [f"{named(r)}: {x.median:.3f}" for r, x in found if x.median < 1]
    return bool(found) and not below, "; ".join(below)


def _error(record: Record, impl: str, dtype: str, op: str, last: bool) -> float:
    rows = record.select(impl=impl, dtype=dtype, op=op)
    key = "s" if op == "length" else "times"
    pick = max if last else min
    return pick(rows, key=lambda row: row["shape"][key])["relative_error"]


@measure.value("attention-error")
def error_short(record: Record) -> float:
    """Relative error in bfloat16 at the smallest length."""
    return _error(record, ATTENTION, "bfloat16", "length", False)


@measure.value("attention-error")
def error_long(record: Record) -> float:
    """The same at the largest length."""
    return _error(record, ATTENTION, "bfloat16", "length", True)


@measure.value("attention-error")
def error_single(record: Record) -> float:
    """The same in float32."""
    return _error(record, ATTENTION, "float32", "length", True)


@measure.value("attention-error")
def error_large_logits(record: Record) -> float:
    """Relative error in bfloat16 where logits are largest."""
    return _error(record, ATTENTION, "bfloat16", "logits", True)


@measure.claim(
    "attention-error",
    "At no length and no size of logits is an error in bfloat16 or float16 more than "
    "1.1 times cuDNN's.",
)
def no_worse_than_cudnn(record: Record) -> tuple[bool, str]:
    worse = []
    rivals = record.select(impl=CUDNN)
    for rival in rivals:
        shape = rival["shape"]
        ours = record.one(
            impl=ATTENTION, op=rival["op"], dtype=rival["dtype"], **shape
        )["relative_error"]
        if ours > ERROR * rival["relative_error"]:
            worse.append(f"{named(rival)}: {ours:.2e}")
    return bool(rivals) and not worse, "; ".join(worse)


@measure.claim(
    "attention-error",
    "The relative error in bfloat16 doesn't grow with the length: at the largest it is "
    "less than 1.5 times that at the smallest.",
)
def length_is_free(record: Record) -> tuple[bool, str]:
    short, long = error_short(record), error_long(record)
    return long < GROWTH * short, f"{short:.2e} and {long:.2e}"
