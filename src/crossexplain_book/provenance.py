"""What a result was made with: versions of the packages, machine, accelerator."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# The packages that a number of the book may depend on.
PACKAGES = ("crossexplain", "torch", "torchvision", "transformers", "captum", "grad-cam", "numpy", "scikit-learn")
TOOLS = ("jupyter-book", "papermill", "playwright", "pytest")  # they run, build and test the book, and change no number


def installed(names=PACKAGES) -> dict[str, str | None]:
    """Return the version of each package, None where it is not installed."""
    return {name: _version(name) for name in names}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions() -> str:
    """Return Python's version and those of :data:`PACKAGES` that are installed, in one line."""
    packages = [f"{name} {number}" for name, number in installed().items() if number]
    return "; ".join([f"python {platform.python_version()}", *packages])


def machine() -> str:
    """Describe this machine in a few words."""
    import psutil

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    memory = psutil.virtual_memory().total / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB memory, {platform.system()}"


def device() -> str:
    """Return what figures are measured on: :func:`machine`, and the accelerator if torch sees one."""
    import torch

    return machine() + (f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "")
