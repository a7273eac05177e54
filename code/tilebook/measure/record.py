"""One experiment, measured on one GPU, and what can be asked of it."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from . import registry, roofline
from .errors import RecordError
from .registry import Claim

if TYPE_CHECKING:
    import pandas

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Record:
    """One experiment, measured on one GPU.

    Attributes:
        name: the experiment's name.
        question: the question it answers.
        rows: one mapping per implementation, case and regime (see `schema.ROW`).
        canary: ceilings measured before and after, and how far they drifted.
        provenance: what measured it, when, and for which code.
        live: whether it was measured on this machine by this build or process.
        confirmed: that a sample came out the same for later code (see `confirm`).
    """

    name: str
    question: str
    rows: list[Row]
    canary: Mapping[str, Any]
    provenance: Mapping[str, Any]
    live: bool
    confirmed: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any], *, live: bool) -> "Record":
        """Take a record from its JSON form, already checked.

        Args:
            data: what `schema.read` returns.
            live: whether this build or process measured it.

        Returns:
            The record.
        """
        parts = (data[k] for k in ("experiment", "question", "rows", "canary"))
        return cls(*parts, data["provenance"], live, data.get("confirmed"))

    def data(self) -> dict[str, Any]:
        """The record in its JSON form."""
        confirmed = {"confirmed": dict(self.confirmed)} if self.confirmed else {}
        return {
            "experiment": self.name,
            "question": self.question,
            "rows": self.rows,
            "canary": dict(self.canary),
            "provenance": dict(self.provenance),
            **confirmed,
        }

    @property
    def gpu(self) -> str:
        """The GPU's name."""
        return self.provenance["gpu"]

    @property
    def slug(self) -> str:
        """The GPU's short name, the folder of its committed records."""
        return self.provenance["slug"]

    def select(self, **wanted: Any) -> list[Row]:
        """Pick rows by their fields.

        Args:
            **wanted: ``impl``, ``ours``, ``op``, ``dtype`` (a torch dtype or its name)
                or ``regime``; any other name is a dimension of the shape.

        Returns:
            The rows that agree with all of it, in order.
        """
        if "dtype" in wanted:
            wanted["dtype"] = str(wanted["dtype"]).removeprefix("torch.")
        return [
            r for r in self.rows if all(_field(r, k) == v for k, v in wanted.items())
        ]

    def part(self, keep: Callable[[Row], bool]) -> "Record":
        """Leave rows out, for a figure of the rest.

        Args:
            keep: whether a row stays.

        Returns:
            A record of the rows that stay, in order, and of the same provenance.
        """
        return dataclasses.replace(self, rows=[row for row in self.rows if keep(row)])

    def one(self, **wanted: Any) -> Row:
        """Pick the only row with these fields.

        Args:
            **wanted: as for `select`.

        Returns:
            The row.

        Raises:
            RecordError: no row agrees, or several do.
        """
        rows = self.select(**wanted)
        if len(rows) != 1:
            asked = ", ".join(f"{k}={v}" for k, v in wanted.items())
            raise RecordError(f"{self.name}: {len(rows)} rows have {asked}, not one")
        return rows[0]

    def against(self, impl: str, *peers: str) -> list[tuple[Row, "Ratio"]]:
        """Hold each row of an implementation against the fastest of its peers.

        Args:
            impl: the implementation in question.
            *peers: those it is compared with.

        Returns:
            Each of its rows, with how many times as fast as the peer it is.

        Raises:
            RecordError: on some case no peer was measured.
        """
        found = []
        for row in self.select(impl=impl):
            rivals = [r for r in self.rows if r["impl"] in peers and same_case(r, row)]
            if not rivals:
                raise RecordError(f"{self.name}: no {peers} beside {impl} {row}")
            found.append((row, ratio(row, min(rivals, key=lambda r: r["ms"]))))
        return found

    def best(self, **wanted: Any) -> Row:
        """Pick the fastest of the rows with these fields.

        Args:
            **wanted: as for `select`.

        Returns:
            The row with the lowest median time.

        Raises:
            RecordError: no row agrees.
        """
        rows = self.select(**wanted)
        if not rows:
            asked = ", ".join(f"{k}={v}" for k, v in wanted.items())
            raise RecordError(f"{self.name}: no row has {asked}")
        return min(rows, key=lambda row: row["ms"])

    def frame(self) -> "pandas.DataFrame":
        """The rows as a table.

        Returns:
            One line per row; a column per field, per shape dimension, per extra.
        """
        import pandas

        nested = ("shape", "extra", "rounds")
        flat = [
            {**{k: v for k, v in row.items() if k not in nested}, **row["extra"]}
            for row in self.rows
        ]
        lines = [row["shape"] | line for row, line in zip(self.rows, flat, strict=True)]
        return pandas.DataFrame(lines)

    def value(self, name: str) -> float | int | str:
        """Derive one of the values that prose quotes.

        Args:
            name: the name of a function declared with ``@measure.value``.

        Returns:
            A finite number or a string.

        Raises:
            RecordError: there is no such value, or this record doesn't yield it.
        """
        known = registry.values(self.name)
        if name not in known:
            names = ", ".join(known) or "none"
            raise RecordError(f"{self.name} has no value {name!r}; it has {names}")
        try:
            found = known[name](self)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise RecordError(f"{self.name}.{name}: {error}") from error
        if hasattr(found, "item"):
            found = found.item()
        if not isinstance(found, int | float | str) or (
            isinstance(found, float) and not math.isfinite(found)
        ):
            raise RecordError(f"{self.name}.{name} is {found!r}, not a finite number")
        return found

    def values(self) -> dict[str, float | int | str]:
        """Derive every value that prose may quote.

        Returns:
            Value by name.

        Raises:
            RecordError: this record doesn't yield one of them.
        """
        return {name: self.value(name) for name in registry.values(self.name)}

    def stale(self) -> list[str]:
        """Name the modules whose code has moved on since this was measured, or last
        confirmed.

        Returns:
            Sorted names; ``"experiment"`` is the function that measures.
        """
        last = self.confirmed or self.provenance
        return _differing(last["digest"], registry.find(self.name).digest())

    def broken_claims(self) -> list[tuple[Claim, str]]:
        """Find what the chapter says that doesn't hold here.

        Returns:
            Each claim that fails, with a detail.
        """
        told = [(c, c.broken(self)) for c in registry.claims(self.name)]
        return [(c, detail) for c, detail in told if detail is not None]

    def problems(self) -> list[str]:
        """Find rows that can't be true: beyond a ceiling, or wrong results.

        Returns:
            A sentence for each.
        """
        return roofline.impossible(self.rows, self.canary, self.provenance)

    def drift(self) -> float:
        """How far the ceilings moved that the rows are held against."""
        ends = self.canary["open"], self.canary["close"]
        return roofline.drift(*ends, self.rows)

    def stamp(self) -> str:
        """One line under a figure: what measured it, when, and for which code."""
        made = self.provenance
        how = "Measured in this build" if self.live else "Recorded"
        system = ", ".join(
            f"{what} {made[key]}"
            for what, key in (("driver", "driver"), ("CUDA", "cuda"))
            if made[key]
        )
        line = f"{how} on {self.gpu}" + (f" ({system})" if system else "")
        line += f", torch {made['torch']}, triton {made['triton']}"
        line += "".join(f", {k} {v}" for k, v in made.get("peers", {}).items())
        line += f", {made['date']}"
        drift = self.drift()
        if drift > roofline.DRIFT:
            line += f", while the card's ceilings moved by {drift:.0%}"
        if self.confirmed:
            last = self.confirmed
            names = ", ".join(_differing(self.provenance["digest"], last["digest"]))
            line += f"; {last['rows']} of {len(self.rows)} rows came out within "
            line += f"{last['moved']:.1%} on {last['date']}, after a change of {names}"
        moved = self.stale()
        if moved:
            names = ", ".join(moved)
            line += f", on an earlier version of this code (moved since: {names})"
        return f"{line}."


class Ratio(NamedTuple):
    """How many times as fast one implementation is as another, over paired rounds."""

    median: float
    low: float
    high: float


def same_case(a: Row, b: Row) -> bool:
    """Whether two rows are of one operator, shape, dtype and regime."""
    return all(a[k] == b[k] for k in ("op", "shape", "dtype", "regime"))


def ratio(row: Row, peer: Row) -> Ratio:
    """Compare two rows round by round, so that what drifts meanwhile cancels.

    Args:
        row: the implementation in question.
        peer: the one it is compared with, measured in the same rounds.

    Returns:
        The peer's time over the row's: above one means that the row is faster.

    Raises:
        RecordError: the rows weren't measured in the same rounds.
    """
    if not same_case(row, peer) or len(row["rounds"]) != len(peer["rounds"]):
        raise RecordError(
            f"{row['impl']} and {peer['impl']} weren't measured side by side"
        )
    each = [b / a for a, b in zip(row["rounds"], peer["rounds"], strict=True)]
    return Ratio(statistics.median(each), min(each), max(each))


def _differing(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return sorted(k for k in then.keys() | now.keys() if then.get(k) != now.get(k))


def _field(row: Row, name: str) -> Any:
    return row[name] if name in row else row["shape"].get(name)
