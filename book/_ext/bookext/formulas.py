"""Formulas as MathML, for readers without JavaScript.

MathJax turns TeX into MathML as the first half of its work; here a headless Chromium
has it stop there, so that a formula means in a bound book what it means on a page.
"""

import re
from collections.abc import Collection
from html import escape

from docutils import nodes

from bookext.browser import chromium
from bookext.pages import mathjax_folder

# A formula as TeX, and whether it stands on a line of its own.
Formula = tuple[str, bool]

SETTINGS = "window.MathJax = {startup: {typeset: false}, options: {enableMenu: false}}"
CONVERT = """formulas => MathJax.startup.promise.then(() => formulas.map(
    ([tex, display]) => MathJax.tex2mml(tex, {display})))"""
# What it can't read at all, and a command that it doesn't know: that it sets in red.
FAILED = re.compile(
    r'<merror[^>]*?data-mjx-error="([^"]*)"|<mtext mathcolor="red">([^<]*)'
)
# MathJax's own notes, and its classes: no reader knows them.
NOTES = re.compile(r'\s(?:data-mjx-[\w-]+|class)="[^"]*"')


def formula_of(node: nodes.math | nodes.math_block) -> Formula:
    """Return a node's formula, as Sphinx hands it to MathJax."""
    text = node.astext().strip()
    display = isinstance(node, nodes.math_block)
    lines = r"\\" in text and not text.startswith(r"\begin")
    if display and lines and not node.get("no-wrap", node.get("nowrap", False)):
        text = rf"\begin{{split}}{text}\end{{split}}"
    return text, display


def error_in(mathml: str) -> str:
    """Return what MathJax did not understand; empty if it did."""
    found = FAILED.search(mathml)
    return found[1] or f"unknown: {found[2]}" if found else ""


def marked_up(formulas: Collection[Formula]) -> dict[Formula, str]:
    """Turn formulas into MathML.

    Args:
        formulas: As TeX.

    Returns:
        MathML by formula, with its TeX as its ``alttext``; one that MathJax did not
        understand has an ``<merror>``.

    Raises:
        NoBrowserError: there is no Chromium.
    """
    wanted = sorted(set(formulas))
    if not wanted:
        return {}
    with chromium() as browser:
        page = browser.new_page()
        page.add_script_tag(content=SETTINGS)
        page.add_script_tag(path=mathjax_folder() / "tex-chtml.js")
        made = page.evaluate(CONVERT, wanted)
    return {
        formula: finished(mathml, formula[0])
        for formula, mathml in zip(wanted, made, strict=True)
    }


def finished(mathml: str, tex: str) -> str:
    """Return MathJax's MathML for a page: on one line, with its TeX as a text."""
    if not error_in(mathml):
        mathml = NOTES.sub("", mathml)
    text = escape(" ".join(tex.split()))
    line = re.sub(r">\s+<", "><", mathml.strip())
    return line.replace("<math", f'<math alttext="{text}"', 1)
