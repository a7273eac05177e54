"""The puzzles' page, written out from the package, and their notebook beside it.

A fence ``{puzzle} puzzle-08`` becomes all that a reader sees of that puzzle: text,
picture, stub, hints and our solution, with the cells that run them. It is written out
before anything reads the page, as if it stood there.
"""

import os
import re
from pathlib import Path
from urllib.parse import urljoin

from docutils import nodes
from sphinx.application import Sphinx

from bookext.chapters import NEEDS, badge

PAGE = "book/puzzles"
FENCE = re.compile(r"^```\{puzzle\} ([\w-]+)\n```$", re.M)
SECTION = """\
({name})=
### {number}. {title}

````{{exercise}} {name}
:label: ex-{name}
:nonumber:

{text}
````

```{{code-cell}} python
:tags: [remove-input]
drawing.draw("{name}")
```

```python
{stub}
check("{name}", {kernel})
```

```{{runnable}} {name}
```

{hints}

````{{solution-start}} ex-{name}
:label: sol-{name}
:class: dropdown
````

{code}

```{{code-cell}} python
check("{name}", solutions.{kernel})
```

````{{solution-end}}
````
{onward}"""
HINT = """\
```{{dropdown}} Hint {number} of {count}
{text}
```"""
SHOWN = """\
```{{literalinclude}} ../code/tilebook/puzzles/solutions/{module}.py
:pyobject: {name}
```"""
ONWARD = """
{{doc}}`/chapters/{stem}` goes on from here.
"""


def section(name: str) -> str:
    """Return one puzzle as MyST Markdown.

    Args:
        name: the puzzle's, such as ``"puzzle-08"``.

    Raises:
        LookupError: there is no such puzzle.
    """
    from tilebook.puzzles import notebook, puzzle, solutions
    from tilebook.testing.source import python_function

    one = puzzle(name)
    hints = [
        HINT.format(number=number, count=len(one.hints), text=text)
        for number, text in enumerate(one.hints, 1)
    ]
    # The reference's pages have taken kernels out of their wrappers by now, or not.
    home = python_function(getattr(solutions, one.kernel)).__module__
    module = home.rpartition(".")[2]
    shown = [SHOWN.format(module=module, name=kernel) for kernel in one.kernels]
    return SECTION.format(
        name=name,
        number=one.number,
        title=one.title,
        text=notebook.described(one),
        stub=one.stub,
        kernel=one.kernel,
        hints="\n\n".join(hints),
        code="\n\n".join(shown),
        onward=ONWARD.format(stem=one.chapter) if one.chapter else "",
    )


def write_out(app: Sphinx, docname: str, content: list[str]) -> None:
    """Put each puzzle in the place of its fence, before cells are looked for."""
    if docname == PAGE:
        content[0] = FENCE.sub(lambda fence: section(fence[1]), content[0])


def add_badges(app: Sphinx, doctree: nodes.document) -> None:
    """Put a link to the notebook under the page's title."""
    title = doctree.next_node(nodes.title)
    if app.env.current_document.docname != PAGE or title is None:
        return
    link = nodes.reference(
        "",
        "Download the notebook of stubs",
        refuri=f"{PAGE.rpartition('/')[2]}.ipynb",
        internal=True,
        classes=["badge", "badge-notebook"],
    )
    line = nodes.paragraph(classes=["badges"])
    line += [badge(NEEDS["none"], "none"), nodes.Text(" "), link]
    title.parent.insert(title.parent.index(title) + 1, line)


def write_notebook(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, object],
    doctree: nodes.document | None,
) -> None:
    """Write the notebook next to its page."""
    if pagename != PAGE or doctree is None:
        return
    from tilebook.puzzles import notebook

    path = Path(app.outdir, *f"{PAGE}.ipynb".split("/"))
    path.parent.mkdir(parents=True, exist_ok=True)
    made = notebook.build(
        app.config.book_repository,
        os.environ.get("GITHUB_SHA", "main"),
        urljoin(app.config.html_baseurl, f"{PAGE}.html"),
    )
    path.write_bytes(made)


def setup(app: Sphinx) -> None:
    """Register the hooks; pages are written out before their inputs are digested."""
    app.connect("source-read", write_out, priority=400)
    app.connect("doctree-read", add_badges)
    app.connect("html-page-context", write_notebook)
