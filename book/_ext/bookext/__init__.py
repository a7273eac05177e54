"""What the book adds to Sphinx, one idea per module.

records        numbers, provenance and claims from recorded measurements
tables         a record as a table, one tab per GPU
asof           claims about the world, with the version they were true for
machine        the GPU and the versions here
quotes         what pages say of records, remembered from build to build
inputs         what a chapter's cached outputs depend on
lookup         a quick answer where a type hint is of another project
kernels        lets autodoc see kernels as the functions they were written as
api            one reference page per module, generated
crossref       chapter, function and source linked both ways
chapters       badges under a chapter's title: hardware, minutes, notebook
notebooks      each chapter as an executed notebook that runs elsewhere
puzzles        the puzzles' page, written out from the package, and their notebook
verification   what was tested and measured, on which GPU, for which code
works          somebody else's work as data: what each has to have
catalogue      the curated list's links as data, checked
places         pages that say where the book covers somebody else's work
resources      the curated list's page, made of its data
rivals         other books and courses as data, and their page
vocabulary     the operations of Triton's languages, and which kernels use them
survey         where chapters explain or show each operation
operations     the operations' page: taught where, or not taught
learning       the learning path as data: what each chapter needs first
route          the learning path as a map, and ways through it
overview       the front page's figure: all kernels against the libraries
errata         what was wrong in shown pages, made of data
missing        the page for addresses that lead nowhere
explorers      figures that a reader operates, with a still one for who can't
explored       what these are made of, from the package
whole          a kernel's source with all that it needs, as a program
runtime        what runs kernels in a page, where it has been assembled
programs       which kernels run in the pages, and the programs that do it
policy         what a page may load and run, said in the page
listings       lists of all figures, exercises and claims
lean           what a page needs and no more: icons, pictures when they are near
texts          each page as Markdown, llms.txt, rules for tutors
edition        what a bound book says of itself: title, authors, date, cover
browser        a headless Chromium
formulas       formulas as MathML
epub           the book as an EPUB
numbering      chapters numbered from part to part
pages          local MathJax, alternative texts, descriptions for link previews
"""

from sphinx.application import Sphinx

from bookext import (
    api,
    asof,
    chapters,
    crossref,
    epub,
    errata,
    explorers,
    inputs,
    kernels,
    lean,
    listings,
    lookup,
    missing,
    notebooks,
    numbering,
    operations,
    overview,
    pages,
    policy,
    programs,
    puzzles,
    quotes,
    records,
    resources,
    rivals,
    route,
    tables,
    texts,
    verification,
)

NEEDED = (
    "myst_nb",
    "sphinx_design",
    "sphinx_exercise",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
)
PARTS = (
    quotes,
    lookup,
    kernels,
    api,
    inputs,
    records,
    tables,
    asof,
    crossref,
    chapters,
    notebooks,
    puzzles,
    verification,
    resources,
    rivals,
    operations,
    route,
    overview,
    errata,
    explorers,
    listings,
    numbering,
    missing,
    pages,
    lean,
    texts,
    epub,
    programs,
    policy,
)


def setup(app: Sphinx) -> dict[str, bool | int]:
    """Register every part with Sphinx, after the extensions that they build on."""
    for name in NEEDED:
        app.setup_extension(name)
    for part in PARTS:
        part.setup(app)
    # What is kept of pages from build to build counts its kinds: one more, all anew.
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 2}
