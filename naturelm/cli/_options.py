"""Options that mean the same in every verb, and help with sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from naturelm.cli._types import LOCATION, SCORE

Command = TypeVar("Command", bound=Callable[..., Any])

QUERY_FORMATS = ("table", "csv", "json", "parquet")

directory_argument = click.argument("directory", type=LOCATION)
"""The directory of tables that `naturelm process` wrote, on a disk or in an object store."""

out_file_option = click.option(
    "--out", type=click.Path(path_type=Path), help="Write to this file instead of standard output."
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace what --out names, if it already exists."
)
excel_option = click.option(
    "--excel",
    is_flag=True,
    help="With --format csv: write it for spreadsheets, with a byte-order mark and without formulas.",
)
min_score_option = click.option(
    "--min-score", type=SCORE, default=0.0, show_default=True, help="Leave out detections with lower scores."
)
label_option = click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="LABEL",
    help="Only detections of this label, in any spelling; may be repeated.  [default: all labels]",
)
query_id_option = click.option(
    "--query-id",
    "query_ids",
    multiple=True,
    metavar="ID",
    help="Only answers to this query; may be repeated.  [default: all queries]",
)
archive_option = click.option(
    "--archive",
    type=click.Path(path_type=Path),
    help="Directory where the recordings are now.  [default: where the runs read them]",
)
model_option = click.option(
    "--model",
    metavar="NAME",
    help="Bundled model, checkpoint directory or hub id.  [default: pocket]",
)
llm_option = click.option(
    "--llm",
    metavar="NAME",
    help="Base LLM: a directory or hub id.  [default: the one that the checkpoint names]",
)
part_option = click.option(
    "--part",
    "parts",
    multiple=True,
    metavar="NAME=PATH",
    help="Part of the model in a file or directory of its own, such as beats=FILE; may be repeated.  "
    "[default: what the checkpoint names]",
)
merging_alpha_option = click.option(
    "--merging-alpha", type=float, metavar="ALPHA", help="Weight of the LoRA adapters, 0 to 1.  [default: 1]"
)
weights_option = click.option(
    "--weights",
    type=click.Choice(["auto", "bf16", "fp8", "int8"]),
    help="How to store the language model's matrices; auto: as in the checkpoint, and as --model's device suits.  "
    "[default: auto]",
)
window_option = click.option("--window", type=float, metavar="SECONDS", help="Window length.  [default: 10]")
hop_option = click.option(
    "--hop",
    type=float,
    metavar="SECONDS",
    help="Seconds between window starts.  [default: the window length]",
)
config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="Settings in YAML, as in configs/archive.yaml."
)
address_option = click.option(
    "--address", metavar="RAY", help="Ray cluster to join.  [default: start Ray on this machine]"
)


def format_option(*formats: str) -> Callable[[Command], Command]:
    """`--format` with these choices; the first is the default."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="Format of the output.",
    )


class SectionedCommand(click.Command):
    """A command whose help groups its options under headings.

    Parameters
    ----------
    sections : mapping of str to sequence of str
        Heading to parameter names. Options that no section names come last, under "Other options".
    """

    def __init__(self, *arguments: Any, sections: Mapping[str, Sequence[str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = {
            param.name: record
            for param in self.get_params(ctx)
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None
        }
        for heading, names in self.sections.items():
            if not names:
                continue
            with formatter.section(heading):
                formatter.write_dl([records.pop(name) for name in names])
        if records:
            with formatter.section("Other options"):
                formatter.write_dl(list(records.values()))
