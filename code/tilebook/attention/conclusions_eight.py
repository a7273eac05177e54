"""What the chapter quotes and concludes of attention in eight bits."""

from tilebook import measure
from tilebook.attention.conclusions import ATTENTION, CUDNN, behind, mean
from tilebook.fp8.errors import expected
from tilebook.measure import Ratio, Record, Row

NAME = "attention-fp8"
EIGHT, ROUNDING = "eight bits", "quantising"
WIDE = (128, 256)
"""Features from which on products, and not powers, are what is waited for."""
ROUNDINGS = 2.0
"""Errors of one rounding that four make, two of them in each logit's terms."""
NEAR = 0.1
"""How near that the error of normal numbers comes, relatively."""
SPREAD, UNEVEN = 2.0, 1.5
"""How much less is lost where a rotation spreads features; and by a head's own scale,
where heads differ."""


def beside(record: Record, peer: str) -> list[tuple[Row, Ratio]]:
    """How many times as fast eight bits are, by shape.

    Args:
        record: "attention-fp8".
        peer: the other one.
    """
    return record.part(lambda r: r["op"] == "attention_forward").against(EIGHT, peer)


def _of(record: Record, d: int, peer: str) -> float:
    return mean([each for each in beside(record, peer) if each[0]["shape"]["d"] == d])


@measure.value(NAME)
def eight_64(record: Record) -> float:
    """Rate over bfloat16's, heads of 64 features: geometric mean."""
    return _of(record, 64, ATTENTION)


@measure.value(NAME)
def eight_128(record: Record) -> float:
    """The same of 128 features."""
    return _of(record, 128, ATTENTION)


@measure.value(NAME)
def eight_256(record: Record) -> float:
    """The same of 256 features."""
    return _of(record, 256, ATTENTION)


@measure.value(NAME)
def eight_over_cudnn(record: Record) -> float:
    """The same over cuDNN's bfloat16, of all shapes."""
    return mean(beside(record, CUDNN))


@measure.value(NAME)
def eight_tflops(record: Record) -> float:
    """TFLOP/s at 4,096 positions and 128 features, without a mask."""
    row = record.one(impl=EIGHT, op="attention_forward", d=128, s=4096, causal=0)
    return row["tflops"]


@measure.value(NAME)
def rounding_costs(record: Record) -> float:
    """Time of rounding all operands over that of attention, at these sizes."""
    shape = {"d": 128, "s": 4096, "causal": 0}
    rounding = record.one(impl=ROUNDING, **shape)
    return rounding["ms"] / record.one(impl=EIGHT, **shape)["ms"]


def lost(record: Record, kind: str, way: str) -> float:
    """The relative error of one kind of operands, a mean over heads.

    Args:
        record: "attention-fp8".
        kind: as `experiments_eight.KINDS` names it.
        way: who computes.
    """
    return record.one(op=kind, impl=way)["relative_error"]


@measure.value(NAME)
def error_normal(record: Record) -> float:
    """Relative error of normal numbers, a scale for each head."""
    return lost(record, "normal", "head")


@measure.value(NAME)
def error_outliers(record: Record) -> float:
    """The same with outliers."""
    return lost(record, "outliers", "head")


@measure.value(NAME)
def error_features(record: Record) -> float:
    """The same with features that are larger."""
    return lost(record, "features", "head")


@measure.value(NAME)
def error_features_blocks(record: Record) -> float:
    """The same with scales by blocks."""
    return lost(record, "features", "block")


@measure.value(NAME)
def error_features_turned(record: Record) -> float:
    """The same by heads, and a rotation."""
    return lost(record, "features", "head, turned")


@measure.value(NAME)
def error_uneven_tensor(record: Record) -> float:
    """The same of heads that differ, with one scale."""
    return lost(record, "uneven", "tensor")


@measure.value(NAME)
def error_uneven_head(record: Record) -> float:
    """The same with one for each."""
    return lost(record, "uneven", "head")


@measure.value(NAME)
def error_bfloat16(record: Record) -> float:
    """Of normal numbers, in bfloat16."""
    return lost(record, "normal", "bfloat16")


@measure.claim(
    NAME,
    "With heads of 128 and 256 features attention in eight bits is faster than in "
    "bfloat16, ours and cuDNN's, on every shape.",
)
def eight_bits_pay(record: Record) -> tuple[bool, str]:
    wide = record.part(lambda row: row["shape"]["d"] in WIDE)
    below = []
    for peer in (ATTENTION, CUDNN):
        if wide.select(impl=peer):
            below += [f"{peer}: {each}" for each in behind(beside(wide, peer), 1.0)]
    return not below, "; ".join(below)


@measure.claim(
    NAME,
    "The error of normal numbers is within a tenth of twice what rounding to e4m3 "
    "costs, whatever shares a scale.",
)
def as_derived(record: Record) -> tuple[bool, str]:
    want = ROUNDINGS * expected()
    found = [lost(record, "normal", way) for way in ("tensor", "head", "block")]
    told = ", ".join(f"{x:.4f}" for x in found)
    return all(abs(x / want - 1) <= NEAR for x in found), f"{told} for {want:.4f}"


@measure.claim(
    NAME,
    "Where some features are larger a rotation of queries and keys halves the error, "
    "at least.",
)
def a_rotation_helps(record: Record) -> tuple[bool, str]:
    plain, turned = error_features(record), error_features_turned(record)
    return plain >= SPREAD * turned, f"{plain:.4f} and {turned:.4f}"


@measure.claim(
    NAME,
    "Where heads differ by 2^16 one scale for all loses at least 1.5 times as much as "
    "one for each.",
)
def heads_want_scales(record: Record) -> tuple[bool, str]:
    one, each = error_uneven_tensor(record), error_uneven_head(record)
    return one >= UNEVEN * each, f"{one:.4f} and {each:.4f}"
