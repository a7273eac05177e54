"""What partitions and engines did, in moments; and slots and barriers, to which they
happen::

    | who | what | on |
    |---|---|---|
    | anyone | `waits`, for a parity, if not let through at once | a barrier |
    | the producer | `asks` for the next chunk | a slot |
    | the copy engine | `brings` one of a chunk's tiles | a slot |
    | a consumer | `begins` a product, which `ends`; later it `frees` | a slot |
    | a consumer | `hands` over, to the other one | its own number |
    | a consumer | `stores`; the engine `takes` what it wrote | its own number |
    | a consumer | `misreads` what isn't its chunk, or isn't there yet | a slot |
    | a consumer | `loses` an operand that is overwritten while it is read | a slot |
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

from tilebook.schedules import Event

PRODUCER, ENGINE = "producer", "copy engine"
CONSUMERS = ("consumer 0", "consumer 1")


class Plan(NamedTuple):
    """How a kernel is run."""

    module: ModuleType
    parts: int
    """Consumers that share a tile's rows."""
    pieces: int
    """In which a tile is stored."""
    chunks: int
    """To be multiplied, at least."""

    def tiles(self, steps: int) -> int:
        """Tiles of the product, below one another."""
        return -(-self.chunks // steps)

    def chunk(self, consumer: int, count: int, steps: int) -> int:
        """The chunk that a consumer's product is due to multiply, by its count."""
        if self.parts == 2:
            return count
        turn, step = divmod(count, steps)
        return (2 * turn + consumer) * steps + step


class Moment(NamedTuple):
    """Something that happened; see the module's table."""

    who: str
    what: str
    on: str | int
    """A barrier's name and index, or a slot, or a consumer."""
    parity: int | None = None
    """What was waited for, by who waits, asks or begins."""


class Teller:
    """Makes moments of events.

    Args:
        plan: the kernel's.
        stages: slots of its ring.
        steps: chunks of a tile.
        parities: of its waits, by the index of their events.
    """

    def __init__(
        self, plan: Plan, stages: int, steps: int, parities: Mapping[int, int]
    ) -> None:
        self.plan, self.stages, self.steps = plan, stages, steps
        self.parities = parities
        # Of who waits or has just been let through.
        self.parity: dict[str, int] = {}
        # By place in shared memory, the chunk that is there or on its way there.
        self.there: dict[str, tuple[int, bool]] = {}
        self.asked: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()
        # By places, the products that read them, oldest first.
        self.under_way: dict[str, list[Moment]] = defaultdict(list)

    def tell(self, events: Sequence[Event]) -> Iterator[Moment]:
        """Yield what happened, in order."""
        for at, event in enumerate(events):
            who = event.who.replace("consume ", "consumer ").replace(
                "produce", PRODUCER
            )
            after = events[at + 1] if at + 1 < len(events) else None
            name, index = event.on.partition("[")[0], _index(event.on)
            match event.what:
                case "wait":
                    self.parity[who] = self.parities[at]
                    # Who is let through at once doesn't wait.
                    if after != Event(event.who, "pass", event.on):
                        yield Moment(who, "waits", event.on, self.parity[who])
                case "pass" if name == "handed":
                    yield Moment(who, "goes", index, self.parity[who])
                case "expect":
                    yield Moment(who, "asks", index, self.parity[who])
                case "load":
                    yield from self.load(event.on)
                case "loaded":
                    self.there[event.on] = self.there[event.on][0], True
                case "bytes":
                    yield Moment(ENGINE, "brings", index)
                case "multiply":
                    yield from self.multiply(who, event.on)
                case "multiplied":
                    yield self.under_way[event.on].pop(0)._replace(what="ends")
                case "arrive":
                    yield Moment(who, "hands" if name == "handed" else "frees", index)
                case "write":
                    yield Moment(who, "stores", index)
                case "taken":
                    yield Moment(ENGINE, "takes", index)

    def load(self, place: str) -> Iterator[Moment]:
        """A tile is asked for: who is reading its place loses it, once."""
        for places, products in self.under_way.items():
            if place in places.split(", "):
                for i, product in enumerate(products):
                    if product.what == "begins":
                        products[i] = product._replace(what="loses")
                        yield products[i]
        self.there[place] = self.asked[place], False
        self.asked[place] += 1

    def multiply(self, who: str, places: str) -> Iterator[Moment]:
        """A product begins, of its chunk or of something else."""
        stages = self.stages
        slot = _index(places)
        due = self.plan.chunk(_index_of(who), self.begun[who], self.steps)
        self.begun[who] += 1
        found = Moment(who, "begins", slot, self.parity[who])
        yield found
        self.under_way[places].append(found._replace(parity=None))
        # Use u of a slot has chunk u * stages + slot.
        wanted = (due // stages, True) if due % stages == slot else None
        if any(self.there.get(place) != wanted for place in places.split(", ")):
            yield Moment(who, "misreads", slot)


def _index(name: str) -> int:
    """The last index in a name, 0 if there is none."""
    return int("".join(re.findall(r"\[(\d+)\]$", name)) or 0)


def _index_of(who: str) -> int:
    return CONSUMERS.index(who)


@dataclass
class Barrier:
    """An mbarrier, in the figure's units."""

    count: int
    """Arrivals of a phase."""
    phase: int = 0
    """Which goes on."""
    arrivals: int = 0
    """That have come in it."""
    tiles: int = 0
    """That are to come in it."""

    def turn(self) -> bool:
        """Go on to the next phase if this one is over, and say so."""
        over = self.arrivals == self.count and not self.tiles
        if over:
            self.phase, self.arrivals = self.phase + 1, 0
        return over


@dataclass
class Slot:
    """A part of the ring."""

    chunk: int | None = None
    """The last that was asked for into it."""
    tiles: int = 0
    """Of it, to come."""
    given: bool = True
    """Whether all who had to have freed it."""
    readers: int = 0
    """Products that read it."""

    def state(self) -> str:
        """Say in a word what is to be seen."""
        if self.tiles:
            return "overwritten" if self.readers else "on its way"
        if self.readers:
            return "being read"
        return "empty" if self.given else "full"


@dataclass
class Ring:
    """Slots, barriers and who waits, to which moments happen.

    Args:
        plan: the kernel's.
        stages: how many slots.
    """

    plan: Plan
    stages: int
    asked: int = 0
    """Chunks, so far."""
    waits: dict[str, tuple[str, int]] = field(default_factory=dict)
    """By who waits, the barrier and the parity."""

    def __post_init__(self) -> None:
        self.slots = [Slot() for _ in range(self.stages)]
        counts = {"arrived": (1, self.stages), "free": (self.plan.parts, self.stages)}
        if self.plan.parts == 1:
            counts["handed"] = 1, 2
        self.barriers = {
            f"{name}[{i}]": Barrier(count)
            for name, (count, several) in counts.items()
            for i in range(several)
        }

    def happen(self, moment: Moment) -> None:
        """Take a moment in."""
        who, what, on, parity = moment
        if what == "waits":
            self.waits[who] = str(on), parity
        elif what in ("asks", "begins", "goes"):
            self.waits.pop(who, None)
        if what == "asks":
            tiles = self.plan.parts + 1
            self.slots[on] = Slot(self.asked, tiles, False, self.slots[on].readers)
            self.asked += 1
            self._arrive(f"arrived[{on}]", tiles)
        elif what == "brings":
            self.slots[on].tiles -= 1
            self._arrive(f"arrived[{on}]", -1, 0)
        elif what in ("begins", "ends"):
            self.slots[on].readers += 1 if what == "begins" else -1
        elif what == "frees":
            self.slots[on].given |= self._arrive(f"free[{on}]")
        elif what == "hands":
            self._arrive(f"handed[{on}]")

    def _arrive(self, name: str, tiles: int = 0, arrivals: int = 1) -> bool:
        barrier = self.barriers[name]
        barrier.arrivals += arrivals
        barrier.tiles += tiles
        return barrier.turn()

    def seen(self) -> dict[str, Any]:
        """Return what there is to be seen, as JSON has it."""
        barriers = {
            name: [x.phase, x.count - x.arrivals, x.tiles]
            for name, x in self.barriers.items()
        }
        slots = [[slot.chunk, slot.state()] for slot in self.slots]
        waits = {who: list(what) for who, what in self.waits.items()}
        return {"slots": slots, "barriers": barriers, "waits": waits}
