"""What `naturelm process` and `naturelm plan` can both be told, and the settings that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from naturelm.config.archive import ArchiveConfig, Order
from naturelm.config.loading import load
from naturelm.errors import NaturelmError

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = [
    click.option("--model", help="Bundled model, checkpoint directory or hub id [default: pocket]."),
    click.option("--llm", help="Base LLM, a directory or hub id [default: what the checkpoint names]."),
    click.option("--merging-alpha", type=float, help="LoRA weight, 0 to 1 [default: 1]."),
    click.option(
        "--query",
        "queries",
        multiple=True,
        metavar="ID[:KIND]=TEXT",
        help="Question for every window, in place of the configured ones; may be repeated. "
        "KIND is detection (the default) or caption.",
    ),
    click.option(
        "--config", type=click.Path(path_type=Path), help="Settings in YAML, like configs/archive.yaml."
    ),
    click.option("--window", type=float, metavar="SECONDS", help="Window length [default: 10]."),
    click.option("--hop", type=float, metavar="SECONDS", help="Seconds between window starts [default: 10]."),
    click.option("--batch-size", type=int, metavar="N", help="Windows at once [default: found by itself]."),
    click.option("--channel", type=int, metavar="N", help="Channel, from 0 [default: mean of all]."),
    click.option(
        "--gate",
        type=float,
        metavar="DB",
        help="Skip windows in which nothing rises DB above the background [default: ask about every window].",
    ),
    click.option(
        "--stations-file",
        type=click.Path(path_type=Path),
        help="CSV with places, time zones, deployments and clock drifts of stations.",
    ),
    click.option(
        "--dates", metavar="DATES", help="Only these local dates: 2019-05-20, 2019-05-20..2019-05-22, a list."
    ),
    click.option(
        "--hours",
        metavar="HOURS",
        help="Only these local hours of the day: 04:00-08:00, 22:00-02:00, a list.",
    ),
    click.option("--stations", metavar="NAMES", help="Only these stations, with commas between."),
    click.option(
        "--sample",
        type=float,
        metavar="SHARE",
        help="Only so much of each station's sound in each hour of the day, like 0.1.",
    ),
    click.option(
        "--order",
        type=click.Choice(get_args(Order)),
        help="What is done first; spread: evenly over stations, hours and dates [default: longest-first].",
    ),
    click.option(
        "--workers",
        type=int,
        metavar="N",
        help="Model actors; 0: this process, without Ray [default: one per GPU, or by CPU cores].",
    ),
    click.option(
        "--max-workers",
        type=int,
        metavar="N",
        help="Start model actors up to this number as nodes join the cluster [default: no more than at first].",
    ),
    click.option(
        "--gpus-per-worker",
        type=float,
        metavar="SHARE",
        help="Part of a GPU for each model actor: 0.5 puts two on each [default: 1].",
    ),
    click.option("--address", metavar="RAY", help="Ray cluster to join [default: start one here]."),
]


def archive_options(command: Command) -> Command:
    """Give a command the options that `archive_config` reads."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def archive_config(
    *,
    model: str | None,
    llm: str | None,
    merging_alpha: float | None,
    queries: tuple[str, ...],
    config: Path | None,
    window: float | None,
    hop: float | None,
    batch_size: int | None,
    channel: int | None,
    gate: float | None,
    stations_file: Path | None,
    dates: str | None,
    hours: str | None,
    stations: str | None,
    sample: float | None,
    order: str | None,
    workers: int | None,
    max_workers: int | None,
    gpus_per_worker: float | None,
    address: str | None,
) -> ArchiveConfig:
    """Settings from the options' values: an option wins over the file, the file over the defaults.

    Raises
    ------
    NaturelmError
        The file is missing, or a setting is unknown or out of range.
    """
    overrides: dict[str, Any] = {
        "model": {"name": model, "llm": llm, "merging_alpha": merging_alpha},
        "windows": {"length_s": window, "hop_s": hop},
        "audio": {"channel": channel},
        "gate": {"threshold_db": gate},
        "selection": {
            "dates": dates,
            "hours": hours,
            "stations": None if stations is None else [name.strip() for name in stations.split(",")],
            "sample": sample,
            "order": order,
        },
        "job": {
            "batch_size": batch_size,
            "workers": workers,
            "max_workers": max_workers,
            "gpus_per_worker": gpus_per_worker,
            "address": address,
        },
    }
    if window is not None and hop is None and config is None:
        overrides["windows"]["hop_s"] = window
    if queries:
        overrides["queries"] = [_query(text) for text in queries]
    if stations_file is not None:
        overrides["stations_file"] = str(stations_file.absolute())
    return load(config, overrides)


def _query(text: str) -> dict[str, str]:
    name, _, prompt = text.partition("=")
    name, _, kind = name.strip().partition(":")
    if not name or not prompt.strip():
        raise NaturelmError(
            f"--query {text!r}: not ID=TEXT; give an id and a question, like species='Which species?'"
        )
    return {"id": name, "prompt": prompt.strip(), "kind": kind or "detection"}
