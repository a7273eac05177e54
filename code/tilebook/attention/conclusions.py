"""What the chapter quotes and concludes of results, gradients and the ladder."""

import statistics
from collections.abc import Callable

from tilebook import measure
from tilebook.measure import Ratio, Record, Row
from tilebook.measure.record import same_case

CUDNN, FLASH, DEFAULT = "SDPA, cuDNN", "SDPA, FlashAttention", "SDPA"
FLEX = "flex_attention"
ATTENTION, SAME_BITS = "attention", "attention, deterministic"
LONG = 1024
"""Positions from which on the targets count."""
SIZES = (64, 128)
"""Features of heads that they are about."""
MEAN, WORST, BACKWARD, OVER_FLASH = 1.10, 1.00, 1.00, 1.6
SPOKEN = {"d": 128, "s": 4096}
"""The heads and lengths that the text speaks of."""


def beside(record: Record, peer: str, impl: str = ATTENTION) -> list[tuple[Row, Ratio]]:
    """How many times as fast as a peer we are, where that was measured.

    Args:
        record: rows of both.
        peer: the other one.
        impl: ours.
    """

    def met(row: Row) -> bool:
        return any(same_case(row, r) for r in rivals)

    rivals = record.select(impl=peer)
    return record.part(met).against(impl, peer)


def targeted(row: Row) -> bool:
    """Whether a row is of a head of 64 or 128 features, every key's own, no window,
    and of a length that is a power of two from `LONG` on."""
    shape = row["shape"]
    plain = shape["h"] == shape["hk"] and "window" not in shape
    power = shape["s"] & (shape["s"] - 1) == 0
    return plain and power and shape["s"] >= LONG and shape["d"] in SIZES


def mean(found: list[tuple[Row, Ratio]]) -> float:
    """Geometric mean of ratios."""
    return statistics.geometric_mean(ratio.median for _, ratio in found)


def named(row: Row) -> str:
    """Name what a row is about."""
    sides = ", ".join(f"{k}={v}" for k, v in row["shape"].items())
    return f"{row['op']} {sides} {row['regime']}"


def behind(found: list[tuple[Row, Ratio]], least: float) -> list[str]:
    """Name the rows whose ratio is below some number."""
    return [f"{named(r)}: {x.median:.3f}" for r, x in found if x.median < least]


def _targets(record: Record, peer: str) -> list[tuple[Row, Ratio]]:
    return beside(record.part(targeted), peer)


def _where(keep: Callable[[dict[str, int]], bool], record: Record) -> float:
    return mean(beside(record.part(lambda row: keep(row["shape"])), CUDNN))


@measure.value("attention-forward")
def forward_over_cudnn(record: Record) -> float:
    """Geometric mean over cuDNN, of 64 and 128 features from 1,024 positions on."""
    return mean(_targets(record, CUDNN))


@measure.value("attention-forward")
def forward_worst(record: Record) -> float:
    """The least of these ratios."""
    return min(ratio.median for _, ratio in _targets(record, CUDNN))


@measure.value("attention-forward")
def forward_best(record: Record) -> float:
    """The largest of them."""
    return max(ratio.median for _, ratio in _targets(record, CUDNN))


@measure.value("attention-forward")
def forward_over_default(record: Record) -> float:
    """Geometric mean over what PyTorch chooses."""
    return mean(_targets(record, DEFAULT))


@measure.value("attention-forward")
def forward_over_flash(record: Record) -> float:
    """The same over FlashAttention, forced."""
    return mean(_targets(record, FLASH))


@measure.value("attention-forward")
def causal_tflops(record: Record) -> float:
    """TFLOP/s under a causal mask at 128 features and 4,096 positions, cold."""
    return _spoken(record, ATTENTION, 1)


@measure.value("attention-forward")
def full_tflops(record: Record) -> float:
    """The same without a mask."""
    return _spoken(record, ATTENTION, 0)


@measure.value("attention-forward")
def odd_over_cudnn(record: Record) -> float:
    """Geometric mean over cuDNN of lengths that fill no tile."""
    return _where(lambda shape: shape["s"] in (1000, 4097), record)


@measure.value("attention-forward")
def wide_over_cudnn(record: Record) -> float:
    """The same of heads of 256 features."""
    return _where(lambda shape: shape["d"] == 256, record)


@measure.value("attention-forward")
def window_over_plain(record: Record) -> float:
    """How many times as fast a window of 1,024 keys is at 16,384 positions."""
    ms = [
        row["ms"]
        for row in record.select(
            impl=ATTENTION, regime="cold", d=128, s=16384, causal=1
        )
        if row["shape"]["h"] == row["shape"]["hk"]
    ]
    return max(ms) / min(ms)


def _spoken(record: Record, impl: str, causal: int) -> float:
    rows = record.select(impl=impl, regime="cold", causal=causal, **SPOKEN)
    plain = [r for r in rows if targeted(r)]
    return plain[0]["tflops"]


@measure.claim(
    "attention-forward",
    "With heads of 64 and 128 features, from 1,024 positions on, attention is at least "
    "1.10 times as fast as cuDNN as a geometric mean, causal and full.",
)
def ahead_of_cudnn(record: Record) -> tuple[bool, str]:
    found = forward_over_cudnn(record)
    return found >= MEAN, f"mean {found:.3f}"


@measure.claim("attention-forward", "On none of these shapes is it slower than cuDNN.")
def nowhere_behind(record: Record) -> tuple[bool, str]:
    below = behind(_targets(record, CUDNN), WORST)
    return not below, "; ".join(below)


@measure.claim(
    "attention-forward",
    "It is at least 1.6 times as fast there as FlashAttention's kernel, which PyTorch "
    "chose before it had cuDNN's, and faster than what it chooses now.",
)
def ahead_of_flash(record: Record) -> tuple[bool, str]:
    flash, default = forward_over_flash(record), forward_over_default(record)
    return flash >= OVER_FLASH and default > 1, f"means {flash:.3f} and {default:.3f}"


@measure.value("attention-backward")
def backward_over_cudnn(record: Record) -> float:
    """Geometric mean over cuDNN, of gradients whose bits may differ."""
    return mean(_targets(record, CUDNN))


@measure.value("attention-backward")
def deterministic_over_cudnn(record: Record) -> float:
    """The same of gradients that have the same bits each time."""
    return mean(beside(record.part(targeted), CUDNN, SAME_BITS))


@measure.value("attention-backward")
def determinism_costs(record: Record) -> float:
    """Time with the same bits each time over time without, as a geometric mean."""
    return mean(record.part(targeted).against(ATTENTION, SAME_BITS))


@measure.claim(
    "attention-backward",
    "Gradients whose bits may differ take no longer than cuDNN's as a geometric mean "
    "over the same shapes.",
)
def backward_ahead(record: Record) -> tuple[bool, str]:
    found = backward_over_cudnn(record)
    return found >= BACKWARD, f"mean {found:.3f}"


LAST = ("described", "cooperative", "overlapped", "folded")


def _step(record: Record, rung: str, before: str) -> float:
    """What a rung is worth beside another, as a geometric mean over all shapes."""
    return mean(beside(record, before, rung))


@measure.value("attention-ladder")
def onepass_over_materialised(record: Record) -> float:
    """What it is worth to keep scores in registers."""
    return _step(record, "onepass", "materialised")


@measure.value("attention-ladder")
def forward_over_onepass(record: Record) -> float:
    """What descriptors are worth in loops, options left out."""
    return _step(record, "forward", "onepass")


@measure.value("attention-ladder")
def described_over_forward(record: Record) -> float:
    """What it is worth that nothing but the plain case is there."""
    return _step(record, "described", "forward")


@measure.value("attention-ladder")
def cooperative_over_described(record: Record) -> float:
    """What a producer is worth, by hand."""
    return _step(record, "cooperative", "described")


@measure.value("attention-ladder")
def overlapped_over_cooperative(record: Record) -> float:
    """What it is worth to ask for the next scores first."""
    return _step(record, "overlapped", "cooperative")


@measure.value("attention-ladder")
def folded_over_overlapped(record: Record) -> float:
    """What it is worth to fold a tile's end into the next."""
    return _step(record, "folded", "overlapped")


@measure.value("attention-ladder")
def folded_over_forward(record: Record) -> float:
    """What Hopper's own kernels are worth in all."""
    return _step(record, "folded", "forward")


@measure.claim(
    "attention-ladder",
    "From `described` on each rung is faster than the one before, as a geometric mean "
    "over eight shapes.",
)
def each_rung_pays(record: Record) -> tuple[bool, str]:
    pairs = zip(LAST[1:], LAST, strict=False)
    found = {rung: _step(record, rung, before) for rung, before in pairs}
    told = ", ".join(f"{rung} {x:.3f}" for rung, x in found.items())
    return all(x > 1 for x in found.values()), told
