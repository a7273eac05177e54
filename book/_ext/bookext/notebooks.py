"""Each chapter as an executed notebook beside its page, to run on Colab as it is."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urljoin

import nbformat
from docutils import nodes
from jupyter_cache import get_cache
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from sphinx.application import Sphinx

from bookext.inputs import TAG
from bookext.plain import Block, Converter

HEAD = """\
This is [{title}]({address}), a chapter of *Thinking in Tiles*, as it ran when the book
was built. Run the next cell first: it installs the book's package where it is missing.
Without a GPU every kernel is interpreted and measurements are read from records.\
"""
INSTALL = """\
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("tilebook") is None:
    source = "tilebook @ git+{repository}@{revision}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

%matplotlib inline
%config InlineBackend.figure_formats = ["svg"]\
"""
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def executed(app: Sphinx, docname: str) -> list[nbformat.NotebookNode]:
    """Return a chapter's cells as they ran; none if it has none.

    MyST-NB leaves the notebook without its outputs where they came from the cache, so
    they are fetched from there again.
    """
    settings = app.env.mystnb_config
    path = Path(settings.output_folder).joinpath(*f"{docname}.ipynb".split("/"))
    if not path.is_file():
        return []
    notebook = nbformat.read(path, as_version=4)
    with suppress(KeyError):
        cache = get_cache(settings.execution_cache_path)
        notebook = cache.merge_match_into_notebook(notebook)[1]
    return notebook.cells


def shown(cells: list[nbformat.NotebookNode], index: int) -> nbformat.NotebookNode:
    """Return a code cell as the notebook shows it: source, outputs, folding tags."""
    cell = cells[index]
    tags = [tag for tag in cell.metadata.get("tags", []) if tag != TAG]
    metadata: dict[str, object] = {"tags": tags} if tags else {}
    if {"hide-input", "hide-cell", "remove-input", "remove-cell"}.intersection(tags):
        metadata["jupyter"] = {"source_hidden": True}
    for output in cell.outputs:
        if output.output_type == "error":
            output.traceback = [f"{output.ename}: {output.evalue}"]
    return new_code_cell(
        cell.source,
        outputs=cell.outputs,
        execution_count=cell.execution_count,
        metadata=metadata,
        id=f"code-{index}",
    )


def woven(
    blocks: list[Block], cells: list[nbformat.NotebookNode]
) -> Iterator[nbformat.NotebookNode]:
    """Yield text and code cells in order; code that a page hides still has to run."""
    text: list[str] = []
    following = 0

    def flush(upto: int) -> Iterator[nbformat.NotebookNode]:
        if text:
            yield new_markdown_cell("\n\n".join(text), id=f"text-{upto}")
            text.clear()

    def run_to(upto: int) -> Iterator[nbformat.NotebookNode]:
        for index in range(following, upto):
            cell = cells[index]
            if cell.cell_type == "code" and TAG not in cell.metadata.get("tags", []):
                yield shown(cells, index)

    for block in blocks:
        if isinstance(block, str):
            text.append(block)
            continue
        yield from flush(block)
        yield from run_to(block + 1)
        following = block + 1
    yield from flush(len(cells))
    yield from run_to(len(cells))


def numbers_on(app: Sphinx, docname: str) -> dict[str, str]:
    """Return the numbers of a page's figures and exercises, by id."""
    kinds = app.env.toc_fignumbers.get(docname, {})
    return {
        name: ".".join(map(str, number))
        for kind in ("figure", "exercise")
        for name, number in kinds.get(kind, {}).items()
    }


def convert(
    app: Sphinx, docname: str, doctree: nodes.document
) -> nbformat.NotebookNode:
    """Return a chapter's notebook."""
    address = urljoin(app.config.html_baseurl, f"{docname}.html")
    page = doctree.deepcopy()
    for line in list(page.findall(nodes.paragraph)):
        if "badges" in line["classes"]:
            line.parent.remove(line)
    revision = os.environ.get("GITHUB_SHA", "main")
    repository = app.config.book_repository
    title = app.env.titles[docname].astext()
    install = INSTALL.format(repository=repository, revision=revision)
    head = [
        new_markdown_cell(HEAD.format(title=title, address=address), id="about"),
        new_code_cell(install, metadata={"tags": ["install"]}, id="install"),
    ]
    converter = Converter(address, numbers_on(app, docname))
    body = woven(converter.blocks(page), executed(app, docname))
    notebook = new_notebook(cells=[*head, *body], metadata={"kernelspec": KERNEL})
    nbformat.validate(notebook)
    return notebook


def write_notebook(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, object],
    doctree: nodes.document | None,
) -> None:
    """Write a chapter's notebook into the site, next to its page."""
    if doctree is None or not pagename.startswith("chapters/"):
        return
    path = Path(app.outdir, *f"{pagename}.ipynb".split("/"))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(convert(app, pagename, doctree), path)


def setup(app: Sphinx) -> None:
    """Register the hook, and where a notebook installs the package from."""
    app.add_config_value("book_repository", "", "html", str)
    app.connect("html-page-context", write_notebook)
