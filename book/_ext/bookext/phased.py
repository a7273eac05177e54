"""The figure of the loop of specialised warps, in moments: its still picture."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bookext.explored import Explored, path, picture, text
from bookext.machine import package_root

RUN = (
    "import json; from tilebook.hopper import phases; print(json.dumps(phases.data()))"
)

SHOWN = 44
"""Moments in the picture."""
KINDS = {
    "asks": "need",
    "tile": "need",
    "on its way": "thin",
    "full": "warp",
    "being read": "bar",
    "overwritten": "bar",
    "product": "bar",
    "waits": "way",
    "store": "need",
}
"""What a bar is drawn as, a kind of `PLAIN`."""
LIGHT = ("on its way", "full")
"""What is written on in black."""


class Bar(NamedTuple):
    """Something in a lane, from one moment to another."""

    lane: str
    kind: str
    """A key of `KINDS`."""
    begin: int
    end: int
    label: str = ""


def bars(setting: Any, moments: Sequence[Any]) -> Iterator[Bar]:
    """Yield what took a while, and who asked for what.

    Args:
        setting: what was run.
        moments: of it, as far as they are drawn.
    """
    from tilebook.hopper import moments as told
    from tilebook.hopper import phases

    ring = told.Ring(phases.PLANS[setting.kernel], setting.stages)
    last = len(moments)
    open_: dict[str, Bar] = {}

    def stop(key: str, at: int) -> Iterator[Bar]:
        if key in open_:
            yield open_.pop(key)._replace(end=at)

    for at, moment in enumerate(moments):
        who, what, on, _ = moment
        before = ring.seen()["slots"]
        ring.happen(moment)
        if what == "waits":
            open_[f"{who} waits"] = Bar(who, "waits", at, last)
        elif what in ("asks", "begins", "goes"):
            yield from stop(f"{who} waits", at)
        if what == "asks":
            yield Bar(who, "asks", at, at + 1, str(ring.slots[on].chunk))
        elif what == "brings":
            yield Bar(who, "tile", at, at + 1, str(on))
        elif what == "begins":
            yield from stop(f"{who} {on}", at)
            chunk = ring.slots[on].chunk
            lane = f"{who} {chunk % 2}"
            open_[f"{who} {on}"] = Bar(lane, "product", at, last, str(chunk))
        elif what == "ends":
            yield from stop(f"{who} {on}", at + 1)
        elif what == "stores":
            open_[f"store {on}"] = Bar(who, "store", at, last)
        elif what == "takes":
            yield from stop(f"store {on}", at + 1)
        after = ring.seen()["slots"]
        for slot, (old, new) in enumerate(zip(before, after, strict=True)):
            if old != new:
                yield from stop(f"slot {slot}", at)
                if new[1] != "empty":
                    key = f"slot {slot}"
                    open_[key] = Bar(key, new[1], at, last, str(new[0]))
    yield from open_.values()


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number > 1)}" if number else ""


def data() -> dict[str, Any]:
    """Have the kernels run, and return what `phases.data` does.

    In a process of its own: in the one that reads the package's reference, kernels are
    no kernels any more.
    """
    paths = [str(package_root().parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def drawing(setting: Any, moments: Sequence[Any]) -> str:
    """Draw lanes, from the first moment on."""
    from tilebook.hopper.moments import CONSUMERS, ENGINE, PRODUCER

    lanes = [("Producer", [PRODUCER]), ("Copy engine", [ENGINE])]
    lanes.append(("Slots", [f"slot {slot}" for slot in range(setting.stages)]))
    for who in CONSUMERS:
        lanes.append((who.capitalize(), [f"{who} 0", f"{who} 1", who]))
    tops, parts, y, wide = {}, [], 0.0, len(moments)
    for name, of in lanes:
        parts.append(text("note", 0, y + 0.75, 0.72, name))
        for lane in of:
            y += 1
            tops[lane] = y
            parts.append(path("cell", f"M0 {y:g}h{wide}v.92h-{wide}z"))
            if lane.startswith("slot"):
                parts.append(text("down", -0.3, y + 0.72, 0.72, lane[-1]))
        y += 1.25
    for bar in bars(setting, moments):
        x, top, width = bar.begin, tops[bar.lane], bar.end - bar.begin - 0.1
        if bar.kind == "waits":
            parts.append(path("thick", f"M{x + 0.2:g} {top + 0.46:g}h{width - 0.3:g}"))
            continue
        box = f"M{x + 0.05:g} {top + 0.06:g}h{width:g}v.8h-{width:g}z"
        kind = "name" if bar.kind in LIGHT else "inside"
        parts.append(path(KINDS[bar.kind], box))
        parts.append(text(kind, x + width / 2 + 0.05, top + 0.72, 0.72, bar.label))
    return picture(wide + 1, y, parts)


def table(seen: dict[str, Any]) -> list[list[str]]:
    """Return slots and barriers as rows of texts."""
    rows = [["", "chunk or phase", "what", "who waits"]]
    for slot, (chunk, what) in enumerate(seen["slots"]):
        rows.append([f"slot {slot}", f"chunk {chunk}", what, ""])
    for name, (phase, arrivals, tiles) in seen["barriers"].items():
        lacks = filter(None, (_counted(arrivals, "arrival"), _counted(tiles, "tile")))
        waits = (
            f"{who}, for {parity}"
            for who, (on, parity) in seen["waits"].items()
            if on == name
        )
        what = f"lacks {', '.join(lacks)}"
        rows.append([name, f"phase {phase}", what, "; ".join(waits)])
    return rows


def phases(kernel: str = "cooperative", slots: int = 3, chunks: int = 3) -> Explored:
    """Make the figure of the loop of specialised warps.

    Args:
        kernel: the one that is shown first.
        slots: of its ring.
        chunks: of a tile.
    """
    from tilebook.hopper.moments import Moment, Ring
    from tilebook.hopper.phases import PLANS, STAGES, STEPS, Setting

    made = data()
    setting = Setting(kernel, slots, chunks)
    which = STAGES.index(slots) * len(STEPS) + STEPS.index(chunks)
    letters, _ = made["runs"][f"{kernel} none"][which]
    by = dict(zip(made["letters"], made["moments"], strict=True))
    drawn = [Moment(*by[letter]) for letter in letters[:SHOWN]]
    ring = Ring(PLANS[kernel], slots)
    for moment in drawn:
        ring.happen(moment)
    asked = sum(moment.what == "asks" for moment in drawn)
    begun = sum(moment.what == "begins" for moment in drawn)
    words = (
        f"The first {SHOWN} moments of {kernel} with {slots} slots and {chunks} chunks "
        f"to a tile, in one of the orders that barriers allow, with lanes for the "
        f"producer, the copy engine, each slot and each consumer. The producer has "
        f"asked for {asked} chunks, and {begun} products have begun. The table has "
        f"slots and barriers after the last of these moments."
    )
    made |= {"at": SHOWN - 1, "chosen": setting._asdict()}
    return Explored(made, drawing(setting, drawn), words, table(ring.seen()))
