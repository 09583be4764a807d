"""Requests and responses in the schema `predictions_v1` of BEANS-Next.

Source: the HTTP contract of BEANS-Next (github.com/earthspecies/beans-next, docs/http_contract.md).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

SCHEMA_VERSION = "predictions_v1"
MAX_PROMPT_CHARACTERS = 20_000
MAX_NEW_TOKENS = 1024


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: str
    content: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)]


class AudioInput(BaseModel):
    """One sound; the i-th stands for the i-th `<Audio><AudioHere></Audio>` of the prompt.

    `sample_rate` is nominal: the rate that the file states is the one that counts.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    payload_type: Literal["base64_wav", "file_path", "file_url"]
    data: str
    sample_rate: Annotated[int, Field(ge=1)]


class GenerationConfig(BaseModel):
    """How to generate; settings that are not listed here are accepted and have no effect."""

    model_config = ConfigDict(extra="ignore", strict=True)

    max_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    max_length_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class RequestItem(BaseModel):
    """One question about one sound."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sample_id: str
    messages: Annotated[list[Message], Field(min_length=1)]
    audio_inputs: list[AudioInput]
    generation_config: GenerationConfig


class Usage(BaseModel):
    """What an answer took: tokens, seconds of sound that the request held, and seconds that the model processed."""

    prompt_tokens: int
    completion_tokens: int
    sound_s: float
    processed_s: float


class ResponseItem(BaseModel):
    """The answer to one item: one prediction, or none and an error."""

    sample_id: str
    predictions: list[str] = []
    finish_reason: Literal["stop", "length"] | None = None
    usage: Usage | None = None
    latency_sec: float | None = None
    error: str | None = None


class Response(BaseModel):
    """The body of a response to `POST /predict`."""

    schema_version: Literal["predictions_v1"] = "predictions_v1"
    responses: list[ResponseItem]


class BadRequestError(ValueError):
    """A body of which no item can be answered."""


def read_items(body: Any) -> list[tuple[str, RequestItem | str]]:
    """The items of a request's body: the `sample_id` of each, and the item or what is wrong with it.

    Raises
    ------
    BadRequestError
        The body is not an object with `schema_version` and `requests`, or an item has no
        `sample_id` that distinguishes it from the others.
    """
    if not isinstance(body, dict) or not isinstance(body.get("requests"), list):
        raise BadRequestError('the body is not an object with a list "requests"')
    if body.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise BadRequestError(f'schema_version is not "{SCHEMA_VERSION}"')
    if unknown := sorted(set(body) - {"schema_version", "requests"}):
        raise BadRequestError(f"the body has unknown keys: {', '.join(map(repr, unknown))[:200]}")
    items: dict[str, RequestItem | str] = {}
    for number, values in enumerate(body["requests"]):
        name = values.get("sample_id") if isinstance(values, dict) else None
        if not isinstance(name, str) or not name:
            raise BadRequestError(f"requests[{number}] has no sample_id that is text")
        if name in items:
            raise BadRequestError(f"requests[{number}] has a sample_id that appears twice: {name[:100]!r}")
        try:
            items[name] = RequestItem.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            items[name] = f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    return list(items.items())
