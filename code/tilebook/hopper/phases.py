"""The loop of specialised warps, step by step: what the page's figure is made of.

The kernels themselves run under `tilebook.schedules`, as they are or with one of
`MISTAKES` planted, in one of the many orders that barriers allow. What they did is told
in `tilebook.hopper.moments`.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import torch

from tilebook.hopper import cooperative, folded, pingpong, wgmma
from tilebook.hopper.launching import describe
from tilebook.hopper.moments import Moment, Plan, Teller
from tilebook.hopper.show import HANDED
from tilebook.schedules import Deadlock, ScheduleError
from tilebook.schedules.descriptors import Descriptor
from tilebook.schedules.language import wait
from tilebook.schedules.machine import Machine, here, on
from tilebook.schedules.translation import Translation
from tilebook.testing import mutated_module

STAGES = (2, 3, 4)
STEPS = (2, 3, 4)
"""Chunks of a tile."""
SEED = 13
"""Which order is told; with a mistake the first from here on that isn't right."""
TRIES = 12
"""How many orders a mistake is looked for in."""
BLOCK_M, BLOCK_N, BLOCK_K = 32, 32, 16


class Setting(NamedTuple):
    """What is run."""

    kernel: str
    """A key of `PLANS`."""
    stages: int
    steps: int
    """Chunks of a tile."""
    mistake: str = "none"
    """A key of `MISTAKES` that has an edit for the kernel."""


PLANS: Mapping[str, Plan] = MappingProxyType(
    {
        "cooperative": Plan(cooperative, 2, 1, 8),
        "folded": Plan(folded, 2, 2, 8),
        "pingpong": Plan(pingpong, 1, 1, 12),
    }
)


class Mistake(NamedTuple):
    """A line that is wrong."""

    label: str
    end: str
    """How a run ends that shows it, as `Told.end` has it."""
    edits: Mapping[str, tuple[ModuleType, str, str]]
    """By kernel, the module and two texts: what stands there, and what should not."""


_LOOP = "    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):\n"
_ONCE, _EACH = f"    chunk = 0\n{_LOOP}", f"{_LOOP}        chunk = 0\n"
_OVER = "mbarrier.wait(free.index(slot), ((chunk // STAGES) & 1) ^ 1)"
_LAST = "warpgroup_mma_wait(1, deps=(acc,))"
MISTAKES: Mapping[str, Mistake] = MappingProxyType(
    {
        "none": Mistake("none", "right", dict.fromkeys(PLANS)),
        "restarted": Mistake(
            "consumers count from 0 in each tile",
            "stuck",
            {
                "cooperative": (cooperative, _ONCE, _EACH),
                "folded": (folded, _ONCE, _EACH),
                "pingpong": (
                    pingpong,
                    "chunk = (2 * turn + WHICH) * steps",
                    "chunk = 0",
                ),
            },
        ),
        "early": Mistake(
            "a slot is freed a step early",
            "wrong",
            dict.fromkeys(PLANS, (wgmma, _LAST, _LAST.replace("(1", "(2"))),
        ),
        "opposite": Mistake(
            "the producer waits for the other parity",
            "stuck",
            dict.fromkeys(PLANS, (wgmma, _OVER, _OVER.replace(" ^ 1", ""))),
        ),
        "unhanded": Mistake(
            "nobody waits for a turn",
            "wrong",
            {"pingpong": (pingpong, HANDED, "")},
        ),
    }
)
"""What can be planted, by name, where a kernel has the line."""


class Told(NamedTuple):
    """A run."""

    moments: tuple[Moment, ...]
    end: str
    """"right", "wrong", or "stuck" where nobody can go on."""


class Listening(Translation):
    """A translation that notes for which parity each wait is."""

    def __init__(self) -> None:
        super().__init__()
        self.parities: dict[int, int] = {}
        """By the index of the event."""

    def model(self, value: Any, name: str) -> Any:
        """See `Translation.model`."""
        found = super().model(value, name)
        return self._wait if found is wait else found

    def _wait(self, mbarrier: Any, phase: int, *rest: Any, **more: Any) -> None:
        self.parities[len(here().events)] = int(phase) & 1
        wait(mbarrier, phase, *rest, **more)


@contextmanager
def planted(kernel: str, mistake: str) -> Iterator[None]:
    """Plant one of `MISTAKES` in a kernel, for a while."""
    edit = MISTAKES[mistake].edits[kernel]
    with mutated_module(*edit) if edit else nullcontext():
        yield


def run(setting: Setting, seed: int) -> Told:
    """Run a kernel as it is now, and tell what it did.

    Args:
        setting: what; its mistake has been `planted`.
        seed: which of the possible orders.

    Returns:
        The run; it ends with what `schedules` says where that is neither a result nor
        that nobody can go on.
    """
    plan = PLANS[setting.kernel]
    m, n, k = BLOCK_M * plan.tiles(setting.steps), BLOCK_N, BLOCK_K * setting.steps
    luck = torch.Generator().manual_seed(seed)
    a, b = (
        torch.randint(-1, 2, sides, generator=luck).bfloat16()
        for sides in ((m, k), (k, n))
    )
    out = a.new_full((m, n), float("nan"))
    rows = BLOCK_M // plan.parts
    tiles = (rows, BLOCK_K), (BLOCK_K, BLOCK_N), (rows, BLOCK_N // plan.pieces)
    described = [
        Descriptor(describe(x, *tile, False))
        for x, tile in zip((a, b, out), tiles, strict=True)
    ]
    meta = {"BLOCK_M": BLOCK_M, "BLOCK_N": BLOCK_N, "BLOCK_K": BLOCK_K, "GROUP": 1}
    meta |= {"STAGES": setting.stages, "A_TURNED": False, "B_TURNED": False}
    machine, heard = Machine(0, 1, seed), Listening()
    body = heard.of(plan.module.matmul_kernel)
    with on(machine):
        try:
            body(*described, None, m, n, k, REGISTERS=232, **meta)
            machine.end()
            end = "right" if torch.equal(out, a @ b) else "wrong"
        except Deadlock:
            end = "stuck"
        except ScheduleError as error:
            end = str(error)
    teller = Teller(plan, setting.stages, setting.steps, heard.parities)
    return Told(tuple(teller.tell(machine.events)), end)


def shown(setting: Setting) -> Told:
    """Run what has been `planted` until it shows: in the first order that ends as it
    may, or in the first of all if in `TRIES` none does."""
    runs = []
    for seed in range(SEED, SEED + TRIES):
        runs.append(run(setting, seed))
        if runs[-1].end == MISTAKES[setting.mistake].end:
            return runs[-1]
    return runs[0]


@functools.cache
def every() -> Mapping[Setting, Told]:
    """Run all that the figure offers."""
    found = {}
    threads = torch.get_num_threads()
    # Tiles are so small that PyTorch's other threads would only wait.
    torch.set_num_threads(1)
    try:
        for kernel, (name, mistake) in itertools.product(PLANS, MISTAKES.items()):
            if kernel in mistake.edits:
                with planted(kernel, name):
                    for stages, steps in itertools.product(STAGES, STEPS):
                        setting = Setting(kernel, stages, steps, name)
                        found[setting] = shown(setting)
    finally:
        torch.set_num_threads(threads)
    return MappingProxyType(found)


def data() -> dict[str, Any]:
    """Return all runs for the figure's script.

    Each is a text with a letter for each moment, those of a kernel and a mistake by
    stages and then by steps.
    """
    counts = Counter(x for told in every().values() for x in told.moments)
    # The most frequent first: their letters are the shortest in JSON.
    moments = [moment for moment, _ in counts.most_common()]
    plain = (x for x in map(chr, itertools.count(35)) if x.isprintable())
    # Neither what JSON escapes nor what ends a script.
    letters = "".join(
        itertools.islice((x for x in plain if x not in "\\<"), len(moments))
    )
    letter = dict(zip(moments, letters, strict=True))
    runs: dict[str, list[list[str]]] = {}
    for setting, told in every().items():
        text = "".join(letter[moment] for moment in told.moments)
        runs.setdefault(f"{setting.kernel} {setting.mistake}", []).append(
            [text, told.end]
        )
    return {
        "kernels": [
            {"name": name, "parts": plan.parts, "chunks": plan.chunks}
            for name, plan in PLANS.items()
        ],
        "stages": STAGES,
        "steps": STEPS,
        "mistakes": [[name, x.label] for name, x in MISTAKES.items()],
        "moments": moments,
        "letters": letters,
        "runs": runs,
    }
