"""Assembling the runtime: from parts at hand, each checked, whole or not at all."""

import importlib.util
import io
import json
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool, which finds no Triton installed and fetches nothing."""
    path = ROOT / "tools" / "browser_runtime.py"
    spec = importlib.util.spec_from_file_location("browser_runtime", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "installed_tritons", lambda: iter(()))
    return module


def packed(files: dict[str, bytes]) -> bytes:
    """A zip archive."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


@pytest.fixture
def parts(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of small parts, whose hashes are the pinned ones."""
    folder = tmp_path / "parts"
    folder.mkdir()
    wheel = b"numpy"
    monkeypatch.setattr(tool, "NUMPY_SHA256", tool.digest(wheel))
    (folder / tool.NUMPY).write_bytes(wheel)
    lock = {"packages": {"numpy": {"sha256": tool.digest(wheel)}, "other": {}}}
    files = dict.fromkeys(tool.PYODIDE_FILES, b"x")
    files["pyodide-lock.json"] = json.dumps(lock).encode()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    monkeypatch.setattr(tool, "PYODIDE_SHA256", tool.digest(made.getvalue()))
    (folder / f"pyodide-{tool.PYODIDE}.tgz").write_bytes(made.getvalue())
    sources = {"triton/__init__.py": b"a = 1", "triton/knobs.py": b""}
    monkeypatch.setattr(tool, "TRITON_SHA256", tool.digest_of_files(sources))
    data = packed({**sources, "triton/_C/libtriton.so": b"binary"})
    (folder / f"triton-{tool.TRITON}-any.whl").write_bytes(data)
    return folder


def test_it_is_assembled_from_parts_at_hand(
    tool: ModuleType, parts: Path, tmp_path: Path
):
    target = tmp_path / "runtime"
    assert not tool.complete(target)
    hashes = tool.assemble(target, parts)
    assert set(hashes) == {
        *tool.PYODIDE_FILES,
        "pyodide-lock.json",
        tool.NUMPY,
        tool.TRITON_ARCHIVE,
    }
    lock = json.loads((target / "pyodide-lock.json").read_text())
    assert set(lock["packages"]) == {"numpy"}
    with zipfile.ZipFile(target / tool.TRITON_ARCHIVE) as archive:
        assert archive.namelist() == ["triton/__init__.py", "triton/knobs.py"]
    assert tool.complete(target)
    # The same bytes each time.
    assert tool.assemble(target, parts) == hashes


@pytest.mark.parametrize("name", ["pyodide-0.27.7.tgz", "numpy", "triton"])
def test_a_part_with_another_hash_is_refused_and_nothing_is_left(
    name: str, tool: ModuleType, parts: Path, tmp_path: Path
):
    (path,) = parts.glob(f"{name}*")
    if name == "triton":
        path.write_bytes(packed({"triton/__init__.py": b"a = 2"}))
    else:
        path.write_bytes(b"something else")
    with pytest.raises(tool.MissingPart, match="is pinned") as caught:
        tool.assemble(tmp_path / "runtime", parts)
    assert name in str(caught.value)
    assert not (tmp_path / "runtime").exists()


def test_a_part_that_can_t_be_fetched_is_named_with_its_hash(
    tool: ModuleType, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (parts / tool.NUMPY).unlink()
    monkeypatch.setattr(tool, "pip_download", lambda *args: ["no-such-tool"])
    with pytest.raises(tool.MissingPart, match="no-such-tool is not installed") as it:
        tool.assemble(tmp_path / "runtime", parts)
    assert tool.NUMPY in str(it.value)
    assert tool.NUMPY_SHA256 in str(it.value)
    monkeypatch.setattr(tool, "pip_download", lambda *args: ["false"])
    with pytest.raises(tool.MissingPart, match="left no file"):
        tool.assemble(tmp_path / "runtime", parts)


def test_a_changed_file_or_another_pin_makes_it_incomplete(
    tool: ModuleType, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = tmp_path / "runtime"
    tool.assemble(target, parts)
    with monkeypatch.context() as patch:
        patch.setattr(tool, "TRITON_SHA256", "0" * 64)
        assert not tool.complete(target)
    (target / tool.NUMPY).write_bytes(b"changed")
    assert not tool.complete(target)
