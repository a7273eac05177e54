"""Look for what is wrong with an EPUB, without epubcheck.

    python tools/check_epub.py _build/thinking-in-tiles.epub

Its container, its list of files, that pages are XML, that every link and anchor inside
resolves, that nothing is a script or loaded from elsewhere, that pictures have texts.
"""

import posixpath
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree
from zipfile import ZIP_STORED, BadZipFile, ZipFile

OPF = "{http://www.idpf.org/2007/opf}"
DC = "{http://purl.org/dc/elements/1.1/}"
XHTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"
MATHML = "{http://www.w3.org/1998/Math/MathML}"
CONTAINER = "META-INF/container.xml"
FIRST = (b"PK\x03\x04", b"mimetypeapplication/epub+zip")
NEEDED = ("title", "creator", "language", "rights", "date", "identifier")
# Files that a book consists of and that its list leaves out.
UNLISTED = {"mimetype", CONTAINER}
XML_TYPES = {"application/xhtml+xml", "image/svg+xml", "application/x-dtbncx+xml"}
LOADED = ("src", "{http://www.w3.org/1999/xlink}href")

Pages = dict[str, ElementTree.Element]


def problems(path: Path) -> list[str]:
    """Return what is wrong with a book; nothing if it is sound.

    Args:
        path: The EPUB.
    """
    try:
        with ZipFile(path) as file:
            if broken := file.testzip():
                return [f"damaged: {broken}"]
            files = {name: file.read(name) for name in file.namelist()}
            first = file.infolist()[0]
    except (OSError, BadZipFile) as error:
        return [str(error)]
    found = []
    start = path.read_bytes()[:58]
    stored = first.compress_type == ZIP_STORED
    if not (stored and start.startswith(FIRST[0]) and start[30:] == FIRST[1]):
        found.append("mimetype: not first, not stored, or not application/epub+zip")
    try:
        package = package_of(files)
    except (LookupError, ElementTree.ParseError) as error:
        return [*found, f"no package: {error}"]
    items = {x.get("href", ""): x for x in package.iter(f"{OPF}item")}
    pages: Pages = {}
    for name, item in items.items():
        if item.get("media-type") in XML_TYPES and unquote(name) in files:
            try:
                pages[name] = ElementTree.fromstring(files[unquote(name)])
            except ElementTree.ParseError as error:
                found.append(f"{name}: no XML: {error}")
    texts = {k: v for k, v in pages.items() if v.tag == f"{XHTML}html"}
    found += listed(package, items, set(files))
    found += [f"{k}: {said}" for k, v in pages.items() for said in content(v)]
    found += [f"{k}: {said}" for k, v in texts.items() for said in words(v)]
    found += [
        f"{k}: {said}" for k, v in texts.items() for said in features(v, items[k])
    ]
    found += links(pages, texts, {unquote(name) for name in items})
    return found


def package_of(files: dict[str, bytes]) -> ElementTree.Element:
    """Return the root of the file that says what the book consists of.

    Raises:
        LookupError: there is none at the container's root.
    """
    container = ElementTree.fromstring(files[CONTAINER])
    root = next(x for x in container.iter() if x.tag.endswith("}rootfile"))
    name = root.get("full-path", "")
    if "/" in name:
        raise LookupError(f"{name} is not at the root")
    UNLISTED.add(name)
    return ElementTree.fromstring(files[name])


def listed(
    package: ElementTree.Element, items: dict[str, ElementTree.Element], names: set[str]
) -> Iterator[str]:
    """Yield what is wrong with the list of files, the order and the description."""
    hrefs = [x.get("href", "") for x in package.iter(f"{OPF}item")]
    ids = [x.get("id", "") for x in package.iter(f"{OPF}item")]
    twice = [name for name, count in Counter(hrefs + ids).items() if count > 1]
    yield from (f"listed twice: {name}" for name in twice)
    yield from (f"missing: {x}" for x in items if unquote(x) not in names)
    known = {unquote(x) for x in items} | UNLISTED
    yield from (f"not listed: {name}" for name in sorted(names - known))
    order = [x.get("idref") for x in package.iter(f"{OPF}itemref")]
    yield from (f"no such page: {x}" for x in order if x not in ids)
    yield from (f"twice in order: {x}" for x, n in Counter(order).items() if n > 1)
    kinds = Counter(
        kind for x in items.values() for kind in x.get("properties", "").split()
    )
    for kind in ("nav", "cover-image"):
        if kinds[kind] != 1:
            yield f"{kinds[kind]} items are its {kind}"
    for name in NEEDED:
        said = [(x.text or "").strip() for x in package.iter(DC + name)]
        if not said or not all(said) or "unknown" in said:
            yield f"metadata: no {name}"


def content(root: ElementTree.Element) -> Iterator[str]:
    """Yield what a reader without scripts and without a network can't show."""
    for tag in root.iter():
        kind = str(tag.tag).rpartition("}")[2]
        handlers = [x for x in tag.attrib if x.startswith("on")]
        if kind in ("script", "iframe", "form", "input", "button") or handlers:
            yield f"<{kind}> needs a script or a form"
        if tag.tag in (f"{XHTML}svg", f"{XHTML}math"):
            yield f"<{kind}> without its namespace"
        for name in LOADED:
            if urlsplit(tag.get(name, "")).scheme not in ("", "data"):
                yield f"<{kind}> loads {tag.get(name)}"
        if kind == "link" and urlsplit(tag.get("href", "")).scheme:
            yield f"<link> loads {tag.get('href')}"


def words(page: ElementTree.Element) -> Iterator[str]:
    """Yield where a page lacks a title, a language, or a text for a picture."""
    if not page.get("lang"):
        yield "no language"
    if not (page.findtext(f"{XHTML}head/{XHTML}title") or "").strip():
        yield "no title"
    for image in page.iter(f"{XHTML}img"):
        if not image.get("alt", "").strip():
            yield f"no alternative text: {image.get('src')}"
    for drawing in page.iter(f"{SVG}svg"):
        named = drawing.get("aria-label") or drawing.findtext(f"{SVG}title")
        if drawing.get("role") == "img" and not named:
            yield "no alternative text: a drawing"
    for formula in page.iter(f"{MATHML}math"):
        if not formula.get("alttext", "").strip():
            yield "no alternative text: a formula"
        if formula.find(f".//{MATHML}merror") is not None:
            yield f"a formula that is none: {formula.get('alttext')}"
    for value, count in Counter(x.get("id") for x in page.iter()).items():
        if value is not None and count > 1:
            yield f"{count} times the id {value}"


def features(page: ElementTree.Element, item: ElementTree.Element) -> Iterator[str]:
    """Yield what a page holds that the list of files does not say of it."""
    said = item.get("properties", "").split()
    for kind, tag in {"mathml": f"{MATHML}math", "svg": f"{SVG}svg"}.items():
        if (page.find(f".//{tag}") is not None) != (kind in said):
            yield f"properties: {kind} is {'not ' * (kind not in said)}said"


def links(pages: Pages, texts: Pages, names: set[str]) -> Iterator[str]:
    """Yield links, and what is loaded, that lead nowhere inside the book."""
    ids = {k: {x.get("id") for x in v.iter()} for k, v in texts.items()}
    for name, page in pages.items():
        for tag in page.iter():
            for link in (tag.get("href"), *(tag.get(x) for x in LOADED)):
                parts = urlsplit(link or "")
                if not link or parts.scheme:
                    continue
                near = posixpath.join(posixpath.dirname(name), unquote(parts.path))
                target = posixpath.normpath(near) if parts.path else name
                anchor = unquote(parts.fragment)
                if target not in names:
                    yield f"{name}: no file {link}"
                elif anchor and target in ids and anchor not in ids[target]:
                    yield f"{name}: no anchor {link}"


def main() -> int:
    """Check the books named on the command line."""
    status = 0
    for name in sys.argv[1:]:
        for said in problems(Path(name)):
            print(f"{name}: {said}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
