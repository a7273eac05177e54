"""Run a Gluon kernel's own Python without a GPU, and without luck.

::

    from tilebook import schedules

    (events, *_) = schedules.run(kernel, (programs,), *args, **meta, seed=7)
    schedules.meetings(events)    # who arrives at each barrier, and who waits
    schedules.spans(events)       # what took a while, for a drawing

Partitions, copies and products run in an order that nobody but the kernel's barriers
restricts; `seed` chooses one. A wait that never ends is an error that says who waits
for what. Memory that is overwritten too early gives another result.

What is modelled is what PTX promises, and no more:

* A barrier's phase is over when all arrivals and all bytes have come. A wait sees only
  the parity of the last one that is.
* What a load brings is there when its bytes are counted, and nothing before. Loads end
  in any order.
* A product reads its operands at any time until it is waited for; only those with the
  same sums are done in order.
* A store, or an addition by the engine, reads shared memory at any time until it is
  waited for, and arrives in the matrix at any time until the program ends.
* Engines see what threads wrote only after a fence by those threads.

A partition is one thread here: what its warps owe one another is the compiler's work.
So are layouts and registers. Programs run one after another, in global memory too, and
integers are Python's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from tilebook.schedules.descriptors import Descriptor
from tilebook.schedules.events import Event, Meeting, Span, meetings, spans
from tilebook.schedules.machine import Deadlock, Machine, ScheduleError, on
from tilebook.schedules.tiles import Pointer
from tilebook.schedules.translation import Translation, unwrapped

__all__ = [
    "Deadlock",
    "Event",
    "Meeting",
    "ScheduleError",
    "Span",
    "meetings",
    "run",
    "spans",
]

OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg")
"""Of a launch; nothing here depends on them."""


def run(
    kernel: Any, grid: Sequence[int], *args: Any, seed: int = 0, **meta: Any
) -> list[list[Event]]:
    """Run a kernel, program by program.

    Args:
        kernel: decorated with @gluon.jit.
        grid: programs along one axis.
        args: as for a launch; tensors are on the CPU, descriptors' too, and those that
            the kernel stores to are changed.
        seed: which of the possible orders.
        meta: constexprs and options, as for a launch.

    Returns:
        What happened, in order, for each program.

    Raises:
        Deadlock: a wait that nothing in flight can end.
        ScheduleError: something that a GPU would leave undefined.
        NotImplementedError: an operation that isn't modelled.
        ValueError: a grid of more than one axis.
    """
    if len(grid) != 1:
        raise ValueError(f"programs are counted along one axis, got grid {grid}")
    values = [_argument(x) for x in args]
    meta = {name: unwrapped(x) for name, x in meta.items() if name not in OPTIONS}
    body = Translation().of(kernel)
    found = []
    for program in range(grid[0]):
        machine = Machine(program, grid[0], seed)
        try:
            with on(machine), _one_thread():
                body(*values, **meta)
                machine.end()
        except Exception as error:
            error.add_note(f"This was program {program} of {grid[0]}, seed {seed}.")
            raise
        found.append(machine.events)
    return found


def _argument(x: Any) -> Any:
    if hasattr(x, "block_shape"):
        return Descriptor(x)
    return Pointer(x) if isinstance(x, torch.Tensor) else unwrapped(x)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep PyTorch from sharing out tiles so small that its threads only wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
