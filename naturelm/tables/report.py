"""One self-contained page about a results directory; opens offline, in any browser."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naturelm import __version__
from naturelm.errors import NaturelmError
from naturelm.results.analysis import read_settings_text
from naturelm.results.layout import analysis_home
from naturelm.results.table_sets import tables_in
from naturelm.results.visible import read_visible
from naturelm.tables.activity import create_station_hours, hours_of_day, station_activity
from naturelm.tables.clips import best_detections
from naturelm.tables.interrupt import interruptible
from naturelm.tables.originals import archive_roots
from naturelm.tables.player import add_players, templates
from naturelm.tables.quality import marked_recordings
from naturelm.tables.query import open_tables
from naturelm.tables.row_formats import check_out, whole_file
from naturelm.text import duration, one_line, position

if TYPE_CHECKING:
    import duckdb

# Bounds, so that a report on ten years at a hundred stations still opens on a phone.
MAX_STATIONS = 50
MAX_HEAT_MAPS = 8
MAX_FAILURES = 100
MAX_LABELS = 20
MAX_CLIP_LABELS = 12
MAX_CAPTIONS = 30
MAX_SETTINGS_CHARACTERS = 20_000

_SCORE_BINS = 20


def write_report(
    directory: Path, out: Path, clips_per_label: int = 3, archive: Path | None = None, overwrite: bool = False
) -> None:
    """Write the report of a results directory as one HTML file.

    Parameters
    ----------
    directory : Path
        A results directory.
    out : Path
        File to write.
    clips_per_label : int
        Best detections of each of the most frequent labels to show and play; 0 for none.
    archive : Path, optional
        Where the original recordings lie, if not where the runs found them.
    overwrite : bool
        Replace `out` where it exists; a symbolic link itself, not what it leads to.

    Raises
    ------
    NaturelmError
        `directory` holds no results, or `out` exists or cannot be written.
    """
    if out.is_dir() and not out.is_symlink():
        raise NaturelmError(f"{out}: is a directory; give --out a file name")
    check_out(out, overwrite)
    page = render_report(directory, clips_per_label, archive)
    try:
        with whole_file(out) as file:
            file.write(page)
    except OSError as error:
        raise NaturelmError(f"{out}: cannot be written ({error.strerror}); give --out a file name") from None


def render_report(directory: Path, clips_per_label: int = 3, archive: Path | None = None) -> str:
    """The report as HTML; parameters and errors as for `write_report`."""
    with interruptible(open_tables(directory)) as tables:
        stations = create_station_hours(tables)
        labels = _labels(tables)
        environment = templates()
        environment.filters.update(number=_number, duration=_duration, position=position, score=_score)
        return environment.get_template("report.html.j2").render(
            name=directory.resolve().name,
            version=__version__,
            made=dt.datetime.now(dt.UTC),
            totals=_totals(tables),
            roots=archive_roots(directory),
            staged=len(read_visible(directory, tables_in(directory)).pending),
            statuses=tables.execute(
                "SELECT status, count(*), sum(duration_s) FROM recordings GROUP BY status ORDER BY 2 DESC, 1"
            ).fetchall(),
            stations=_stations(tables),
            max_stations=MAX_STATIONS,
            failures=_rows(
                tables,
                f"""SELECT path, status, error, duration_s, decoded_s FROM recordings
                WHERE status <> 'ok' ORDER BY status, path LIMIT {MAX_FAILURES}""",
            ),
            max_failures=MAX_FAILURES,
            marked=marked_recordings(tables),
            activities=station_activity(tables, stations[:MAX_HEAT_MAPS]),
            more_activities=len(stations) - MAX_HEAT_MAPS,
            hours=hours_of_day(tables),
            untimed=_untimed(tables),
            labels=labels[:MAX_LABELS],
            more_labels=len(labels) - MAX_LABELS,
            score_bins=_SCORE_BINS,
            clips=list(_clips(tables, directory, labels, clips_per_label, archive)),
            captions=_rows(
                tables,
                f"""SELECT *, count(*) OVER same AS times FROM captions WINDOW same AS (PARTITION BY caption)
                QUALIFY row_number() OVER (PARTITION BY caption ORDER BY score DESC NULLS LAST, path, start_s) = 1
                ORDER BY times DESC, score DESC NULLS LAST, caption LIMIT {MAX_CAPTIONS}""",
            ),
            settings=_settings(directory),
        )


def _rows(tables: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    cursor = tables.execute(query)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _totals(tables: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    return _rows(
        tables,
        """SELECT count(*) AS recordings, count(*) FILTER (status <> 'ok') AS not_ok,
               coalesce(sum(decoded_s), 0) AS decoded_s, coalesce(sum(windows), 0) AS windows,
               count(DISTINCT station) AS stations, min(start_local) AS first, max(start_local) AS last,
               (SELECT count(*) FROM detections JOIN labels USING (label)) AS detections,
               (SELECT count(DISTINCT name) FROM labels) AS labels, (SELECT count(*) FROM captions) AS captions
           FROM recordings""",
    )[0]


def _stations(tables: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return _rows(
        tables,
        """WITH found AS (
               SELECT station, count(*) AS detections
               FROM detections JOIN labels USING (label) GROUP BY ALL)
           SELECT recordings.station, count(*) AS recordings,
               count(*) FILTER (status <> 'ok') AS not_ok, coalesce(sum(decoded_s), 0) AS decoded_s,
               coalesce(sum(windows), 0) AS windows, min(start_local) AS first, max(start_local) AS last,
               median(latitude) AS latitude, median(longitude) AS longitude,
               coalesce(any_value(found.detections), 0) AS detections
           FROM recordings LEFT JOIN found ON found.station = recordings.station
           GROUP BY ALL ORDER BY station""",
    )


def _untimed(tables: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """What the heat maps cannot show, as the recorder's clock is not known."""
    return _rows(
        tables,
        """SELECT count(*) AS recordings, (
               SELECT count(*) FROM detections JOIN labels USING (label) WHERE start_local IS NULL) AS detections
           FROM recordings WHERE start_local IS NULL AND windows > 0""",
    )[0]


def _labels(tables: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Labels, most frequent first, with the distribution of their scores and of their hours of the day."""
    rows = _rows(
        tables,
        """SELECT name, count(*) AS detections, count(DISTINCT recording_id) AS recordings,
               count(DISTINCT station) AS stations, min(score) AS lowest, median(score) AS median,
               max(score) AS best
           FROM detections JOIN labels USING (label) GROUP BY name ORDER BY detections DESC, name""",
    )
    shown = {row["name"]: row for row in rows[:MAX_LABELS]}
    for row in shown.values():
        row["scores"] = [0] * _SCORE_BINS
        row["hours"] = [0] * 24
    names = list(shown)
    for name, score_bin, count in tables.execute(
        f"""SELECT name, least(greatest(floor(score * {_SCORE_BINS}), 0), {_SCORE_BINS - 1})::INT, count(*)
        FROM detections JOIN labels USING (label) WHERE list_contains(?, name) AND score IS NOT NULL GROUP BY ALL""",
        [names],
    ).fetchall():
        shown[name]["scores"][score_bin] = count
    for name, hour, count in tables.execute(
        """SELECT name, hour(start_local), count(*) FROM detections JOIN labels USING (label)
        WHERE list_contains(?, name) AND start_local IS NOT NULL GROUP BY ALL""",
        [names],
    ).fetchall():
        shown[name]["hours"][hour] = count
    return rows


def _clips(
    tables: duckdb.DuckDBPyConnection,
    directory: Path,
    labels: list[dict[str, Any]],
    per_label: int,
    archive: Path | None,
) -> Iterator[dict[str, Any]]:
    """The best detections of each of the first labels, with a player where the original is found."""
    chosen = [row["name"] for row in labels[:MAX_CLIP_LABELS]] if per_label else []
    detections = best_detections(tables, chosen, top=per_label or 1)
    add_players(
        directory,
        detections,
        lambda row: f"{one_line(row['label'], 60)}, {one_line(row['path'], 80)}",
        archive,
    )
    for name in chosen:
        best = sorted((row for row in detections if row["label"] == name), key=lambda row: row["rank"])
        if best:
            yield {"label": name, "best": best}


def _settings(directory: Path) -> str:
    text = read_settings_text(analysis_home(directory))
    cut = text[:MAX_SETTINGS_CHARACTERS]
    return cut if cut == text else cut + "\n… (cut)"


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _score(score: float | None) -> str:
    return "unknown" if score is None else f"{score:.2f}"


def _duration(seconds: float | None) -> str:
    return "unknown" if seconds is None else duration(seconds)
