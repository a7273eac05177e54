"""How the book is built; what a page says is decided elsewhere."""

import os
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "book" / "_ext"))
PYPROJECT = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))
URLS = PYPROJECT["project"]["urls"]

project = "Thinking in Tiles"
author = "The Thinking in Tiles authors"
project_copyright = "2026, The Thinking in Tiles authors; text CC BY 4.0"
version = release = PYPROJECT["project"]["version"]

extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_exercise",
    "sphinx_togglebutton",
    "sphinxcontrib.bibtex",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx_sitemap",
    "notfound.extension",
    "bookext",
]
root_doc = "book/index"
include_patterns = ["book/**", "chapters/**"]
exclude_patterns = ["book/_*", "**.ipynb_checkpoints"]
if not os.environ.get("TILEBOOK_DRAFTS"):
    exclude_patterns += [
        f"chapters/{stem}.md" for stem in PYPROJECT["tool"]["tilebook"]["drafts"]
    ]
source_suffix = {".md": "myst-nb"}
default_role = "code"
language = "en"

# Chapters run in a folder of their own, so that none can read or litter the tree.
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / ".jupyter_cache")
nb_execution_timeout = 1800
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_merge_streams = True
nb_kernel_rgx_aliases = {".*": "python3"}
os.environ["TILEBOOK_BUILD"] = "1"
os.environ["TILEBOOK_LIVE"] = str(HERE / "_build" / ".jupyter_cache" / "live")
os.environ["IPYTHONDIR"] = str(HERE / "_build" / ".ipython")
os.environ["PYTHONHASHSEED"] = "0"

myst_enable_extensions = [
    "amsmath",
    "attrs_block",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
]
myst_heading_anchors = 3
# The table of contents names drafts in their places, whether or not they are shown;
# and fields of several classes have one short name, none of which is meant alone.
suppress_warnings = ["myst.mathjax", "ref.python", "toc.excluded"]

# Names of other projects have no inventory here: the build makes no request.
nitpick_ignore_regex = [(r"py:.*", r"(?!tilebook\b).*")]
numfig = True
math_numfig = True
math_number_all = False
exercise_style = "solution_follow_exercise"
bibtex_bibfiles = ["book/references.bib"]
bibtex_reference_style = "author_year"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
# Every page carries the table of contents: with each function in it, it costs seconds.
toc_object_entries = False

book_repository = URLS["Repository"]
html_theme = "sphinx_book_theme"
html_title = project
html_baseurl = os.environ.get("TILEBOOK_BASEURL", URLS["Documentation"])
html_static_path = ["book/_static"]
templates_path = ["book/_templates"]
html_extra_path = ["book/_extra"]
html_css_files = ["book.css", "print.css"]
html_js_files = [("book.js", {"defer": "defer"})]
html_favicon = "book/_static/tile.svg"
html_copy_source = False
html_theme_options = {
    "logo": {
        "text": project,
        "alt_text": "",
        "image_light": "_static/tile.svg",
        "image_dark": "_static/tile.svg",
    },
    "repository_url": book_repository,
    "repository_branch": "main",
    "path_to_docs": "",
    "use_repository_button": True,
    "use_issues_button": True,
    "use_edit_page_button": True,
    "use_download_button": False,
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "max_navbar_depth": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    # Theme 1.4.0 as it comes has a second search box and a dead menu button.
    "navbar_persistent": [],
}
# Pages of source are many, and each menu takes as long to make as the page itself.
html_sidebars = {"_modules/**": ["navbar-logo.html", "search-button-field.html"]}
mathjax_path = "mathjax/tex.js"
# The script has its parts in it, see `bookext.pages`, and loads no others.
mathjax3_config = {
    "loader": {"load": []},
    "startup": {
        "adaptor": "browserAdaptor",
        "handler": "HTMLHandler",
        "input": ["tex"],
        "output": "chtml",
    },
    "tex": {"packages": ["base", "ams", "newcommand", "noundefined"]},
}
copybutton_exclude = ".linenos, .gp, .go"
sitemap_url_scheme = "{link}"
sitemap_show_lastmod = False
# A build that keeps the pages of source code doesn't tell the sitemap of them.
sitemap_excludes = ["404.html", "search.html", "genindex.html", "_modules/*"]
notfound_urls_prefix = urlsplit(html_baseurl).path or "/"
