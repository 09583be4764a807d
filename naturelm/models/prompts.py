"""The text around a query, and its tokens: what the model reads before and after the sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from naturelm.errors import NaturelmError
from naturelm.models.tokens import TextTokenizer


@dataclass(frozen=True)
class PromptTokens:
    """Token ids on both sides of the sound.

    Attributes
    ----------
    head
        What is before the sound. Queries with the same head share it; it may be empty.
    tail
        What is after the sound: the query, and what asks for an answer.
    before
        For each example that comes first, what is before its sound; `head` then follows the last example's sound.
    """

    head: tuple[int, ...]
    tail: tuple[int, ...]
    before: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class PromptLayout:
    """How a family writes a prompt.

    Attributes
    ----------
    template
        Text around the query, which replaces ``{}``. Special tokens are recognised in it.
    sound
        What is put before a query, with `placeholder` in it, where the query does not name the sound's place itself.
    placeholder
        Name of the sound's place.
    """

    template: str
    sound: str = "<Audio><AudioHere></Audio> "
    placeholder: str = "<AudioHere>"

    def text(self, query: str) -> str:
        """The whole prompt of a query, with the placeholder where the sound goes.

        Raises
        ------
        NaturelmError
            If the query is empty or names more than one place for the sound.
        """
        return self.placeholder.join("".join(text for text, _ in side) for side in self._sides(query))

    def tokens(
        self,
        query: str,
        tokenizer: TextTokenizer,
        begin: Sequence[int] = (),
        answers: Sequence[str] = (),
    ) -> PromptTokens:
        """Token ids before and after the sound; each side is tokenised by itself, as in training.

        Parameters
        ----------
        query
            The question, as the user wrote it. A special token's name in it is only text.
        tokenizer
            The language model's.
        begin
            Token ids before everything else, such as begin-of-text.
        answers
            Of examples: each is the query about a sound of its own and this answer, on a line before the question.
        """
        first, last = self._sides(query)
        # The query without the template around it, as an example repeats it.
        (opened, asked) = first[1:], last[:-1]
        sides = [first]
        for answer in answers:
            sides.append([*asked, (f" {answer}\n", False), *opened])
        sides.append(last)
        head, *between, tail = (_side_tokens(side, tokenizer) for side in sides)
        *before, head = ((*begin, *head), *between)
        return PromptTokens(head, tail, tuple(before))

    def _sides(self, query: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
        """Pieces of text before and after the sound, and whether each is the template's or the user's."""
        _check_text(query)
        places = query.count(self.placeholder)
        if places > 1:
            raise NaturelmError(
                f"the query holds {self.placeholder} {places} times; a window has one sound, so name it once"
            )
        sound = self.sound
        if places:
            # The user may write the place with or without what surrounds it.
            sound = sound.strip() if sound.strip() in query else self.placeholder
            before, after = query.split(sound)
        else:
            before, after = "", query
        first, last = self.template.split("{}")
        opening, closing = sound.split(self.placeholder)
        return (
            [(first, True), (before, False), (opening, True)],
            [(closing, True), (after, False), (last, True)],
        )


@dataclass(frozen=True)
class SoundFirstLayout:
    """How a family writes a prompt whose sound stands before all text, where there is a sound.

    Attributes
    ----------
    template
        Text around the query, which replaces ``{}``. Special tokens are recognised in it.
    """

    template: str

    def text(self, query: str) -> str:
        """The whole text of a query.

        Raises
        ------
        NaturelmError
            If the query is empty.
        """
        return "".join(text for text, _ in self._pieces(query))

    def tokens(
        self,
        query: str,
        tokenizer: TextTokenizer,
        begin: Sequence[int] = (),
        answers: Sequence[str] = (),
    ) -> PromptTokens:
        """Token ids after the sound: those of `begin` and of the text. There are none before it.

        Raises
        ------
        NaturelmError
            If there are `answers` of examples: such a model takes one sound, before all text.
        """
        if answers:
            raise NaturelmError(
                "this model takes one sound; give a query without examples, or another --model"
            )
        return PromptTokens((), (*begin, *_side_tokens(self._pieces(query), tokenizer)))

    def _pieces(self, query: str) -> list[tuple[str, bool]]:
        _check_text(query)
        first, last = self.template.split("{}")
        return [(first, True), (query, False), (last, True)]


def _check_text(query: str) -> None:
    if not query.strip():
        raise NaturelmError("the query has no text; give a question, for example 'What is the common name?'")


def _side_tokens(side: Sequence[tuple[str, bool]], tokenizer: TextTokenizer) -> tuple[int, ...]:
    ids: list[int] = []
    text = ""
    for piece, is_template in side:
        for part in tokenizer.template_parts(piece) if is_template else [piece]:
            if isinstance(part, str):
                # Neighbouring texts are tokenised as one, as they were in training.
                text += part
                continue
            ids += [*tokenizer.text_tokens(text), part]
            text = ""
    return (*ids, *tokenizer.text_tokens(text))
