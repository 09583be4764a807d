"""The options that `naturelm process` and `naturelm plan` share, and the settings that follow from them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from naturelm.cli import _options
from naturelm.config.archive import ArchiveConfig, Order
from naturelm.config.loading import load_archive_config
from naturelm.errors import NaturelmError

Command = TypeVar("Command", bound=Callable[..., Any])

SECTIONS = {
    "Input and output": ["out", "config", "name_pattern", "station_from", "stations_file", "channel"],
    "Model and queries": [
        *("model", "llm", "parts", "merging_alpha", "weights", "queries"),
        *("window", "hop", "gate", "embeddings"),
    ],
    "Selection": ["dates", "hours", "include_undated", "stations", "sample", "order"],
    "Compute": ["workers", "max_workers", "gpus_per_worker", "batch_size", "address"],
}
"""How the help of both verbs groups their options."""

# The setting that an option sets, by the option's name.
_SETTINGS = {
    "model": "model.name",
    "llm": "model.llm",
    "merging_alpha": "model.merging_alpha",
    "weights": "model.weights",
    "window": "windows.length_s",
    "hop": "windows.hop_s",
    "name_pattern": "recordings.name_pattern",
    "station_from": "recordings.station",
    "channel": "audio.channel",
    "gate": "gate.threshold_db",
    "embeddings": "embeddings.pooling",
    "pooling": "embeddings.pooling",
    "dates": "selection.dates",
    "hours": "selection.hours",
    "include_undated": "selection.include_undated",
    "stations": "selection.stations",
    "sample": "selection.sample",
    "order": "selection.order",
    "batch_size": "job.batch_size",
    "workers": "job.workers",
    "max_workers": "job.max_workers",
    "gpus_per_worker": "job.gpus_per_worker",
    "address": "job.address",
    "max_new_tokens": "generation.max_new_tokens",
    "num_beams": "generation.num_beams",
}

_QUERY_WITH_ID = re.compile(
    r"(?P<id>[A-Za-z0-9][A-Za-z0-9_-]*)(?::(?P<kind>[a-z-]*))?=(?P<prompt>.*)", re.DOTALL
)

_query_option = click.option(
    "--query",
    "queries",
    multiple=True,
    metavar="[ID[:KIND]=]TEXT",
    help="Prompt for every window, in place of the configured queries; may be repeated. ID names it in the "
    "tables. KIND is detection (the default) or caption.",
)
_embeddings_option = click.option(
    "--embeddings",
    flag_value="mean",
    default=None,
    help="Also keep a vector of the encoder for each window, for search and probe.",
)
_WORDS = (
    _options.llm_option,
    _options.merging_alpha_option,
    _options.weights_option,
    _query_option,
    _embeddings_option,
)

_OPTIONS = [
    _options.model_option,
    _options.llm_option,
    _options.part_option,
    _options.merging_alpha_option,
    _options.weights_option,
    _query_option,
    _options.config_option,
    _options.window_option,
    _options.hop_option,
    click.option(
        "--batch-size", type=int, metavar="N", help="Windows in a batch.  [default: chosen by the engine]"
    ),
    click.option(
        "--channel", type=int, metavar="N", help="Channel to process, from 0.  [default: mean of all]"
    ),
    click.option(
        "--gate",
        type=float,
        metavar="DB",
        help="Skip windows in which nothing rises DB above the background.  [default: process every window]",
    ),
    _embeddings_option,
    click.option(
        "--name-pattern",
        metavar="PATTERN",
        help="What file names contain, such as '{station}_%y%m%d_%H%M%S'.  [default: what known recorders write]",
    ),
    click.option(
        "--station-from",
        metavar="RULE",
        help="Where a recording's station is written: auto, name, folder, folder:N (the N-th directory below PATH; "
        "from the file: -1), or a pattern such as '{station}_*'.  [default: auto]",
    ),
    click.option(
        "--stations-file",
        type=click.Path(path_type=Path),
        help="CSV file with the positions, time zones, deployments and clock drifts of stations.",
    ),
    click.option(
        "--dates",
        metavar="DATES",
        help="Only these local dates: 2019-05-20, 2019-05-20..2019-05-22, or a list of them.",
    ),
    click.option(
        "--hours",
        metavar="HOURS",
        help="Only these local hours of the day: 04:00-08:00, 22:00-02:00, or a list of them.",
    ),
    click.option(
        "--include-undated",
        is_flag=True,
        default=None,
        help="With --dates or --hours: also process recordings without a known start time.",
    ),
    click.option("--stations", metavar="NAMES", help="Only these stations, separated by commas."),
    click.option(
        "--sample",
        type=float,
        metavar="SHARE",
        help="Only this share of each station's sound in each hour of the day, such as 0.1.",
    ),
    click.option(
        "--order",
        type=click.Choice(get_args(Order)),
        help="What to process first; spread: evenly over stations, hours and dates.  [default: longest-first]",
    ),
    click.option(
        "--workers",
        type=int,
        metavar="N",
        help="Model actors on Ray; 0: run in this process, without Ray.  [default: begin in this process, and continue "
        "on Ray, with one per GPU or CPU core, if that ends sooner]",
    ),
    click.option(
        "--max-workers",
        type=int,
        metavar="N",
        help="Start up to N model actors as nodes join the cluster.  [default: the initial number]",
    ),
    click.option(
        "--gpus-per-worker",
        type=float,
        metavar="SHARE",
        help="Share of a GPU for each model actor; 0.5 puts two on each GPU.  [default: 1]",
    ),
    _options.address_option,
]


def archive_options(command: Command) -> Command:
    """Give a command the options that `archive_config` reads."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def encoder_options(command: Command) -> Command:
    """The same, without those that are for queries and the language model."""
    for option in reversed([option for option in _OPTIONS if option not in _WORDS]):
        command = option(command)
    return command


def archive_config(
    *,
    config: Path | None,
    queries: tuple[str, ...] = (),
    parts: tuple[str, ...] = (),
    stations: str | None = None,
    stations_file: Path | None = None,
    **given: Any,
) -> ArchiveConfig:
    """Settings from the options' values: an option overrides the file, the file the defaults.

    Parameters
    ----------
    config, queries, parts, stations, stations_file
        Values of the options of these names.
    **given
        Values of other options, by name; None where an option is not given.

    Raises
    ------
    NaturelmError
        The file is missing, or a setting is unknown or out of range; the sentence names the option that set it.
    """
    if given.get("window") is not None and given.get("hop") is None and config is None:
        given["hop"] = given["window"]
    if stations is not None:
        given["stations"] = [name.strip() for name in stations.split(",")]
    overrides: dict[str, Any] = {}
    flags: dict[str, str] = {}
    for name, value in given.items():
        if value is None:
            continue
        section, _, key = _SETTINGS[name].partition(".")
        overrides.setdefault(section, {})[key] = value
        flags[_SETTINGS[name]] = "--" + name.replace("_", "-")
    if parts:
        overrides.setdefault("model", {})["parts"] = _parts(parts)
        flags["model.parts"] = "--part"
    if queries:
        overrides["queries"] = _queries(queries)
        flags["queries"] = "--query"
    if stations_file is not None:
        overrides["stations_file"] = str(stations_file.absolute())
        flags["stations_file"] = "--stations-file"
    return load_archive_config(config, overrides, flags)


def _parts(texts: tuple[str, ...]) -> dict[str, str]:
    """Parts of the model from `NAME=PATH`."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise NaturelmError(f"--part {text!r}: give the part's name and its place, such as beats=FILE")
        if name in found:
            raise NaturelmError(f"--part {name} appears twice; give it once")
        found[name] = path
    return found


def _queries(texts: tuple[str, ...]) -> list[dict[str, str]]:
    """Queries from `[ID[:KIND]=]TEXT`; those without an id are called query, query2, query3."""
    found = []
    unnamed = 0
    for text in texts:
        match = _QUERY_WITH_ID.fullmatch(text.strip())
        prompt = (match["prompt"] if match else text).strip()
        if not prompt:
            raise NaturelmError(
                f"--query {text!r}: the prompt has no text; give one, such as species='Which species are in the audio?'"
            )
        if match:
            found.append({"id": match["id"], "prompt": prompt, "kind": match["kind"] or "detection"})
        else:
            unnamed += 1
            name = "query" if unnamed == 1 else f"query{unnamed}"
            found.append({"id": name, "prompt": prompt, "kind": "detection"})
    return found
