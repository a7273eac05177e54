"""The machine that builds, asked without importing what takes seconds to import."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement

PACKAGE = "tilebook"
PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"
RENDERING = ("ipykernel", "ipython", "matplotlib-inline")
ASK = (("nvidia-smi", "-L"), ("rocm-smi", "--showproductname"))
NAMES = ("TILEBOOK_DEVICE", "TRITON_INTERPRET", "CUDA_VISIBLE_DEVICES")
# As the build was called: importing the package sets one of them.
SETTINGS = [f"{name}={os.environ.get(name)}" for name in NAMES]


@cache
def package_root() -> Path:
    """Return the folder of the package's source, without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{PACKAGE} is not installed: run `make`")
    return Path(spec.submodule_search_locations[0])


@cache
def gpus() -> str:
    """Return what the driver says of the GPUs here; empty where there is none."""
    for command in ASK:
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0 and "GPU" in done.stdout:
                return done.stdout
    return ""


@cache
def surroundings() -> str:
    """Return what every output depends on: GPUs, settings, versions."""
    # Not from the installed metadata: where wheels were carried to a machine without
    # a network, the package is on the path and was never installed.
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    names = {Requirement(need).name for need in project["dependencies"]}
    versions = []
    for name in sorted(names.union(RENDERING)):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} absent")
    return "\n".join([gpus(), *SETTINGS, platform.python_version(), *versions])
