"""What the chapter quotes and concludes from its three experiments."""

import statistics

import torch

from tilebook import measure
from tilebook.measure import Record, Row
from tilebook.parallel import pitfalls, single

LARGE = 2**26
PEERS = ("torch.add", "torch.compile")


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
def ragged_masked_share(record: Record) -> float:
    """Bandwidth of `masked` on 2^26 + 7 bfloat16 over that on 2^26."""
    pair = [_gbps(record, "masked", torch.bfloat16, n) for n in (LARGE + 7, LARGE)]
    return pair[0] / pair[1]


@measure.value("parallel-add")
def ragged_whole_share(record: Record) -> float:
    """Bandwidth of `whole` on 2^26 + 7 bfloat16 over that on 2^26."""
    pair = [_gbps(record, "whole", torch.bfloat16, n) for n in (LARGE + 7, LARGE)]
    return pair[0] / pair[1]


def _against_peers(record: Record) -> list[tuple[str, measure.Ratio]]:
    """Each large case by name, with our rate over the best peer's there."""
    found = []
    for row in record.select(impl="add"):
        n = row["shape"]["n"]
        if n >= LARGE:
            case = {"dtype": row["dtype"], "regime": row["regime"], "n": n}
            peer = min((record.one(impl=p, **case) for p in PEERS), key=_time)
            name = f"n={n} {row['dtype']} {row['regime']} against {peer['impl']}"
            found.append((name, measure.ratio(row, peer)))
    return found


def _time(row: Row) -> float:
    return row["ms"]


@measure.value("parallel-add")
def against_best_peer(record: Record) -> float:
    """Geometric mean of our rate over the best peer's, 64 Mi elements and more."""
    return statistics.geometric_mean(r.median for _, r in _against_peers(record))


@measure.claim(
    "parallel-add",
    "From 64 Mi elements on, add is at least as fast as the best of torch.add with "
    "out= and torch.compile, within the spread of the rounds.",
)
def parity(record: Record) -> tuple[bool, str]:
    ratios = _against_peers(record)
    slower = [f"{name}: {r.median:.3f}" for name, r in ratios if r.high < 1]
    return bool(ratios) and not slower, "; ".join(slower)


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


def _host_us(record: Record, impl: str) -> float:
    return 1e3 * record.one(impl=impl, regime="host", op="launch")["ms"]


@measure.value("parallel-launch")
def empty_us(record: Record) -> float:
    """Host time of launching a kernel without arguments, in microseconds."""
    return _host_us(record, "no arguments")


@measure.value("parallel-launch")
def four_us(record: Record) -> float:
    """Host time of launching a kernel with four arguments, in microseconds."""
    return _host_us(record, "4 arguments")


@measure.value("parallel-launch")
def sixteen_us(record: Record) -> float:
    """Host time of launching a kernel with sixteen arguments, in microseconds."""
    return _host_us(record, "16 arguments")


@measure.value("parallel-launch")
def descriptor_us(record: Record) -> float:
    """Host time of making three descriptors and launching with them, in us."""
    return _host_us(record, "3 new descriptors")


@measure.value("parallel-launch")
def add_us(record: Record) -> float:
    """Host time of `add` into a given output, in microseconds."""
    return _host_us(record, "add")


@measure.value("parallel-launch")
def torch_add_us(record: Record) -> float:
    """Host time of `torch.add` into a given output, in microseconds."""
    return _host_us(record, "torch.add")


@measure.value("parallel-launch")
def roundtrip_us(record: Record) -> float:
    """Host time from a launch to knowing that it has ended, in microseconds."""
    return _host_us(record, "4 arguments, waited for")


@measure.value("parallel-launch")
def graph_us(record: Record) -> float:
    """GPU time of one kernel that does nothing, among many in a graph, in us."""
    return 1e3 * record.one(impl="no arguments", regime="steady", op="launch")["ms"]


def _chains(record: Record) -> list[measure.Ratio]:
    found = []
    for row in record.select(op="add_chain", impl="dependent"):
        plain = record.one(op="add_chain", impl="plain", n=row["shape"]["n"])
        found.append(measure.ratio(row, plain))
    return found


@measure.value("parallel-launch")
def dependent_gain(record: Record) -> float:
    """Largest gain of dependent launch in a chain, in times; 1 where there is none."""
    return max((r.median for r in _chains(record)), default=1.0)


@measure.claim(
    "parallel-launch", "Launching costs the host more than torch.add does in all."
)
def launch_costs(record: Record) -> tuple[bool, str]:
    pair = four_us(record), torch_add_us(record)
    return pair[0] > pair[1], "{:.1f} us against {:.1f} us".format(*pair)


@measure.claim(
    "parallel-launch", "In a graph a launch costs less than a quarter of that."
)
def graph_is_cheaper(record: Record) -> tuple[bool, str]:
    pair = graph_us(record), empty_us(record)
    return 4 * pair[0] < pair[1], "{:.2f} us against {:.2f} us".format(*pair)


@measure.claim("parallel-launch", "Dependent launch shortens a chain of short kernels.")
def dependent_helps(record: Record) -> tuple[bool, str]:
    gain = dependent_gain(record)
    return gain > 1.05, f"{gain:.2f} times"


def _small(record: Record, impl: str) -> float:
    return record.one(op="matmul", impl=impl, m=pitfalls.SMALL)["tflops"]


@measure.value("parallel-pitfalls")
def small_do_bench_tflops(record: Record) -> float:
    """TFLOP/s of cuBLAS at 256^3 as triton.testing.do_bench tells."""
    return _small(record, "do_bench")


@measure.value("parallel-pitfalls")
def small_graph_tflops(record: Record) -> float:
    """TFLOP/s of the same as triton.testing.do_bench_cudagraph tells."""
    return _small(record, "do_bench_cudagraph")


@measure.value("parallel-pitfalls")
def first_call_ratio(record: Record) -> float:
    """Time of a kernel's first call over that of a later one."""
    pair = (record.one(op="add", impl=f"{x} call") for x in ("first", "later"))
    first, later = (row["ms"] for row in pair)
    return first / later


@measure.value("parallel-pitfalls")
def zeros_gain(record: Record) -> float:
    """Rate of cuBLAS on zeros over that on random numbers, 8192^3."""
    pair = [record.one(op="matmul", impl=x)["tflops"] for x in ("zeros", "random")]
    return pair[0] / pair[1]


@measure.value("parallel-pitfalls")
def resident_gain(record: Record) -> float:
    """Rate of add on cached data over that on data in memory."""
    pair = [record.one(op="add", impl=x)["ms"] for x in ("other inputs", "same inputs")]
    return pair[0] / pair[1]


@measure.value("parallel-pitfalls")
def unsynchronised_tbps(record: Record) -> float:
    """TB/s of add by a clock that doesn't wait for the GPU."""
    row = record.one(op="add", impl="no synchronisation")
    return row["extra"]["apparent_gbps"] / 1e3


@measure.claim(
    "parallel-pitfalls",
    "At 256³ do_bench tells less than two thirds of what its graph variant does.",
)
def do_bench_misleads(record: Record) -> tuple[bool, str]:
    pair = small_do_bench_tflops(record), small_graph_tflops(record)
    return pair[0] < 2 / 3 * pair[1], "{:.1f} against {:.1f} TFLOP/s".format(*pair)


@measure.claim("parallel-pitfalls", "cuBLAS multiplies zeros faster than random data.")
def zeros_are_faster(record: Record) -> tuple[bool, str]:
    gain = zeros_gain(record)
    return gain > 1.02, f"{gain:.2f} times"


@measure.claim(
    "parallel-pitfalls", "Cached inputs make add at least 1.5 times as fast."
)
def cache_flatters(record: Record) -> tuple[bool, str]:
    gain = resident_gain(record)
    return gain >= 1.5, f"{gain:.2f} times"


@measure.claim(
    "parallel-pitfalls",
    "Without synchronisation, add seems to move ten times what the memory can.",
)
def unsynchronised_is_absurd(record: Record) -> tuple[bool, str]:
    seems = 1e3 * unsynchronised_tbps(record)
    can = measure.roofline.measured(record.canary).gbps
    return seems > 10 * can, f"{seems:.0f} against {can:.0f} GB/s"
