"""Build the book: whole, or not at all.

Sphinx writes every page into a fresh folder, which takes the place of ``_build/html``
only after a build without a warning. So a page whose chapter is gone does not linger,
and a build that failed or was killed leaves the last good site behind it.

A seal says what the site was built from: it is broken when a build starts, and set
again when one ends well. Where it still holds there is nothing to do. Where only pages
changed, what Sphinx read of the others is used again, for reading the package's
reference takes longest; every page is written all the same, since each shows the titles
of others. Only the pages of source code, which show none, are taken over as they are.
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def alone(build: Path) -> Iterator[None]:
    """Keep other builds out of a folder for as long as this one runs.

    Args:
        build: The folder, made where it is missing.
    """
    build.mkdir(parents=True, exist_ok=True)
    with (build / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another build to end ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def machine() -> str:
    """Describe what a page depends on beside the files of the book.

    Returns:
        The interpreter, its packages, the GPUs, the settings that choose among them,
        and what runs kernels in pages.
    """
    packages = sorted(f"{d.name}=={d.version}" for d in metadata.distributions())
    settings = sorted(
        f"{name}={value}"
        for name, value in os.environ.items()
        if name.startswith(("CUDA_", "TILEBOOK_", "TRITON_"))
    )
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
        gpus = listed.stdout
    except FileNotFoundError:
        gpus = ""
    manifest = ROOT / ".runtime" / "manifest.json"
    runtime = manifest.read_text() if manifest.is_file() else ""
    return "\n".join([sys.version, sys.prefix, gpus, runtime, *settings, *packages])


def seal_of(source: Path) -> dict[str, str]:
    """Hash what a build reads.

    Args:
        source: The folder with conf.py.

    Returns:
        Digest by page, without its suffix, and under "" that of all that is no page.
    """
    pages = {}
    rest = hashlib.sha256(machine().encode())
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(
            name
            for name in folders
            if not re.match(r"[.]|_build$|__pycache__$|.*[.]egg-info$", name)
        )
        for name in sorted(files):
            path = Path(folder, name)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            page = path.relative_to(source).with_suffix("").as_posix()
            if path.suffix == ".md":
                pages[page] = digest
            else:
                rest.update(f"{page}{path.suffix} {digest}\n".encode())
    return {"": rest.hexdigest(), **pages}


def forget(folder: Path, old: dict[str, str], new: dict[str, str]) -> None:
    """Remove what Sphinx read and must read again.

    Args:
        folder: ``_build``.
        old: The seal of the last build if that ended well, else empty.
        new: The seal of this one.
    """
    if old.get("") != new[""]:
        for stale in ("doctrees", "jupyter_execute"):
            shutil.rmtree(folder / stale, ignore_errors=True)
        return
    # Sphinx goes by times, which a restored file may have from before the last build.
    for page in old.keys() & new.keys():
        if old[page] != new[page]:
            (folder / "doctrees" / f"{page}.doctree").unlink(missing_ok=True)


def keep_sources(
    html: Path, new: Path, old: dict[str, str], now: dict[str, str]
) -> None:
    """Put the pages of source code where a build finds them, if they stay as they are.

    Args:
        html: The last good site.
        new: The folder that Sphinx will write to.
        old: The seal of the last build if that ended well, else empty.
        now: The seal of this one.
    """
    changed = {
        page for page in old.keys() | now.keys() if old.get(page) != now.get(page)
    }
    source = html / "_modules"
    # They are code, and lead to the reference; of other pages they have nothing.
    if source.is_dir() and not any(
        x == "" or x.startswith("book/api") for x in changed
    ):
        shutil.copytree(source, new / "_modules")


def drop_torn(cache: Path) -> list[Path]:
    """Remove the notebooks that a killed build left half written in the cache.

    jupyter-cache makes a notebook's folder, then writes the file in it; it runs a
    chapter again when the folder is gone, but fails on an empty or a torn one.

    Args:
        cache: The folder of jupyter-cache.

    Returns:
        The folders removed.
    """
    torn = []
    for folder in sorted((cache / "executed").glob("*")):
        try:
            json.loads((folder / "base.ipynb").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(folder)
            torn.append(folder)
    return torn


def replace(new: Path, old: Path) -> None:
    """Put a folder in the place of another, which may be missing.

    Args:
        new: The folder to move.
        old: Where it goes; what stands there is removed.
    """
    aside = old.with_name(old.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)


def sphinx(source: Path, html: Path, doctrees: Path, jobs: str) -> int:
    """Run Sphinx, writing every page, with each warning an error.

    Args:
        source: The folder with conf.py.
        html: Where the pages go.
        doctrees: Where Sphinx keeps what it read.
        jobs: A number of processes, or "auto".

    Returns:
        Sphinx's exit status.
    """
    from sphinx.cmd.build import main

    if jobs != "1":
        # PyTorch's threads wait for one another busily, and would take others' time.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    strict = ["-a", "-n", "-W", "--keep-going"]
    quiet = [] if sys.stdout.isatty() else ["-q"]
    return main(
        [*strict, *quiet, "-j", jobs, "-d", str(doctrees), str(source), str(html)]
    )


def build(source: Path, jobs: str = "auto", *, live: bool = False) -> int:
    """Build the book of a folder into its ``_build/html``.

    Args:
        source: The folder with conf.py.
        jobs: A number of processes, or "auto".
        live: Forget what earlier builds executed and measured.

    Returns:
        0, or Sphinx's exit status with the last good site left as it was.
    """
    folder = source / "_build"
    html, unfinished = folder / "html", folder / "html.new"
    cache, seal = folder / ".jupyter_cache", folder / ".seal"
    with alone(folder):
        old = {}
        if live:
            shutil.rmtree(cache, ignore_errors=True)
        elif seal.exists():
            old = json.loads(seal.read_text())
        else:
            drop_torn(cache)
        new = seal_of(source)
        if new == old and html.is_dir():
            print(f"Nothing changed. Open {(html / 'index.html').as_uri()}")
            return 0
        seal.unlink(missing_ok=True)
        forget(folder, old, new)
        shutil.rmtree(unfinished, ignore_errors=True)
        keep_sources(html, unfinished, old, new)
        status = sphinx(source, unfinished, folder / "doctrees", jobs)
        if status == 0:
            replace(unfinished, html)
            # The pages that the build itself wrote belong to what it is made from.
            written = seal.with_suffix(".new")
            written.write_text(json.dumps(seal_of(source) | new))
            written.rename(seal)
    if status:
        print(
            f"The book did not build; what there is of it: {unfinished}",
            file=sys.stderr,
        )
    else:
        print(f"The book is built. Open {(html / 'index.html').as_uri()}")
    return status


def main() -> int:
    """Build a book as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", type=Path, default=ROOT)
    parser.add_argument(
        "--jobs", default="auto", help="processes (default: one a core)"
    )
    parser.add_argument(
        "--live", action="store_true", help="execute and measure everything again"
    )
    options = parser.parse_args()
    return build(options.source.resolve(), options.jobs, live=options.live)


if __name__ == "__main__":
    sys.exit(main())
