"""The copy engine's ring without an engine: who does what, and when.

The kernel's own lines run as Python. What they ask of Gluon is answered here, by a
clock and by barriers that flip as the hardware's do.
"""

from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple

import triton

from tilebook import check
from tilebook.memory import engine

COMING, LEAVING = 7, 3
"""Steps of the clock in which the engine fills a place and reads one. Made up."""


class Step(NamedTuple):
    """Something that the program or the engine does."""

    what: str
    """By the program "ask", "wait", "send" and "clear", the wait for a place that is
    read; by the engine "come" and "leave"."""
    tile: int
    """The tile that is moved or waited for."""
    place: int
    """Where in the ring it has its place."""
    start: int
    """When, in steps of the clock."""
    end: int
    """When it is over."""


class Stuck(RuntimeError):
    """The program waits for ever, or uses a place that isn't its to use."""


def rehearse(tiles: int, stages: int, kernel: Any = engine.copy_kernel) -> list[Step]:
    """Run one program of the copy engine's kernel, alone, by a made-up clock.

    Args:
        tiles: that it copies.
        stages: places in its ring, at least 2.
        kernel: `engine.copy_kernel`, or one with other lines in it.

    Returns:
        What was done, in the order in which the program came to it. Asking and sending
        take the program a step each; the engine has any number of tiles coming at a
        time, and reads one place after another.

    Raises:
        ValueError: a number is out of range.
        Stuck: a barrier never flips again, a tile is sent before it has come, or asked
            for into a place that isn't free.
    """
    if check.positive_int(stages, "stages") < 2:
        raise ValueError(f"stages must be at least 2, got {stages}")
    ring = _Ring(stages)
    tile = SimpleNamespace(shape=[1, 1], nbytes=1)
    described = SimpleNamespace(block_type=tile, dtype=None, layout=None)
    body = FunctionType(kernel.fn.__code__, ring.names())
    body(described, described, check.positive_int(tiles, "tiles"), stages)
    return ring.steps


class _Ring:
    """Places and their barriers, and the clock."""

    def __init__(self, stages: int) -> None:
        self.steps: list[Step] = []
        self.now = 0
        self.expected = [0] * stages
        # What came into each place, what left it, and what left in the order of asking.
        self.came: list[list[Step]] = [[] for _ in range(stages)]
        self.left: list[list[Step]] = [[] for _ in range(stages)]
        self.sent: list[Step] = []

    def names(self) -> dict[str, Any]:
        """What the kernel's lines call by name."""
        places = SimpleNamespace(index=lambda i: i)
        return {
            "gl": SimpleNamespace(
                allocate_shared_memory=lambda *_: places,
                int64=None,
                program_id=lambda _: 0,
                num_programs=lambda _: 1,
                static_range=range,
                cdiv=triton.cdiv,
            ),
            "mbarrier": SimpleNamespace(
                MBarrierLayout=lambda: None,
                init=lambda barrier, count: None,
                expect=self.expect,
                wait=self.wait,
            ),
            "tma": SimpleNamespace(store_wait=self.clear),
            "async_load": self.ask,
            "async_store": self.send,
        }

    def act(self, what: str, tile: int, place: int, end: int) -> None:
        """Let the program do something until then."""
        self.steps.append(Step(what, tile, place, self.now, end))
        self.now = end

    def expect(self, barrier: int, nbytes: int, pred: bool = True) -> None:
        """Have a barrier wait for so many bytes more."""
        self.expected[barrier] += nbytes * pred

    def ask(
        self, described: Any, at: list[int], barrier: int, place: int, pred: bool = True
    ) -> None:
        """Have the engine fill a place, if there is such a tile."""
        if not pred:
            return
        came, left = self.came[place], self.left[place]
        if len(came) > len(left) or (left and left[-1].end > self.now):
            raise Stuck(f"tile {at[0]} is asked for into place {place}, not free")
        if self.expected[barrier] != described.block_type.nbytes:
            raise Stuck(f"barrier {barrier} doesn't expect tile {at[0]}")
        self.expected[barrier] = 0
        self.act("ask", at[0], place, self.now + 1)
        came.append(Step("come", at[0], place, self.now, self.now + COMING))
        self.steps.append(came[-1])

    def wait(self, barrier: int, parity: int) -> None:
        """Wait until the barrier's phase of a parity is over."""
        came = self.came[barrier]
        over = sum(step.end <= self.now for step in came)
        if over % 2 != parity:
            return
        if over == len(came):
            raise Stuck(f"barrier {barrier} never flips again")
        self.act("wait", came[over].tile, barrier, came[over].end)

    def send(self, _: Any, at: list[int], place: int) -> None:
        """Have the engine read a place into memory."""
        came = self.came[place][-1:]
        if not came or came[0].tile != at[0] or came[0].end > self.now:
            raise Stuck(f"tile {at[0]} is sent before it has come")
        self.act("send", at[0], place, self.now + 1)
        start = max([self.now, *(step.end for step in self.sent[-1:])])
        leave = Step("leave", at[0], place, start, start + LEAVING)
        for steps in (self.steps, self.left[place], self.sent):
            steps.append(leave)

    def clear(self, pending: int) -> None:
        """Wait until all but the last few that were sent have left."""
        left = self.sent[: len(self.sent) - pending]
        if left and left[-1].end > self.now:
            self.act("clear", left[-1].tile, left[-1].place, left[-1].end)
