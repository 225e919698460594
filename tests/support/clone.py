"""Make, run in a copy of the checkout."""

import os
import subprocess
from pathlib import Path


def run_make(clone: Path, target: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a make target of the clone, in an empty home directory."""
    home = clone.parent / "home"
    home.mkdir(exist_ok=True)
    path = os.environ["PATH"]
    return subprocess.run(
        ["make", target],
        cwd=clone,
        env={"HOME": str(home), "PATH": path} | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def processes_of(clone: Path) -> list[str]:
    """Return the command lines of processes that run from the clone."""
    out = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in out.splitlines() if str(clone) in line]
