"""The report: true to the tables, harmless whatever labels say, small however long the survey."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

import naturelm
from naturelm.cli.report import report
from naturelm.errors import NaturelmError
from naturelm.tables.activity import MAX_ROWS, Activity, create_station_hours, station_activity
from naturelm.tables.query import open_tables
from naturelm.tables.report import render_report, write_report
from tests.browser import Watched, chromium
from tests.tables.listening_night import HOSTILE_LABELS, Night, make_listening_night
from tests.tables.make_tables import caption, detection, recording, stage_segment, write_results

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIX_PM = dt.datetime(2026, 5, 14, 18, 0)


class Outline(HTMLParser):
    """Tags, attributes and text of a page, as a browser's parser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    return make_listening_night(tmp_path_factory.mktemp("night"), HOSTILE_LABELS)


@pytest.fixture(scope="module")
def page(night: Night) -> str:
    return render_report(night.results, clips_per_label=2)


def activities(results: Path) -> list[Activity]:
    tables = open_tables(results)
    return station_activity(tables, create_station_hours(tables))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


# --- harmless


def test_hostile_labels_stay_text(page: str) -> None:
    outline = Outline(page)
    assert "script" not in outline.tags
    assert "img" not in outline.tags
    assert not [name for name, _ in outline.attributes if name.startswith("on")]
    for label in (
        "<script>document.title='taken'</script>",
        "'; DROP TABLE detections; --",
        "two lines and a tab",
    ):
        assert label in outline.text


def test_nothing_is_asked_of_other_files_or_hosts(page: str) -> None:
    links = [
        value for name, value in Outline(page).attributes if name in {"src", "href", "xlink:href", "srcset"}
    ]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "url(" not in page
    assert "@import" not in page


@pytest.mark.browser
def test_page_opens_offline_and_plays_its_clips(page: str, tmp_path: Path, browser: Browser) -> None:
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    address = (tmp_path / "report.html").as_uri()
    context = browser.new_context(offline=True)
    watched = Watched(context.new_page(), address)
    watched.page.goto(address)
    title = watched.page.title()
    players = watched.page.locator("audio")
    assert players.count() > 12
    seconds = players.evaluate_all(
        """players => Promise.all(players.map(player => new Promise(done => {
            player.addEventListener('loadedmetadata', () => done(player.duration));
            player.addEventListener('error', () => done(-1));
            player.preload = 'auto'; player.load(); })))"""
    )
    # A window of ten seconds, a second more on each side that is not the recording's edge.
    assert all(10 <= s <= 12.2 for s in seconds)
    pictures = watched.page.locator("svg.nl-spectrogram image").evaluate_all(
        """images => Promise.all(images.map(image => { const copy = new Image();
            copy.src = image.getAttribute('href'); return copy.decode().then(() => copy.width); }))"""
    )
    assert len(pictures) == len(seconds)
    assert min(pictures) > 200
    watched.assert_harmless()
    assert watched.page.title() == title == "What was heard: results"
    context.close()


# --- true


def test_totals_are_those_of_the_tables(page: str, night: Night) -> None:
    text = Outline(page).text
    named = [row for row in night.detections if row["label"] != "None"]
    assert f"Recordings {len(night.recordings)} Stations 3" in text
    assert f"Detections {len(named)} Labels {len({row['label'] for row in named})}" in text
    assert "Windows 33" in text


def test_failures_are_listed_with_what_was_wrong(tmp_path: Path) -> None:
    good = recording("a/good.wav", SIX_PM)
    bad = recording(
        "a/bad.flac", status="corrupt", error="lost <sync>", duration_s=None, decoded_s=0.0, windows=0
    )
    text = Outline(render_report(write_results(tmp_path, [good, bad]))).text
    assert "1 of 2 recordings were read whole; 1 was not." in text
    assert "a/bad.flac corrupt unknown 0 s lost <sync>" in text


def test_missing_originals_leave_clips_without_a_player(night: Night, tmp_path: Path) -> None:
    shutil.copytree(night.results, tmp_path / "results")
    (tmp_path / "nowhere").mkdir()
    page = render_report(tmp_path / "results", 1, tmp_path / "nowhere")
    assert "audio" not in Outline(page).tags
    assert "The original recording was not found" in page


def test_captions_and_settings_are_shown(page: str) -> None:
    text = Outline(page).text
    assert "A quiet night at the marsh. 3 0.90" in text
    assert "segment_windows: 60" in text


def test_an_unfinished_run_is_told(tmp_path: Path) -> None:
    results = write_results(tmp_path)
    stage_segment(results, 0, recording("a.wav", SIX_PM))
    assert "has not finished: 1 segments are done" in render_report(results)


# --- when


def test_effort_and_detections_are_summed_by_local_hour(tmp_path: Path) -> None:
    row = recording("a.wav", SIX_PM + dt.timedelta(minutes=50), duration_s=1800.0, windows=180)
    late = [detection(row, 600.0 + 10 * i, "Owl") for i in range(3)]
    early = [detection(row, 0.0, "Owl"), detection(row, 0.0, "None")]
    [activity] = activities(write_results(tmp_path, [row], [*early, *late]))
    [day] = activity.rows
    assert {
        hour: (cell.effort_s, cell.detections) for hour, cell in enumerate(day.cells) if cell.effort_s
    } == {
        18: (600.0, 1),
        19: (1200.0, 3),
    }


def test_a_silent_hour_differs_from_an_unrecorded_one(tmp_path: Path) -> None:
    silent = render_report(write_results(tmp_path, [recording("a.wav", SIX_PM)]))
    assert silent.count("18–19 h: 60 s, 0 detections") == 2  # a cell in each panel
    assert "19–20 h:" not in silent
    assert "not recorded" in silent


def test_sun_is_drawn_only_where_position_and_offset_are_known(tmp_path: Path) -> None:
    place = {"latitude": 52.0, "longitude": 5.0}
    known = recording("a.wav", SIX_PM, station="known", **place)
    unknown = recording("b.wav", SIX_PM, station="unknown", **place | {"utc_offset_minutes": None})
    found = activities(write_results(tmp_path, [known, unknown]))
    assert {activity.station: activity.has_sun for activity in found} == {"known": True, "unknown": False}


def test_a_recording_across_midnight_counts_on_both_dates(tmp_path: Path) -> None:
    row = recording("a.wav", dt.datetime(2026, 5, 14, 23, 59, 30))
    [activity] = activities(write_results(tmp_path, [row]))
    assert [(part.name, sum(cell.effort_s for cell in part.cells)) for part in activity.rows] == [
        ("2026-05-14", 30.0),
        ("2026-05-15", 30.0),
    ]


@pytest.mark.parametrize(("days", "unit"), [(62, "day"), (63, "week"), (500, "month"), (3000, "year")])
def test_long_surveys_are_summed_to_a_bounded_picture(days: int, unit: str, tmp_path: Path) -> None:
    rows = [
        recording(f"{day}.wav", SIX_PM + dt.timedelta(days=day)) for day in range(0, days, max(1, days // 70))
    ]
    rows.append(recording("last.wav", SIX_PM + dt.timedelta(days=days - 1)))
    [activity] = activities(write_results(tmp_path, rows))
    assert activity.unit == unit
    assert 1 < len(activity.rows) <= MAX_ROWS
    assert sum(cell.effort_s for row in activity.rows for cell in row.cells) == activity.effort_s > 60


@pytest.mark.slow
def test_page_of_many_stations_labels_and_failures_stays_small(tmp_path: Path) -> None:
    recordings, detections = [], []
    for number in range(300):
        start = SIX_PM + dt.timedelta(hours=number)
        status = "ok" if number % 2 else "corrupt"
        row = recording(f"{number}.wav", start, station=f"S{number:03d}", status=status)
        recordings.append(row)
        detections.append(detection(row, 0.0, f"Species {number}"))
    page = render_report(write_results(tmp_path, recordings, detections))
    assert len(page) < 1_000_000
    assert "250 stations more are not listed" in page
    assert "the first 100 of 150" in page


# --- little or nothing


def test_an_empty_night_has_a_page(tmp_path: Path) -> None:
    text = Outline(render_report(write_results(tmp_path))).text
    assert "No recording has been processed yet." in text
    assert "Nothing was detected." in text


def test_zero_detections_and_unknown_dates_and_positions_have_a_page(tmp_path: Path) -> None:
    row = recording("a.wav", latitude=None)
    text = Outline(render_report(write_results(tmp_path, [row]))).text
    assert "When the recordings were made is not known." in text
    assert "1 recordings, with 0 detections, have no known start" in text
    assert "no answer named a label" in text


def test_detections_without_a_score_have_a_page(tmp_path: Path) -> None:
    row = recording("a.wav", SIX_PM)
    results = write_results(
        tmp_path, [row], [detection(row, 0.0, "Owl", score=None)], [caption(row, 0.0, "x", None)]
    )
    assert "Owl 1 1 1 unknown" in Outline(render_report(results)).text


def test_a_directory_without_results_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NaturelmError, match="holds no results"):
        write_report(tmp_path, tmp_path / "report.html")


def test_a_page_replaces_another_only_on_request_and_never_through_a_link(tmp_path: Path) -> None:
    results, out, mine = write_results(tmp_path / "results"), tmp_path / "report.html", tmp_path / "mine.txt"
    mine.write_text("mine")
    out.symlink_to(mine)
    with pytest.raises(NaturelmError, match="already exists; give --overwrite"):
        write_report(results, out)
    write_report(results, out, overwrite=True)
    assert mine.read_text() == "mine"
    assert "<html" in out.read_text("utf-8")[:200]
    assert not out.is_symlink()


def test_command_writes_the_page(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    result = CliRunner().invoke(report, [str(write_results(tmp_path / "results")), "--out", str(out)])
    assert (result.exit_code, result.output) == (0, f"{out}: 0.0 MB\n")
    assert f"naturelm {naturelm.__version__}" in out.read_text(encoding="utf-8")
