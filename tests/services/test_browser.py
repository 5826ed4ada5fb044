"""The web pages in a real browser: a run from a form, its history, and a cancellation.

With AUTODIDACT_SCREENSHOTS set to a folder, the whole demo is run, with the real engines, and the pictures of the
README are written there.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from flows.commands.flow_table import own_flows
from flows.commands.forms import DEFAULTS
from tests.browser import PATIENCE_MS, real_browser
from tests.services.conftest import Site, hang, statuses
from tests.waiting import PATIENCE, wait_gone

SECOND = 1000
PICTURES = os.environ.get("AUTODIDACT_SCREENSHOTS")
DEPLOYMENT = "own" if PICTURES else "stub-form"
ITERATIONS = 3
SMALL = """\
limit = 100
limit_validation = 48
limit_test = 48
limit_transfer = 48
bootstrap.train.epochs = 1
"""  # The base is trained by the stub, too.
OVERRIDES = "stop.rule = none\n" + ("" if PICTURES else SMALL)
MOST_INPUTS, MOST_PIXELS = 25, 3000  # of a short form


@pytest.fixture(scope="module")
def page(site: Site) -> Iterator[Page]:
    """A page whose browser has been told the key once."""
    with real_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 960}, color_scheme="light")
        page.set_default_timeout(PATIENCE_MS)
        log_in(page, site.prefect, site.key)
        yield page


def log_in(page: Page, address: str, key: str) -> None:
    """Open a page of Prefect's, which asks for the key, and give it."""
    page.goto(address)
    page.get_by_placeholder("admin:pass").fill(key)
    page.get_by_role("button", name="Login").click()
    expect(page.get_by_text("Deployments").first).to_be_visible()


def picture(page: Page, name: str) -> None:
    """Keep a picture of the page for the README, if asked to."""
    if PICTURES:
        page.wait_for_timeout(3 * SECOND)  # charts and fonts
        page.screenshot(path=Path(PICTURES) / f"{name}.png")


def setting(page: Page, label: str) -> Locator:
    """A setting of Prefect's form, by its label."""
    header = f'> .p-label__header .schema-form-property__label:text-is("{label} (Optional)")'
    return page.locator(f".schema-form-property:has({header})")


def fill(page: Page, label: str, value: str) -> None:
    setting(page, label).locator("input, textarea, .cm-content").first.fill(value)


def test_by_clicks_alone_from_prefects_home_to_the_history(site: Site, page: Page):
    page.goto(site.prefect)
    page.get_by_text("Deployments", exact=True).first.click()
    page.get_by_placeholder("Search deployments").fill("rest-em" if PICTURES else DEPLOYMENT)
    picture(page, "deployments")
    page.get_by_text(DEPLOYMENT, exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    setting(page, "recipe").get_by_text(DEFAULTS).click()
    page.keyboard.press("ArrowDown")
    page.get_by_text("demo", exact=True).first.click()
    fill(page, "run", "browser")
    fill(page, "test", "a file that is taken back")
    fill(page, "test", "")
    fill(page, "iterations", str(ITERATIONS))
    fill(page, "overrides", OVERRIDES)
    setting(page, "recipe").scroll_into_view_if_needed()
    picture(page, "form")
    page.get_by_role("button", name="Submit").click()
    page.get_by_text("browser", exact=True).first.click()  # among the runs of the deployment, once it has begun
    page.get_by_role("tablist").get_by_text("Artifacts").click()
    page.get_by_text("browser-iterations", exact=True).first.click()  # a table that is there before the run's end
    expect(page.get_by_text("greedy pass@1").first).to_be_visible()
    picture(page, "iterations")
    page.go_back()
    site.wait(page.url.rpartition("/")[2].partition("?")[0], "Completed")
    page.reload()  # its list of artifacts is not brought up to date
    page.get_by_role("tablist").get_by_text("Artifacts").click()
    page.get_by_text("browser-report", exact=True).first.click()
    expect(page.get_by_role("img", name="The learning curve")).to_be_visible()
    expect(page.get_by_text("Validation, by iteration")).to_be_visible()
    picture(page, "result")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="The history in MLflow").click()
    history = opened.value
    expect(history.get_by_role("heading", name="browser")).to_be_visible()
    history.close()
    page.go_back()
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    page.get_by_role("tablist").get_by_text("Task Runs").click()
    expect(page.get_by_text(f"iter-{ITERATIONS}/train").first).to_be_visible()
    picture(page, "run")
    names = ["browser", *(f"browser/iteration-{number}" for number in range(ITERATIONS + 1))]
    assert statuses(site, "browser") == dict.fromkeys(names, "FINISHED")
    assert "database is locked" not in (site.runs / "services" / "prefect.log").read_text()


def test_by_clicks_alone_from_mlflows_home_to_an_iterations_loss_and_answers_and_the_report(site: Site, page: Page):
    """Of the run that the test before has made."""
    page.goto(site.mlflow)
    page.get_by_role("link", name="ReST-EM").first.click()
    run = page.get_by_role("link", name="browser", exact=True).first
    expect(run).to_be_visible()  # no page of traces, and no pop-up before it
    picture(page, "mlflow-runs")
    run.click()
    page.get_by_role("tab", name="Model metrics").click()
    page.get_by_placeholder("Search metric charts").fill("validation/pass_at_1")
    expect(page.get_by_text("pass_at_1_greedy").first).to_be_visible()
    picture(page, "mlflow")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("report.html").first.click()
    report = page.frame_locator("iframe").first
    expect(report.get_by_role("heading", name="ReST-EM").first).to_be_visible()
    picture(page, "mlflow-report")
    page.get_by_role("tab", name="Overview").click()
    page.get_by_role("link", name=f"browser/iteration-{ITERATIONS}").click()
    expect(page.get_by_role("link", name="train/loss")).to_be_visible()
    page.get_by_role("tab", name="Model metrics").click()
    page.get_by_placeholder("Search metric charts").fill("train/loss")
    expect(page.get_by_text("loss", exact=True).first).to_be_visible()
    picture(page, "mlflow-loss")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("samples", exact=True).first.click()
    page.get_by_text(f"answers-{ITERATIONS}.json").first.click()
    expect(page.get_by_text("verdict").first).to_be_visible()
    picture(page, "mlflow-answers")


def test_the_report_is_whole_on_a_phone_and_on_paper(site: Site, page: Page):
    report = site.runs / "browser" / "report.html"
    page.goto(report.as_uri())
    expect(page.get_by_role("heading", name="ReST-EM").first).to_be_visible()
    picture(page, "report")
    for width in (390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 960})
        assert page.evaluate("document.documentElement.scrollWidth") == width
    if PICTURES:
        page.pdf(path=Path(PICTURES) / "report.pdf")


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


def test_cancelled_from_its_page_it_is_gone_in_ten_seconds(site: Site, page: Page):
    flow_run, flow, program = hang(site, "cancelled-in-the-ui")
    page.goto(f"{site.prefect}/runs/flow-run/{flow_run}")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Confirm").click()
    wait_gone(program, 10)
    wait_gone(flow, 10)
    site.wait(flow_run, "Cancelled")
    assert statuses(site, "cancelled-in-the-ui")["cancelled-in-the-ui"] == "KILLED"
