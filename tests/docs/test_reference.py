"""The reference is complete: every command, option, setting, table, column and public name is in it, with a meaning."""

from __future__ import annotations

import re

import click
import pytest
from pydantic import BaseModel

import naturelm
from docs import hooks
from naturelm.cli import main
from naturelm.config.archive import ArchiveConfig
from naturelm.results.schemas import REVIEWS_SCHEMA, TABLES, VECTOR_TABLES
from naturelm.training.settings import TrainConfig


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return hooks.pages()


def sections(page: str) -> dict[str, str]:
    """Text under each heading, by the heading."""
    parts = re.split(r"^#+ (.*)$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def verbs() -> list[str]:
    return [context.command_path for context, _ in hooks.commands()]


def test_all_verbs_are_walked() -> None:
    assert set(main.list_commands(click.Context(main))) <= {verb.rpartition(" ")[2] for verb in verbs()}
    assert {"naturelm train report", "naturelm bench engine"} <= set(verbs())


@pytest.mark.parametrize(
    ("context", "command"),
    list(hooks.commands()),
    ids=[context.command_path for context, _ in hooks.commands()],
)
def test_command_is_there_with_its_options_and_their_meaning(
    context: click.Context, command: click.Command, pages: dict[str, str]
) -> None:
    section = sections(pages["reference/cli.md"])[context.command_path]
    assert (command.help or "").split()[0] in section
    terms = dict(re.findall(r"^`(-[^`]*)`\n:   (.*)$", section, flags=re.MULTILINE))
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and not parameter.hidden:
            [meaning] = [terms[term] for term in terms if parameter.opts[-1] in re.split(r"[ ,/]+", term)]
            assert len(meaning.split()) >= 2, parameter.opts


def fields(model: type[BaseModel]) -> list[str]:
    """Names of all settings, found in another way than the page finds them: from the classes."""
    found = []
    for key, field in model.model_fields.items():
        inner = [
            part
            for part in (field.annotation, *getattr(field.annotation, "__args__", ()))
            if isinstance(part, type) and issubclass(part, BaseModel)
        ]
        found += [f"{key}.{name}" for name in fields(inner[0])] if inner else [key]
    return found


@pytest.mark.parametrize(
    ("page", "model"),
    [("reference/settings.md", ArchiveConfig), ("reference/training-settings.md", TrainConfig)],
)
def test_every_setting_is_there_with_its_meaning(
    page: str, model: type[BaseModel], pages: dict[str, str]
) -> None:
    listed = re.findall(r"^`([a-z_.\[\]]+)`\n:   (.*)$", pages[page], flags=re.MULTILINE)
    assert sorted(key.replace("[]", "") for key, _ in listed) == sorted(fields(model))
    for key, text in listed:
        meaning = re.split(r"; (?:required|default `.*?`)\. ", text)[-1]
        assert meaning != text, key
        assert len(meaning.split()) >= 2, key


def test_every_table_and_column_is_there_once(pages: dict[str, str]) -> None:
    found = sections(pages["reference/tables.md"])
    for table, schema in {**TABLES, **VECTOR_TABLES, "reviews": REVIEWS_SCHEMA}.items():
        listed = re.findall(r"^`(\w+)` \([^)]+\)\n:   \S", found[table], flags=re.MULTILINE)
        assert len(listed) == len(set(listed)), table
        assert set(schema.names) <= set(listed), table
    assert {"events", "labels"} < set(found)


def test_no_description_is_left_over() -> None:
    views = hooks.views()
    columns = {column for listed in views.values() for column, _ in listed}
    texts = hooks.described()
    assert set(texts["columns"]) <= columns
    for table, own in texts["columns_of"].items():
        assert set(own) <= {column for column, _ in views[table]}, table


def test_every_public_name_is_there(pages: dict[str, str]) -> None:
    for name in naturelm.__all__:
        if not name.startswith("_"):
            assert f"::: naturelm.{name}\n" in pages["reference/python.md"]
