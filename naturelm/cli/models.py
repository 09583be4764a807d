"""`naturelm models`: which models there are, what each needs, and whether it is here."""

from __future__ import annotations

import dataclasses
import json

import click
from rich.console import Console
from rich.table import Table

from naturelm.models.presets import PRESETS, is_here, resolve


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def models(as_json: bool) -> None:
    """List the models, what each needs (memory, licence, access) and whether it is here.

    Besides these names, --model takes a directory or a hub id of any checkpoint in the published layout.
    """
    sources = [resolve(name) for name in PRESETS]
    if as_json:
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
