"""The commands in docs/machines.md, as far as they can be checked without Docker, AWS, Helm and Prefect Cloud."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from deployments.local.environment import CHECKOUT
from tests.support.deployment_files import IMAGE_TAG, SERVICES, TEMPLATE

DOCS = Path(CHECKOUT, "docs/machines.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL)
COMMANDS = [shlex.split(line, comments=True) for block in BLOCKS for line in block.replace("\\\n", "").splitlines()]


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_are_valid_shell(block: str) -> None:
    """A shell can parse each block."""
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_files_exist() -> None:
    """Files exist that are linked, or given to a command by their path in the checkout."""
    linked = [Path(CHECKOUT, "docs", name) for name in re.findall(r"\]\((\.\.[^)]+)\)", DOCS)]
    given = {Path(CHECKOUT, word) for command in COMMANDS for word in command if word.startswith("deployments/")}
    assert len(given) >= 4
    assert all(path.exists() for path in [*linked, *given])


def test_stack_gets_its_parameters() -> None:
    """The command gives exactly the template's parameters without a default."""
    commands = [each for each in COMMANDS if each[:3] == ["aws", "cloudformation", "deploy"]]
    (command,) = commands
    given = {word.split("=")[0] for word in command[command.index("--parameter-overrides") + 1 :]}
    assert given == {name for name, each in TEMPLATE["Parameters"].items() if "Default" not in each}
    named = set(re.findall(r"`(?:--parameter-overrides )?(\w+)=\w+`", DOCS)) | {"AlarmTopicArn", "TableName"}
    assert named <= TEMPLATE["Parameters"].keys()


def test_services_and_tags_are_right() -> None:
    """Compose's commands name existing services, and all image tags are that of the image that is built."""
    scaled = set(re.findall(r"--scale (\w+)=|docker compose .*(?:run --rm|exec) (\w+)", DOCS))
    scaled = {name for pair in scaled for name in pair if name}
    assert scaled == {"worker", "api", "deploy", "postgres"}
    assert scaled <= SERVICES.keys()
    assert set(re.findall(r"market-data:(\d[\w.-]+\w)", DOCS)) == {IMAGE_TAG}


def test_sums_are_right() -> None:
    """The parts of each total cost in the text add up to it, to the cent."""
    for total, rest in (("40.87", "Docker"), ("167.50", "Kubernetes"), ("30.84", "AWS")):
        (line,) = [each for each in DOCS.splitlines() if each.startswith("- **Cost.**") and total in each]
        parts = re.findall(r"\$(\d+\.\d\d)(?! × )(?!\d)", line.split(" saves ")[0])
        parts = [part for part in parts if part not in {total, "0.08", "0.10"}]
        assert sum(round(float(part) * 100) for part in parts) == round(float(total) * 100), rest
