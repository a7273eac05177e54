"""Bind the book as an EPUB, from what the build of its pages read and executed.

``make html`` comes first. Sphinx then writes the same doctrees once more, into
``_build/epub``; a book with no warning and no broken link takes the place of
``_build/thinking-in-tiles.epub``.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from build_book import ROOT, alone
from check_epub import problems

NAME = "thinking-in-tiles.epub"


def sphinx(source: Path, folder: Path, doctrees: Path, jobs: str) -> int:
    """Run Sphinx's builder for EPUB, with each warning an error.

    Args:
        source: The folder with conf.py.
        folder: Where the files go.
        doctrees: What Sphinx read.
        jobs: A number of processes, or "auto".

    Returns:
        Sphinx's exit status.
    """
    from sphinx.cmd.build import main

    strict = ["-b", "epub", "-a", "-n", "-W", "--keep-going"]
    quiet = [] if sys.stdout.isatty() else ["-q"]
    places = ["-d", str(doctrees), str(source), str(folder)]
    return main([*strict, *quiet, "-j", jobs, *places])


def epubcheck(path: Path) -> list[str]:
    """Have epubcheck look at a book, where it is installed.

    Args:
        path: The book.

    Returns:
        What it complains of.
    """
    found = shutil.which("epubcheck")
    if found is None:
        print("epubcheck is not installed: only this repository's own checks ran.")
        return []
    # Debian's is a Java archive, which a shell runs only with another package's help.
    java = Path(found).read_bytes()[:2] == b"PK"
    command = ["java", "-jar", found] if java else [found]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True)
    if done.returncode == 0:
        return []
    return [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]


def build(source: Path, jobs: str = "auto") -> int:
    """Bind the book of a folder.

    Args:
        source: The folder with conf.py, whose pages are built.
        jobs: A number of processes, or "auto".

    Returns:
        0, or another number with the last good book left as it was.
    """
    build, start = source / "_build", time.monotonic()
    if not (build / "doctrees" / "environment.pickle").is_file():
        print("No pages yet: run make html.", file=sys.stderr)
        return 1
    with alone(build):
        folder, doctrees = build / "epub", build / "epub.doctrees"
        for old in (folder, doctrees):
            shutil.rmtree(old, ignore_errors=True)
        # A copy, for what is noted beside them differs from builder to builder.
        shutil.copytree(build / "doctrees", doctrees)
        status = sphinx(source, folder, doctrees, jobs)
        shutil.rmtree(doctrees)
        if status:
            return status
        path = folder / NAME
        wrong = problems(path) + epubcheck(path)
        if wrong:
            print("\n".join([f"{path}:", *wrong]), file=sys.stderr)
            return 1
        path = path.replace(build / NAME)
    size, seconds = path.stat().st_size / 2**20, time.monotonic() - start
    print(f"The EPUB is built: {path}, {size:.1f} MiB, in {seconds:.0f} s.")
    return 0


def main() -> int:
    """Bind a book as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", type=Path, default=ROOT)
    parser.add_argument(
        "--jobs", default="auto", help="processes, by default all cores"
    )
    options = parser.parse_args()
    return build(options.source.resolve(), options.jobs)


if __name__ == "__main__":
    sys.exit(main())
