"""Jupyter kernels alike on every machine, and GPU kernels that autodoc can see."""

import importlib
import os
import pkgutil
from pathlib import Path
from types import FunctionType
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

from bookext.machine import PACKAGE, gpus

# Figures are vector graphics without a date and with ids made from their content, so
# that the same chapter gives the same bytes. Level 40 silences the notice ipykernel
# writes at every start.
PROFILE = """\
c = get_config()
c.Application.log_level = 40
c.IPKernelApp.matplotlib = "inline"
c.InlineBackend.figure_formats = {"svg"}
c.InlineBackend.print_figure_kwargs = {
    "bbox_inches": "tight",
    "metadata": {"Date": None},
}
c.InlineBackend.rc = {"svg.hashsalt": "tilebook"}
c.HistoryManager.enabled = False
"""

written_as_kernels: set[FunctionType] = set()


def prepare(app: Sphinx, config: Config) -> None:
    """Give the chapters' kernels a profile of their own, out of the reader's reach."""
    profile = Path(os.environ["IPYTHONDIR"]) / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    for name in ("ipython_config.py", "ipython_kernel_config.py"):
        (profile / name).write_text(PROFILE, encoding="utf-8")


def stderr_policy(app: Sphinx, config: Config) -> None:
    """Make a chapter's stray warning an error, except on a GPU, where it is left out.

    Drivers and compilers write what no author can foresee; without a GPU nothing may
    go to stderr unless the cell says so.
    """
    config.nb_output_stderr = "remove" if gpus() else "remove-warn"


def modules() -> list[Any]:
    """Import the package's modules, all but what runs as a command."""
    package = importlib.import_module(PACKAGE)
    names = [
        info.name
        for info in pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")
        if not info.name.endswith("__main__")
    ]
    return [package, *map(importlib.import_module, names)]


def unwrap() -> None:
    """Replace kernels by the functions they were written as, in this process alone.

    Autodoc skips what is not a function, and says nothing. Names that a package
    exports but imports late are fetched now, for the same reason.
    """
    from triton.runtime.jit import JITCallable, KernelInterface

    for module in modules():
        for name in {*vars(module), *getattr(module, "__all__", ())}:
            value = written = getattr(module, name)
            while isinstance(written, KernelInterface | JITCallable):
                written = written.fn
            if written is not value:
                written_as_kernels.add(written)
            setattr(module, name, written)


def before_reading(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Import the package where the reference is read again, before the build forks."""
    if any(name.startswith("book/api/") for name in docnames):
        unwrap()


def keep_kernels(
    app: Sphinx, what: str, name: str, value: object, skip: bool, options: object
) -> bool | None:
    """Keep kernels in the reference: what they do stands in their chapter."""
    is_kernel = isinstance(value, FunctionType) and value in written_as_kernels
    return False if is_kernel and not name.startswith("_") else None


def setup(app: Sphinx) -> None:
    """Register the hooks."""
    app.connect("config-inited", prepare)
    app.connect("config-inited", stderr_policy)
    app.connect("env-before-read-docs", before_reading)
    app.connect("autodoc-skip-member", keep_kernels)
