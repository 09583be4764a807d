"""`naturelm export`: detections in the file formats of other tools."""

from __future__ import annotations

from pathlib import Path

import click

from naturelm.cli._options import label_option, min_score_option, query_id_option
from naturelm.errors import NaturelmError
from naturelm.results.analysis import read_analysis
from naturelm.results.probe_files import PROBE_QUERY, probe_files
from naturelm.tables.duckdb_errors import readable_errors
from naturelm.tables.export import FORMATS, get_format
from naturelm.tables.export.source import ExportSource, roots_of_recordings
from naturelm.tables.interrupt import interruptible
from naturelm.tables.query import open_tables
from naturelm.tables.spellings import check_labels, check_query_ids, scientific_queries
from naturelm.text import counted, printable


@click.command(epilog="\b\n" + "\n".join(f"{name:16}{get_format(name).SUMMARY}" for name in FORMATS))
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--format", "form", required=True, metavar="FORMAT", help="One of the formats below.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="File to write; a directory for formats of one file per recording.",
)
@min_score_option
@label_option
@query_id_option
@click.option("--events", is_flag=True, help="Merge neighbouring detections of one label within a recording.")
@click.option(
    "--archive",
    type=click.Path(path_type=Path),
    help="Directory where the recordings are now: paths in the export start with it.  [default: paths as in the "
    "tables]",
)
def export(
    directory: Path,
    form: str,
    out: Path,
    min_score: float,
    labels: tuple[str, ...],
    query_ids: tuple[str, ...],
    events: bool,
    archive: Path | None,
) -> None:
    """Write the detections in DIRECTORY for other tools.

    Text that a spreadsheet would take for a formula gets a leading apostrophe. Paths begin with the archive's root if
    the tables hold recordings of several. Labels are written in their most
    frequent spelling; --min-score applies to each detection before events are merged.
    """
    module = get_format(form)
    queries = read_analysis(directory).queries
    check_query_ids(query_ids, [*queries, PROBE_QUERY] if probe_files(directory) else queries)
    with interruptible(open_tables(directory, locked=True)) as connection:
        check_labels(connection, labels)
        source = ExportSource(
            connection,
            scientific_queries(queries),
            min_score,
            labels,
            query_ids,
            events,
            archive.absolute().as_posix() if archive else "",
            roots_of_recordings(connection, directory),
        )
        try:
            with readable_errors():
                saved = module.save(source, out)
        except OSError as error:
            raise NaturelmError(f"{out}: cannot be written ({error.strerror}); give another --out") from None
    what = counted(saved.detections, "event" if events else "detection")
    click.echo(f"{what} of {counted(saved.recordings, 'recording')} in {out}")
    for note in saved.notes:
        click.echo(printable(note), err=True)
