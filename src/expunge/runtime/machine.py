"""The machine: which device, how much memory, which versions."""

from __future__ import annotations

import platform
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from expunge.errors import (
    InputError,
)

__all__ = ["environment", "peak_bytes", "reset_peak", "where"]


def peak_resident_bytes() -> int:
    """Peak resident memory of this process; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        resource = import_module("resource")
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def environment(device: torch.device) -> dict[str, str]:
    """Versions and the device: what the bytes of a result depend on besides the seed."""
    try:
        own = version("expunge")
    except PackageNotFoundError:
        own = "unknown"
    return {
        "expunge": own,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "threads": str(torch.get_num_threads()),
    }


def where(device: torch.device | str) -> torch.device:
    """The device of this name, `auto` resolved; raises InputError where there is none."""
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    found = torch.device(device)
    missing = (found.type == "cuda" and not torch.cuda.is_available()) or (
        found.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise InputError(
            f"Expected `device` {found.type!r} to be there, but this machine has none. Use "
            '"auto" or "cpu".'
        )
    return found


def reset_peak(device: torch.device) -> None:
    """Start counting peak memory anew, where the device can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Peak memory: of the device where it is a GPU, else resident memory of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_resident_bytes()
