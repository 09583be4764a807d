"""From the items of a request to their responses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from naturelm.errors import NaturelmError
from naturelm.models.base import LanguageModel
from naturelm.service.batching import Answered, Batcher, QueuedQuestion
from naturelm.service.request_sounds import RequestSound, Sounds
from naturelm.service.schema import RequestItem, ResponseItem, Usage

DEFAULT_NEW_TOKENS = 300
"""Longest answer in tokens where a request does not say: the published default."""

_PLACE = "<AudioHere>"
_SOUND = f"<Audio>{_PLACE}</Audio>"


@dataclass(frozen=True, slots=True)
class _Begun:
    sample_id: str
    began_s: float
    sound: RequestSound
    question: QueuedQuestion
    future: Future[Answered]


class Answering:
    """Answers items of requests, each by itself: one that is at fault does not keep the others from an answer.

    Parameters
    ----------
    model : LanguageModel
    batcher : Batcher
    sounds : Sounds
    """

    def __init__(self, model: LanguageModel, batcher: Batcher, sounds: Sounds) -> None:
        self._model = model
        self._batcher = batcher
        self._sounds = sounds

    def answer(self, items: Sequence[tuple[str, RequestItem | str]]) -> list[ResponseItem]:
        """Answer items as `naturelm.service.schema.read_items` returns them, in their order."""
        begun = [self._begin(sample_id, item) for sample_id, item in items]
        return [part if isinstance(part, ResponseItem) else self._finish(part) for part in begun]

    def _begin(self, sample_id: str, item: RequestItem | str) -> _Begun | ResponseItem:
        began_s = time.monotonic()
        if isinstance(item, str):
            return ResponseItem(sample_id=sample_id, error=item)
        try:
            question = self._question(item)
            settings = item.generation_config
            longest_s = min(self._model.window_s, settings.max_length_seconds or self._model.window_s)
            sound = self._sounds.read(item.audio_inputs[0], longest_s)
        except NaturelmError as error:
            return ResponseItem(sample_id=sample_id, error=str(error))
        return _Begun(sample_id, began_s, sound, question, self._batcher.submit(question, sound.samples))

    def _finish(self, part: _Begun) -> ResponseItem:
        try:
            answered = part.future.result()
        except NaturelmError as error:
            return ResponseItem(sample_id=part.sample_id, error=str(error))
        tokens = len(answered.answer.token_ids)
        return ResponseItem(
            sample_id=part.sample_id,
            predictions=[answered.answer.text],
            finish_reason="length" if tokens >= part.question.max_new_tokens else "stop",
            usage=Usage(
                prompt_tokens=answered.prompt_tokens,
                completion_tokens=tokens,
                sound_s=round(part.sound.sound_s, 3),
                processed_s=round(len(part.sound.samples) / self._model.sample_rate_hz, 3),
            ),
            latency_sec=round(time.monotonic() - part.began_s, 4),
        )

    def _question(self, item: RequestItem) -> QueuedQuestion:
        others = sorted({message.role for message in item.messages} - {"system", "user"})
        if others:
            raise NaturelmError(
                f"messages have the role {others[0][:40]!r}; the model takes one prompt, from system and user"
            )
        prompt = "\n\n".join(message.content for message in item.messages).strip()
        places, sounds = prompt.count(_PLACE), len(item.audio_inputs)
        if sounds != 1 or places > 1:
            raise NaturelmError(
                f"the item has {sounds} sounds and the prompt names {places} places for them; the model takes one sound"
            )
        # Where the sound comes first, as it does by default, each family writes its place as it was trained to.
        prompt = prompt.removeprefix(_SOUND).strip()
        if not prompt:
            raise NaturelmError("the messages hold no question")
        settings = item.generation_config
        return QueuedQuestion(prompt, settings.max_tokens or DEFAULT_NEW_TOKENS, settings.temperature or 0.0)
