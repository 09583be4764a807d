"""`naturelm status`: what a run is doing, from another terminal or after a crash."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import click

from naturelm.cli._options import directory_argument, format_option
from naturelm.errors import NaturelmError
from naturelm.storage import Location
from naturelm.text import duration, printable

_FAILURES_SHOWN = 20
_FINE = ("ok", "too_short")


@click.command()
@directory_argument
@format_option("table", "json")
def status(directory: Location, form: str) -> None:
    """Report what the newest run into DIRECTORY is doing or did, and what is finished.

    DIRECTORY is the --out of naturelm process. A run whose process died is reported as such.
    """
    from naturelm.archive.status import newest_run
    from naturelm.results.damage import described, find_damage
    from naturelm.tables.query import open_tables

    run = newest_run(directory)
    damaged = find_damage(directory)
    if damaged:
        if form == "json":
            names = [file.name for file in damaged]
            damage = {"state": run.state, "last_sign": run.last_sign.isoformat(), "damaged": names}
            click.echo(json.dumps(damage | {"run": run.record}, ensure_ascii=True))
        else:
            click.echo(f"{printable(str(directory))}: {printable(_sentence(run))}")
        raise NaturelmError(
            f"{directory}: {described(damaged)}; run naturelm process with this --out again, which writes them again"
        )
    connection = open_tables(directory)
    counts = connection.sql(
        "SELECT status, count(*), coalesce(sum(decoded_s), 0) FROM recordings GROUP BY status ORDER BY status"
    ).fetchall()
    failures = connection.sql(
        f"SELECT path, status, error FROM recordings WHERE status NOT IN {_FINE} ORDER BY path"
        + ("" if form == "json" else f" LIMIT {_FAILURES_SHOWN}")
    ).fetchall()
    if form == "json":
        state = {
            "state": run.state,
            "last_sign": run.last_sign.isoformat(),
            "damaged": [],
            "recordings": {name: {"recordings": n, "hours": seconds / 3600} for name, n, seconds in counts},
            "failures": [dict(zip(("path", "status", "error"), row, strict=True)) for row in failures],
            "run": run.record,
        }
        click.echo(json.dumps(state, ensure_ascii=True))
        return
    click.echo(f"{printable(str(directory))}: {printable(_sentence(run))}")
    if run.figures is not None and run.state in ("running", "silent", "died"):
        click.echo(printable(str(run.figures if run.state == "running" else run.figures.without_outlook())))
    if counts:
        done = ", ".join(f"{n:,} {name}" for name, n, _ in counts)
        click.echo(f"recordings: {done}; {duration(sum(seconds for *_, seconds in counts))} of sound")
    for path, name, error in failures:
        click.echo(f"  {printable(path)}: {name} ({printable(error or '')})")
    failed = sum(n for name, n, _ in counts if name not in _FINE)
    if failed > len(failures):
        click.echo(f"  … and {failed - len(failures):,} more")


def _sentence(run: Any) -> str:
    began, last = (f"{moment.astimezone():%Y-%m-%d %H:%M}" for moment in (run.started, run.last_sign))
    where = f"on {run.host} (process {run.pid})"
    resume = "run the same command again to continue"
    age_s = (dt.datetime.now(dt.UTC) - run.last_sign).total_seconds()
    return {
        "running": f"running {where} since {began}; last sign of life {age_s:.0f} s ago",
        "complete": f"complete; ran {where} from {began} to {last}",
        "interrupted": f"interrupted; ran {where} from {began} to {last}; {resume}",
        "died": f"died; ran {where} from {began}, last sign of life {last}; {resume}",
        "silent": f"silent; started {where} at {began}, last sign of life {last}; "
        f"see whether it still runs there, otherwise {resume}",
    }[run.state]
