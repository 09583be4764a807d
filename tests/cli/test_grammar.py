"""The same option means the same in every verb, and an error names what the user typed."""

from __future__ import annotations

import re
from collections import defaultdict

import click
import pytest
from click.testing import CliRunner

from naturelm.cli import VERBS, main
from naturelm.tables.query import open_tables
from tests.archive.stub_runs import process, record, settings

# Formats of `export` are those of other programs.
_OWN_FORMATS = {"export"}
_ARCHIVE_VERBS = ("process", "plan", "infer")


def commands() -> dict[str, click.Command]:
    """Every command by its words, sub-commands included."""
    context = click.Context(main, **main.context_settings)
    found = {}
    for verb in VERBS:
        command = main.get_command(context, verb)
        assert command is not None
        if isinstance(command, click.Group):
            found |= {f"{verb} {name}": sub for name, sub in command.commands.items()}
        else:
            found[verb] = command
    return found


def options() -> list[tuple[str, click.Option]]:
    return [
        (words, param)
        for words, command in commands().items()
        for param in command.params
        if isinstance(param, click.Option)
    ]


def test_old_spellings_are_gone():
    old = {"--output", "-o", "--output-path", "--window-length-seconds", "--hop-length-seconds"}
    assert len(options()) > 100
    for words, option in options():
        assert not old & set(option.opts), words


def test_every_option_has_help_that_is_a_sentence():
    for words, option in options():
        text = option.help or ""
        assert text.split("  [")[0].endswith("."), f"{words} {option.opts}: {text!r}"


def test_format_offers_the_same_formats_in_the_same_order():
    known = ["table", "csv", "json", "parquet"]
    verbs = [(words, option) for words, option in options() if "--format" in option.opts]
    assert {"query", "events", "summary", "status", "models"} <= {words for words, _ in verbs}
    for words, option in verbs:
        if words not in _OWN_FORMATS:
            assert isinstance(option.type, click.Choice)
            assert list(option.type.choices) == [name for name in known if name in option.type.choices], words


def test_json_is_progress_for_machines_and_nothing_else():
    assert {words for words, option in options() if "--json" in option.opts} == {"process", "embed"}


@pytest.mark.parametrize(
    "flag", ["--label", "--query-id", "--min-score", "--model", "--llm", "--hop", "--address"]
)
def test_shared_options_have_one_help_text(flag):
    texts = defaultdict(set)
    for words, option in options():
        # A probe is trained for one label and writes rows: it does not choose among those that are there.
        if flag in option.opts and not words.startswith(("bench", "probe")):
            texts[option.help].add(words)
    assert texts
    assert len(texts) == 1, dict(texts)


def test_scores_are_finite_numbers_from_0_to_1():
    for verb in ("events", "summary", "export", "clips"):
        for value in ("nan", "inf", "-0.1", "1.1"):
            done = CliRunner().invoke(main, [verb, "nowhere", "--min-score", value])
            assert done.exit_code == 2
            assert "--min-score" in done.output, (verb, value, done.output)


@pytest.mark.parametrize("verb", _ARCHIVE_VERBS)
@pytest.mark.parametrize(
    ("options_given", "named"),
    [
        (["--window", "0"], "--window"),
        (["--window", "nan"], "--window"),
        (["--window", "5", "--hop", "9"], "--hop"),
        (["--merging-alpha", "2"], "--merging-alpha"),
        (["--hop", "inf"], "--hop"),
    ],
)
def test_error_names_the_option_that_was_typed(verb, options_given, named, tmp_path):
    arguments = [
        str(tmp_path),
        *(["--query", "Which species?"] if verb == "infer" else ["--out", str(tmp_path / "o")]),
    ]
    done = CliRunner().invoke(main, [verb, *arguments, *options_given])
    assert done.exit_code == 2
    error = done.output.splitlines()[-1]
    assert named in error
    assert "settings:" not in error


def test_error_names_the_file_where_the_file_is_wrong(tmp_path):
    config = tmp_path / "night.yaml"
    config.write_text("windows: {hop_s: 99}\n")
    done = CliRunner().invoke(
        main, ["process", str(tmp_path), "--out", str(tmp_path / "o"), "--config", str(config)]
    )
    assert done.exit_code == 2
    assert str(config) in done.output


def test_help_of_process_groups_all_options_under_headings():
    text = CliRunner().invoke(main, ["process", "--help"]).output
    for heading in ("Input and output:", "Model and queries:", "Selection:", "Compute:", "Reporting:"):
        assert f"\n{heading}\n" in text
    assert text.split("Other options:")[1].split() == [
        "-h,",
        "--help",
        "Show",
        "this",
        "message",
        "and",
        "exit.",
    ]


def test_help_of_query_names_every_table(tmp_path):
    record(tmp_path / "archive/A/20240501_040000.wav", 1, seconds=12)
    process(tmp_path / "archive", tmp_path / "out", settings())
    tables = open_tables(tmp_path / "out").execute("SELECT view_name FROM duckdb_views() WHERE NOT internal")
    names = {name for (name,) in tables.fetchall()}
    assert {"recordings", "detections", "decisions"} <= names
    words = re.findall(r"\w+", CliRunner().invoke(main, ["query", "--help"]).output)
    assert names <= set(words)
