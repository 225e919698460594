"""`make up` and `make shell`: the stack can be used from other shells, and stops completely."""

import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from deployments.local.servers import prefect
from tests.support.clone import processes_of, run_make
from tests.support.start_migrated import find_migrated

TYPED = """python -m flows.market_data --region-id 10000003 --table-name 'MarketData-{region_id}'
python - <<'PY'
from tasks.catalogue.names import region_name
from tasks.table import read_records
records, snapshot = read_records("MarketData-10000003")
print(f"{region_name(snapshot.region_id)}: {snapshot.region_id}")
PY
"""


@pytest.fixture(scope="module", autouse=True)
def database(clone: Path) -> None:
    """Create the database of Prefect's server, which in test_make_run.py the first stack does."""
    folder = clone / ".local" / "prefect"
    folder.mkdir(parents=True)
    shutil.copy(find_migrated(*prefect()), folder / "prefect.db")


@pytest.mark.outage
def test_shell_has_the_settings_of_the_stack(clone: Path, tmp_path: Path) -> None:
    """In `make shell`, commands find the table, the market, the Prefect server and the worker; afterwards all stop."""
    typed = tmp_path / "typed"
    typed.write_text(f"#!/bin/sh\nset -e\n{TYPED}prefect deployment run market-data/venal --watch\n")
    typed.chmod(0o755)
    done = run_make(
        clone, "shell", SHELL=str(typed), AWS_PROFILE="production", PREFECT_API_URL="http://127.0.0.1:9/api"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MarketData-10000003 has region 10000003 of " in done.stdout
    assert "Vale of the Silent: 10000003" in done.stdout
    assert "Flow run finished successfully" in done.stdout
    assert not processes_of(clone)
    refused = run_make(clone, "shell", SHELL="/nowhere/sh")
    assert "SHELL is '/nowhere/sh', which is not a program that runs here: set it to a shell" in refused.stderr
    assert "starting" not in refused.stdout


@pytest.mark.outage
def test_up_is_used_from_another_shell_and_stops_at_once(clone: Path, tmp_path: Path) -> None:
    """Another shell can use the stack after pasting what `make up` prints; Ctrl-C stops it within five seconds."""
    terminal, own = pty.openpty()
    fcntl.ioctl(own, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    made = subprocess.Popen(
        ["make", "up"], cwd=clone, env=home, stdin=own, stdout=own, stderr=own, start_new_session=True
    )
    os.close(own)
    output = ""
    while "export AWS_ENDPOINT_URL_DYNAMODB=" not in output or not output.endswith("\n\r\n"):
        output += os.read(terminal, 4096).decode()
    threading.Thread(target=drain, args=[terminal], daemon=True).start()
    assert re.search(r"Stop it +Ctrl-C", output)
    lines = re.sub(r"\r|\x1b\[[0-9;?]*[A-Za-z]", "", output).splitlines()
    assert not [line for line in lines if len(line) > 80]
    pasted = "\n".join(line for line in lines if re.match(r"(source|unset|export) ", line))
    typed = f"set -e\n{pasted}\n{TYPED}make status\n"
    other = home | {"AWS_PROFILE": "production"}
    done = subprocess.run(["bash", "-c", typed], cwd=clone, env=other, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Vale of the Silent: 10000003" in done.stdout
    assert re.search(r"^MarketData-10000003: .*\n.*; run (Completed|NotModified); by hand$", done.stdout, re.MULTILINE)
    attached = run_make(clone, "shell", SHELL="/usr/bin/env")
    assert f"{pasted.splitlines()[-1].removeprefix('export ')}\n" in attached.stdout
    os.killpg(made.pid, signal.SIGINT)  # as Ctrl-C does
    stopped_at = time.monotonic()
    made.wait()
    assert time.monotonic() - stopped_at < 5.0
    assert not processes_of(clone)


def drain(terminal: int) -> None:
    """Read a terminal's output until the other side is closed."""
    with suppress(OSError):
        while os.read(terminal, 4096):
            pass
