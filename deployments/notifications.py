"""Notifications when a run is over or waits for a decision: a Prefect automation that sends to webhooks and by e-mail.

Addresses come from the environment of `autodidact up`, because most contain a password or a token. Prefect's database
keeps them as secrets of notification blocks.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from uuid import UUID

from data.errors import UsageError

if TYPE_CHECKING:
    from prefect.blocks.abstract import NotificationBlock
    from prefect.client.orchestration import SyncPrefectClient

ADDRESSES, OCCASIONS = "AUTODIDACT_NOTIFY", "AUTODIDACT_NOTIFY_ON"
# What can be notified, and the states of a flow run that it covers.
STATES = {
    "completed": ("Completed",),
    "failed": ("Failed", "Crashed", "TimedOut"),
    "decision": ("Suspended",),
    "cancelled": ("Cancelled",),
}
USUAL = ("completed", "failed", "decision")

AUTOMATION = "autodidact: notify"
BLOCKS = "autodidact-notify-"  # and a number
SUBJECT = "{{ flow.name }} {{ flow_run.name }}: {{ flow_run.state.name }}"
BODY = """\
Flow: {{ flow.name }}
Run: {{ flow_run.name }}
State: {{ flow_run.state.name }}
{% if flow_run.state.name == "Suspended" %}It waits for your decision: press Resume on its page.
{% endif %}{{ flow_run | ui_url }}"""


@dataclass(frozen=True)
class Notifications:
    """Who is notified, and when."""

    addresses: tuple[str, ...]
    occasions: tuple[str, ...]

    def __str__(self) -> str:
        count = len(self.addresses)
        return f"{count} {'address' if count == 1 else 'addresses'} ({', '.join(self.occasions)})"


def read_notifications(environment: Mapping[str, str]) -> Notifications:
    """Read the environment; no address by default.

    Raises:
        UsageError: an address cannot be used, or an occasion is unknown. The message shows no address.
    """
    addresses = tuple(dict.fromkeys(environment.get(ADDRESSES, "").split()))
    for number, address in enumerate(addresses, 1):
        if _in_apprise(address) is None and not _is_web_address(address):
            raise UsageError(
                f"Address {number} of {ADDRESSES} cannot be used.",
                "It is neither a URL with https:// nor an address that Apprise knows.",
                what_next="Write one such as https://example.org/hook or mailto://user:password@example.org; several "
                "are separated by spaces.",
            )
    occasions = tuple(dict.fromkeys(environment.get(OCCASIONS, "").replace(",", " ").split())) or USUAL
    for occasion in occasions:
        if occasion not in STATES:
            raise UsageError(
                f"{OCCASIONS} names {occasion!r}, which is unknown.", what_next=f"Choose from {', '.join(STATES)}."
            )
    return Notifications(addresses, occasions)


def _in_apprise(address: str) -> Any:
    """Return Apprise's notifier for an address; None if it does not know it."""
    from apprise import Apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it would show the address
    return Apprise.instantiate(address)


def _is_web_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def register_notifications(client: "SyncPrefectClient", wanted: Notifications) -> None:
    """Set up Prefect's server to send these notifications, and only these."""
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    for old in client.read_automations_by_name(AUTOMATION):
        with _perhaps_gone():
            client.delete_automation(old.id)
    for block in client.read_block_documents(include_secrets=False):
        if (block.name or "").startswith(BLOCKS):
            with _perhaps_gone():
                client.delete_block_document(block.id)
    if not wanted.addresses:
        return
    # `save` gives a coroutine only inside an event loop.
    blocks = [cast(UUID, _block(address).save(f"{BLOCKS}{n}")) for n, address in enumerate(wanted.addresses, 1)]
    trigger = EventTrigger(
        expect={f"prefect.flow-run.{state}" for occasion in wanted.occasions for state in STATES[occasion]},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        # A run without a deployment is a subflow, or was started from a terminal that shows how it ends.
        match_related=ResourceSpecification({"prefect.resource.role": "deployment"}),
        # While SQLite is locked, the same change of state may be told of twice: a run has each state once per start.
        for_each={"prefect.resource.id", "prefect.state-name", "prefect.run-count"},
        within=timedelta(hours=1),
        posture=Posture.Reactive,
        threshold=1,
    )
    actions = [SendNotification(block_document_id=block, subject=SUBJECT, body=BODY) for block in blocks]
    client.create_automation(AutomationCore(name=AUTOMATION, trigger=trigger, actions=[*actions]))
    # A creation that the client repeats, as after an answer that SQLite is locked, may have been done before.
    for again in client.read_automations_by_name(AUTOMATION)[1:]:
        with _perhaps_gone():
            client.delete_automation(again.id)


@contextmanager
def _perhaps_gone() -> Iterator[None]:
    """A deletion that the client repeats, as after an answer that SQLite is locked, may have been done before."""
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    try:
        yield
    except ObjectNotFound:
        pass
    except PrefectHTTPStatusError as error:
        if error.response.status_code != HTTPStatus.NOT_FOUND:
            raise


def _block(address: str) -> "NotificationBlock":
    """Return a block that sends to an address. Private networks are allowed, because the user names the address."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from pydantic import SecretStr

    from tasks.tracking.notifying import AppriseAddress

    if _in_apprise(address) is not None:
        return AppriseAddress(url=SecretStr(_as_text(address)), allow_private_urls=True)
    return CustomWebhookNotificationBlock(
        name="autodidact",
        url="{{address}}",  # the field itself is shown on Prefect's pages
        json_data={"text": "{{body}}"},
        secrets={"address": address},
        timeout=30,  # seconds; Prefect sends again what was not answered in time
        allow_private_urls=True,
    )


def _as_text(address: str) -> str:
    """Return an Apprise address that gets plain text: as HTML, the message's lines would run together."""
    from apprise import NotifyFormat

    if _in_apprise(address).notify_format != NotifyFormat.HTML or "format=" in address:
        return address
    return f"{address}{'&' if '?' in address else '?'}format=text"
