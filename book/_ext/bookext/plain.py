"""A resolved page as plain Markdown: what a notebook viewer without Sphinx can show.

Roles and directives are gone by then: a measured number is its text, a reference is a
link to the book online, an admonition is a block quote, included code is a fence.
"""

from collections.abc import Callable, Mapping
from urllib.parse import urljoin

from docutils import nodes

Block = str | int
"""A piece of a page: Markdown, or the index of a code cell."""


class Converter:
    """Turns one page into Markdown blocks and code cells, in order.

    Args:
        base: the page's own address online, for links and pictures.
        numbers: the numbers of its figures and exercises, such as "1.2", by id.
    """

    def __init__(self, base: str, numbers: Mapping[str, str] | None = None) -> None:
        self.base = base
        self.numbers = numbers or {}
        self.depth = 0

    # Inline

    def inline(self, node: nodes.Node) -> str:
        """Return a node's content as one run of Markdown."""
        if isinstance(node, nodes.Text):
            text = node.astext().replace("\n", " ")
            return text.replace("\\", "\\\\").replace("*", "\\*").replace("_", "\\_")
        if isinstance(node, nodes.literal):
            text = node.astext()
            return f"`` {text} ``" if "`" in text else f"`{text}`"
        if isinstance(node, nodes.math):
            return f"${node.astext()}$"
        if isinstance(node, nodes.image):
            return self.image(node)
        if isinstance(node, nodes.raw | nodes.comment | nodes.system_message):
            return ""
        inside = "".join(map(self.inline, node.children))
        return self.wrapped(node, inside)

    def wrapped(self, node: nodes.Node, inside: str) -> str:
        """Return Markdown for an inline element around its content."""
        if not inside.strip():
            return inside
        if isinstance(node, nodes.reference):
            address = self.address(node)
            return f"[{inside}]({address})" if address else inside
        if isinstance(node, nodes.strong):
            return f"**{inside}**"
        if isinstance(node, nodes.emphasis | nodes.title_reference):
            return f"*{inside}*"
        if isinstance(node, nodes.superscript):
            return f"<sup>{inside}</sup>"
        if isinstance(node, nodes.subscript):
            return f"<sub>{inside}</sub>"
        if {"asof", "older", "planned"}.intersection(node.get("classes", ())):
            return f"({inside})"
        return inside

    def address(self, node: nodes.Element) -> str:
        """Return where a link leads, from anywhere."""
        if "refuri" in node:
            return urljoin(self.base, node["refuri"])
        return f"{self.base}#{node['refid']}" if "refid" in node else ""

    def image(self, node: nodes.image) -> str:
        """Return a picture, taken from the book online."""
        name = node["uri"].rpartition("/")[2]
        return f"![{node.get('alt', '')}]({urljoin(self.base, '../_images/' + name)})"

    # Blocks

    def blocks(self, node: nodes.Node) -> list[Block]:
        """Return a node's blocks."""
        for kind, convert in self.table():
            if isinstance(node, kind):
                return convert(node)
        if isinstance(node, nodes.TextElement):
            text = self.inline(node).strip()
            return [text] if text else []
        return self.inside(node)

    def table(self) -> list[tuple[type | tuple[type, ...], Callable]]:
        """Return which method converts which kind of node; first match wins."""
        return [
            ((nodes.comment, nodes.raw, nodes.system_message), lambda node: []),
            ((nodes.docinfo, nodes.substitution_definition), lambda node: []),
            (nodes.section, self.section),
            (nodes.title, self.heading),
            (nodes.container, self.container),
            (nodes.literal_block, self.fence),
            (nodes.math_block, lambda node: [f"$$\n{node.astext().strip()}\n$$"]),
            (nodes.image, lambda node: [self.image(node)]),
            (nodes.caption, self.caption),
            ((nodes.bullet_list, nodes.enumerated_list), self.items),
            (nodes.definition_list_item, self.definition),
            (nodes.table, self.rows),
            (nodes.block_quote, lambda node: self.quoted(self.inside(node))),
            (nodes.Admonition, self.admonition),
            (nodes.transition, lambda node: ["---"]),
        ]

    def inside(self, node: nodes.Node) -> list[Block]:
        """Return the blocks of all children."""
        return [block for child in node.children for block in self.blocks(child)]

    def text_of(self, node: nodes.Node) -> str:
        """Return a node's inline content, trimmed."""
        return "".join(map(self.inline, node.children)).strip()

    def section(self, node: nodes.section) -> list[Block]:
        """A section, its title one level below the one around it."""
        self.depth += 1
        result = self.inside(node)
        self.depth -= 1
        return result

    def heading(self, node: nodes.title) -> list[Block]:
        """A title: of a section, or in bold of something smaller."""
        text = self.text_of(node)
        if isinstance(node.parent, nodes.section):
            return [f"{'#' * max(1, self.depth)} {text}"]
        return [f"**{text}**"]

    def container(self, node: nodes.container) -> list[Block]:
        """A code cell by its index, with the captions of what it drew."""
        if node.get("nb_element") == "cell_code":
            captions = [self.caption(x)[0] for x in node.findall(nodes.caption)]
            return [node["cell_index"], *captions]
        return self.inside(node)

    def caption(self, node: nodes.caption) -> list[Block]:
        """A caption, with its figure's number."""
        number = self.number_of(node.parent)
        lead = f"Fig. {number}: " if number else ""
        return [f"*{lead}{self.text_of(node)}*"]

    def number_of(self, node: nodes.Element) -> str:
        """Return the number of a figure or an exercise; empty if it has none."""
        return next((self.numbers[x] for x in node["ids"] if x in self.numbers), "")

    def fence(self, node: nodes.literal_block) -> list[Block]:
        """Code in a fence longer than any inside it."""
        text = node.astext().rstrip("\n")
        marks = "```"
        while marks in text:
            marks += "`"
        language = node.get("language", "")
        language = "" if language in {"none", "default"} else language
        return [f"{marks}{language}\n{text}\n{marks}"]

    def items(self, node: nodes.Element) -> list[Block]:
        """A list; what an item holds is indented under its mark."""
        ordered = isinstance(node, nodes.enumerated_list)
        result = []
        for number, item in enumerate(node.children, node.get("start", 1)):
            mark = f"{number}. " if ordered else "- "
            body = "\n\n".join(str(block) for block in self.inside(item))
            result.append(mark + body.replace("\n", "\n" + " " * len(mark)))
        return ["\n".join(result)]

    def definition(self, node: nodes.definition_list_item) -> list[Block]:
        """A term in bold, its definition as paragraphs."""
        result: list[Block] = []
        for child in node.children:
            if isinstance(child, nodes.term):
                result.append(f"**{self.text_of(child)}**")
            else:
                result.extend(self.blocks(child))
        return result

    def rows(self, node: nodes.table) -> list[Block]:
        """A table with bars; Markdown wants a head, so the first row becomes one."""
        lines = []
        for row in node.findall(nodes.row):
            cells = [
                " ".join(map(str, self.inside(entry)))
                .replace("|", "\\|")
                .replace("\n", " ")
                for entry in row.findall(nodes.entry)
            ]
            lines.append(f"| {' | '.join(cells)} |")
            if len(lines) == 1:
                lines.append("|" + " --- |" * len(cells))
        title = node.next_node(nodes.title)
        above: list[Block] = [f"*{self.text_of(title)}*"] if title else []
        return [*above, "\n".join(lines)]

    def admonition(self, node: nodes.Element) -> list[Block]:
        """A box as a quotation under its title in bold; code cells leave it."""
        kind = type(node).__name__.partition("_")[0].capitalize()
        head = node.children[0] if node.children else None
        if isinstance(head, nodes.title):
            title, body = self.text_of(head), node.children[1:]
        else:
            title, body = kind, node.children
        if kind == "Exercise":
            title = f"{kind} {self.number_of(node)} {title}"
        blocks = [block for child in body for block in self.blocks(child)]
        return self.quoted([f"**{title}**", *blocks])

    def quoted(self, blocks: list[Block]) -> list[Block]:
        """Text in block quotes; code cells stand between them."""
        result: list[Block] = []
        for block in blocks:
            if isinstance(block, int):
                result.append(block)
                continue
            text = "\n".join(f"> {line}".rstrip() for line in block.split("\n"))
            if result and isinstance(result[-1], str):
                result[-1] += f"\n>\n{text}"
            else:
                result.append(text)
        return result
