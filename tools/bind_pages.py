"""Make one page of the site's pages, in the order of reading, for printing.

Each page's article comes whole. Its ids get the page's name in front, links between
pages become links inside, what is folded is opened, and what only a screen needs goes.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from bs4 import BeautifulSoup, Tag

FIRST = "book/index.html"
# Paper has no use for what a reader looks up: links there lead to the site.
LEFT_OUT = re.compile(r"book/api(?:\.html$|/)")
ON_SCREEN = (
    ".headerlink, script, noscript, .toctree-wrapper, .sd-summary-state-marker, "
    "details.hide.above-input, .badge-notebook, button, input, style"
)
# Lines of code that stay on one sheet together.
SHORT = 16
REFERENCES = ("for", "aria-labelledby", "aria-describedby", "aria-controls")
LOCAL = re.compile(r"url\(#([^)]+)\)")


class Entry(NamedTuple):
    """A page in the order of reading: its address, and the part that begins there."""

    path: str
    part: str


class Heading(NamedTuple):
    """A line of the contents: 0 for a part, 1 for a page, 2 for a section."""

    level: int
    name: str
    text: str


class Bound(NamedTuple):
    """All pages as one.

    Attributes:
        articles: Their HTML.
        contents: The lines of the table of contents.
        titles: What stands over each page's sheets, by the page's name.
        settings: The script that sets MathJax up; empty if no page has a formula.
        wrong: Ids that came twice, and links inside that lead nowhere.
    """

    articles: str
    contents: list[Heading]
    titles: dict[str, str]
    settings: str
    wrong: list[str]


def read(site: Path, path: str) -> BeautifulSoup:
    """Parse a page of the site."""
    return BeautifulSoup((site / path).read_bytes(), "html.parser")


def in_order(index: BeautifulSoup) -> Iterator[Entry]:
    """Yield the pages that the first page's menu lists, itself first.

    Args:
        index: The site's first page.
    """
    menu = index.select_one("nav.bd-links")
    part = ""
    yield Entry(FIRST, "")
    for found in menu.select(".caption-text, .toctree-l1 > a"):
        link = found.get("href")
        if link is None:
            part = found.get_text(strip=True)
        elif link != "#":
            path = posixpath.normpath(posixpath.join(posixpath.dirname(FIRST), link))
            if not LEFT_OUT.match(path):
                yield Entry(path, part)
                part = ""


def slug(path: str) -> str:
    """Return the name of a page inside the bound one."""
    return path.removesuffix(".html").replace("/", "-")


class Binder:
    """Turns pages into articles of one page.

    Args:
        site: The built pages.
        base: The address of the site, for links to what is not bound.
        paths: The pages that are.
    """

    def __init__(self, site: Path, base: str, paths: list[str]) -> None:
        self.site, self.base, self.paths = site, base, set(paths)
        self.settings = ""
        self.ids: Counter[str] = Counter()
        self.links: set[str] = set()

    def article(self, path: str) -> Tag:
        """Return a page's article, ready to stand among others."""
        page = read(self.site, path)
        scripts = (x.get_text() for x in page.select("head script"))
        found = (x for x in scripts if x.startswith("window.MathJax"))
        self.settings = next(found, self.settings)
        found = page.select_one("article.bd-article")
        for tag in found.select(ON_SCREEN):
            tag.decompose()
        self.open_out(found)
        for picture in found.select("img[loading]"):
            # On paper none is out of sight.
            del picture["loading"]
        for code in found.select("pre"):
            if code.get_text().count("\n") <= SHORT:
                code["class"] = "short"
        name = slug(path)
        for tag in [found, *found.find_all(True)]:
            self.rename(tag, name)
            for kind in ("href", "src"):
                if kind in tag.attrs:
                    tag[kind] = self.lead(tag[kind], path, tag.name != "a")
        found["id"] = name
        self.ids.update(tag["id"] for tag in [found, *found.select("[id]")])
        self.links.update(x["href"] for x in found.select('a[href^="#"]'))
        return found

    def wrong(self) -> list[str]:
        """Return ids that came twice, and links inside that lead nowhere."""
        twice = [f"twice: {name}" for name, count in self.ids.items() if count > 1]
        lost = sorted(link for link in self.links if link[1:] not in self.ids)
        return twice + [f"no anchor: {link}" for link in lost]

    def open_out(self, article: Tag) -> None:
        """Open what is folded, and set tabs one after another."""
        for fold in article.select("details"):
            fold.name = "div"
            title = fold.find("summary", recursive=False)
            if title is not None and "hide" in fold.get("class", ()):
                title.decompose()
            elif title is not None:
                title.name = "p"
                title["class"] = "admonition-title"
                fold["class"] = "admonition opened"
        for label in article.select(".sd-tab-label"):
            label.name = "p"
            label["class"] = "tab"
            label.attrs.pop("for", None)

    def rename(self, tag: Tag, name: str) -> None:
        """Put a page's name before a tag's id, and before the ids that it names."""
        if "id" in tag.attrs:
            tag["id"] = f"{name}--{tag['id']}"
        for kind in REFERENCES:
            if kind in tag.attrs:
                ids = tag[kind] if isinstance(tag[kind], list) else tag[kind].split()
                tag[kind] = " ".join(f"{name}--{x}" for x in ids)
        for kind, value in tag.attrs.items():
            if isinstance(value, str) and "url(#" in value:
                tag[kind] = LOCAL.sub(rf"url(#{name}--\1)", value)

    def lead(self, link: str, path: str, loaded: bool) -> str:
        """Return where a link leads from the bound page."""
        parts = urlsplit(link)
        if parts.scheme:
            return link
        near = posixpath.join(posixpath.dirname(path), unquote(parts.path))
        target = posixpath.normpath(near) if parts.path else path
        if loaded:
            return f"/{target}" if parts.path else f"#{slug(path)}--{parts.fragment}"
        if target in self.paths:
            anchor = f"--{unquote(parts.fragment)}" if parts.fragment else ""
            return f"#{slug(target)}{anchor}"
        mark = f"#{parts.fragment}" if parts.fragment else ""
        return urljoin(self.base, target) + mark


def headings(article: Tag) -> Iterator[Heading]:
    """Yield a page's title and its sections, each by an id that is there."""
    for tag in article.select("h1, section > section > h2"):
        section = tag.find_parent("section")
        text = " ".join(tag.get_text().split())
        level = int(tag.name[1])
        yield Heading(level, article["id"] if level == 1 else section["id"], text)


def bind(site: Path, base: str) -> Bound:
    """Make one of the pages that the site's menu lists.

    Args:
        site: The built pages.
        base: The address of the site.

    Raises:
        ValueError: A page lacks an article or a title.
    """
    entries = list(in_order(read(site, FIRST)))
    binder = Binder(site, base, [entry.path for entry in entries])
    made, contents, titles = [], [], {}
    for path, part in entries:
        article = binder.article(path)
        found = list(headings(article))
        if not found or found[0].level != 1:
            raise ValueError(f"{path} has no title")
        if part:
            contents.append(Heading(0, "", part))
        if path != FIRST:
            contents += found
            titles[article["id"]] = found[0].text
        made.append(article.decode(formatter="minimal"))
    articles = "\n".join(made)
    return Bound(articles, contents, titles, binder.settings, binder.wrong())


def contents_html(contents: list[Heading], numbers: dict[str, int]) -> str:
    """Return the table of contents.

    Args:
        contents: Its lines.
        numbers: Page by heading; one that is not known yet is as wide as one that is.
    """
    lines = []
    for level, name, text in contents:
        said = escape(text)
        if level == 0:
            lines.append(f'<p class="part">{said}</p>')
            continue
        lines.append(
            f'<p class="level-{level}"><a href="#{escape(name)}">'
            f'<span class="entry">{said}</span><span class="leader"></span>'
            f'<span class="number">{numbers.get(name, "000")}</span></a></p>'
        )
    return "\n".join(lines)


def running_heads(titles: dict[str, str]) -> str:
    """Return a style sheet that gives each page's sheets its title as their head.

    Args:
        titles: Title by the name of the page.
    """
    rules = []
    for name, title in titles.items():
        quoted = title.replace("\\", "\\\\").replace('"', '\\"')
        rules.append(
            f"#{name} {{ page: {name}; }}\n"
            f'@page {name} {{ @top-left {{ content: "{quoted}"; }} }}'
        )
    return "\n".join(rules)
