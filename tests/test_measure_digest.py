"""Digests: they follow the code, not what is written about it."""

import hashlib
from pathlib import Path

import pytest

from tilebook.measure import digest

SOURCE = '''"""Module."""

import math

SIZE = 4


def helper(x):
    """Help."""
    return x * SIZE  # four


def measured(x):
    return helper(x) + math.pi


def unrelated(x):
    return x
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Module."""', '"""Another text,\non two lines."""'),
        ('    """Help."""\n', ""),
        ("  # four", ""),
        ("SIZE = 4\n", "SIZE = 4  # bytes\n\n# a remark\n\n"),
        ("def unrelated", "\n\ndef unrelated"),
    ],
)
def test_comments_and_docstrings_do_not_count(old, new):
    assert digest.of_source(SOURCE.replace(old, new)) == digest.of_source(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SIZE = 4", "SIZE = 8"),
        ("x * SIZE", "x + SIZE"),
        ("    return x\n", "    return (x)\n"),
        ("import math", "import cmath as math"),
    ],
)
def test_code_counts(old, new):
    assert digest.of_source(SOURCE.replace(old, new)) != digest.of_source(SOURCE)


def test_a_hash_inside_a_string_is_no_comment():
    assert digest.of_source("a = '# b'") != digest.of_source("a = '# c'")
    assert digest.of_source("a = f'{b}# c'") != digest.of_source("a = f'{b}# d'")


def test_a_docstring_beside_code_leaves_the_code():
    one = digest.of_source('def f(): "é text"; return 1')
    assert one == digest.of_source('def f(): "another"; return 1')
    assert one != digest.of_source('def f(): "é text"; return 2')


def test_the_text_is_hashed_so_every_python_agrees():
    # Python 3.11 and 3.12 split f-strings into different tokens and trees.
    text = "a = f'{b!r:>{c}}'"
    expected = hashlib.sha256(text.encode()).hexdigest()[:12]
    assert digest.of_source(f"{text}  # d\n\n") == expected


def test_function_digest_follows_what_the_function_uses():
    before = digest.of_function(SOURCE, "measured")
    for old, new in [("SIZE = 4", "SIZE = 8"), ("x * SIZE", "x"), ("math.pi", "1")]:
        assert digest.of_function(SOURCE.replace(old, new), "measured") != before
    for old, new in [("    return x\n", "    return -x\n"), ('"Help."', '"H."')]:
        changed = SOURCE.replace(old, new)
        assert digest.of_function(changed, "measured") == before
    with pytest.raises(LookupError, match="nothing"):
        digest.of_function(SOURCE, "nothing")


def test_what_a_build_leaves_out_does_not_count():
    source = (
        "A = 4, 5, 6\nA_BRIEF = A[:1]\ndef f(choose):\n    return choose(A, A_BRIEF)\n"
    )
    before = digest.of_function(source, "f")
    assert digest.of_function(source.replace("[:1]", "[1:]"), "f") == before
    assert digest.of_function(source.replace("5, 6", "5, 7"), "f") != before


def test_function_digest_includes_decorators():
    decorated = "@first\ndef f():\n    pass\n"
    changed = decorated.replace("first", "second")
    assert digest.of_function(decorated, "f") != digest.of_function(changed, "f")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with a chapter `sums` that uses an earlier chapter, `add`."""
    files = {
        "check.py": "x = 1",
        "add/__init__.py": "from .wide import add\nfrom .narrow import old",
        "add/wide.py": "from tilebook import check\nadd = 1",
        "add/narrow.py": "old = 1",
        "sums/__init__.py": "",
        "sums/tree.py": "from tilebook.add import add\nfrom ..add import narrow\nt = 1",
        "sums/flat.py": "from . import tree\nimport tilebook.add.wide",
        "sums/loop.py": "from .loop import x",
    }
    for name, text in files.items():
        path = tmp_path / "tilebook" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "tilebook"


def test_modules_are_followed_to_the_chapter_code_they_import(package):
    assert list(digest.of_modules(["add.wide"], package)) == ["add.wide"]
    found = digest.of_modules(["sums.flat"], package)
    assert list(found) == ["add.narrow", "add.wide", "sums.flat", "sums.tree"]
    assert list(digest.of_modules(["sums.loop"], package)) == ["sums.loop"]


def test_a_change_in_an_imported_module_is_seen(package):
    before = digest.of_modules(["sums.tree"], package)
    (package / "add/wide.py").write_text("from tilebook import check\nadd = 2")
    after = digest.of_modules(["sums.tree"], package)
    assert {k for k in after if before[k] != after[k]} == {"add.wide"}


def test_a_missing_module_is_named(package):
    with pytest.raises(LookupError, match=r"no module 'add\.gone'"):
        digest.of_modules(["add.gone"], package)
