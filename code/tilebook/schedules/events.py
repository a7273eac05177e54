"""What happened in a run, and what can be read from it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

ENDS = {"wait": "pass", "load": "loaded", "multiply": "multiplied", "store": "taken"}
"""What ends what; a store's place is free from then on."""


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Args:
        who: the partition, or the engine that did it.
        what: of a barrier "arrive", "expect", "bytes", "wait" or "pass"; of a load
            "load" and "loaded"; of a product "multiply" and "multiplied"; of a store
            "store", "taken" out of shared memory, and "stored"; of threads "write" or
            "read".
        on: the barrier or the memory, by its name and index.
    """

    who: str
    what: str
    on: str


class Span(NamedTuple):
    """Something that took a while."""

    who: str
    """Who began it."""
    what: str
    """A key of `ENDS`."""
    on: str
    """The barrier or the memory."""
    begin: int
    """The event that began it, by its index."""
    end: int
    """The event that ended it."""


class Meeting(NamedTuple):
    """Who is concerned with barriers, in order of appearance."""

    arrive: tuple[str, ...]
    """Who arrives, or brings bytes."""
    wait: tuple[str, ...]
    """Who waits."""


def spans(events: Sequence[Event]) -> list[Span]:
    """Find what took a while: waits, loads, products and stores.

    Args:
        events: of one program.

    Returns:
        One for each that ended, in the order in which they began. Of several of a kind
        in the same place, the first to begin is the first to end.
    """
    open_: dict[tuple[str, ...], list[int]] = defaultdict(list)
    begins = {end: begin for begin, end in ENDS.items()}
    found = []
    for at, event in enumerate(events):
        # A wait is ended by who waits, anything else by an engine.
        mine = (event.who,) if event.what in ("wait", "pass") else ()
        if event.what in ENDS:
            open_[event.what, event.on, *mine].append(at)
        elif event.what in begins:
            begin = open_[begins[event.what], event.on, *mine].pop(0)
            found.append(Span(*_of(events[begin]), begin, at))
    return sorted(found, key=lambda span: span.begin)


def meetings(events: Iterable[Event]) -> dict[str, Meeting]:
    """List who arrives at each kind of barrier, and who waits there.

    Args:
        events: of one program.

    Returns:
        A meeting for each of the kernel's arrays of barriers, by its name.
    """
    found: dict[str, tuple[dict, dict]] = {}
    sides = {"arrive": 0, "expect": 0, "bytes": 0, "wait": 1}
    for event in events:
        if event.what in sides:
            group = found.setdefault(event.on.partition("[")[0], ({}, {}))
            group[sides[event.what]][event.who] = None
    return {name: Meeting(*map(tuple, group)) for name, group in found.items()}


def _of(event: Event) -> tuple[str, str, str]:
    return event.who, event.what, event.on
