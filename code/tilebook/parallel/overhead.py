"""How `parallel-launch` takes its times: host, graph, and a chain of kernels."""

from collections.abc import Callable

import torch

from tilebook import device
from tilebook.measure import Bench, Provider, Timing, compiled
from tilebook.parallel import launch
from tilebook.parallel.public import add, add_operator

N = 4096
"""Elements so few that only the launch matters."""

LINKS = 16
CHAINS = (2**12, 2**16, 2**18, 2**20, 2**22)


def _vector(n: int = N) -> torch.Tensor:
    return torch.randn(n, device=device.torch_device())


def _launches() -> dict[str, tuple[int, Callable[[], object]]]:
    """Each launch with the number of its kernel's arguments."""
    x, y, out = (_vector() for _ in range(3))
    many = [_vector() for _ in range(12)]
    descriptors = launch.describe_vectors(x, y, out)
    tiles = (N // launch.BLOCK,)

    def described() -> None:
        made = launch.describe_vectors(x, y, out)
        launch.descriptor_kernel[tiles](*made, BLOCK=launch.BLOCK)

    def described_before() -> None:
        launch.descriptor_kernel[tiles](*descriptors, BLOCK=launch.BLOCK)

    return {
        "no arguments": (0, lambda: launch.empty_kernel[(1,)]()),
        "4 arguments": (4, lambda: launch.four_kernel[(1,)](x, y, out, N)),
        "16 arguments": (
            16,
            lambda: launch.sixteen_kernel[(1,)](*many, N, N + 16, N + 32, N + 48),
        ),
        "3 descriptors": (3, described_before),
        "3 new descriptors": (3, described),
    }


def on_the_host(bench: Bench) -> None:
    """Time what a launch costs the host, by kind.

    Args:
        bench: gets one row per kind, regime "host"; `shape` is the number of
            arguments.
    """
    x, y, out = (_vector() for _ in range(3))
    fast = compiled(torch.add).build()
    kinds = _launches() | {
        "add": (3, lambda: add(x, y, out=out)),
        "add, new output": (2, lambda: add(x, y)),
        "add as an operator": (2, lambda: add_operator(x, y)),
        "torch.add": (3, lambda: torch.add(x, y, out=out)),
        "torch.add, new output": (2, lambda: torch.add(x, y)),
        "torch.compile, new output": (2, lambda: fast(x, y)),
    }
    timers: dict[str, Callable[[], Timing]] = {
        name: lambda call=call: bench.time_host(call)
        for name, (_, call) in kinds.items()
    }
    for name in ("no arguments", "4 arguments", "3 new descriptors"):
        call = kinds[name][1]
        kinds[f"{name}, waited for"] = kinds[name]
        timers[f"{name}, waited for"] = lambda call=call: bench.time_host(
            call, wait=True
        )
    for name, timing in bench.interleaved(timers).items():
        bench.row(
            impl=name,
            ours=not name.startswith("torch."),
            shape={"arguments": kinds[name][0]},
            dtype=torch.float32,
            regime="host",
            timing=timing,
        )


def in_a_graph(bench: Bench) -> None:
    """Time the same launches as nodes of a CUDA graph, and a graph of one kernel.

    Args:
        bench: gets one row per kind, regime "steady": the GPU's time per launch; and
            rows of regime "host" for replaying a graph.
    """
    launches = _launches()
    timers = {
        name: lambda call=call: bench.time_steady(call)
        for name, (_, call) in launches.items()
    }
    for name, timing in bench.interleaved(timers).items():
        bench.row(
            impl=name,
            ours=True,
            shape={"arguments": launches[name][0]},
            dtype=torch.float32,
            regime="steady",
            timing=timing,
        )
    for kernels in (1, 100):
        call = launches["4 arguments"][1]

        def several(call: Callable = call, kernels: int = kernels) -> None:
            for _ in range(kernels):
                call()

        graph = launch.capture(several)
        timing = bench.interleaved({"": lambda g=graph: bench.time_host(g.replay)})[""]
        bench.row(
            impl="replay of a graph",
            ours=True,
            shape={"arguments": 4, "kernels": kernels},
            dtype=torch.float32,
            regime="host",
            timing=timing,
            extra={"us_per_kernel": 1e3 * timing.ms / kernels},
        )


def in_a_chain(bench: Bench) -> None:
    """Time a chain of dependent kernels, launched plainly and early.

    Args:
        bench: gets rows of op "add_chain", with `extra["us_per_link"]`.
    """
    for n in CHAINS:
        providers = {
            "plain": Provider(
                lambda x, *terms: launch.add_chain(x, terms, dependent=False),
                ours=True,
            )
        }
        if device.has("pdl"):
            providers["dependent"] = Provider(
                lambda x, *terms: launch.add_chain(x, terms, dependent=True), ours=True
            )
        rows = bench.compare(
            op="add_chain",
            shape={"n": n, "links": LINKS},
            dtype=torch.float32,
            providers=providers,
            make_inputs=lambda n=n: [_vector(n) for _ in range(LINKS + 1)],
            reference=lambda x, *terms: x + torch.stack(terms).sum(0),
            length=LINKS,
            regimes=("steady",),
        )
        for row in rows:
            row["extra"]["us_per_link"] = 1e3 * row["ms"] / LINKS
