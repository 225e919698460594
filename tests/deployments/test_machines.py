"""The commands of docs/machines.md, as far as they can be checked without Docker, AWS, Helm and Prefect Cloud."""

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
def test_shell_can_read_it(block: str) -> None:
    """Each block is a program that a shell can parse."""
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_files_are_there() -> None:
    """What is linked or given to a command by its path in the checkout is there."""
    linked = [Path(CHECKOUT, "docs", name) for name in re.findall(r"\]\((\.\.[^)]+)\)", DOCS)]
    given = {Path(CHECKOUT, word) for command in COMMANDS for word in command if word.startswith("deployments/")}
    assert len(given) >= 4
    assert all(path.exists() for path in [*linked, *given])


def test_stack_gets_its_parameters() -> None:
    """The template has all parameters that its command gives, and the command gives all that have no default."""
    commands = [each for each in COMMANDS if each[:3] == ["aws", "cloudformation", "deploy"]]
    (command,) = commands
    given = {word.split("=")[0] for word in command[command.index("--parameter-overrides") + 1 :]}
    assert given == {name for name, each in TEMPLATE["Parameters"].items() if "Default" not in each}
    named = set(re.findall(r"`(?:--parameter-overrides )?(\w+)=\w+`", DOCS)) | {"AlarmTopicArn", "TableName"}
    assert named <= TEMPLATE["Parameters"].keys()


def test_services_and_tags_are_those_of_the_files() -> None:
    """Compose's commands name services that there are, and all tags of the image are the one that is built."""
    scaled = set(re.findall(r"--scale (\w+)=|docker compose .*(?:run --rm|exec) (\w+)", DOCS))
    scaled = {name for pair in scaled for name in pair if name}
    assert scaled == {"worker", "api", "deploy", "postgres"}
    assert scaled <= SERVICES.keys()
    assert set(re.findall(r"market-data:(\d[\w.-]+\w)", DOCS)) == {IMAGE_TAG}


def test_sums_are_right() -> None:
    """What the text adds up is what it says: the parts of each way's cost are its sum, to the cent."""
    for total, rest in (("40.87", "Docker"), ("167.50", "Kubernetes"), ("30.84", "AWS")):
        (line,) = [each for each in DOCS.splitlines() if each.startswith("- **Cost.**") and total in each]
        parts = re.findall(r"\$(\d+\.\d\d)(?! × )(?!\d)", line.split(" saves ")[0])
        parts = [part for part in parts if part not in {total, "0.08", "0.10"}]
        assert sum(round(float(part) * 100) for part in parts) == round(float(total) * 100), rest
