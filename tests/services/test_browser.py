"""The web pages in a real browser: a run from a form, its history, and a cancellation.

With AUTODIDACT_SCREENSHOTS set to a folder, the whole demo is run, with the real engines, and the pictures of the
README are written there.
"""

import os
import shutil
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect, sync_playwright

from flows.commands.flow_table import own_flows
from tests.services.conftest import Site, hang, statuses
from tests.waiting import PATIENCE, wait_gone

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OFFLINE = [f"--disable-{what}" for what in ("gpu", "quic", "background-networking", "component-update", "sync")]
SECOND = 1000
PICTURES = os.environ.get("AUTODIDACT_SCREENSHOTS")
DEPLOYMENT = "rest-em/demo" if PICTURES else "rest-em/stub"
# What is not named here is as in the deployment.
FORM = {"Run": "browser"} | ({} if PICTURES else {"Iterations": "1"})
LIMITS = ("Limit", "Limit Validation", "Limit Test", "Limit Transfer")
OPTIONAL = {} if PICTURES else dict.fromkeys(LIMITS, "48")
ITERATIONS = 3 if PICTURES else 1
MOST_INPUTS, MOST_PIXELS = 25, 3000  # of a short form


@pytest.fixture(scope="module")
def page(site: Site) -> Iterator[Page]:
    """A page whose browser has been told the key once."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium: forms and pages were not tested in a browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--no-first-run", *OFFLINE]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 960}, color_scheme="light")
        page.route("**/api/**", patiently)
        page.set_default_timeout(PATIENCE * SECOND)
        expect.set_options(timeout=PATIENCE * SECOND)
        log_in(page, site.prefect, site.key)
        yield page
        browser.close()


def log_in(page: Page, address: str, key: str) -> None:
    """Open a page of Prefect's, which asks for the key, and give it."""
    page.goto(address)
    page.get_by_placeholder("admin:pass").fill(key)
    page.get_by_role("button", name="Login").click()
    expect(page.get_by_text("Deployments").first).to_be_visible()


def patiently(route: Route) -> None:
    """Ask again where Prefect says that its SQLite file was locked, as its own client does: its pages do not."""
    answer = route.fetch()
    while answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
        answer = route.fetch()
    route.fulfill(response=answer)


def picture(page: Page, name: str) -> None:
    """Keep a picture of the page for the README, if asked to."""
    if PICTURES:
        page.wait_for_timeout(3 * SECOND)  # charts and fonts
        page.screenshot(path=Path(PICTURES) / f"{name}.png")


def setting(page: Page, label: str) -> Locator:
    """A setting of Prefect's form, by its label."""
    header = f'> .p-label__header .schema-form-property__label:text-is("{label} (Optional)")'
    return page.locator(f".schema-form-property:has({header})")


def test_a_run_from_a_form_is_completed_and_its_history_is_in_mlflow(site: Site, page: Page):
    deployment = site.deployment(DEPLOYMENT)
    page.goto(f"{site.prefect}/deployments/deployment/{deployment}/run")
    for label, value in FORM.items():
        setting(page, label).locator("input, textarea").first.fill(value)
    for label, value in OPTIONAL.items():
        setting(page, label).get_by_role("button", name="int").click()
        setting(page, label).locator("input").first.fill(value)
    expect(page.get_by_text("Most iterations of E-step and M-step.")).to_be_visible()
    setting(page, "Run").scroll_into_view_if_needed()
    picture(page, "form")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("View run").first).to_be_visible()
    newest = {"sort": "EXPECTED_START_TIME_DESC", "limit": 1}
    (flow_run,) = site.api("POST", "flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}} | newest)
    site.wait(flow_run["id"], "Completed")
    page.goto(f"{site.prefect}/runs/flow-run/{flow_run['id']}")
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    page.get_by_role("tablist").get_by_text("Task Runs").click()
    expect(page.get_by_text("iter-1/train").first).to_be_visible()
    picture(page, "run")
    page.get_by_role("tablist").get_by_text("Artifacts").click()
    expect(page.get_by_text("browser-iterations").first).to_be_visible()
    (table,) = site.api("POST", "artifacts/latest/filter", {"artifacts": {"key": {"any_": ["browser-iterations"]}}})
    page.goto(f"{site.prefect}/artifacts/artifact/{table['latest_id']}")
    expect(page.get_by_text("greedy pass@1").first).to_be_visible()
    picture(page, "artifacts")
    names = ["browser", *(f"browser/iteration-{number}" for number in range(ITERATIONS + 1))]
    assert statuses(site, "browser") == dict.fromkeys(names, "FINISHED")
    see_history(site, page)
    page.goto((site.runs / "browser" / "report.html").as_uri())
    expect(page.get_by_role("heading", name="ReST-EM").first).to_be_visible()
    picture(page, "report")


@pytest.mark.parametrize("flow", own_flows())
def test_a_short_form_fits_on_three_screens(site: Site, page: Page, flow: str):
    page.goto(f"{site.prefect}/deployments/deployment/{site.deployment(f'{flow}/own')}/run")
    expect(page.get_by_text("Any other setting, one a line").first).to_be_visible()
    fields = page.locator(".schema-form-property").count()
    height = page.evaluate("Math.max(...[...document.querySelectorAll('*')].map(element => element.scrollHeight))")
    print(f"{flow}: {fields} inputs, {height} pixels")
    assert fields <= MOST_INPUTS and height <= MOST_PIXELS
    picture(page, f"form-{flow}")


def test_the_other_pages_of_prefect_ask_for_the_key_as_well(site: Site, page: Page):
    assert page.context.browser is not None
    other = page.context.browser.new_page()
    other.set_default_timeout(PATIENCE * SECOND)
    log_in(other, f"{site.prefect}/v2/deployments", site.key)
    expect(other.get_by_text("nightly").first).to_be_visible()
    other.goto(f"{site.prefect}/v2/deployments")
    expect(other.get_by_text("nightly").first).to_be_visible()  # without being asked again
    other.close()


def see_history(site: Site, page: Page) -> None:
    """Find parent and child in MLflow, and the parent's curve across iterations."""
    from mlflow import MlflowClient

    client = MlflowClient(site.mlflow)
    experiment = client.get_experiment_by_name("ReST-EM")
    assert experiment is not None
    page.goto(site.mlflow)
    page.get_by_role("link", name="ReST-EM").first.click()
    page.get_by_role("link", name="browser", exact=True).first.click()  # no page of traces, and no pop-up before it
    expect(page.get_by_role("heading", name="browser")).to_be_visible()
    parent = client.search_runs([experiment.experiment_id], "tags.mlflow.runName = 'browser'")[0].info.run_id
    curve = client.get_metric_history(parent, "validation/pass_at_1_greedy")
    assert sorted(point.step for point in curve) == [*range(ITERATIONS + 1)]
    page.goto(f"{site.mlflow}/#/experiments/{experiment.experiment_id}/runs/{parent}/model-metrics")
    page.get_by_placeholder("Search metric charts").fill("validation/pass_at_1")
    expect(page.get_by_text("pass_at_1_greedy").first).to_be_visible()
    picture(page, "mlflow")


def test_cancelled_from_its_page_it_is_gone_in_ten_seconds(site: Site, page: Page):
    flow_run, flow, program = hang(site, "cancelled-in-the-ui")
    page.goto(f"{site.prefect}/runs/flow-run/{flow_run}")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Confirm").click()
    wait_gone(program, 10)
    wait_gone(flow, 10)
    site.wait(flow_run, "Cancelled")
    assert statuses(site, "cancelled-in-the-ui")["cancelled-in-the-ui"] == "KILLED"
