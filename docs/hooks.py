"""Reference pages made from the program itself while the site is built, so that they are never stale.

mkdocs calls `on_files`; tests call `pages`. Nothing that is made here is committed.
"""

from __future__ import annotations

import ast
import html
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import yaml
from pydantic import BaseModel

import naturelm
from docs import import_graph
from naturelm.cli import main
from naturelm.cli._options import SectionedCommand
from naturelm.config.archive import ArchiveConfig
from naturelm.results.layout import ANALYSIS
from naturelm.results.schemas import SCHEMA_VERSION, TABLES, VECTOR_TABLES
from naturelm.tables.query import open_tables
from naturelm.training.settings import TrainConfig

REPO = Path(__file__).resolve().parents[1]
LAYOUT = "contributing/layout.md"
COLUMNS = REPO / "docs/reference/columns.yaml"
# Of the Python interface, what guides use beside the names of the package itself.
MORE_PYTHON = (
    "naturelm.infer.WindowAnswer",
    "naturelm.models.answer.Answer",
    "naturelm.tables.export.get_format",
    "naturelm.tables.reviews.Review",
)


def pages() -> dict[str, str]:
    """The generated pages, by their place below docs/."""
    return {
        "reference/cli.md": cli_page(),
        "reference/settings.md": settings_page(
            ArchiveConfig,
            "Settings of an archive run",
            "`naturelm process --config FILE` and `naturelm plan --config FILE` read these settings from YAML. "
            "`configs/archive.yaml` shows all of them with their defaults. A command-line option overrides the "
            "file, and the file overrides the defaults. The settings that a run used are stored beside its tables, "
            "in `analysis.yaml`.",
        ),
        "reference/training-settings.md": settings_page(
            TrainConfig,
            "Settings of a training run",
            "`naturelm train FILE` reads these settings from YAML. `configs/train/` holds the published "
            "two stages and those of the bundled model; [the guide](../guides/training.md) explains them.",
        ),
        "reference/tables.md": tables_page(),
        "reference/python.md": python_page(),
        "reference/pocket.md": (REPO / "naturelm/models/bundled/pocket/README.md").read_text(
            encoding="utf-8"
        ),
        "contributing/index.md": contributing_page(),
    }


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the site."""
    from mkdocs.structure.files import File

    for place, content in pages().items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill the page on the layout."""
    return layout_page(markdown) if page.file.src_uri == LAYOUT else markdown


# --- command line


def commands() -> Iterator[tuple[click.Context, click.Command]]:
    """Every command and group, as its help orders them."""
    yield from _commands(click.Context(main, info_name="naturelm", **main.context_settings), main)


def _commands(
    context: click.Context, command: click.Command
) -> Iterator[tuple[click.Context, click.Command]]:
    yield context, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            if not inner.hidden:
                yield from _commands(click.Context(inner, info_name=name, parent=context), inner)


def cli_page() -> str:
    """All commands with their options, from the definitions behind `--help`."""
    parts = [
        "# Command line",
        "Every command prints this help with `--help`. Exit codes are the same everywhere: 0 for success, 2 for "
        "invalid input, 130 after Ctrl-C; [`naturelm process`](../guides/faults.md#exit-codes) has a few more.",
    ]
    for context, command in commands():
        depth = len(context.command_path.split()) + 1
        parts.append(f"{'#' * min(depth, 4)} {context.command_path}")
        usage = command.get_usage(context).removeprefix("Usage: ")
        parts.append(
            "```console\n" + "\n".join(f"$ {line.strip()}" for line in _usage_lines(usage)) + "\n```"
        )
        parts += _paragraphs(command.help or "")
        for heading, parameters in _option_groups(context, command):
            options = [option for parameter in parameters if (option := _option(context, parameter))]
            parts += [f"**{heading}**"] if heading and options else []
            parts += options
        if command.epilog:
            parts += _paragraphs(command.epilog)
        if isinstance(command, click.Group):
            parts.append(
                "\n".join(
                    f"- [`{name}`](#{f'{context.command_path} {name}'.replace(' ', '-')}): "
                    f"{html.escape(_summary(command, context, name))}"
                    for name in command.list_commands(context)
                )
            )
    return "\n\n".join(parts) + "\n"


def _option_groups(
    context: click.Context, command: click.Command
) -> Iterator[tuple[str, list[click.Parameter]]]:
    """Parameters under the headings of the command's help; without a heading where it has none."""
    rest = {str(parameter.name): parameter for parameter in command.get_params(context)}
    sections = command.sections.items() if isinstance(command, SectionedCommand) else ()
    for heading, names in sections:
        yield heading, [rest.pop(name) for name in names]
    yield "Other options" if sections else "", list(rest.values())


def _usage_lines(usage: str) -> list[str]:
    """A usage on one line, or the several that a command has."""
    lines: list[str] = []
    for line in usage.splitlines():
        if lines and not line.strip().startswith("naturelm"):
            lines[-1] += " " + line.strip()
        else:
            lines.append(line.strip())
    return lines


def _summary(group: click.Group, context: click.Context, name: str) -> str:
    command = group.get_command(context, name)
    assert command is not None
    return command.get_short_help_str(200)


def _paragraphs(text: str) -> list[str]:
    found = []
    for paragraph in re.split(r"\n\s*\n", text.replace("\f", "").strip()):
        if paragraph.startswith("\b"):
            lines = paragraph.removeprefix("\b").strip("\n").splitlines()
            found.append("```text\n" + "\n".join(line.rstrip() for line in lines) + "\n```")
        elif paragraph.startswith("naturelm "):
            found.append(
                "```console\n" + "\n".join(f"$ {line.strip()}" for line in paragraph.splitlines()) + "\n```"
            )
        else:
            found.append(_plain(" ".join(paragraph.split())))
    return found


def _option(context: click.Context, parameter: click.Parameter) -> str | None:
    record = parameter.get_help_record(context)
    # Arguments are in the usage, and the text explains them.
    if record is None or isinstance(parameter, click.Argument):
        return None
    names, text = record
    return f"`{names}`\n:   {_plain(text)}"


def _plain(text: str) -> str:
    """Help text as Markdown: nothing in it is markup but code in backticks."""
    pieces = re.split(r"(`[^`]+`)", text)
    return "".join(
        piece if piece.startswith("`") else re.sub(r"([*_\[\]<])", r"\\\1", piece) for piece in pieces
    )


# --- settings


def settings_page(model: type[BaseModel], title: str, introduction: str) -> str:
    """Every setting of a configuration: name, type, range, default and meaning."""
    schema = model.model_json_schema()
    top: list[str] = []
    sections: list[str] = []
    for name, prefix, owner, properties in _sections(model, schema):
        lines = [
            _setting(owner, f"{prefix}{key}", key, value, schema)
            for key, value in properties.items()
            if not _inner(value, schema)
        ]
        if not name:
            top += lines
            continue
        summary = (owner.__doc__ or "").strip().split("\n\n")[0]
        sections += [f"## {name}", _plain(" ".join(summary.split())), *lines]
    if top:
        sections += ["## At the top level", *top]
    return "\n\n".join([f"# {title}", introduction, *sections]) + "\n"


def settings(model: type[BaseModel]) -> list[str]:
    """Names of all settings of a configuration, dotted."""
    schema = model.model_json_schema()
    return [
        f"{prefix}{key}"
        for _, prefix, _, properties in _sections(model, schema)
        for key, value in properties.items()
        if not _inner(value, schema)
    ]


Sections = Iterator[tuple[str, str, type[BaseModel], dict[str, Any]]]


def _sections(model: type[BaseModel], schema: dict[str, Any], name: str = "", prefix: str = "") -> Sections:
    """Heading, prefix, class and properties of a model and of those within it."""
    definition = schema if not name else schema["$defs"][model.__name__]
    yield name, prefix, model, definition["properties"]
    for key, field in model.model_fields.items():
        inner = _inner(definition["properties"][key], schema)
        if inner:
            brackets = "[]" if definition["properties"][key].get("type") == "array" else ""
            owner = _class(field.annotation, inner)
            yield from _sections(owner, schema, f"{prefix}{key}{brackets}", f"{prefix}{key}{brackets}.")


def _inner(value: dict[str, Any], schema: dict[str, Any]) -> str | None:
    """The model that a property holds, alone or in a list."""
    for place in (value, value.get("items", {}), *value.get("anyOf", [])):
        if "$ref" in place:
            return str(place["$ref"]).rpartition("/")[2]
    return None


def _class(annotation: Any, name: str) -> type[BaseModel]:
    if isinstance(annotation, type) and annotation.__name__ == name:
        return annotation
    return next(found for part in get_args(annotation) if (found := _class(part, name)))


def _setting(
    owner: type[BaseModel], dotted: str, key: str, value: dict[str, Any], schema: dict[str, Any]
) -> str:
    required = key in owner.model_json_schema().get("required", [])
    default = "required" if required else f"default `{json.dumps(value.get('default'), ensure_ascii=False)}`"
    meaning = attributes(owner)[key]
    return f"`{dotted}`\n:   {_kind(value)}; {default}. {meaning}"


def _kind(value: dict[str, Any]) -> str:
    """A property's type and range in words."""
    if "anyOf" in value:
        return " or ".join(_kind(part) for part in value["anyOf"])
    if "enum" in value:
        return "one of " + ", ".join(f"`{choice}`" for choice in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if value["type"] == "array":
        items = value.get("prefixItems")
        if items:
            return f"list of {len(items)} ({_kind(items[0])} each)"
        return f"list ({_kind(value['items'])} each)"
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "`true` or `false`",
        "object": "settings",
        "null": "`null`",
    }[value["type"]]
    limits = (
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
    )
    ranges = [f"{word} {value[limit]:g}" for limit, word in limits if limit in value]
    if "pattern" in value:
        ranges.append(f"matching `{value['pattern']}`")
    return words + (f" ({', '.join(ranges)})" if ranges else "")


def attributes(owner: type) -> dict[str, str]:
    """Descriptions of a class's attributes, from the section of that name in its docstring (NumPy form)."""
    text = owner.__doc__ or ""
    _, _, listed = text.partition("Attributes\n    ----------\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in listed.splitlines():
        if re.match(r"    \S", line):
            names = [name.strip() for name in line.partition(":")[0].split(",")]
            found.update(dict.fromkeys(names, ""))
        else:
            for name in names:
                found[name] = f"{found[name]} {line.strip()}".strip()
    return found


# --- tables


def views() -> dict[str, list[tuple[str, str]]]:
    """Names and SQL types of the columns of every table that a query sees."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / ANALYSIS).write_text(f"schema_version: {SCHEMA_VERSION}\nanalysis: {{}}\n")
        connection = open_tables(directory)
        found = {}
        for name in described()["tables"]:
            relation = connection.sql(f"FROM {name}")
            found[name] = list(zip(relation.columns, map(str, relation.types), strict=True))
        connection.close()
    return found


def described() -> dict[str, Any]:
    """What `columns.yaml` says of tables and columns."""
    return dict(yaml.safe_load(COLUMNS.read_text(encoding="utf-8")))


def description(table: str, column: str) -> tuple[str, str]:
    """Unit and meaning of a column; what holds for one table alone comes before what holds for all."""
    texts = described()
    found = texts["columns_of"].get(table, {}).get(column) or texts["columns"][column]
    return str(found.get("unit", "")), str(found["means"])


def tables_page() -> str:
    """Tables and columns, with types, units and meanings."""
    texts = described()
    types = {
        "VARCHAR": "text",
        "DOUBLE": "number",
        "INTEGER": "whole number",
        "BIGINT": "whole number",
        "BOOLEAN": "true or false",
        "DATE": "date",
        "FLOAT[]": "list of numbers",
        "TIMESTAMP": "time without zone",
        "TIMESTAMP WITH TIME ZONE": "time in UTC",
    }
    parts = ["# Tables and columns", texts["introduction"].strip()]
    for table, columns in views().items():
        kind = (
            "stored as Parquet"
            if table in (*TABLES, *VECTOR_TABLES, "reviews")
            else "computed when it is queried"
        )
        parts += [f"## {table}", f"{texts['tables'][table]} This table is {kind}."]
        for column, sql_type in columns:
            unit, means = description(table, column)
            kind = f"{types[sql_type]}, {unit}" if unit else types[sql_type]
            parts.append(f"`{column}` ({kind})\n:   {means}")
    return "\n\n".join(parts) + "\n"


# --- Python, contributing


def python_page() -> str:
    """The Python interface, from its docstrings."""
    names = [f"naturelm.{name}" for name in naturelm.__all__ if not name.startswith("_")]
    parts = [
        "# Python",
        "`import naturelm` is quick: PyTorch is imported only when a model is used. Lengths and times are in seconds, "
        "and sound is mono, as floating-point samples in [-1, 1]. Errors that a caller can fix are `NaturelmError`.",
        *(f"::: {name}" for name in [*names, *MORE_PYTHON]),
    ]
    return "\n\n".join(parts) + "\n"


def contributing_page() -> str:
    """CONTRIBUTING.md, whose links start at the top of the repository, as a page two levels below it."""
    text = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.sub(r"\]\(docs/(contributing/)?", lambda link: "](" + ("" if link[1] else "../"), text)


def layout_page(markdown: str) -> str:
    """The page on the layout, with the graph of imports and the table of parts."""
    graph = import_graph.part_imports()
    level = import_graph.levels(graph)
    rows = ["| part | what it is | imports |", "|---|---|---|"]
    for name in sorted(graph, key=lambda name: (level[name], name)):
        imported = ", ".join(f"`{below}`" for below in sorted(import_graph.direct(graph)[name]))
        rows.append(f"| `{name}` | {purpose(name)} | {imported} |")
    for name, content in (("drawing", import_graph.drawing(graph)), ("parts", "\n".join(rows))):
        markdown, replaced = re.subn(rf"<!-- {name}: .*? -->", lambda _, content=content: content, markdown)
        assert replaced == 1, name
    return markdown


def purpose(part: str) -> str:
    """The first sentence of the docstring of a folder or loose module."""
    module = import_graph.PACKAGE / part / "__init__.py"
    source = module if module.exists() else import_graph.PACKAGE / f"{part}.py"
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return _plain(" ".join(text.split("\n\n")[0].split()))
