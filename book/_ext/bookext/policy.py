"""What a page may load and run: its content security policy, in a tag of its own.

All comes from the site itself. Scripts that stand in a page are few, the theme's, and
are let through one by one, by their hashes; so are what its buttons do when pressed.
WebAssembly may be compiled, which is what runs kernels.
"""

import base64
import hashlib
import re
from html import unescape
from pathlib import Path

from sphinx.application import Sphinx

SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script>", re.S | re.I)
HANDLER = re.compile(r"""<[^>]*?\son[a-z]+=("[^"]*"|'[^']*')""", re.I)
DATA = re.compile(r'type="?(application/(ld\+)?json|text/template)', re.I)
CHARSET = re.compile(r"<meta charset=[^>]*>", re.I)
TAG = '<meta http-equiv="Content-Security-Policy" content="{}">'
OLD = re.compile(r'\s*<meta http-equiv="Content-Security-Policy" content="[^"]*">')
FIXED = {
    # Not 'none': Firefox fetches the page that comes next, and would be refused.
    "default-src": "'self'",
    "object-src": "'none'",
    "frame-src": "'none'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data:",
    "font-src": "'self' data:",
    "connect-src": "'self'",
    "worker-src": "'self'",
    "manifest-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
}


def hashed(text: str) -> str:
    """Return how a policy names a script that stands in a page."""
    value = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{value}'"


def inline(html: str) -> tuple[list[str], list[str]]:
    """Return the scripts that stand in a page, and what its elements do by themselves.

    Args:
        html: the page.
    """
    scripts = [
        text
        for attributes, text in SCRIPT.findall(html)
        if "src=" not in attributes and not DATA.search(attributes) and text
    ]
    bare = SCRIPT.sub("", html)
    handlers = [unescape(quoted[1:-1]) for quoted in HANDLER.findall(bare)]
    return scripts, handlers


def policy(html: str) -> str:
    """Return the policy of a page.

    Args:
        html: the page.
    """
    scripts, handlers = inline(html)
    allowed = ["'self'", "'wasm-unsafe-eval'"]
    if handlers:
        allowed.append("'unsafe-hashes'")
    allowed += sorted({hashed(text) for text in [*scripts, *handlers]})
    rules = {**FIXED, "script-src": " ".join(allowed)}
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def with_policy(html: str) -> str:
    """Return a page with its policy, which stands before all that it is about."""
    html = OLD.sub("", html)
    tag = TAG.format(policy(html))
    return CHARSET.sub(lambda found: f"{found[0]}\n    {tag}", html, count=1)


def write_policies(app: Sphinx, exception: Exception | None) -> None:
    """Give each page of the site its policy."""
    if exception is not None or app.builder.name != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        if "_static" not in path.relative_to(app.outdir).parts:
            html = path.read_text(encoding="utf-8")
            new = with_policy(html)
            if new != html:
                path.write_text(new, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Register the hook, after all others have written."""
    app.connect("build-finished", write_policies, priority=900)
