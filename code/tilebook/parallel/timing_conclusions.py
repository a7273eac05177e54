"""What the chapter quotes and concludes of launches, and of measuring gone wrong."""

from tilebook import measure
from tilebook.measure import Record
from tilebook.parallel import pitfalls


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


@measure.value("parallel-launch")
def host_bound(record: Record) -> float:
    """Mi float32 elements that are added in the time of calling `add`."""
    rate = measure.roofline.measured(record.canary).gbps
    return 1e-6 * add_us(record) * rate * 1e9 / 12 / 2**20


@measure.value("parallel-launch")
def replay_us(record: Record) -> float:
    """Host time of replaying a graph of a hundred kernels, in microseconds."""
    row = record.one(impl="replay of a graph", regime="host", kernels=100)
    return 1e3 * row["ms"]


@measure.value("parallel-launch")
def plain_link_us(record: Record) -> float:
    """GPU time of one link of the shortest chain, launched plainly, in us."""
    return record.select(op="add_chain", impl="plain")[0]["extra"]["us_per_link"]


@measure.value("parallel-launch")
def dependent_link_us(record: Record) -> float:
    """The same launched early, where the GPU can; plainly where it can't."""
    early = record.select(op="add_chain", impl="dependent")
    return early[0]["extra"]["us_per_link"] if early else plain_link_us(record)


def _chains(record: Record) -> list[measure.Ratio]:
    found = []
    for row in record.select(op="add_chain", impl="dependent"):
        plain = record.one(op="add_chain", impl="plain", n=row["shape"]["n"])
        found.append(measure.ratio(row, plain))
    return found


@measure.value("parallel-launch")
def own_share(record: Record) -> float:
    """What `add` takes beside a launch of four arguments, of all that it takes."""
    return 1 - four_us(record) / add_us(record)


@measure.value("parallel-launch")
def hidden_share(record: Record) -> float:
    """What an early launch saves, over what an empty kernel takes in a graph."""
    saved = plain_link_us(record) - dependent_link_us(record)
    return saved / graph_us(record)


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
    "parallel-launch",
    "In a graph a launch costs the GPU less than a quarter of what it costs the host.",
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
    "Without synchronisation, torch.add seems to move ten times and more what the "
    "memory can.",
)
def unsynchronised_is_absurd(record: Record) -> tuple[bool, str]:
    seems = 1e3 * unsynchronised_tbps(record)
    can = measure.roofline.measured(record.canary).gbps
    return seems > 10 * can, f"{seems:.0f} against {can:.0f} GB/s"
