"""`naturelm models`: which models there are, what each needs, and whether it is here."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from naturelm.archive.fitting import room_here
from naturelm.cli._options import format_option
from naturelm.errors import NaturelmError
from naturelm.models.presets import PRESETS, ModelSource, family_of, is_here, resolve
from naturelm.models.sizes import Room, choose_weights, sizes_of


@click.command()
@format_option("table", "json")
def models(form: str) -> None:
    """List the models: the files that each needs, with their sizes, its licence, memory, window and kinds of query.

    memory is for weights in bf16 and in int8; weights is what --weights auto means with the memory that is free now.

    Besides these names, --model takes a directory or a hub id of any checkpoint in the published layout.
    """
    sources = [resolve(name) for name in PRESETS]
    if form == "json":
        click.echo(json.dumps([_row(source) for source in sources], indent=2))
        return
    room = room_here()
    table = Table(
        "model",
        "here",
        "window",
        "rate",
        "queries",
        "memory",
        "weights",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for source in sources:
        row = _row(source)
        table.add_row(
            source.name,
            "yes" if row["here"] else "no",
            "" if row["window_s"] is None else f"{row['window_s']:g} s",
            f"{row['sample_rate_hz'] / 1000:g} kHz",
            "\n".join(row["query_kinds"]),
            _memory(row["memory_gb"]),
            _weights(source, room),
        )
    Console().print(table, highlight=False)
    for source in sources:
        click.echo(f"\n{source.name}: {source.access}")
        click.echo(f"  licence: {source.licence}")
        for file in source.files:
            click.echo(f"  {file.part}: {file.name}, {file.gigabytes:g} GB")
    if room.bytes is not None:
        kind = "GPU memory" if room.is_gpu else "memory"
        click.echo(f"\n{kind} that is free here: {room.bytes / 1e9:.1f} GB")


def _row(source: ModelSource) -> dict[str, Any]:
    family, sizes = family_of(source), sizes_of(source)
    return {
        **dataclasses.asdict(source),
        "here": is_here(source),
        "window_s": family.window_s,
        "sample_rate_hz": family.sample_rate_hz,
        "query_kinds": sorted(family.query_kinds),
        "memory_gb": {}
        if sizes is None
        else {kind: round(sizes.bytes_of(kind) / 1e9, 1) for kind in ("bf16", "int8")},
    }


def _memory(needed: dict[str, float]) -> str:
    if len(set(needed.values())) == 1:
        return f"{needed['bf16']} GB"
    return "\n".join(f"{kind} {gigabytes} GB" for kind, gigabytes in needed.items())


def _weights(source: ModelSource, room: Room) -> str:
    """What `--weights auto` means here."""
    try:
        chosen = choose_weights(source, "auto", "auto", room)
    except NaturelmError:
        return "none fit"
    return ("bf16" if room.is_gpu else "float32") if chosen == "auto" else chosen
