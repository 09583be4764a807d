"""`naturelm models`: which models there are, what each needs, and whether it is here."""

from __future__ import annotations

import dataclasses
import json

import click
from rich.console import Console
from rich.table import Table

from naturelm.archive.fitting import room_here
from naturelm.cli._options import format_option
from naturelm.errors import NaturelmError
from naturelm.models.presets import PRESETS, ModelSource, is_here, resolve
from naturelm.models.sizes import Room, choose_weights, sizes_of


@click.command()
@format_option("table", "json")
def models(form: str) -> None:
    """List the models, what each needs (memory, licence, access) and whether it is on this machine.

    weights is what --weights auto means with the memory that is free now.

    Besides these names, --model takes a directory or a hub id of any checkpoint in the published layout.
    """
    sources = [resolve(name) for name in PRESETS]
    if form == "json":
        rows = [{**dataclasses.asdict(source), "here": is_here(source)} for source in sources]
        click.echo(json.dumps(rows, indent=2))
        return
    room = room_here()
    table = Table("model", "here", "memory", "weights", box=None)
    for column in ("licence", "access"):
        table.add_column(column, overflow="fold")
    for source in sources:
        table.add_row(
            source.name,
            "yes" if is_here(source) else "no",
            _memory(source),
            _weights(source, room),
            source.licence,
            source.access,
        )
    Console().print(table, highlight=False)
    if room.bytes is not None:
        click.echo(
            f"{'GPU memory' if room.is_gpu else 'memory'} that is free here: {room.bytes / 1e9:.1f} GB"
        )


def _memory(source: ModelSource) -> str:
    sizes = sizes_of(source)
    if sizes is None:
        return ""
    needs = {kind: f"{sizes.bytes_of(kind) / 1e9:.1f}" for kind in ("bf16", "int8")}
    if len(set(needs.values())) == 1:
        return f"{needs['bf16']} GB"
    return "\n".join(f"{kind} {gigabytes} GB" for kind, gigabytes in needs.items())


def _weights(source: ModelSource, room: Room) -> str:
    """What `--weights auto` means here."""
    try:
        chosen = choose_weights(source, "auto", "auto", room)
    except NaturelmError:
        return "none fit"
    return ("bf16" if room.is_gpu else "float32") if chosen == "auto" else chosen
