"""`naturelm embed`: vectors of an archive's windows, by the encoder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from naturelm.cli._options import SectionedCommand
from naturelm.cli._settings import SECTIONS, archive_config, encoder_options
from naturelm.cli._types import LOCATION
from naturelm.cli.process import job_options, run
from naturelm.config.archive import Pooling
from naturelm.storage import Location


@click.command(
    cls=SectionedCommand,
    sections={
        **SECTIONS,
        "Model and queries": [],
        "Encoder": ["model", "window", "hop", "gate", "pooling"],
        "Selection": [*SECTIONS["Selection"], "retry_failed", "prune"],
        "Compute": [*SECTIONS["Compute"], "until", "yes"],
        "Reporting": ["log_file", "as_json"],
    },
)
@click.argument("paths", nargs=-1, required=True, type=LOCATION, metavar="PATH...")
@click.option("--out", required=True, type=LOCATION, help="Directory for the tables, or s3:// or gs:// URL.")
@encoder_options
@click.option(
    "--pooling",
    type=click.Choice(get_args(Pooling)),
    help="How the encoder's output over a window becomes one vector.  [default: mean]",
)
@job_options
def embed(
    paths: tuple[Location, ...],
    out: Location,
    prune: bool,
    retry_failed: bool,
    yes: bool,
    until: str | None,
    log_file: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Run a model's encoder alone over an archive and write one vector for each window to Parquet.

    The language model is neither loaded nor fetched. --out may already hold the answers of naturelm process: then
    windows must be cut as they were. What --out already contains is not processed again.
    """
    settings = archive_config(**given)
    if settings.embeddings.pooling is None:
        settings = archive_config(**(given | {"pooling": "mean"}))
    run(paths, out, settings, prune, retry_failed, yes, until, log_file, as_json, embed_only=True)
