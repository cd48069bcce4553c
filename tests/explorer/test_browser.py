"""
Every panel as a person uses it, in Chromium: with the mouse, with the keyboard, in the width of a phone, and by two people at once.
Nothing is asked of another host.
"""

import shutil
from urllib.parse import urlparse

import pytest
import torch

from explorer_models import make_explored
from hf_vae import LatentAttribute
from hf_vae.explorer import Corpus, load_explored

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'hf_vae[browser]'")
served = pytest.importorskip(
    "hf_vae.explorer.page", reason="gradio is not installed: pip install 'hf_vae[explorer]'", exc_type=ImportError
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")]
expect = playwright.expect
expect.set_options(timeout=30_000)

MARKUP = '<img src=x onerror="window.harmed = 1"> <b>bold</b>'


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address():
    """Serves a page when it is first asked for, by the name of what it shows."""
    pages = {}

    def of(name: str) -> str:
        if name not in pages:
            page = served.build_page(explored_by(name))
            pages[name] = (page, served.serve(page, wait=False))
        return pages[name][1]

    yield of
    for page, _ in pages.values():
        page.close(verbose=False)


def explored_by(name: str):
    if name == "dialog":
        return make_explored("dialog")
    if name == "no posterior":
        explored = make_explored("cvae")
        explored.model.config.objective = "gsnn"
        return explored
    explored = load_explored("paraphrase" if name == "paraphrase" else "sentences", most=120)
    if name == "markup":
        explored.corpus = Corpus([MARKUP, *explored.corpus.texts[:20]], MARKUP, columns={"kind": [MARKUP, *"ab" * 10]})
    elif name == "sentences":
        # The attribute says what the first principal direction says.
        attribute = LatentAttribute(64, ["low", "high"])
        direction = torch.linalg.svd(explored.codes - explored.codes.mean(0)).Vh[0]
        attribute.weight[1], attribute.clarity[:] = direction, 1.0
        explored.model.set_attribute("side", attribute)
    return explored


@pytest.fixture
def visit(browser, address):
    """Opens a page in a window of its own; all requests must be to this machine, and no script may fail."""
    windows, failures = [], []

    def open_page(name: str, width: int = 1280, height: int = 900):
        window = browser.new_context(viewport={"width": width, "height": height})
        windows.append(window)
        page = window.new_page()
        page.on("request", lambda request: failures.append(request.url) if is_foreign(request.url) else None)
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(address(name))
        expect(page.locator(".explorer-head h1")).to_be_visible()
        return page

    yield open_page
    for window in windows:
        window.close()
    assert failures == []


def is_foreign(url: str) -> bool:
    return urlparse(url).scheme in ("http", "https", "ws", "wss") and urlparse(url).hostname != "127.0.0.1"


def tab(page, name: str):
    page.get_by_role("tab", name=name, exact=True).click()


def at(page, x: float, y: float) -> dict:
    """A place of the map, in shares of its width and height."""
    box = page.locator("#latent-map canvas").bounding_box()
    return {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}


def test_the_map_is_used_with_the_mouse(visit):
    page = visit("sentences")
    canvas = page.locator("#latent-map canvas")
    expect(page.locator("#latent-map .latent-map-legend button").first).to_be_visible()
    # A click on an empty place.
    canvas.click(position={"x": 8, "y": 8})
    expect(page.locator("#map-place .explorer-text").first).to_contain_text("the")
    # Some point lies below the mouse on a walk through the middle.
    for step in range(60):
        page.mouse.move(**at(page, 0.2 + step / 100, 0.5))
        if page.locator(".latent-map-tip").is_visible():
            break
    expect(page.locator(".latent-map-tip")).to_contain_text("the")
    # The lasso, around all of the left.
    page.get_by_role("button", name="Lasso").click()
    page.mouse.move(**at(page, 0.02, 0.02))
    page.mouse.down()
    for x, y in ((0.5, 0.02), (0.5, 0.98), (0.02, 0.98)):
        page.mouse.move(**at(page, x, y), steps=4)
    page.mouse.up()
    expect(page.locator("#map-region")).to_contain_text("points chosen")
    expect(page.locator("#map-region")).to_contain_text("Some of them")


def test_the_map_is_used_with_the_keyboard(visit):
    page = visit("sentences")
    page.locator("#latent-map canvas").focus()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowUp")
    expect(page.locator(".latent-map-said")).to_contain_text("near:")
    page.keyboard.press("Enter")
    expect(page.locator("#map-place .explorer-text").first).to_contain_text("the")
    page.locator(".latent-map-legend button").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#map-region")).to_contain_text("points chosen")


def test_the_map_shows_draws_and_other_colours(visit):
    page = visit("sentences")
    page.get_by_label("draws from the prior").check()
    expect(page.get_by_text("300 draws from the prior")).to_be_visible()
    page.locator("#latent-map canvas").click(position={"x": 60, "y": 60})
    expect(page.locator("#map-place .explorer-text").first).to_contain_text("the")
    page.get_by_label("texts", exact=True).check()
    expect(page.get_by_text("120 sentences of the embedded grammar")).to_be_visible()
    page.get_by_role("combobox", name="Colour").click()
    page.get_by_role("option", name="length in words").click()
    expect(page.locator(".latent-map-bar")).to_be_visible()


def test_a_path_is_walked_with_its_slider(visit):
    page = visit("sentences")
    tab(page, "Path")
    page.get_by_role("button", name="Walk").click()
    expect(page.locator("#path-list li").first).to_be_visible()
    expect(page.locator("#path-list mark").first).to_be_visible()
    slider = page.get_by_label("range slider for Place on the path")
    slider.focus()
    page.keyboard.press("End")
    expect(page.locator("#path-here")).to_contain_text("at 1.00")
    last = page.get_by_label("To", exact=True).input_value()
    expect(page.locator("#path-list li.is-here")).to_contain_text(last)
    # A mistake is told, and what was there stays.
    page.get_by_label("From", exact=True).fill("")
    page.get_by_role("button", name="Walk").click()
    expect(page.get_by_role("alert")).to_contain_text("first text is empty")
    expect(page.locator("#path-here")).to_contain_text("at 1.00")


def test_sliders_move_z(visit):
    page = visit("sentences")
    tab(page, "Sliders")
    slider = page.locator("input[type=range]:visible").first
    slider.focus()
    page.keyboard.press("End")
    expect(page.get_by_text("z has moved by")).to_be_visible()
    expect(page.locator("#sliders-result .explorer-text")).to_have_count(2)
    page.get_by_role("button", name="Start again").click()
    expect(page.get_by_text("z has moved by 0.00")).to_be_visible()
    page.get_by_label("side", exact=True).click()
    page.get_by_role("option", name="high").click()
    expect(page.get_by_text("z has moved by 0.00")).to_have_count(0)
    page.get_by_role("button", name="Write seven texts along it").click()
    expect(page.locator("#sliders-stations li.is-here")).to_have_count(1)


def test_a_kept_z_writes_for_another_source(visit):
    page = visit("paraphrase")
    tab(page, "Outputs")
    page.get_by_role("button", name="Write", exact=True).click()
    boxes = page.locator("#outputs-list input[type=checkbox]")
    expect(boxes).to_have_count(6)
    page.get_by_role("button", name="Keep the z of the ticked outputs").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing is ticked")
    boxes.nth(0).check()
    boxes.nth(3).check()
    page.get_by_role("button", name="Keep the z of the ticked outputs").click()
    expect(page.locator("#outputs-kept input[type=checkbox]")).to_have_count(2)
    page.get_by_label("Another source").fill("the king sold the ring in the park at noon .")
    page.get_by_role("button", name="Write it with the kept z").click()
    expect(page.locator("#outputs-applied tbody tr")).to_have_count(2)
    expect(page.locator("#outputs-applied tbody td:nth-child(2)").first).to_contain_text("king")
    # Other draws leave what is kept.
    first = page.locator("#outputs-list label").all_inner_texts()
    page.get_by_role("button", name="Write others").click()
    expect(page.locator("#outputs-list label").first).not_to_have_text(first[0])
    expect(page.locator("#outputs-kept input[type=checkbox]")).to_have_count(2)


def test_a_conversation(visit):
    page = visit("dialog")
    tab(page, "Chat")
    page.locator("#chat-turn textarea").fill("the cat <b>sat</b>")
    page.keyboard.press("Enter")
    replies = page.locator("#chat-replies input[type=radio]")
    expect(replies).to_have_count(4)
    expect(page.locator("#chat-talk")).to_contain_text("the cat <b>sat</b>")
    replies.nth(2).check()
    page.get_by_role("button", name="Keep the z of the chosen reply").click()
    expect(page.locator("#chat-kept input[type=checkbox]")).to_have_count(1)
    page.get_by_role("button", name="Reply with the kept z").click()
    expect(page.locator("#chat-applied tbody tr")).to_have_count(1)
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#chat-talk")).not_to_contain_text("the cat")
    page.get_by_role("button", name="Say it").click()
    expect(page.get_by_role("alert")).to_contain_text("Your turn is empty")


def test_words_have_their_nats(visit):
    page = visit("sentences")
    tab(page, "Words")
    page.get_by_role("button", name="Measure", exact=True).click()
    words = page.get_by_label("Text", exact=True).input_value().split()
    expect(page.locator("#words-heat .explorer-word")).to_have_count(len(words) + 1)
    expect(page.locator("#words-heat")).to_contain_text("z says")
    expect(page.locator("#words-back")).to_contain_text("written of its own z")
    page.get_by_label("Text", exact=True).fill("the zebra sold the ring .")
    page.keyboard.press("Enter")
    expect(page.get_by_text("are not in the model's vocabulary")).to_be_visible()


def test_the_report_and_the_card(visit):
    page = visit("sentences")
    tab(page, "Report")
    page.get_by_role("button", name="Measure whether z is used").click()
    expect(page.locator("#report-verdict")).to_contain_text("z is used")
    page.get_by_role("button", name="Model card").click()
    expect(page.locator("#report-card")).to_contain_text("NLL")


def test_markup_in_a_text_is_text(visit):
    page = visit("markup")
    expect(page.get_by_text(MARKUP).first).to_be_visible()
    page.locator(".latent-map-legend button", has_text="<img").click()
    expect(page.locator("#map-region")).to_contain_text(MARKUP)
    tab(page, "Path")
    page.get_by_role("button", name="Walk").click()
    expect(page.locator("#path-list li").first).to_be_visible()
    tab(page, "Words")
    page.get_by_role("button", name="Measure", exact=True).click()
    expect(page.locator("#words-heat")).to_contain_text("<b>bold</b>")
    assert page.evaluate("window.harmed") is None and page.locator(".gradio-container b:text-is('bold')").count() == 0


def test_a_model_without_a_posterior_says_so_and_draws(visit):
    page = visit("no posterior")
    expect(page.get_by_text("This model has no posterior").first).to_be_visible()
    page.get_by_role("button", name="Draw from the prior").click()
    expect(page.get_by_text("300 draws from the prior")).to_be_visible()
    tab(page, "Words")
    page.get_by_role("button", name="Measure", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("no posterior")


def test_two_people_do_not_disturb_each_other(visit):
    first, second = visit("sentences"), visit("sentences")
    written = {first: "the king sold the ring in the park at noon .", second: "at dawn the nurse washed the coat in the barn ."}
    for page, text in written.items():
        tab(page, "Words")
        page.get_by_label("Text", exact=True).fill(text)
    for page in (first, second):
        page.get_by_role("button", name="Measure", exact=True).click()
    expect(first.locator("#words-heat")).to_contain_text("king")
    expect(second.locator("#words-heat")).to_contain_text("nurse")
    expect(first.locator("#words-heat")).not_to_contain_text("nurse")


PANELS = ("Map", "Path", "Sliders", "Outputs", "Words", "Report")


@pytest.mark.parametrize("name", ["paraphrase", "dialog"])
@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_has_the_whole_page_in_its_width(visit, name, width):
    page = visit(name, width, 844)
    for panel in PANELS:
        tab(page, "Chat" if name == "dialog" and panel == "Outputs" else panel)
        if panel == "Report" and name == "paraphrase":
            # Its card has long lines of code.
            page.get_by_role("button", name="Model card").click()
            expect(page.locator("#report-card pre").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, panel
        cramped = "[...document.querySelectorAll('button.lg')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText)"
        assert page.evaluate(cramped) == [], panel


def test_all_panels_are_as_wide(visit):
    page = visit("sentences")
    widths = {}
    for panel in PANELS:
        tab(page, panel)
        widths[panel] = page.locator(".explorer-head").bounding_box()["width"]
    assert len(set(widths.values())) == 1, widths


def test_a_chosen_region_stands_out_until_it_is_let_go(visit):
    page = visit("sentences")
    picture = "document.querySelector('#latent-map canvas').toDataURL()"
    expect(page.locator("#latent-map .latent-map-legend button").first).to_be_visible()
    before = page.evaluate(picture)
    page.locator(".latent-map-legend button").first.click()
    assert page.evaluate(picture) != before
    page.locator("#latent-map canvas").focus()
    page.keyboard.press("Escape")
    assert page.evaluate(picture) == before


def test_a_model_without_sources_lists_what_it_writes(visit):
    page = visit("sentences")
    tab(page, "Outputs")
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.locator("#outputs-list li")).to_have_count(6)
    assert page.get_by_role("button", name="Keep the z of the ticked outputs").count() == 0
