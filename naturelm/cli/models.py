"""`naturelm models`: which models there are, what each needs, and whether it is here."""

from __future__ import annotations

import dataclasses
import json

import click
from rich.console import Console
from rich.table import Table

from naturelm.cli._options import format_option
from naturelm.models.presets import PRESETS, is_here, resolve


@click.command()
@format_option("table", "json")
def models(form: str) -> None:
    """List the models, what each needs (memory, licence, access) and whether it is on this machine.

    Besides these names, --model takes a directory or a hub id of any checkpoint in the published layout.
    """
    sources = [resolve(name) for name in PRESETS]
    if form == "json":
        rows = [{**dataclasses.asdict(source), "here": is_here(source)} for source in sources]
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("model", "here", "memory", box=None)
    for column in ("licence", "access"):
        table.add_column(column, overflow="fold")
    for source in sources:
        memory = f"{source.memory_gb_bf16:g} GB" if source.memory_gb_bf16 else ""
        table.add_row(source.name, "yes" if is_here(source) else "no", memory, source.licence, source.access)
    Console().print(table, highlight=False)
