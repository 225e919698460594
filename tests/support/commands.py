"""Commands such as `python -m flows.market_data`, each in a process of its own that need not import Prefect.

A server imports what all of them need, which takes two seconds, and forks itself for each command. From there on a
command is what it always is: its module is run as the main program, with its own arguments, environment and output.
Settings that Prefect reads where a task is defined, such as those of results, are the server's.
"""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import msgspec

from deployments.local.environment import CHECKOUT


class Command(msgspec.Struct, frozen=True):
    """What the server is asked to run."""

    module: str
    arguments: list[str]
    environ: dict[str, str]
    outputs: list[str]  # the files of its standard output and error


class Commands:
    """Runs commands. Use it as a context manager; `environ` is what its server has on top of this environment."""

    def __init__(self, **environ: str) -> None:
        self._environ = environ

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory()
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.commands"],
            cwd=CHECKOUT,
            env=os.environ | self._environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()  # it ends with its input
        self._folder.cleanup()

    def run(self, module: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a module of the checkout to its end, in this process's environment and what is given on top."""
        out, error = (Path(self._folder.name, name) for name in ("out", "error"))
        command = Command(module, list(arguments), os.environ | environ, [str(out), str(error)])
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(msgspec.json.encode(command) + b"\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        return subprocess.CompletedProcess([module, *arguments], code, out.read_text(), error.read_text())


def serve() -> None:
    """Fork for each command, and say how it ended."""
    import deployments.report  # noqa: F401, PLC0415 (what takes the time)
    import flows.universe  # noqa: F401, PLC0415

    for line in sys.stdin.buffer:
        command = msgspec.json.decode(line, type=Command)
        if not (pid := os.fork()):
            become(command)
            return
        _pid, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 (the answer)


def become(command: Command) -> None:
    """Be a command from now on."""
    from prefect.context import refresh_global_settings_context  # noqa: PLC0415 (see `serve`)
    from prefect.logging.configuration import setup_logging  # noqa: PLC0415

    for number, file in enumerate([os.devnull, *command.outputs]):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(command.environ)
    refresh_global_settings_context()
    setup_logging()
    sys.modules.pop(command.module, None)  # imported by another module: it is run now
    sys.argv[1:] = command.arguments
    runpy.run_module(command.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve()
