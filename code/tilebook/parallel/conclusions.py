"""What the chapter quotes and concludes of adding, and of how many programs do it."""

import itertools
import math
import statistics

import numpy as np
import torch

from tilebook import device, measure
from tilebook.measure import Record, Row
from tilebook.parallel import occupancy, single, strided

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
def datasheet_tbps(record: Record) -> float:
    """TB/s that the datasheet promises of this GPU's memory."""
    return _datasheet_gbps(record) / 1e3


def _datasheet_gbps(record: Record) -> float:
    sheet = device.DATASHEET.get(record.slug)
    return sheet.hbm_gbps if sheet else copy_gbps(record)


LATENCY_NS = 700
"""What a load from memory takes, about; the chapter on memory measures it."""


def _in_flight(record: Record) -> float:
    """Bytes on their way that keep the datasheet's bandwidth busy: Little's law."""
    return _datasheet_gbps(record) * LATENCY_NS


@measure.value("parallel-add")
def in_flight_mb(record: Record) -> float:
    """MB on their way that keep the datasheet's bandwidth busy."""
    return _in_flight(record) / 1e6


@measure.value("parallel-add")
def in_flight_kb_per_sm(record: Record) -> float:
    """The same in KB for each of 132 SMs, or as many as the datasheet says."""
    sheet = device.DATASHEET.get(record.slug)
    return _in_flight(record) / 1e3 / ((sheet and sheet.sms) or 132)


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


def _against_peers(record: Record) -> list[tuple[str, measure.Ratio]]:
    """Each large case by name, with our rate over that of the peer of like output."""
    found = []
    for ours, peer in RIVALS.items():
        for row in record.select(impl=ours):
            n = row["shape"]["n"]
            if n >= LARGE:
                case = {"dtype": row["dtype"], "regime": row["regime"], "n": n}
                name = f"n={n} {row['dtype']} {row['regime']} against {peer}"
                found.append((name, measure.ratio(row, record.one(impl=peer, **case))))
    return found


@measure.value("parallel-add")
def against_best_peer(record: Record) -> float:
    """Geometric mean of our rate over the peers', 64 Mi elements and more."""
    return statistics.geometric_mean(r.median for _, r in _against_peers(record))


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
    found = []
    for row in record.select(impl="add"):
        if (n := row["shape"]["n"]) >= LARGE:
            case = {"dtype": row["dtype"], "regime": row["regime"], "n": n}
            peers = [record.one(impl=peer, **case) for peer in RIVALS.values()]
            found.append(measure.ratio(row, min(peers, key=lambda peer: peer["ms"])))
    return found


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
    "a quarter of a percent.",
)
def parity(record: Record) -> tuple[bool, str]:
    slower = [f"{name}: {r.median:.4f}" for name, r in _behind(record)]
    mean, worst = against_best_peer(record), against_worst(record)
    return mean >= 1 and worst >= 0.9975, f"mean {mean:.4f}; " + "; ".join(slower)


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
    "Seven elements more than 64 Mi cost whole tiles nothing: at most 2 % bandwidth.",
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


def _strides(record: Record, per_sm: int, stages: int) -> Row:
    return record.one(impl="strided", per_sm=per_sm, stages=stages)


def _share(record: Record, row: Row) -> float:
    return row["gbps"] / measure.roofline.measured(record.canary).gbps


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


@measure.value("parallel-programs")
def threads_due(record: Record) -> float:
    """Threads per SM, 32 bytes each, that keep the datasheet's bandwidth busy."""
    sms = _fastest(record)["extra"]["sms"]
    return _in_flight(record) / sms / 32


@measure.value("parallel-programs")
def due_share(record: Record) -> float:
    """Bandwidth with so many threads, interpolated, over that of the best number."""
    due, rows = threads_due(record), _by_threads(record)
    at = [row["shape"]["threads"] for row in rows]
    return (
        float(np.interp(due, at, [row["gbps"] for row in rows]))
        / _fastest(record)["gbps"]
    )


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
    "A grid-stride loop with one program on each SM moves less than two thirds of "
    "what a copy does.",
)
def one_is_too_few(record: Record) -> tuple[bool, str]:
    share = one_per_sm(record)
    return share < 2 / 3, f"{share:.2f}"


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
