"""A multiprocessor without time: partitions, and engines that run when they like.

Whatever a kernel starts and doesn't wait for may happen at once, or as late as a wait
allows. Here a generator of random numbers decides, so that code which relies on luck
computes something else.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tilebook.schedules.events import Event

HASTE = (0.03, 0.1, 0.3, 0.9)
"""How likely a job is over before the next partition goes on: for each kind of job, one
of these in a run."""
SPEEDS = (1, 5, 25)
"""How often a partition goes on, beside the others: one of these in each run."""


class ScheduleError(RuntimeError):
    """A kernel does what its GPU would leave undefined, or waits for ever."""


class Deadlock(ScheduleError):
    """Everyone waits, and nothing is in flight that could wake anybody."""


class Stopped(BaseException):
    """Unwinds a partition after another one has failed."""


@dataclass(eq=False)
class Job:
    """Something that an engine was asked for.

    Args:
        kind: "load", "copy", "product" or "store".
        on: the memory, for messages.
        finish: does it.
        after: a job that has to be over before.
        owed: whether it must be over when the program ends.
        over: whether it is.
    """

    kind: str
    on: str
    finish: Callable[[], None]
    after: "Job | None" = None
    owed: bool = True
    over: bool = False

    def __str__(self) -> str:
        return f"the {self.kind} of {self.on}"


@dataclass(eq=False)
class Worker:
    """A partition's thread: it runs when the machine says so, until it says it waits.

    Args:
        name: of its function.
        body: what it runs.
        speed: how often it is chosen, beside the others.
    """

    name: str
    body: Callable[[], Any]
    speed: int = 1
    ready: Callable[[], bool] = lambda: True
    waits_for: Callable[[], str] = lambda: ""
    over: bool = False
    may_go: threading.Event = field(default_factory=threading.Event)
    # What it asked for and hasn't waited for, oldest first.
    stores: list[Job] = field(default_factory=list)
    products: list[Job] = field(default_factory=list)
    # The last copy by threads, or what arrives after it.
    copied: Job | None = None

    def leave(self) -> None:
        """End, with nothing left behind.

        Raises:
            ScheduleError: it never waited for a store or a product.
        """
        if left := [*self.stores, *self.products]:
            raise ScheduleError(f"{self.name} ends without a wait for {left[0]}")


class Machine:
    """One program's multiprocessor.

    Args:
        program: its index in the grid.
        programs: how many there are.
        seed: decides what happens when.
    """

    def __init__(self, program: int, programs: int, seed: int) -> None:
        self.program = program
        self.programs = programs
        self.events: list[Event] = []
        self.memories = 0
        # Who wrote what, and hasn't told the engines yet.
        self.unfenced: list[tuple[Worker, Any]] = []
        self._luck = random.Random(f"{seed}/{program}")
        self._haste = {
            kind: self._luck.choice(HASTE) for kind in ("load", "product", "store")
        }
        # Drawn apart: what the others do doesn't depend on whether there are copies.
        self._haste["copy"] = random.Random(f"{seed}/{program}/copy").choice(HASTE)
        self._flying: list[Job] = []
        self._workers: list[Worker] = []
        self._current: Worker | None = None
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._alone = Worker("the program", lambda: None)

    @property
    def current(self) -> Worker:
        """Who runs now."""
        return self._current or self._alone

    def say(self, what: str, on: str, who: str | None = None) -> None:
        """Note an event."""
        self.events.append(Event(who or self.current.name, what, on))

    def begin(self, job: Job) -> Job:
        """Hand a job to an engine."""
        self._flying.append(job)
        return job

    def run(self, bodies: list[tuple[str, Callable[[], Any]]]) -> None:
        """Run partitions side by side until all are over.

        Args:
            bodies: a name and a function for each.

        Raises:
            Deadlock: nobody can go on.
            Exception: whatever a partition raises.
        """
        self._workers = [
            Worker(name, body, self._luck.choice(SPEEDS)) for name, body in bodies
        ]
        threads = [
            threading.Thread(target=self._live, args=(worker,), daemon=True)
            for worker in self._workers
        ]
        for thread in threads:
            thread.start()
        self._pass_on()
        self._done.wait()
        for thread in threads:
            thread.join()
        self._workers, self._current = [], None
        if self._error:
            raise self._error

    def end(self) -> None:
        """End the program: what has left shared memory arrives.

        Raises:
            ScheduleError: something else is in flight.
        """
        self._alone.leave()
        for job in self._flying:
            if job.owed:
                raise ScheduleError(f"the program ends without a wait for {job}")
        while self._engine(hurry=True):
            pass

    def pause(
        self,
        ready: Callable[[], bool] = lambda: True,
        why: Callable[[], str] = lambda: "",
    ) -> None:
        """Let others go first, and go on once `ready` holds.

        Args:
            ready: whether the caller may go on.
            why: says what it waits for.

        Raises:
            Deadlock: it never will.
        """
        worker = self._current
        if worker is None:
            # Outside of partitions only engines run beside the program.
            while self._engine():
                pass
            while not ready():
                if not self._engine(hurry=True):
                    raise Deadlock(f"the program waits for {why()}")
            return
        worker.ready, worker.waits_for = ready, why
        chosen = self._next()
        if chosen is not worker:
            chosen.may_go.set()
            worker.may_go.wait()
            worker.may_go.clear()
        if self._error:
            raise Stopped

    def _live(self, worker: Worker) -> None:
        worker.may_go.wait()
        worker.may_go.clear()
        try:
            if not self._error:
                with on(self):
                    worker.body()
                worker.leave()
        except Stopped:
            pass
        except BaseException as error:
            self._error = self._error or error
        worker.over = True
        self._pass_on()

    def _pass_on(self) -> None:
        """Wake whoever is next; after an error everyone, to unwind."""
        try:
            if not self._error and not all(w.over for w in self._workers):
                self._next().may_go.set()
                return
        except BaseException as error:
            self._error = error
        for worker in self._workers:
            worker.may_go.set()
        if all(worker.over for worker in self._workers):
            self._done.set()

    def _next(self) -> Worker:
        """Let engines run for as long as luck has it, then choose who goes on."""
        while True:
            able = [w for w in self._workers if not w.over and w.ready()]
            if self._engine(hurry=not able):
                continue
            if not able:
                waiting = "; ".join(
                    f"{w.name} waits for {w.waits_for()}"
                    for w in self._workers
                    if not w.over
                )
                raise Deadlock(f"nobody can go on: {waiting}")
            speeds = [worker.speed for worker in able]
            (self._current,) = self._luck.choices(able, speeds)
            return self._current

    def _engine(self, hurry: bool = False) -> bool:
        """Finish a job, if luck has it that one is over now, or there is no time."""
        able = [job for job in self._flying if not job.after or job.after.over]
        if hurry and able:
            (job,) = self._luck.choices(able, [self._haste[job.kind] for job in able])
        else:
            quick = [job for job in able if self._luck.random() < self._haste[job.kind]]
            if not quick:
                return False
            job = self._luck.choice(quick)
        self._flying.remove(job)
        job.over = True
        job.finish()
        return True


_threads = threading.local()


@contextmanager
def on(machine: Machine) -> Iterator[None]:
    """Make a machine the one that the language's functions speak to, in this thread."""
    before = getattr(_threads, "machine", None)
    _threads.machine = machine
    try:
        yield
    finally:
        _threads.machine = before


def here() -> Machine:
    """The machine that runs."""
    return _threads.machine
