"""The *Ask* tab: sounds and a question in, answers by window out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import soundfile

from naturelm.app.ask import MAX_FILES, MAX_SOUND_S, Asker, SoundAnswer, check_question, open_sounds
from naturelm.config.archive import WindowSettings
from naturelm.errors import NaturelmError
from naturelm.recordings.formats import READ_EXTENSIONS
from naturelm.synthetic import sounds as synthesis
from naturelm.tables.player import player_html, templates
from naturelm.text import duration, one_line, position
from naturelm.windows import SAMPLE_RATE_HZ

QUESTIONS = (
    "What are the common names for the species in the audio, if any?",
    "Caption the audio.",
    "What is the common name for the focal species in the audio?",
    "What is the scientific name for the focal species in the audio?",
    "What call types are heard from the focal species in the audio?",
    "What is the life stage of the focal species in the audio?",
    "How many individuals are heard in the audio?",
)
EXAMPLES = ("Frog", "Owl", "Songbird", "Wolf")

MAX_PICTURES = 24
"""Windows that are shown with a spectrogram; the rest are listed."""

_CHAT_LINES = 12


def build_ask_tab(asker: Asker, questions: tuple[str, ...] = QUESTIONS) -> None:
    """Add the tab's components and events to the page being built."""
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            files = gr.File(
                label=f"Sounds: up to {MAX_FILES} files, {duration(MAX_SOUND_S)}",
                file_count="multiple",
                file_types=[f".{extension}" for extension in sorted(READ_EXTENSIONS)],
                height=150,
                elem_id="sounds",
            )
            recorded = gr.Audio(
                sources=["microphone"], type="filepath", label="Or record", elem_id="recorded"
            )
            gr.HTML("<p class='nl-hint'>Or take an example, made by code:</p>")
            with gr.Row():
                for name in EXAMPLES:
                    gr.Button(name, size="sm", min_width=60).click(
                        partial(example_sound, name), outputs=files, api_visibility="private"
                    )
            with gr.Accordion("Settings", open=False):
                alpha = gr.Slider(
                    0.0, 1.0, 1.0, step=0.1, label="Merging α",
                    info="1 names species best; 0.4 to 0.6 follows other instructions better; 0 is the base LLM.",
                )  # fmt: skip
                hop_s = gr.Slider(
                    1.0, WindowSettings().length_s, WindowSettings().hop_s, step=0.5,
                    label="Seconds between window starts",
                )  # fmt: skip
        with gr.Column(scale=3, min_width=380):
            chat = gr.Chatbot(
                label="Conversation",
                height=260,
                render_markdown=False,
                buttons=["copy"],
                elem_id="conversation",
                placeholder="Give a sound, ask, and ask on. Every question is put to the sound anew: the model does "
                "not remember earlier answers.",
            )
            choice = gr.Dropdown(list(questions), value=None, label="Choose a question …", elem_id="choice")
            question = gr.Textbox(
                value=questions[0], label="… or type one", lines=1, max_lines=4, elem_id="question"
            )
            with gr.Row():
                ask_button = gr.Button("Ask", variant="primary", elem_id="ask")
                cancel_button = gr.Button("Cancel", interactive=False, elem_id="cancel")
                clear_button = gr.Button("New conversation")
            status = gr.HTML(elem_id="ask-status")
    pictured = gr.HTML(elem_id="answers")
    listed = gr.HTML(elem_id="more-answers")
    # Kept here: what a browser sends as the conversation might name files.
    history = gr.State([])

    # In the browser: whoever chooses and submits at once must not submit the previous text.
    choice.input(None, choice, question, js="chosen => chosen", api_visibility="private")
    shown = [history, chat, status, pictured, listed, ask_button, cancel_button, clear_button]

    # Gradio's own cancelling leaves the last answers' update to come after it, which disables the button again.
    cancelled: set[str] = set()

    # Not partials: Gradio finds out by the annotation that the request is wanted.
    def run(request: gr.Request, *inputs: Any) -> Iterator[tuple[Any, ...]]:
        session = str(request.session_hash)
        cancelled.discard(session)
        yield from ask(asker, lambda: session in cancelled, *inputs)

    def cancel(request: gr.Request) -> str:
        cancelled.add(str(request.session_hash))
        return _note("Cancelling after the windows in hand …")

    gr.on(
        [ask_button.click, question.submit],
        run,
        [files, recorded, question, alpha, hop_s, history],
        shown,
        concurrency_limit=1,
        concurrency_id="model",
        api_visibility="private",
        show_progress="hidden",
    )
    cancel_button.click(cancel, outputs=status, queue=False, api_visibility="private", show_progress="hidden")
    clear_button.click(lambda: ([], [], "", "", ""), outputs=shown[:-3], api_visibility="private")


def example_sound(name: str) -> list[str]:
    """Write a made-up sound, ten seconds, for the visitor to ask about."""
    random = np.random.default_rng()
    sound = 0.3 * synthesis.SOUNDS[name](random, SAMPLE_RATE_HZ, 10.0)
    sound += 0.005 * synthesis.background(random, SAMPLE_RATE_HZ, 10.0)
    path = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder())) / f"{name}.wav"
    soundfile.write(path, sound, SAMPLE_RATE_HZ)
    return [str(path)]


def ask(
    asker: Asker,
    is_cancelled: Callable[[], bool],
    files: list[str] | None,
    recorded: str | None,
    question: str,
    alpha: float,
    hop_s: float,
    history: list[dict[str, Any]],
) -> Iterator[tuple[Any, ...]]:
    """Answer a question about the visitor's sounds; yields what to show after each batch of windows."""
    found: list[SoundAnswer] = []
    cards: list[dict[str, Any]] = []

    def shown(status: str, busy: bool, more_cards: bool = True) -> tuple[Any, ...]:
        # Cards are large; a browser that draws them anew again and again heeds no click.
        pictured = _render("cards.html.j2", rows=cards) if more_cards else gr.skip()
        listed = _render("listed.html.j2", rows=[_row(answer) for answer in found[len(cards) :]])
        return history, history, status, pictured, listed, *_buttons(busy)

    try:
        paths = [Path(file) for file in [*(files or []), *([recorded] if recorded else [])]]
        sounds = open_sounds(paths, WindowSettings().length_s, hop_s, _name_of(recorded))
        total = sum(len(sound.windows) for sound in sounds)
        history = [*history, {"role": "user", "content": check_question(question)}]
        yield shown(_progress(0, total), busy=True)
        for batch in asker.answer(sounds, question, alpha):
            found += batch
            more_cards = batch[: MAX_PICTURES - len(cards)]
            cards += [_row(answer) | {"player": _player(answer)} for answer in more_cards]
            yield shown(_progress(len(found), total), True, bool(more_cards))
            if is_cancelled():
                break
    except NaturelmError as error:
        yield shown(_note(str(error), "error"), busy=False)
        return
    history = [*history, {"role": "assistant", "content": _summary(found, many=len(sounds) > 1)}]
    ending = "Cancelled. " if len(found) < total and is_cancelled() else ""
    yield shown(_note(f"{ending}Windows answered: {len(found)} of {total}."), False, more_cards=False)


def _name_of(recorded: str | None) -> Callable[[Path], str]:
    return lambda path: "your recording" if recorded and path == Path(recorded) else one_line(path.name, 60)


def _buttons(busy: bool) -> tuple[Any, Any, Any]:
    """Ask, Cancel, New conversation."""
    idle = gr.update(interactive=not busy)
    return idle, gr.update(interactive=busy), idle


def _progress(done: int, total: int) -> str:
    text = (
        f"{done} of {total} windows answered"
        if done
        else "Listening; the model is loaded with the first question"
    )
    return _render("note.html.j2", text=text, kind="progress", done=done, total=total)


def _note(text: str, kind: str = "note") -> str:
    return _render("note.html.j2", text=one_line(text, 400), kind=kind)


def _render(template: str, **values: Any) -> str:
    return templates().get_template(template).render(values)


def _row(answer: SoundAnswer) -> dict[str, Any]:
    return {"place": _place(answer, with_name=True), "text": answer.text, "score": answer.score}


def _player(answer: SoundAnswer) -> str:
    return player_html(answer.samples, SAMPLE_RATE_HZ, answer.window.start_s, _place(answer, with_name=True))


def _summary(found: list[SoundAnswer], many: bool) -> str:
    lines = [
        f"{_place(answer, many)}  {one_line(answer.text, 300) or '(no answer)'}  ({answer.score:.2f})"
        for answer in found[:_CHAT_LINES]
    ]
    if len(found) > _CHAT_LINES:
        lines.append(f"… and {len(found) - _CHAT_LINES} windows more, below")
    return "\n".join(lines) or "There was no sound to ask about."


def _place(answer: SoundAnswer, with_name: bool) -> str:
    span = f"{position(answer.window.start_s)}–{position(answer.window.end_s)}"
    return f"{answer.sound.name} {span}" if with_name else span
