"""Both tabs, clicked through as a person would."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from naturelm.tables.reviews import read_reviews
from tests.app.conftest import RunningApp
from tests.browser import Watched, chromium
from tests.tables.listening_night import HOSTILE_LABELS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def watched(browser: Browser, app: RunningApp) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(PATIENCE_MS)
    watched = Watched(context.new_page(), app.address)
    watched.page.goto(app.address)
    watched.page.wait_for_selector("#detail .nl-detection")
    yield watched
    watched.assert_harmless()
    assert watched.page.title() == "naturelm"  # a hostile label that runs would rename it
    context.close()


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page


def fingerprint(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.parquet")}


def choose(page: Page, dropdown: str, text: str) -> None:
    page.locator(f"{dropdown} input").fill(text)
    page.get_by_role("option", name=text, exact=True).click()
    page.keyboard.press("Escape")


def wait_for_text(page: Page, selector: str, text: str) -> None:
    page.locator(selector).filter(has_text=text).wait_for()


# --- explore


def test_filter_play_review_and_see_the_precision(page: Page, app: RunningApp) -> None:
    before = fingerprint(app.night.results / "detections")
    frogs = sorted(
        (row for row in app.night.detections if row["label"] == "Frog"), key=lambda row: -row["score"]
    )

    choose(page, "#label", "Frog")
    wait_for_text(page, "#count", f"{len(frogs)} detections")
    # The page gets its parts one after the other.
    wait_for_text(page, "#detail h3", "Frog")
    cells = page.locator("#detections [role=gridcell]")
    cells.filter(has_text="Owl").first.wait_for(state="detached")
    assert cells.filter(has_text="Frog").count() == len(frogs)

    player = page.locator("#detail audio")
    seconds = player.evaluate("player => player.play().then(() => player.duration)")
    assert 10 <= seconds <= 12.2
    page.wait_for_function("document.querySelector('#detail audio').currentTime > 0.2")
    assert page.locator("#detail svg[aria-label^='Spectrogram of Frog']").count() == 1

    page.locator("#reviewer input, #reviewer textarea").first.fill("Ada")
    page.locator("#agree").click()
    wait_for_text(page, "#precision", "100 %")
    wait_for_text(page, "#detail", frogs[1]["path"])  # the next one is shown
    page.locator("#disagree").click()
    wait_for_text(page, "#precision", "50 %")
    page.locator("#new-label input").fill("Toad")
    page.keyboard.press("Enter")
    page.locator("#relabel").click()
    wait_for_text(page, "#precision", "33 %")
    assert page.locator("#precision tbody tr").inner_text().split() == [
        "Frog",
        "3",
        "1",
        "33",
        "%",
        "6–79",
        "%",
    ]

    page.locator("#detections [role=gridcell]").filter(has_text="Frog").first.click()
    wait_for_text(page, "#detail", "agreed")
    page.locator("#unreviewed input").click()
    wait_for_text(page, "#detail", "No detection fits these filters.")

    reviews = read_reviews(app.night.results).to_pylist()
    assert [(row["label"], row["decision"], row["new_label"], row["reviewer"]) for row in reviews] == [
        ("Frog", "agree", None, "Ada"),
        ("Frog", "disagree", None, "Ada"),
        ("Frog", "relabel", "Toad", "Ada"),
    ]
    assert [row["start_s"] for row in reviews] == [row["start_s"] for row in frogs]
    assert fingerprint(app.night.results / "detections") == before


def test_relabelling_without_a_label_asks_for_one(page: Page, app: RunningApp) -> None:
    written = read_reviews(app.night.results).num_rows
    page.locator("#relabel").click()
    wait_for_text(page, "#count", "choose or type what it is")
    assert read_reviews(app.night.results).num_rows == written


def test_filters_of_station_date_and_hour_narrow_the_list(page: Page, app: RunningApp) -> None:
    choose(page, "#station", "ridge")
    ridge = [row for row in app.night.detections if row["station"] == "ridge"]
    wait_for_text(page, "#count", f"{len(ridge)} detections")
    page.locator("#from input, #from textarea").first.fill("2026-05-15")
    page.keyboard.press("Enter")
    wait_for_text(page, "#count", f"{sum(str(row['date']) == '2026-05-15' for row in ridge)} detections")
    page.locator("#from input, #from textarea").first.fill("15 May")
    page.keyboard.press("Enter")
    wait_for_text(page, "#count", "write it as 2026-05-14")


def test_hostile_labels_are_shown_as_text(page: Page) -> None:
    choose(page, "#order", "lowest scores first")
    wait_for_text(page, "#detail", "score 0.30")
    seen = set()
    for _ in range(len(HOSTILE_LABELS) - 2):
        heading = page.locator("#detail h3").inner_text()
        seen.add(heading.rsplit(" score", 1)[0])
        page.locator("#next").click()
        page.wait_for_function(
            "before => document.querySelector('#detail h3').innerText !== before", arg=heading
        )
        assert page.locator("#detail").locator("script, img").count() == 0
    assert "<script>document.title='taken'</script>" in seen
    assert "${document.title='taken'} {{7*7}} {% raw %}" in seen
    page.locator("#label input").click()
    page.get_by_role("option").nth(len(HOSTILE_LABELS)).wait_for()


# --- ask


def upload(page: Page, *paths: Path) -> None:
    page.get_by_role("tab", name="Ask").click()
    page.locator("#sounds input[type=file]").set_input_files(list(paths))
    wait_for_text(page, "#sounds td.filename", paths[-1].stem)


def noise(path: Path, seconds: float) -> Path:
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(round(seconds * 16_000)), 16_000)
    return path


@pytest.mark.slow
def test_upload_two_sounds_ask_and_ask_on(page: Page, app: RunningApp, tmp_path: Path) -> None:
    upload(page, app.night.archive / "ridge/20260515_013000.WAV", noise(tmp_path / "bold.wav", 4.0))
    page.locator("#ask").click()
    wait_for_text(page, "#ask-status", "Windows answered: 6 of 6.")
    cards = page.locator("#answers .nl-card")
    assert cards.count() == 6
    assert [text.split()[-1] for text in page.locator("#answers .nl-place").all_inner_texts()] == [
        "0:00–0:10", "0:10–0:20", "0:20–0:30", "0:30–0:40", "0:40–0:45", "0:00–0:04",
    ]  # fmt: skip
    assert page.locator("#answers svg.nl-spectrogram").count() == 6
    assert all(text.startswith("score 0.") for text in page.locator("#answers .nl-score").all_inner_texts())
    seconds = page.locator("#answers audio").last.evaluate(
        "player => player.play().then(() => player.duration)"
    )
    assert 3.9 <= seconds <= 4.3
    first_answers = page.locator("#answers .nl-answer").all_inner_texts()

    choose(page, "#choice", "Caption the audio.")
    page.wait_for_function(
        "document.querySelector('#question :is(input, textarea)').value === 'Caption the audio.'"
    )
    page.locator("#ask").click()
    page.wait_for_function(
        "before => document.querySelector('#answers .nl-answer')?.innerText !== before", arg=first_answers[0]
    )
    wait_for_text(page, "#ask-status", "Windows answered: 6 of 6.")
    messages = page.locator("#conversation .message")
    # The page gets its parts one after the other.
    for question in ("Caption the audio.", "What are the common names"):
        messages.filter(has_text=question).first.wait_for()


def test_an_example_is_one_click_away(page: Page) -> None:
    page.get_by_role("tab", name="Ask").click()
    page.get_by_role("button", name="Owl", exact=True).click()
    wait_for_text(page, "#sounds td.filename", "Owl")
    page.locator("#ask").click()
    wait_for_text(page, "#ask-status", "Windows answered: 1 of 1.")


@pytest.mark.slow
def test_long_sounds_show_progress_and_can_be_cancelled(page: Page, tmp_path: Path) -> None:
    upload(page, noise(tmp_path / "longlong.wav", 1200.0))
    page.locator("#ask").click()
    wait_for_text(page, "#ask-status", "of 120 windows answered")
    assert page.locator("#ask-status progress").get_attribute("max") == "120"
    page.locator("#cancel").click()
    wait_for_text(page, "#ask-status", "Cancelled.")
    answered = page.locator("#answers .nl-card").count()
    assert 1 <= answered < 100
    page.get_by_role("button", name="Wolf", exact=True).click()
    wait_for_text(page, "#sounds td.filename", "Wolf")
    page.locator("#ask").click()
    wait_for_text(page, "#ask-status", "Windows answered: 1 of 1.")


def test_what_is_no_sound_is_told_in_one_sentence(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notsound.wav").write_text("no sound")
    upload(page, tmp_path / "notsound.wav")
    page.locator("#ask").click()
    alert = page.locator("#ask-status [role=alert]")
    alert.wait_for()
    assert alert.inner_text().startswith("notsound.wav: ")
