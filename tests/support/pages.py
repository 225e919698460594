"""The README and the pages: their blocks of code, and a shell that runs them."""

import os
import re
import shlex
import subprocess
from pathlib import Path

from deployments.local.environment import CHECKOUT, VENV
from tests.support.commands import Commands

PAGES = {
    str(path.relative_to(CHECKOUT)): path.read_text()
    for path in [*Path(CHECKOUT).glob("*.md"), *Path(CHECKOUT, "docs").rglob("*.md")]
}


def find_blocks(page: str, kind: str) -> list[str]:
    """Return a page's blocks of code of a kind."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGES[page], re.DOTALL)


def find_commands(page: str) -> list[str]:
    """Return a page's commands, without their comments."""
    lines = "".join(find_blocks(page, "sh")).replace("\\\n", "").splitlines()
    return [re.sub(r"\s+#.*", "", line) for line in lines]


def run(command: str, checkout: Path = CHECKOUT, **environ: str) -> str:
    """Run a command of a page in a shell of a checkout, and return its output."""
    done = subprocess.run(
        ["bash", "-c", f"source {VENV}/bin/activate; {command}"],
        cwd=checkout,
        env=os.environ | {"VIRTUAL_ENV_DISABLE_PROMPT": "1", "PATH": f"{VENV}/bin:{os.environ['PATH']}"} | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_module(commands: Commands, command: str, **environ: str) -> str:
    """Run a command of a page, `prefect …` or `python -m …`, without waiting for imports, and return its output."""
    words = shlex.split(command)
    python = ["python", "-m", "prefect.__main__"] if words[0] == "prefect" else []
    interpreter, option, module, *arguments = [*python, *words[bool(python) :]]
    assert (interpreter, option) == ("python", "-m"), command
    done = commands.run(module, *arguments, **environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
