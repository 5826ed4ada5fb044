"""Who is told when a run is over: what the environment says, what is refused, what is kept secret.

Whether messages arrive is tested with the real server (tests/services/test_notifications.py).
"""

import re
from contextlib import nullcontext
from pathlib import Path
from unittest import mock
from uuid import uuid4

import httpx
import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.exceptions import PrefectHTTPStatusError

from data.errors import UsageError
from deployments import notifications, services, supervision
from deployments.notifications import ADDRESSES, OCCASIONS, Notifications, read_notifications, register_notifications
from deployments.supervision import Options
from tasks.stage.environment import child_environment
from tasks.tracking.notifying import AppriseAddress

SLACK = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
MAIL = "mailtos://smtp.example.org:587?user=me&pass=secret&from=me@example.org&to=you@example.org"
HOOK = "https://example.org/hook?token=hush"


def test_nobody_is_told_unless_asked_for():
    assert read_notifications({}).addresses == read_notifications({ADDRESSES: " "}).addresses == ()


def test_several_addresses_are_told_of_what_is_asked_for():
    told = read_notifications({ADDRESSES: f" {SLACK}\n{MAIL} {SLACK}", OCCASIONS: "failed, cancelled"})
    assert told.addresses == (SLACK, MAIL)
    assert told.occasions == ("failed", "cancelled")
    assert str(told) == "2 addresses (failed, cancelled)"
    assert read_notifications({ADDRESSES: HOOK}).occasions == ("completed", "failed", "decision")


@pytest.mark.parametrize(
    "address",
    [
        "secret",
        "https://",
        "https://:443/secret",
        "http://host:0/secret",
        "http://[secret",
        "mailto://",
        "mailtoo://secret",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_not_shown(address: str, monkeypatch: pytest.MonkeyPatch, caplog):
    monkeypatch.setattr(services, "start", lambda options: pytest.fail("services were started"))
    monkeypatch.setenv(ADDRESSES, f"{HOOK} {address}")
    with pytest.raises(UsageError, match=f"^Address 2 of {ADDRESSES} cannot be used") as raised:
        services.up([])
    assert not {"hush", "secret"} & set(re.findall(r"\w+", f"{raised.value} {caplog.text}"))


def test_an_unknown_occasion_is_refused_with_those_there_are():
    with pytest.raises(
        UsageError, match=r"AUTODIDACT_NOTIFY_ON names 'finished', which is unknown.*Choose from completed, failed"
    ):
        read_notifications({OCCASIONS: "finished"})


def test_a_web_address_is_a_secret_of_its_block():
    block = notifications._block(HOOK)
    assert isinstance(block, CustomWebhookNotificationBlock)
    assert "hush" not in block.url + block.model_dump_json()
    request = block._build_request_args("Run: {{address}}", "subject")
    assert (request["url"], request["json"]) == (HOOK, {"text": "Run: {{address}}"})


@pytest.mark.parametrize(
    ("address", "sent_to"),
    [
        (SLACK, SLACK),
        (MAIL, f"{MAIL}&format=text"),
        ("mailto://me:pw@example.org", "mailto://me:pw@example.org?format=text"),
    ],
)
def test_other_addresses_are_told_by_apprise_in_plain_text(address: str, sent_to: str):
    block = notifications._block(address)
    assert isinstance(block, AppriseAddress)
    assert block.url.get_secret_value() == sent_to
    assert address not in block.model_dump_json()


def test_services_and_programs_are_not_told_the_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv(ADDRESSES, HOOK)
    assert ADDRESSES not in supervision._environment(Options(), tmp_path, "me:mine", [])
    assert ADDRESSES not in child_environment()


@pytest.mark.parametrize(("status", "passes"), [(404, True), (500, False)])
def test_what_was_deleted_before_is_no_failure(status: int, passes: bool) -> None:
    """The client repeats a request that SQLite's lock has failed, though it may have been carried out."""
    request = httpx.Request("DELETE", "http://127.0.0.1/api/automations/1")
    error = httpx.HTTPStatusError("", request=request, response=httpx.Response(status, request=request))
    client = mock.Mock()
    client.read_automations_by_name.return_value = [mock.Mock(id=1)]
    client.read_block_documents.return_value = []
    client.delete_automation.side_effect = PrefectHTTPStatusError.from_httpx_error(error)
    with nullcontext() if passes else pytest.raises(PrefectHTTPStatusError):
        register_notifications(client, Notifications((), ()))
    client.delete_automation.assert_called_once_with(1)


def test_a_creation_that_was_repeated_leaves_one_automation(monkeypatch: pytest.MonkeyPatch):
    there: list[mock.Mock] = []

    def create(_: object) -> None:
        there.extend([mock.Mock(id=1), mock.Mock(id=2)])  # the client asked twice, and both were done

    client = mock.Mock()
    client.read_automations_by_name.side_effect = lambda _: list(there)
    client.read_block_documents.return_value = []
    client.create_automation.side_effect = create
    client.delete_automation.side_effect = lambda gone: there.remove(next(one for one in there if one.id == gone))
    monkeypatch.setattr(CustomWebhookNotificationBlock, "save", lambda *_: uuid4())
    register_notifications(client, Notifications((HOOK,), ("failed",)))
    assert [one.id for one in there] == [1]
