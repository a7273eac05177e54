"""What the chapter measures: kernels whose stages were edited by hand."""

import functools

import torch

from tilebook import device, measure
from tilebook.compiler import conclusions, override, twins
from tilebook.measure import Bench, Provider, Row

__all__ = ["compiler_override", "conclusions"]

SIZES = (2**20, 2**24, 2**27)
SIZES_BRIEF = (2**24, 2**27)


def _vectors(n: int) -> list[torch.Tensor]:
    where = device.torch_device()
    return [torch.randn(n, device=where, dtype=torch.float16) for _ in range(2)]


def _sum(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + y


@functools.cache
def _path(edit: str, target: str) -> str:
    """A file of the edited stage; widths of the sum's sizes are all the same kernel."""
    x = torch.empty(4096, dtype=torch.float16, device="meta")
    stage, change = ("ptx", override.uncached)
    if edit != "uncached":
        stage, change = "ttgir", override.narrowed(int(edit))
    _, path = override.edited(
        twins.add_kernel, x, x, x, 4096,
        stage=stage, edit=change, target=target, BLOCK=override.BLOCK,
    )  # fmt: skip
    return path


def _edited(edit: str) -> Provider:
    major, minor = torch.cuda.get_device_capability()
    path = _path(edit, f"sm_{10 * major + minor}")
    return Provider(functools.partial(override.add, path=path), ours=True, out=True)


@measure.experiment(
    "compiler-override",
    question="What does a line of TTGIR, edited by hand, cost or bring?",
    op="add",
    modules=("compiler.override", "compiler.twins"),
)
def compiler_override(bench: Bench) -> list[Row]:
    providers = {
        "as compiled": Provider(override.add, ours=True, out=True),
        "4 neighbours": _edited("4"),
        "2 neighbours": _edited("2"),
        "1 neighbour": _edited("1"),
        "L1 left out": _edited("uncached"),
        "torch": Provider(_sum),
    }
    for n in bench.choose(SIZES, SIZES_BRIEF):
        bench.compare(
            shape={"n": n},
            dtype=torch.float16,
            providers=providers,
            make_inputs=functools.partial(_vectors, n),
            make_output=lambda x, _: torch.empty_like(x),
            reference=_sum,
            bytes=3 * n * 2,
        )
    return bench.rows
