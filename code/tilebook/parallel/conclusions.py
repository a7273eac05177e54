"""What the chapter quotes and concludes of adding."""

import itertools
import math
import statistics

import torch

from tilebook import measure
from tilebook.measure import Record, Row
from tilebook.parallel import single

LARGE = 2**26


def _gbps(record: Record, impl: str, dtype: torch.dtype, n: int) -> float:
    return record.one(impl=impl, dtype=dtype, n=n, regime="cold")["gbps"]


@measure.value("parallel-add")
def best_gbps(record: Record) -> float:
    """GB/s of `add` on 64 Mi float32, cold."""
    return _gbps(record, "add", torch.float32, LARGE)


@measure.value("parallel-add")
def best_gbps_bfloat16(record: Record) -> float:
    """GB/s of `add` on 64 Mi bfloat16, cold."""
    return _gbps(record, "add", torch.bfloat16, LARGE)


@measure.value("parallel-add")
def copy_gbps(record: Record) -> float:
    """GB/s of a copy, measured around the experiment."""
    return measure.roofline.measured(record.canary).gbps


@measure.value("parallel-add")
def share_of_copy(record: Record) -> float:
    """Bandwidth of `add` on 64 Mi float32 over that of a copy."""
    return best_gbps(record) / copy_gbps(record)


@measure.value("parallel-add")
def single_gbps(record: Record) -> float:
    """GB/s of one program on its largest vector, float32, cold."""
    return _gbps(record, "single", torch.float32, single.LARGEST)


@measure.value("parallel-add")
def programs_over_single(record: Record) -> float:
    """How many times the bandwidth of `single` that of `add` on 64 Mi is."""
    return best_gbps(record) / single_gbps(record)


@measure.value("parallel-add")
def single_share(record: Record) -> float:
    """Bandwidth of `single` on its largest vector over that of a copy."""
    return single_gbps(record) / copy_gbps(record)


def _ragged_share(record: Record, impl: str, dtype: torch.dtype) -> float:
    """Bandwidth on seven elements more than 2^26 over that on 2^26."""
    pair = [_gbps(record, impl, dtype, n) for n in (LARGE + 7, LARGE)]
    return pair[0] / pair[1]


@measure.value("parallel-add")
def ragged_masked_share(record: Record) -> float:
    """Bandwidth of `masked` on 2^26 + 7 bfloat16 over that on 2^26."""
    return _ragged_share(record, "masked", torch.bfloat16)


@measure.value("parallel-add")
def ragged_masked_share_float32(record: Record) -> float:
    """The same in float32."""
    return _ragged_share(record, "masked", torch.float32)


@measure.value("parallel-add")
def ragged_compiled_share(record: Record) -> float:
    """The same of torch.compile, in bfloat16."""
    return _ragged_share(record, "torch.compile", torch.bfloat16)


@measure.value("parallel-add")
def ragged_whole_share(record: Record) -> float:
    """Bandwidth of `whole` on 2^26 + 7 bfloat16 over that on 2^26."""
    return _ragged_share(record, "whole", torch.bfloat16)


@measure.value("parallel-add")
def ragged_whole_share_float32(record: Record) -> float:
    """The same in float32."""
    return _ragged_share(record, "whole", torch.float32)


def _over(record: Record, a: str, b: str) -> float:
    """Bandwidth of one rung over another's on 64 Mi float32, cold."""
    return _gbps(record, a, torch.float32, LARGE) / _gbps(
        record, b, torch.float32, LARGE
    )


@measure.value("parallel-add")
def masked_over_grid(record: Record) -> float:
    """What the mask leaves of the bandwidth, 64 Mi float32."""
    return _over(record, "masked", "grid")


@measure.value("parallel-add")
def wide_over_masked(record: Record) -> float:
    """What 64-bit offsets leave of the bandwidth, 64 Mi float32."""
    return _over(record, "wide", "masked")


@measure.value("parallel-add")
def wide_over_masked_ragged(record: Record) -> float:
    """The same on seven elements more, bfloat16."""
    pair = [
        _gbps(record, name, torch.bfloat16, LARGE + 7) for name in ("wide", "masked")
    ]
    return pair[0] / pair[1]


@measure.value("parallel-add")
def start_us(record: Record) -> float:
    """Microseconds of the shortest vector, float32, cold."""
    return 1e3 * _curve(record)[0]["ms"]


@measure.value("parallel-add")
def strided_over_masked(record: Record) -> float:
    """Grid-stride loop against one tile per program, 64 Mi float32."""
    return _over(record, "strided", "masked")


def _curve(record: Record) -> list[Row]:
    rows = record.select(impl="add", dtype=torch.float32, regime="cold")
    return sorted(rows, key=lambda row: row["shape"]["n"])


@measure.value("parallel-add")
def half_predicted(record: Record) -> float:
    """Mi elements at which half a copy's bandwidth is due: t0 B / 12."""
    seconds = 1e-3 * _curve(record)[0]["ms"]
    return seconds * copy_gbps(record) * 1e9 / 12 / 2**20


@measure.value("parallel-add")
def half_measured(record: Record) -> float:
    """Mi elements at which `add` reaches half a copy's bandwidth, float32, cold."""
    goal = copy_gbps(record) / 2
    rows = _curve(record)
    for below, above in itertools.pairwise(rows):
        if below["gbps"] < goal <= above["gbps"]:
            low, high = (math.log(row["shape"]["n"]) for row in (below, above))
            part = (goal - below["gbps"]) / (above["gbps"] - below["gbps"])
            return math.exp(low + part * (high - low)) / 2**20
    return rows[-1]["shape"]["n"] / 2**20


# Whose output is given, and whose is allocated: where it lies is worth half a percent.
RIVALS = {"add": "torch.add", "add, new output": "torch.compile"}


def _large(record: Record, impl: str, *peers: str) -> list[tuple[str, measure.Ratio]]:
    """Each large case by name, with our rate over that of the fastest of the peers."""
    return [
        (f"n={row['shape']['n']} {row['dtype']} {row['regime']}", found)
        for row, found in record.against(impl, *peers)
        if row["shape"]["n"] >= LARGE
    ]


def _against_peers(record: Record) -> list[tuple[str, measure.Ratio]]:
    """Each large case, against the peer of like output."""
    return [
        (f"{case} against {peer}", found)
        for ours, peer in RIVALS.items()
        for case, found in _large(record, ours, peer)
    ]


@measure.value("parallel-add")
def against_best_peer(record: Record) -> float:
    """Geometric mean of our rate over the peers', 64 Mi elements and more."""
    return statistics.geometric_mean(r.median for _, r in _against_peers(record))


@measure.value("parallel-add")
def against_peers_even(record: Record) -> float:
    """The same without the length that is no multiple of 16."""
    even = [
        r.median for name, r in _against_peers(record) if f"n={LARGE + 7} " not in name
    ]
    return statistics.geometric_mean(even)


@measure.value("parallel-add")
def against_worst(record: Record) -> float:
    """The least of our rates over the peers', 64 Mi elements and more."""
    return min(r.median for _, r in _against_peers(record))


@measure.value("parallel-add")
def comparisons(record: Record) -> int:
    """How many cases of 64 Mi elements and more there are, each with a peer."""
    return len(_against_peers(record))


@measure.value("parallel-add")
def comparisons_won(record: Record) -> int:
    """In how many of them we are not behind, or behind by less than the spread."""
    return sum(r.high >= 1 for _, r in _against_peers(record))


def _against_fastest_peer(record: Record) -> list[measure.Ratio]:
    """Each large case: `add` into a given output over the faster of the peers."""
    return [found for _, found in _large(record, "add", *RIVALS.values())]


@measure.value("parallel-add")
def against_fastest_mean(record: Record) -> float:
    """Geometric mean of the rate of `add` over the faster peer's, output aside."""
    return statistics.geometric_mean(r.median for r in _against_fastest_peer(record))


@measure.value("parallel-add")
def against_fastest_worst(record: Record) -> float:
    """The least of these."""
    return min(r.median for r in _against_fastest_peer(record))


@measure.claim(
    "parallel-add",
    "From 64 Mi elements on, add is ahead of torch.add into a given output and of "
    "torch.compile into a new one as a geometric mean, and nowhere behind by more than "
    "a fifth of a percent.",
)
def parity(record: Record) -> tuple[bool, str]:
    slower = [f"{name}: {r.median:.4f}" for name, r in _behind(record)]
    mean, worst = against_best_peer(record), against_worst(record)
    return mean >= 1 and worst >= 0.998, f"mean {mean:.4f}; " + "; ".join(slower)


def _behind(record: Record) -> list[tuple[str, measure.Ratio]]:
    return [(name, r) for name, r in _against_peers(record) if r.high < 1]


@measure.claim(
    "parallel-add",
    "On 64 Mi float32, add has at least 90 % of a copy's bandwidth.",
)
def bandwidth(record: Record) -> tuple[bool, str]:
    share = share_of_copy(record)
    return share >= 0.9, f"{share:.2f} of a copy's"


@measure.claim(
    "parallel-add", "One program alone moves less than a fiftieth of what many do."
)
def one_program_is_slow(record: Record) -> tuple[bool, str]:
    times = programs_over_single(record)
    return times > 50, f"{times:.0f} times"


@measure.claim(
    "parallel-add",
    "Seven elements more than 64 Mi cost whole tiles at most 2 % of their bandwidth.",
)
def ragged_is_free(record: Record) -> tuple[bool, str]:
    share = ragged_whole_share(record)
    return share >= 0.98, f"{share:.3f}"


@measure.claim(
    "parallel-add",
    "The mask makes bfloat16 slower by half or more at a length that is no multiple of "
    "16.",
)
def masks_narrow_loads(record: Record) -> tuple[bool, str]:
    share = ragged_masked_share(record)
    return share <= 0.5, f"{share:.2f}"
