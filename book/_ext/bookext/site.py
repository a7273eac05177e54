"""The site as a whole: nothing is fetched from afar, no picture is mute."""

import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

log = logging.getLogger(__name__)

MATHJAX = "sphinx-mathjax-offline"
# One bundle typesets TeX into HTML; it asks for these fonts as formulas need them.
MATHJAX_FILES = ("tex-chtml.js", "output/chtml/fonts/woff-v2")


def mathjax_folder() -> Path:
    """Return where the installed package keeps MathJax."""
    found = metadata.distribution(MATHJAX).locate_file(MATHJAX)
    return Path(str(found)) / "static" / "mathjax"


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Put the part of MathJax that a page needs beside it."""
    if exception is not None or app.builder.format != "html":
        return
    target = Path(app.outdir, "_static", "mathjax")
    for name in MATHJAX_FILES:
        source = mathjax_folder() / name
        if source.is_dir():
            shutil.copytree(source, target / name, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / name)


class NeedAlternativeText(SphinxPostTransform):
    """Refuse a picture that says nothing to those who can't see it."""

    default_priority = 900

    def run(self, **kwargs: Any) -> None:
        for image in self.document.findall(nodes.image):
            if not image.get("alt", "").strip():
                log.warning(
                    "a figure has no alternative text", location=image, type="alt"
                )


def setup(app: Sphinx) -> None:
    """Register the hooks."""
    app.connect("build-finished", copy_mathjax)
    app.add_post_transform(NeedAlternativeText)
