"""What pages quote from records, remembered from build to build.

To derive a number from a record takes the package, hence torch, hence seconds. What
comes out depends on the package's code, the records and the machine alone: as long as
those stay, the answers of the last build are the answers of this one.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from bookext import runs
from bookext.machine import package_root, surroundings

NAME = ".quotes.json"


@dataclasses.dataclass(frozen=True)
class Quote:
    """All that a page may say of one record.

    Attributes:
        name: the experiment's name.
        gpu: the name of the GPU that it was measured on.
        slug: that GPU's short name.
        live: whether this build measured it.
        stamp: one line that says what measured it, and when.
        stale: the modules whose code has moved on since.
        confirmed: that a sample came out the same for later code, and when.
        values: the numbers that prose quotes; an error's text where there is none.
        claims: what the book says of it; each sentence, whether it holds, a detail.
        rows: the measurements themselves.
        provenance: what measured them.
    """

    name: str
    gpu: str
    slug: str
    live: bool
    stamp: str
    stale: list[str]
    confirmed: dict[str, Any] | None
    values: dict[str, Any]
    claims: list[tuple[str, bool, str]]
    rows: list[dict[str, Any]]
    provenance: dict[str, Any]

    @property
    def anchor(self) -> str:
        """The id of the record's row on the verification page."""
        return f"record-{self.name}-{self.slug}"

    def value(self, name: str) -> Any:
        """Return a number that prose quotes.

        Raises:
            LookupError: the record does not yield it; the message says why.
        """
        if name not in self.values:
            known = ", ".join(self.values) or "none"
            raise LookupError(f"{self.name} has no value {name!r}; it has {known}")
        found = self.values[name]
        if isinstance(found, dict):
            raise LookupError(found["error"])
        return found


def quote_of(record: Any) -> Quote:
    """Ask a record all that a page may."""
    from tilebook import measure

    values: dict[str, Any] = {}
    for name in measure.registry.values(record.name):
        try:
            values[name] = record.value(name)
        except ValueError as error:
            values[name] = {"error": str(error)}
    broken = {claim.name: detail for claim, detail in record.broken_claims()}
    return Quote(
        name=record.name,
        gpu=record.gpu,
        slug=record.slug,
        live=record.live,
        stamp=record.stamp(),
        stale=record.stale(),
        confirmed=dict(record.confirmed) if record.confirmed else None,
        values=values,
        claims=[
            (claim.text, claim.name not in broken, broken.get(claim.name) or "")
            for claim in measure.claims(record.name)
        ],
        rows=record.rows,
        provenance=dict(record.provenance),
    )


def state() -> str:
    """Return a digest of all that quotes are made from."""
    total = hashlib.sha256(surroundings().encode())
    folders = [(package_root(), "*.py"), (package_root() / "records", "*.json")]
    if "TILEBOOK_LIVE" in os.environ:
        folders.append((Path(os.environ["TILEBOOK_LIVE"]), "*.json"))
    for folder, pattern in folders:
        for path in sorted(folder.rglob(pattern)):
            total.update(f"\0{path.relative_to(folder)}\0".encode())
            total.update(path.read_bytes())
    return total.hexdigest()


def committed() -> list[tuple[str, str]]:
    """Return the experiment and the GPU of every committed record."""
    return [
        (path.stem, path.parent.name)
        for path in sorted(package_root().glob("records/*/*.json"))
        if path.name != runs.NAME
    ]


class Store:
    """The quotes of this build, and those of the last while they are still true."""

    def __init__(self) -> None:
        self.path = Path(NAME)
        self.state = ""
        self.quotes: dict[str, dict[str, Any]] = {}

    def open(self, path: Path) -> None:
        """Look at the code and the records as they are now, and at what is known.

        Args:
            path: where quotes are kept from build to build.
        """
        now = state()
        if (path, now) == (self.path, self.state):
            return
        self.path, self.state, self.quotes = path, now, {}
        with suppress(OSError, ValueError, KeyError):
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["state"] == now:
                self.quotes = saved["quotes"]

    def get(self, name: str, gpu: str | None = None) -> Quote:
        """Return what pages may say of an experiment.

        Args:
            name: the experiment's name.
            gpu: the GPU of a committed record; by default the record that this build
                shows.

        Returns:
            The record's quotes.

        Raises:
            LookupError: no such experiment is declared.
            ValueError: there is no record, or its file is damaged.
        """

        def ask() -> dict[str, Any]:
            from tilebook import measure

            return dataclasses.asdict(quote_of(measure.load(name, gpu=gpu)))

        return Quote(**self.once(f"{name}@{gpu or ''}", ask))

    def once(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what code and records yield, made anew only when these have changed.

        Args:
            key: a name for it.
            make: makes it, of what JSON can hold.

        Returns:
            What ``make`` returned, in this build or an earlier one.
        """
        if key not in self.quotes:
            self.quotes[key] = make()
            self.save()
        return self.quotes[key]

    def save(self) -> None:
        """Write the quotes whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(f".{os.getpid()}")
        data = {"state": self.state, "quotes": self.quotes}
        aside.write_text(json.dumps(data), encoding="utf-8")
        aside.replace(self.path)


STORE = Store()


def before_reading(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Derive what chapters depend on once, before the build forks to read them."""
    STORE.open(Path(app.doctreedir).parent / NAME)
    if any(name.startswith("chapters/") for name in docnames):
        for name, gpu in committed():
            with suppress(LookupError, ValueError):
                STORE.get(name, gpu)


def after_reading(app: Sphinx, env: BuildEnvironment) -> None:
    """Look again: on a GPU the chapters have measured."""
    STORE.open(Path(app.doctreedir).parent / NAME)


def setup(app: Sphinx) -> None:
    """Register the hooks."""
    app.connect("env-before-read-docs", before_reading)
    app.connect("env-updated", after_reading)
