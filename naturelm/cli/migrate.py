"""`naturelm migrate`: convert an output directory that an older version wrote."""

from __future__ import annotations

import click

from naturelm.cli._options import directory_argument
from naturelm.storage import Location
from naturelm.text import printable


@click.command()
@directory_argument
def migrate(directory: Location) -> None:
    """Convert the tables in DIRECTORY, written by an older version, to the current form.

    DIRECTORY is the --out of naturelm process. Rows keep their ids, times, answers and scores; naturelm process
    continues where it stopped. After an interruption, run the same command again.
    """
    from naturelm.errors import RunStopped
    from naturelm.results.migrate import migrate as convert
    from naturelm.results.schemas import SCHEMA_VERSION

    try:
        done = convert(directory, lambda line: click.echo(printable(line), err=True))
    except RunStopped as stopped:
        raise click.ClickException(str(stopped)) from None
    name = printable(str(directory))
    if done is None:
        click.echo(f"{name}: already has schema version {SCHEMA_VERSION}; nothing to do")
        return
    click.echo(
        f"{name}: converted from schema version {done.version} to {SCHEMA_VERSION}: "
        f"{done.days:,} station-days, {done.segments:,} staged segments"
    )
    for path in done.unknown_files:
        click.echo(f"  {printable(path)}: not a file of naturelm, left where it is")
