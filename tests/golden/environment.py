"""The environment in which golden numbers are recorded and checked; `make golden` sets it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CAPS = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
}
"""What takes away the differences between processors."""


def lacking() -> dict[str, str]:
    """Return the variables that are not set as they should be, with what they should be."""
    return {name: value for name, value in CAPS.items() if os.environ.get(name) != value}


def uncapped() -> dict[str, str]:
    """Copy the environment without the caps of instructions, for a process of its own.

    It keeps its one thread: another golden test runs beside it.
    """
    free = CAPS.keys() - {"OMP_NUM_THREADS"}
    return {name: value for name, value in os.environ.items() if name not in free}


def made_with() -> dict[str, str | bool]:
    """Say what numbers are made with."""
    import numpy
    import PIL
    import sklearn
    import torch

    return {
        "capped": not lacking(),
        "cpu": _processor(),
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
        "sklearn": sklearn.__version__,
        "torch": torch.__version__,
    }


def _processor() -> str:
    """Name the processor and the widest instructions that it has."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in file.read_text("utf-8").splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    flags = facts.get("flags", "").split()
    widest = [name for name in ("amx_tile", "avx512f", "avx2") if name in flags]
    return " ".join([facts.get("model name", platform.machine()), *widest[:1]])
