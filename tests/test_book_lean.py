"""What pages don't load, and what builds don't do twice."""

import importlib
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.parse import unquote

import pytest
from docutils import nodes
from docutils.utils import new_document

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the extension importable, as conf.py does."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))


def part(name: str) -> ModuleType:
    """Return one module of the extension."""
    return importlib.import_module(f"bookext.{name}")


def test_every_icon_is_a_drawing_of_its_own():
    lean = part("lean")
    text = lean.sheet(lean.theme_file("scripts/fontawesome.js").read_text("utf-8"))
    found = dict(
        re.findall(r'\.fa-([\w-]+) \{\n  --icon: url\("data:[^,]+,(.+)"\)', text)
    )
    assert set(found) == {x for names in lean.ICONS.values() for x in names}
    drawings = {name: ElementTree.fromstring(unquote(x)) for name, x in found.items()}
    paths = {drawing[0].get("d") for drawing in drawings.values()}
    assert len(paths) == len(found)
    assert all(path.startswith("M") for path in paths)
    # Half a circle of Font Awesome's box, and the rim above and below it.
    assert drawings["circle-half-stroke"].get("viewBox") == "0 -32 512 576"
    assert "CC BY 4.0" in text
    boxes = re.findall(
        r'div\.(\w+) > p\S+ \{\n  --icon: url\("data:[^,]+,(.+)"\)', text
    )
    kinds = {kind: name for name, those in lean.BOXES.items() for kind in those}
    assert dict(boxes) == {kind: found[name] for kind, name in kinds.items()}


def test_an_icon_is_that_of_its_family_and_goes_by_all_its_names():
    lean = part("lean")
    script = (
        'x={sun:[8,16,[],"f1","Mregular"]};p("far",x);'
        'y={pencil:[8,16,[9,"pencil-alt"],"f3","Mpencil"],'
        'sun:[8,16,[],"f1","Msolid"]};p("fas",y);'
    )
    assert 'd="Msolid"' in lean.drawing(script, "fas", "sun")
    assert 'd="Mregular"' in lean.drawing(script, "far", "sun")
    assert 'd="Mpencil"' in lean.drawing(script, "fas", "pencil-alt")
    for family, name in (("fas", "moon"), ("fab", "sun"), ("far", "pencil")):
        with pytest.raises(LookupError, match=f"no icon '{name}' in {family}"):
            lean.drawing(script, family, name)


def test_the_themes_style_sheet_loses_its_icons_and_nothing_else():
    lean = part("lean")
    css = lean.theme_file("styles/pydata-sphinx-theme.css").read_text("utf-8")
    left = lean.without_glyphs(css)
    assert "vendor/fontawesome" in css
    assert "vendor/fontawesome" not in left
    assert "--fa:" not in left
    assert len(css) * 3 / 4 < len(left) < len(css) * 7 / 8
    assert css.count("{") - css.count("}") == left.count("{") - left.count("}") == 0
    assert ".fa-lg{" in left
    plain = ".fa-sun{--fa:'x'}a{b:c}.fa-lg{font-size:2em}"
    assert lean.without_glyphs(plain) == "a{b:c}.fa-lg{font-size:2em}"


def svg(path: Path, size: str) -> Path:
    """Write a picture of a size."""
    path.write_text(
        f'<?xml version="1.0"?>\n<svg xmlns:x="y" {size} viewBox="0 0 9 9"/>'
    )
    return path


@pytest.mark.parametrize(
    ("size", "pixels"),
    [
        ('width="72pt" height="36.3pt"', (96, 48)),
        ('width="72px" height="36px"', (72, 36)),
        ('width="72" height="36"', (72, 36)),
        ('width="100%" height="36"', None),
        ("", None),
    ],
)
def test_the_size_of_a_picture_is_read(tmp_path: Path, size: str, pixels: tuple | None):
    assert part("lean").size_of(svg(tmp_path / "a.svg", size)) == pixels


def test_what_is_no_svg_or_not_there_has_no_size(tmp_path: Path):
    lean = part("lean")
    (tmp_path / "a.webp").write_bytes(b"RIFF\xff\xfe")
    assert lean.size_of(tmp_path / "a.webp") is None
    assert lean.size_of(tmp_path / "b.svg") is None


def test_pictures_below_the_first_are_loaded_when_they_are_near(tmp_path: Path):
    lean = part("lean")
    svg(tmp_path / "a.svg", 'width="72pt" height="36pt"')
    document = new_document("page")
    document.settings.env = None
    images = [nodes.image(uri="a.svg") for _ in range(3)]
    images[2]["width"] = "50%"
    document += images
    transform = lean.LoadWhenNear(document)
    transform.document = document
    type(transform).app = SimpleNamespace(srcdir=tmp_path)
    transform.run()
    assert [image.get("loading") for image in images] == [None, "lazy", "lazy"]
    assert [image["width"] for image in images] == ["96", "96", "50%"]
    assert images[1]["height"] == "48"
    assert "height" not in images[2]


def domain(names: dict[str, str]):
    """Return our domain and Sphinx's, both with objects of these types."""
    from sphinx.domains.python import ObjectEntry, PythonDomain

    made = []
    for kind in (part("lookup").Domain, PythonDomain):
        one = kind(SimpleNamespace(domaindata={}))
        for name, type_ in names.items():
            one.objects[name] = ObjectEntry("page", name, type_, False)
        made.append(one)
    return made


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("scope", [("", ""), ("a.b", ""), ("a", "C"), ("a.b", "C")])
def test_a_name_is_found_as_sphinx_finds_it(mode: int, scope: tuple[str, str]):
    names = {
        "a.b.f": "function",
        "a.C": "class",
        "a.b.C": "class",
        "a.C.run": "function",
        "top": "function",
        "a.b.torch.Tensor": "class",
    }
    ours, theirs = domain(names)
    wanted = [
        "f",
        "f()",
        "C",
        "b.C",
        "C.run",
        "top",
        "x.top",
        "torch.Tensor",
        "int",
        "",
    ]
    wanted += ["Tensor", ".f", "numpy.ndarray", "a.b.f", "run"]
    found = 0
    for name in wanted:
        for type_ in ("class", "func", "obj", "mod"):
            asked = (None, *scope, name, type_, mode)
            assert ours.find_obj(*asked) == theirs.find_obj(*asked), asked
            found += bool(ours.find_obj(*asked))
    assert found > 5


def test_a_name_that_is_read_later_is_found():
    from sphinx.domains.python import ObjectEntry

    lookup = part("lookup")
    ours, _ = domain({"a.f": "function"})
    assert ours.find_obj(None, "", "", "g", "func", 1) == []
    del ours.objects["a.f"]
    ours.objects["a.g"] = ObjectEntry("page", "a.g", "function", False)
    domains = SimpleNamespace(python_domain=ours)
    lookup.count_again(None, SimpleNamespace(domains=domains))
    assert [x for x, _ in ours.find_obj(None, "", "", "g", "func", 1)] == ["a.g"]
    assert ours.find_obj(None, "", "", "f", "func", 1) == []


def test_a_source_page_is_kept_while_it_is_newer_than_its_source(tmp_path, monkeypatch):
    crossref = part("crossref")
    sources = {name: tmp_path / f"{name}.py" for name in ("same", "edited", "fresh")}
    for index, path in enumerate(sources.values()):
        path.write_text("")
        os.utime(path, (1000 + index * 1000, 1000 + index * 1000))
    monkeypatch.setattr(
        crossref, "files_for", lambda name: [(sources[name.split(".")[-1]], name)]
    )
    for name in ("same", "edited"):
        page = tmp_path / "_modules" / "pack" / f"{name}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("")
        os.utime(page, (1500, 1500))
    known = {f"pack.{name}": ("code", {}, {}, "") for name in sources}
    known["builtins"] = False
    env = SimpleNamespace(_viewcode_modules=known)
    app = SimpleNamespace(env=env, outdir=tmp_path)
    assert crossref.keep_sources(app) == []
    assert [name for name, entry in known.items() if not entry] == ["pack.same"]
    assert (
        crossref.keep_sources(SimpleNamespace(env=SimpleNamespace(), outdir="")) == []
    )
