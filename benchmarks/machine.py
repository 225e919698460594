"""What the figures were measured on."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("prefect", "httpx", "msgspec", "pandas", "numpy", "boto3", "pydantic", "sqlalchemy", "fastapi")


def describe_machine() -> dict[str, str]:
    """Return the machine's size, and what runs on it."""
    return {
        "processor": f"{len(os.sched_getaffinity(0))} cores, {read_first('/proc/cpuinfo', 'model name') or 'unknown'}",
        "memory": f"{int((read_first('/proc/meminfo', 'MemTotal') or '0').split()[0]) / 1024**2:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
    }


def read_first(file: str, name: str) -> str | None:
    """Return the value of the first line `name: value` of a file of the kernel's."""
    found = re.search(rf"^{name}\s*:\s*(.+)$", Path(file).read_text(), re.MULTILINE)
    return found[1] if found else None


def list_versions() -> dict[str, str]:
    """Return the versions of the packages that count."""
    return {name: version(name) for name in PACKAGES}
