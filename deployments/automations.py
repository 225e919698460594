"""Creates what deployments need on the server: the automations of automations.yaml, and the limit of ESI's tokens.

Those that are there are brought up to date; whom automations tell, and `ESI_TOKENS`, are settings.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound, PrefectException

from deployments.local.stack import read_automations
from tasks.esi.token_bucket import LIMIT, create_limit

SUBJECT = "{{ automation.name }}"
BODY = (
    "{{ automation.description.splitlines()[0] }}\n\n"
    "{{ event.payload.reason or event.resource.name or event.resource.id }}"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser("python -m deployments.automations", description=__doc__)
    parser.add_argument(
        "--notify",
        metavar="TYPE/NAME",
        help="a notification block, as `prefect block ls` shows it, such as slack-webhook/market; without it what "
        "happens shows in the event feed alone, as prefect.automation.triggered",
    )
    try:
        apply(parser.parse_args(arguments).notify)
        print(f"{LIMIT}: {create_limit():,} tokens in 15 minutes")  # noqa: T201 (a command's answer)
    except (PrefectException, ValueError, httpx.HTTPError) as error:
        print(f"no automations: {error}", file=sys.stderr)  # noqa: T201 (a command's answer)
        return 1
    return 0


def apply(notify: str | None) -> None:
    """Bring the automations of the server that PREFECT_API_URL names up to date, and say what was done.

    Args:
        notify: the slug of a notification block, with its type's.

    Raises:
        ValueError: there is no such block.
        PrefectException: the server refused.
    """
    with get_client(sync_client=True) as client:
        action = {"type": "do-nothing"}
        if notify:
            kind, _, name = notify.partition("/")
            try:
                block = client.read_block_document_by_name(name, kind)
            except ObjectNotFound as error:
                raise ValueError(f"{notify!r} is no block of this server: see `prefect block ls`") from error
            action = {
                "type": "send-notification",
                "block_document_id": str(block.id),
                "subject": SUBJECT,
                "body": BODY,
            }
        for wanted in with_action(read_automations(), action):
            automation = AutomationCore.model_validate(wanted)
            present = client.read_automations_by_name(automation.name)
            if present:
                client.update_automation(present[0].id, automation)
            else:
                client.create_automation(automation)
            print(f"{automation.name}: {'updated' if present else 'created'}, {automation.actions[0].type}")  # noqa: T201


def with_action(automations: list[dict[str, Any]], action: dict[str, str]) -> list[dict[str, Any]]:
    """Return automations with an action in place of each that does nothing."""
    return [
        automation | {"actions": [action if each["type"] == "do-nothing" else each for each in automation["actions"]]}
        for automation in automations
    ]


if __name__ == "__main__":
    sys.exit(main())
