"""What a page needs and no more: its few icons, and pictures when they are near.

The theme brings two thousand icons, as a script that draws them and as fonts. A page
shows some twenty, so these are taken out of the script, whose licence is CC BY 4.0, and
put into a style sheet. The templates beside this package leave the script out.
"""

import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

THEME = "pydata-sphinx-theme"
FOLDER = "pydata_sphinx_theme/theme/pydata_sphinx_theme/static"
SHEET = "icons.css"
# Family -> its icons that the theme's menus and buttons show.
ICONS = {
    "fab": ("github",),
    "fas": (
        "angle-left",
        "angle-right",
        "arrow-up",
        "bars",
        "bell",
        "chevron-down",
        "circle-exclamation",
        "circle-half-stroke",
        "circle-info",
        "circle-xmark",
        "expand",
        "lightbulb",
        "list",
        "magnifying-glass",
        "moon",
        "pencil-alt",
        "share",
        "sun",
        "triangle-exclamation",
        "xmark",
    ),
}
# Icon -> the boxes whose titles have it, as the theme and sphinx-exercise have it.
BOXES = {
    "bell": ("admonition",),
    "circle-info": ("note",),
    "lightbulb": ("tip", "hint"),
    "share": ("seealso",),
    "circle-exclamation": ("attention", "important"),
    "triangle-exclamation": ("warning", "caution", "danger"),
    "circle-xmark": ("error",),
    "pencil-alt": ("exercise", "todo"),
}
HEAD = """\
/* Icons of Font Awesome Free, https://fontawesome.com, CC BY 4.0. */
:is(.fas, .fab, .fa-solid, .fa-brands, a.github)::before {
  display: inline-block;
  vertical-align: -0.19em;
}
:is(.fas, .fab, .fa-solid, .fa-brands, a.github)::before,
div.admonition > p.admonition-title::after {
  content: "" !important;
  width: 1.125em;
  height: 1.125em;
  background: currentcolor;
  -webkit-mask: var(--icon) center / contain no-repeat;
  mask: var(--icon) center / contain no-repeat;
}
/* Boxes that fold have a mark of their own. */
div.admonition.dropdown > p.admonition-title::after {
  content: none !important;
}
@media (forced-colors: active) {
  :is(.fas, .fab, .fa-solid, .fa-brands, a.github)::before,
  div.admonition > p.admonition-title::after {
    forced-color-adjust: none;
    background: CanvasText;
  }
}
"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}"><path d="{path}"/></svg>'
RULE = '{where} {{\n  --icon: url("data:image/svg+xml,{data}");\n}}\n'
SIZE = re.compile(r'<svg[^>]*?\bwidth="([\d.]+)(pt|px)?"[^>]*?\bheight="([\d.]+)')
GLYPHS = re.compile(r"\.fa-[\w-]+(?:,\.fa-[\w-]+)*\{--fa:[^}]*\}")
FONTS = re.compile(r'@font-face\{[^}]*font-family:"?Font ?Awesome[^}]*\}')
PIXELS = {"pt": 4 / 3, "px": 1.0, None: 1.0}


# What matplotlib writes that EPUB doesn't take: a document type, paths of no length.
DOCTYPE = re.compile(r"<!DOCTYPE[^>]*>")
NO_PATH = re.compile(r"<path(?![^>]*\sd=)")


def plain(svg: str) -> str:
    """Return a drawing of matplotlib's, fit for every reader."""
    return NO_PATH.sub('<path d=""', DOCTYPE.sub("", svg, count=1))


def theme_file(name: str) -> Path:
    """Return a static file of the installed theme."""
    return Path(str(metadata.distribution(THEME).locate_file(f"{FOLDER}/{name}")))


def drawing(script: str, family: str, name: str) -> str:
    """Return an icon as SVG.

    Args:
        script: the theme's script of icons. A family's come before its own name.
        family: ``"fas"`` or ``"fab"``.
        name: the icon's, or another name that it goes by.

    Raises:
        LookupError: the script has no such icon.
    """
    end = re.search(rf'\(\s*"{family}",\s*\w+\)', script)
    glyph = re.compile(
        rf'[{{,]"?{name}"?:\[(\d+),(\d+),\[[^\]]*\],"\w+","([^"]+)"'
        rf'|\[(\d+),(\d+),\[[^\]]*"{name}"[^\]]*\],"\w+","([^"]+)"'
    )
    found = list(glyph.finditer(script, 0, end.start() if end else 0))
    if not found:
        raise LookupError(f"{THEME} has no icon {name!r} in {family}")
    width, height, path = (x for x in found[-1].groups() if x is not None)
    # Rays and tails leave the box by a sixteenth of its height, up or down.
    rim = int(height) // 16
    return SVG.format(box=f"0 {-rim} {width} {int(height) + 2 * rim}", path=path)


def sheet(script: str) -> str:
    """Return the style sheet of all icons."""
    drawn = {
        name: quote(drawing(script, family, name), safe=" /:=-.")
        for family, names in ICONS.items()
        for name in names
    }
    # Links to repositories; and a box of a kind is a box: its kind comes later.
    places = (
        [(f".fa-{name}", name) for name in drawn]
        + [("a.github", "github")]
        + [
            (f"div.{kind} > p.admonition-title", name)
            for name, kinds in BOXES.items()
            for kind in kinds
        ]
    )
    return HEAD + "".join(
        RULE.format(where=where, data=drawn[name]) for where, name in places
    )


def write_sheet(app: Sphinx) -> None:
    """Write the style sheet before pages, which name its digest, are written."""
    if app.builder.name != "html":
        return
    script = theme_file("scripts/fontawesome.js").read_text(encoding="utf-8")
    target = Path(app.outdir, "_static", SHEET)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(sheet(script), encoding="utf-8")


def without_glyphs(css: str) -> str:
    """Return the theme's style sheet without its two thousand icons."""
    return FONTS.sub("", GLYPHS.sub("", css))


def thin_out(app: Sphinx, exception: Exception | None) -> None:
    """Take the icons out of the theme's style sheet and away from the site."""
    static = Path(app.outdir, "_static")
    sheet = static / "styles" / "pydata-sphinx-theme.css"
    if exception is not None or app.builder.name != "html" or not sheet.exists():
        return
    sheet.write_text(without_glyphs(sheet.read_text(encoding="utf-8")), "utf-8")
    shutil.rmtree(static / "vendor" / "fontawesome", ignore_errors=True)
    for path in (static / "scripts").glob("fontawesome.js*"):
        path.unlink()


def size_of(path: Path) -> tuple[int, int] | None:
    """Return an SVG's width and height in CSS pixels; None if it doesn't say."""
    if path.suffix != ".svg" or not path.is_file():
        return None
    with path.open(encoding="utf-8") as file:
        found = SIZE.search(file.read(2000))
    if found is None:
        return None
    width, unit, height = found.groups()
    scale = PIXELS[unit]
    return round(float(width) * scale), round(float(height) * scale)


class LoadWhenNear(SphinxPostTransform):
    """Load all pictures but the first when they are near, in room kept for them."""

    default_priority = 901
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for index, image in enumerate(self.document.findall(nodes.image)):
            if index:
                image["loading"] = "lazy"
            size = size_of(Path(self.app.srcdir, image["uri"]))
            if size and not {"width", "height", "scale"} & set(image.attributes):
                # With a size Sphinx would make the picture a link to itself.
                image["classes"].append("no-scaled-link")
                image["width"], image["height"] = map(str, size)


def setup(app: Sphinx) -> None:
    """Register the style sheet and the post-transform."""
    app.add_css_file(SHEET, priority=900)
    app.connect("builder-inited", write_sheet)
    app.connect("build-finished", thin_out)
    app.add_post_transform(LoadWhenNear)
