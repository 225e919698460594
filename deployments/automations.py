"""Create or update what deployments need on a Prefect server: automations, and the limit on ESI's tokens.

The automations are those of automations.yaml; ESI_TOKENS sets the limit.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound, PrefectException

from deployments.local.progress import fail
from tasks.esi.shared_limit import LIMIT, create_limit

FILE = Path(__file__).with_name("automations.yaml")
DO_NOTHING = {"type": "do-nothing"}
SUBJECT = "{{ automation.name }}"
BODY = (
    "{{ automation.description.splitlines()[0] }}\n\n"
    "{{ event.payload.reason or event.resource.name or event.resource.id }}"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser("python -m deployments.automations", description=__doc__)
    parser.add_argument(
        "--notify",
        metavar="TYPE/NAME",
        help="send messages through this notification block, such as slack-webhook/market (see `prefect block ls`); "
        "without it, alerts appear only in the event feed, as prefect.automation.triggered",
    )
    notify = parser.parse_args(arguments).notify
    try:
        with get_client(sync_client=True) as client:
            action = find_notification(client, notify) if notify else DO_NOTHING
            print(*apply_automations(client, read_automations(), action), sep="\n")  # noqa: T201 (a command's answer)
        print(f"{LIMIT}: {create_limit():,} tokens in 15 minutes")  # noqa: T201 (a command's answer)
    except (PrefectException, ValueError, httpx.HTTPError) as error:
        return fail(f"no automations: {error}")
    return 0


def read_automations() -> list[dict[str, Any]]:
    """Return the automations that ship with the deployments, as Prefect's API takes them."""
    return msgspec.yaml.decode(FILE.read_bytes(), type=dict[str, list[dict[str, Any]]])["automations"]


def find_notification(client: SyncPrefectClient, block: str) -> dict[str, str]:
    """Return the action that sends a message through a block, given as `slack-webhook/market`."""
    kind, _, name = block.partition("/")
    try:
        found = client.read_block_document_by_name(name, kind)
    except ObjectNotFound as error:
        raise ValueError(f"{block!r} is not a block of this server: see `prefect block ls`") from error
    return {"type": "send-notification", "block_document_id": str(found.id), "subject": SUBJECT, "body": BODY}


def apply_automations(
    client: SyncPrefectClient, automations: list[dict[str, Any]], action: dict[str, str] | None = None
) -> list[str]:
    """Create automations, or update those of the same name; return a line for each that says what was done.

    `action` replaces the action of those that do nothing; if it is None, they keep the action that the server has.
    """
    lines = []
    for wanted in automations:
        does_nothing = wanted["actions"] == [DO_NOTHING]
        given = {"actions": [action]} if does_nothing and action else {}
        automation = AutomationCore.model_validate(wanted | given)
        present = client.read_automations_by_name(automation.name)
        if does_nothing and not action and present:
            automation.actions = present[0].actions
        if present:
            client.update_automation(present[0].id, automation)
        else:
            client.create_automation(automation)
        lines.append(f"{automation.name}: {'updated' if present else 'created'}, {automation.actions[0].type}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
