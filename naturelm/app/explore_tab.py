"""The *Explore* tab: filter detections, look, listen, decide."""

from __future__ import annotations

import datetime as dt
from functools import partial
from typing import Any

import gradio as gr

from naturelm.app.explore import MAX_ROWS, ORDERS, Filters, Results
from naturelm.errors import NaturelmError
from naturelm.tables.player import templates
from naturelm.tables.reviews import Decision
from naturelm.text import one_line

_HEADERS = ["#", "Station", "Local time", "Label", "Score", "Review"]
_WIDTHS = ["7%", "15%", "28%", "22%", "10%", "18%"]
_NONE_FOUND = "No detection fits these filters."

Row = dict[str, Any]


def build_explore_tab(results: Results, page: gr.Blocks) -> None:
    """Add the tab's components and events to the page being built."""
    choices = results.choices()
    stations = [(one_line(name, 60) or "unknown", name) for name in choices.stations]
    labels = [(one_line(name, 60), name) for name in choices.labels]
    with gr.Row():
        station = gr.Dropdown(stations, multiselect=True, label="Station", elem_id="station")
        label = gr.Dropdown(labels, multiselect=True, label="Label", elem_id="label")
        first_date = gr.Textbox(
            label="From date",
            placeholder=f"{choices.first_date or 'YYYY-MM-DD'}",
            min_width=110,
            elem_id="from",
        )
        last_date = gr.Textbox(
            label="To date", placeholder=f"{choices.last_date or 'YYYY-MM-DD'}", min_width=110, elem_id="to"
        )
        order = gr.Dropdown(
            list(ORDERS), value=next(iter(ORDERS)), label="List", min_width=150, elem_id="order"
        )
    with gr.Row():
        first_hour = gr.Slider(0, 23, 0, step=1, label="From hour", min_width=120, elem_id="from-hour")
        last_hour = gr.Slider(0, 23, 23, step=1, label="To hour", min_width=120)
        min_score = gr.Slider(
            0.0, 1.0, 0.0, step=0.01, label="Lowest score", min_width=120, elem_id="min-score"
        )
        max_score = gr.Slider(0.0, 1.0, 1.0, step=0.01, label="Highest score", min_width=120)
        unreviewed = gr.Checkbox(label="Not yet reviewed", min_width=120, elem_id="unreviewed")
    filters = [
        station, label, first_date, last_date, first_hour, last_hour, min_score, max_score, unreviewed, order,
    ]  # fmt: skip
    with gr.Row():
        count = gr.HTML(elem_id="count", scale=8)
        refresh = gr.Button("Refresh", size="sm", min_width=90, scale=0)
    rows = gr.State([])
    current = gr.State(None)
    with gr.Row():
        with gr.Column(scale=3, min_width=420):
            table = gr.Dataframe(
                headers=_HEADERS,
                datatype=["number", *["str"] * 5],
                type="array",
                interactive=False,
                max_height=560,
                column_widths=_WIDTHS,
                buttons=[],
                elem_id="detections",
                label="Detections",
            )
        with gr.Column(scale=2, min_width=360):
            detail = gr.HTML(elem_id="detail")
            with gr.Row():
                agree = gr.Button("✓ Agree", variant="primary", min_width=90, elem_id="agree")
                disagree = gr.Button("✗ Disagree", variant="stop", min_width=90, elem_id="disagree")
                skip = gr.Button("Next", min_width=70, elem_id="next")
            with gr.Row():
                new_label = gr.Dropdown(
                    labels, value=None, allow_custom_value=True, label="It is something else:", min_width=160,
                    elem_id="new-label",
                )  # fmt: skip
                reviewer = gr.Textbox(label="Your name", min_width=120, elem_id="reviewer")
            relabel = gr.Button("Relabel", size="sm", elem_id="relabel")
    precision = gr.HTML(elem_id="precision")

    found = [rows, current, table, count, detail, precision]
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    changed = [
        *(dropdown.change for dropdown in (station, label, order)),
        *(slider.release for slider in (first_hour, last_hour, min_score, max_score)),
        *(box.submit for box in (first_date, last_date)),
        *(box.blur for box in (first_date, last_date)),
        unreviewed.input,
        page.load,
    ]
    gr.on(changed, partial(_search, results), filters, found, trigger_mode="always_last", **private)
    refresh.click(results.refresh, **private).then(partial(_search, results), filters, found, **private)

    # Not a partial: Gradio finds out by the annotation that the event is wanted.
    def clicked(rows: list[Row], event: gr.SelectData) -> tuple[Any, ...]:
        # The row's own number: a visitor may have sorted the table.
        return show(results, rows, int(event.row_value[0]) - 1)

    table.select(clicked, rows, [current, detail], **private)
    skip.click(partial(step, results), [rows, current], [current, detail], **private)
    decided = [rows, current, table, count, detail, precision, new_label]
    buttons: dict[Decision, gr.Button] = {"agree": agree, "disagree": disagree, "relabel": relabel}
    for decision, button in buttons.items():
        button.click(
            partial(decide, results, decision), [rows, current, reviewer, new_label], decided, **private
        )


def _search(results: Results, *values: Any) -> tuple[Any, ...]:
    """List what fits the filters and show the first of it."""
    try:
        filters = read_filters(*values)
        found = results.search(filters)
    except NaturelmError as error:
        return [], None, [], _note(str(error), "error"), _detail(results, None), _precision(results)
    count = f"{found.total:,} detections"
    if found.total > MAX_ROWS:
        count += f"; the first {MAX_ROWS} are listed: narrow the filters to see others"
    current, detail = show(results, found.rows, 0)
    return found.rows, current, _table(found.rows), _note(count), detail, _precision(results)


def read_filters(
    stations: list[str],
    labels: list[str],
    first_date: str,
    last_date: str,
    first_hour: float,
    last_hour: float,
    min_score: float,
    max_score: float,
    unreviewed: bool,
    order: str,
) -> Filters:
    """What the filter row says.

    Raises
    ------
    NaturelmError
        A date cannot be read.
    """
    return Filters(
        stations=tuple(stations or ()),
        labels=tuple(labels or ()),
        first_date=_date(first_date),
        last_date=_date(last_date),
        first_hour=int(first_hour),
        last_hour=int(last_hour),
        min_score=min_score,
        max_score=max_score,
        unreviewed=unreviewed,
        order=order,
    )


def show(results: Results, rows: list[Row], index: int) -> tuple[Any, ...]:
    """Show a detection of the list, or the nearest there is."""
    if not rows:
        return None, _detail(results, None)
    index = min(max(index, 0), len(rows) - 1)
    return index, _detail(results, rows[index], f"{index + 1} of {len(rows)}")


def step(results: Results, rows: list[Row], current: int | None) -> tuple[Any, ...]:
    """Show the next detection; after the last one, the last."""
    return show(results, rows, 0 if current is None else current + 1)


def decide(
    results: Results,
    decision: Decision,
    rows: list[Row],
    current: int | None,
    reviewer: str,
    new_label: str | None,
) -> tuple[Any, ...]:
    """Keep a decision about the detection that is shown, and show the next one."""
    unchanged = (rows, current, gr.skip())
    if current is None or not current < len(rows):
        return *unchanged, _note("No detection is chosen.", "error"), gr.skip(), gr.skip(), gr.skip()
    row = rows[current]
    new_label = new_label if decision == "relabel" else None
    try:
        # What comes through the interface for programs may be anything.
        if not all(isinstance(text, str) for text in (reviewer or "", new_label or "")):
            raise NaturelmError("a label and a name are text")
        if decision == "relabel" and not (new_label and new_label.strip()):
            raise NaturelmError("choose or type what it is, then click Relabel")
        results.review(row, decision, reviewer or "", new_label)
    except NaturelmError as error:
        return *unchanged, _note(str(error), "error"), gr.skip(), gr.skip(), gr.skip()
    row |= {"decision": decision, "new_label": new_label}
    following, detail = show(results, rows, current + 1)
    note = _note(f"Number {current + 1}, {one_line(row['label'], 60)}: {_review(row)}.")
    return rows, following, _table(rows), note, detail, _precision(results), None


def _date(text: str | None) -> dt.date | None:
    text = (text or "").strip()
    try:
        return dt.date.fromisoformat(text) if text else None
    except ValueError:
        raise NaturelmError(f"date is {one_line(text, 30)!r}; write it as 2026-05-14") from None


def _table(rows: list[Row]) -> list[list[Any]]:
    return [
        [
            number,
            one_line(row["station"] or "unknown", 40),
            row["start_local"].strftime("%Y-%m-%d %H:%M:%S") if row["start_local"] else "unknown",
            one_line(row["label"], 80),
            "unknown" if row["score"] is None else f"{row['score']:.2f}",
            _review(row),
        ]
        for number, row in enumerate(rows, 1)
    ]


def _review(row: Row) -> str:
    if row["decision"] == "relabel":
        return f"is {one_line(row['new_label'], 40)}"
    return {"agree": "✓ agreed", "disagree": "✗ disagreed"}.get(row["decision"], "")


def _detail(results: Results, row: Row | None, number: str = "") -> str:
    player, absent = None, _NONE_FOUND
    if row is not None:
        absent = "The original recording was not found; say where it lies with --archive."
        try:
            player = results.player(row)
        except NaturelmError as error:
            absent = one_line(str(error), 300)
    texts = {} if row is None else {
        "number": number,
        "name": one_line(row["label"], 80),
        "path": one_line(row["path"], 160),
        "text": one_line(row["text"], 300),
        "review": _review(row),
    }  # fmt: skip
    return (
        templates().get_template("detection.html.j2").render(row=row, player=player, absent=absent, **texts)
    )


def _precision(results: Results) -> str:
    return templates().get_template("precision.html.j2").render(precisions=results.precisions())


def _note(text: str, kind: str = "note") -> str:
    return templates().get_template("note.html.j2").render(text=text, kind=kind)
