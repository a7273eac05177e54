"""Where a kernel's tiles and barriers lie in shared memory, and which tiles lie on
barriers that nobody has taken down.

An mbarrier stays one until `mbarrier.inval`: what else is done with its bytes before
that, PTX leaves undefined.
"""

import functools
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from triton._C.libtriton import ir, nvidia, passes

from tilebook import compile_only
from tilebook.compile_only import Artefact
from tilebook.hopper import elsewhere
from tilebook.hopper.launching import Config
from tilebook.matmul.evidence import Launch

SHOWN = (
    *(Config(128, 256, 64, 3), Config(128, 128, 64, 4), Config(128, 128, 64, 5)),
    *(Config(128, 64, 64, 4), Config(128, 64, 64, 5)),
)
"""What the chapter's table is of: the compiler's partitions in these."""
PTX = 87
"""A version of PTX that knows Hopper; where things lie doesn't depend on it."""
OFFSET = re.compile(r"allocation\.offset = (\d+)")
MADE = re.compile(r"\s*(%[\w$.-]+)(?::\d+)? = ")
VALUE = re.compile(r"%[\w$.-]+")
PLACE = re.compile(r"(%\S+) = ttg\.local_alloc\b.*-> !ttg\.memdesc<((?:\d+x)+)(\w+)")
VIEW = re.compile(r"(%\S+) = ttg\.memdesc_\w+ (%[\w$.-]+)")
EVENTS = {
    "ttng.init_barrier": "inits",
    "ttng.inval_barrier": "ends",
    "ttg.local_dealloc": "frees",
}
"""What TTGIR's operations are to a buffer; all others are uses."""


class Buffer(NamedTuple):
    """A place in shared memory."""

    name: str
    """Its value in TTGIR."""
    shape: tuple[int, ...]
    """Tiles or barriers, and their sides."""
    bits: int
    """Of an element; 64 of a barrier."""
    begin: int
    """The first of its bytes."""
    inits: tuple[int, ...]
    """Lines that make barriers of it."""
    ends: tuple[int, ...]
    """Lines that take barriers down."""
    uses: tuple[int, ...]
    """All other lines with it, or with a part of it."""

    @property
    def end(self) -> int:
        """The first byte that isn't its own."""
        count = functools.reduce(int.__mul__, self.shape)
        return self.begin + count * self.bits // 8

    @property
    def bytes(self) -> str:
        """The first and the last of its bytes."""
        return f"{self.begin:,} to {self.end - 1:,}"

    @property
    def sides(self) -> str:
        """Its shape, as the chapter writes it."""
        return " x ".join(map(str, self.shape))


def placed(artefact: Artefact) -> str:
    """Let the compiler place a kernel's buffers, as it does on the way to PTX.

    Args:
        artefact: a kernel for Hopper with TTGIR.

    Returns:
        TTGIR with loops as branches, and offsets.
    """
    context = ir.context()
    ir.load_dialects(context)
    nvidia.load_dialects(context)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ttgir")
        path.write_text(artefact.ttgir)
        module = ir.parse_mlir_module(str(path), context)
    module.context = context
    manager = ir.pass_manager(context)
    passes.ttgpuir.add_combine_tensor_select_and_if(manager)
    passes.ttgpuir.add_allocate_warp_groups(manager)
    passes.convert.add_scf_to_cf(manager)
    passes.gluon.add_inliner(manager)
    nvidia.passes.ttgpuir.add_allocate_shared_memory_nv(manager, 90, PTX)
    manager.run(module, "placed")
    return str(module)


def buffers(text: str) -> list[Buffer]:
    """Read where tiles and barriers lie.

    Args:
        text: TTGIR with offsets, as from `placed`.

    Returns:
        Each, in the order in which they are made.
    """
    found: list[tuple[str, tuple[int, ...], int, int]] = []
    said: list[dict[str, list[int]]] = []
    # Which buffer a value is a view of. Partitions use each other's names again.
    owner: dict[str, int] = {}
    for at, line in enumerate(text.splitlines()):
        code = line.partition(" loc(")[0]
        place, offset, view = PLACE.search(code), OFFSET.search(code), VIEW.search(code)
        if place and offset:
            name, sides, kind = place.groups()
            shape = tuple(int(side) for side in sides.rstrip("x").split("x"))
            bits = int(re.search(r"\d+", kind)[0])
            owner[name] = len(found)
            found.append((name, shape, bits, int(offset[1])))
            said.append({"inits": [], "ends": [], "frees": [], "uses": []})
            continue
        if view and view[2] in owner:
            owner[view[1]] = owner[view[2]]
            continue
        how = next((how for op, how in EVENTS.items() if op in code), "uses")
        made = MADE.match(code)
        taken = VALUE.findall(code, made.end() if made else 0)
        for each in {owner[x] for x in taken if x in owner}:
            said[each][how].append(at)
        if made:
            owner.pop(made[1], None)
    return [
        Buffer(*what, *(tuple(lines[how]) for how in ("inits", "ends", "uses")))
        for what, lines in zip(found, said, strict=True)
    ]


def trodden(found: Iterable[Buffer]) -> list[tuple[Buffer, Buffer]]:
    """Find what is used while barriers that lie there haven't been taken down.

    Args:
        found: all buffers of a kernel.

    Returns:
        Pairs of barriers and what lies on them.
    """
    found = list(found)
    return [
        (barriers, other)
        for barriers in found
        for other in found
        if barriers.inits
        and other is not barriers
        and max(barriers.begin, other.begin) < min(barriers.end, other.end)
        and any(_standing(barriers, use) for use in (*other.inits, *other.uses))
    ]


def _standing(barriers: Buffer, line: int) -> bool:
    """Whether barriers have been made before a line, and not been taken down."""
    made = [init for init in barriers.inits if init < line]
    return bool(made) and not any(made[-1] < end < line for end in barriers.ends)


def fresh(arrivals: int = 1) -> torch.Tensor:
    """Read a barrier that has just been made as if it were numbers.

    Args:
        arrivals: that it waits for.

    Returns:
        Its 8 bytes on Hopper, as ptxas computes them: four numbers in bfloat16.
    """
    missing = 2**20 - arrivals
    word = missing << 1 | (missing << 11 & 2**32 - 1) << 32
    return torch.tensor([word]).view(torch.bfloat16)


def launch_of(config: Config) -> Launch:
    """Record a launch of the kernel of `automatic`, with any number of stages.

    Args:
        config: how; nothing is refused, since nothing is launched.
    """
    return elsewhere.launch_of(elsewhere.Case(config))


@functools.cache
def compiled(config: Config) -> Artefact:
    """Compile the kernel of `automatic` for Hopper.

    Args:
        config: as for `launch_of`.
    """
    kernel, _, args, meta = launch_of(config)
    return compile_only.compile(kernel, *args, target="sm_90", **meta)


def wanted() -> list[tuple[Launch, str]]:
    """What `table` compiles: launches, and the target of each."""
    return [(launch_of(config), "sm_90") for config in SHOWN]


def table(configs: Iterable[Config] = SHOWN) -> pd.DataFrame:
    """Say which barriers of the compiler's partitions nobody uses, and what lies there.

    Args:
        configs: of `automatic`.

    Returns:
        By tile and stages: barriers, those that nobody waits for or arrives at, where
        these lie, and the tiles that are brought to the same bytes.
    """
    rows = {}
    for config in configs:
        found = buffers(placed(compiled(config)))
        idle = [each for each in found if each.inits and not each.uses]
        tiles = {
            f"{other.sides} at {other.bytes}": None
            for barriers, other in trodden(found)
            if not other.inits
        }
        name = " x ".join(map(str, config[:3]))
        rows[f"{name}, {config.num_stages} stages"] = {
            "barriers": sum(len(each.inits) for each in found),
            "of no use": sum(len(each.inits) for each in idle),
            "their bytes": "; ".join(dict.fromkeys(each.bytes for each in idle)),
            "tiles there": "; ".join(tiles) or "none",
        }
    return pd.DataFrame.from_dict(rows, orient="index")
