"""Chapters are numbered from the first part to the last.

Sphinx begins again with 1 at each numbered table of contents, and the parts of the book
have one each: two chapters would be number 1, with one count of figures and equations
between them.
"""

from unittest import mock

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector

by_part = TocTreeCollector.assign_section_numbers


def joined(tree: nodes.document) -> nodes.document:
    """Move the entries of a page's numbered tables of contents into the first."""
    found = [n for n in tree.findall(addnodes.toctree) if n.get("numbered")]
    for table in found[1:]:
        found[0]["entries"] = found[0]["entries"] + table["entries"]
        table["numbered"] = 0
    return tree


def throughout(collector: TocTreeCollector, env: BuildEnvironment) -> list[str]:
    """Assign section numbers as Sphinx does, as if there were no parts."""
    read = env.get_doctree
    with mock.patch.object(env, "get_doctree", lambda name: joined(read(name))):
        return by_part(collector, env)


def setup(app: Sphinx) -> None:
    """Take Sphinx's place; it asks for the numbers at the end of reading."""
    TocTreeCollector.assign_section_numbers = throughout
