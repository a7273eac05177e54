"""The front page's figure: the book's kernels against the libraries they explain.

``{overview}`` has a line ``LABEL: RECORD IMPLEMENTATION`` for each line of the figure.
It is drawn when the page is written: on a GPU the chapters have measured by then, and
figure and provenance are of the same records.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from bookext.lean import plain
from bookext.quotes import STORE, Quote
from bookext.records import stamped, verified
from bookext.resources import joined

log = logging.getLogger(__name__)

FILE = "overview.svg"
Wanted = list[tuple[str, str, str]]


class overview_part(nodes.General, nodes.Element):
    """The figure's place; ``wanted`` has its lines."""


def parsed(content: list[str]) -> Wanted:
    """Read the lines of the directive: a label, a record, an implementation.

    Raises:
        ValueError: there is no line, or one that is malformed; the message shows it.
    """
    found = []
    for line in content:
        label, _, rest = line.partition(":")
        parts = rest.split(maxsplit=1)
        if not label.strip() or len(parts) != 2:
            raise ValueError(f"overview wants LABEL: RECORD IMPL, got {line!r}")
        found.append((label.strip(), parts[0], parts[1].strip()))
    if not found:
        raise ValueError("overview wants at least one line")
    return found


class Overview(SphinxDirective):
    """Leave a mark where the figure goes."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        try:
            wanted = parsed([line for line in self.content if line.strip()])
        except ValueError as error:
            raise self.error(str(error)) from error
        return [overview_part(wanted=wanted, where=self.get_location())]


def drawn(wanted: Wanted) -> dict[str, Any]:
    """Draw the figure.

    Args:
        wanted: a label, a record and the implementation in question, for each line.

    Returns:
        ``svg``, and ``counts``: for each line how many cases are of which kind.
    """
    from tilebook import measure
    from tilebook.measure import overview

    lines = [
        overview.line_of(measure.load(record), impl, label)
        for label, record, impl in wanted
    ]
    counts = [line.counts() for line in lines]
    return {"svg": overview.draw(lines)._repr_svg_(), "counts": counts}


def said(wanted: Wanted, counts: list[dict[str, int]]) -> str:
    """Return the figure in words, for who doesn't see it."""
    lines = [
        f"{label} {', '.join(f'{count} {kind}' for kind, count in found.items())}"
        for (label, _, _), found in zip(wanted, counts, strict=True)
    ]
    return (
        "Dots along a logarithmic axis, one line for each kernel, and a rule where "
        f"the fastest library is as fast: {'; '.join(lines)}."
    )


def caption(counts: list[dict[str, int]]) -> str:
    """Return what stands under the figure."""
    total, ahead, behind = (
        sum(sum(found[kind] for kind in kinds) for found in counts)
        for kinds in (("ahead", "level", "behind"), ("ahead",), ("behind",))
    )
    return (
        f"This book's kernels against the fastest library in each of {total} cases: "
        "one dot for each recorded shape, dtype and state of the caches. To the right "
        f"of the rule ours is faster, in {ahead} cases by more than the spread of the "
        f"rounds; to the left the library is, in {behind} cases."
    )


class FillIn(SphinxPostTransform):
    """Draw the figure, and say what measured it."""

    default_priority = 6

    def run(self, **kwargs: Any) -> None:
        for part in list(self.document.findall(overview_part)):
            part.replace_self(self.filled(part["wanted"], part["where"]))

    def filled(self, wanted: Wanted, where: str) -> list[nodes.Node]:
        """Return figure and provenance, or warn at the line that asks for it."""
        try:
            quotes = [STORE.get(record) for _, record, _ in wanted]
            made = STORE.once(f"overview {wanted}", lambda: drawn(wanted))
        except (OSError, LookupError, ValueError) as error:
            log.warning("nothing to draw: %s", error, location=where, type="measured")
            return []
        builder = self.app.builder
        if builder.format == "html":
            folder = Path(builder.outdir, builder.imagedir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / FILE).write_text(plain(made["svg"]), encoding="utf-8")
        up = "../" * self.env.docname.count("/")
        image = nodes.image(
            uri=f"{up}{builder.imagedir}/{FILE}",
            alt=said(wanted, made["counts"]),
            candidates={"?": ""},
        )
        figure = nodes.figure("", image, classes=["overview"], ids=["fig-overview"])
        text = caption(made["counts"])
        figure += nodes.caption(text, text)
        return [figure, self.provenance(quotes)]

    def named(self, quote: Quote) -> list[nodes.Node]:
        """Return a record's name, linked to its row, after a mark if code moved on."""
        builder, here = self.app.builder, self.env.docname
        uri = verified(builder, here, quote)
        link = nodes.reference("", quote.name, refuri=uri, internal=True)
        mark = stamped(builder, here, quote)[0]
        return [mark, nodes.Text(" "), link] if quote.stale else [link]

    def provenance(self, quotes: list[Quote]) -> nodes.paragraph:
        """Return a line on what measured the records; those alike share a stamp."""
        stamps: dict[str, dict[str, list[Quote]]] = {}
        for quote in quotes:
            day = str(quote.provenance.get("date", ""))
            stamp = quote.stamp.rstrip(".").removesuffix(day).rstrip(", ")
            stamps.setdefault(stamp, {}).setdefault(day, []).append(quote)
        line = nodes.paragraph(classes=["provenance"])
        for stamp, days in stamps.items():
            line += nodes.Text(f"{' ' if len(line) else ''}{stamp}; ")
            for index, (day, those) in enumerate(days.items()):
                line += nodes.Text(f"{'; ' if index else ''}{day}: ")
                line += joined([self.named(quote) for quote in those])
            line += nodes.Text(".")
        return line


def setup(app: Sphinx) -> None:
    """Register the node, the directive and the post-transform."""
    app.add_node(overview_part)
    app.add_directive("overview", Overview)
    app.add_post_transform(FillIn)
