"""Calls of the API in the style of OpenAI, each judged by what it answers.

Verification level `token` and the self-test of an API are made of them. A caller who has to know whether waiting may
help gets it from the kind of the error.
"""

from __future__ import annotations

import http.client
import json
import math
import time
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.http_client import Endpoint, RefusedError

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"
TASK_PATHS: t.Mapping[str, str] = {
    "generate": CHAT,
    "embed": "/v1/embeddings",
    "rerank": "/v1/rerank",
    "score": "/v1/score",
    "classify": "/classify",
}
"""Task -> the path that every engine with this task has."""

_TEXTS = ("content", "reasoning_content", "reasoning")
"""Where engines put the text of a message; those that think aloud do so under names of their own."""
TEXTS = ("A short sentence about the sea.", "Numbers are not letters.")
"""What is embedded, scored, or put into an order when nothing else is given."""


class NotYetError(Exception):
    """The endpoint is not ready, but may become so."""


class FailedError(Exception):
    """The endpoint answered, and the answer proves that it will not do."""


class KeyRefusedError(FailedError):
    """The endpoint does not take the API key."""


class MissingError(FailedError):
    """The endpoint does not have this path."""


@dataclass
class Streamed:
    """A chat completion that came in pieces; moments are of the monotonic clock."""

    begun: float
    pieces: list[tuple[float, str]] = field(default_factory=list)
    usage: t.Mapping[str, t.Any] = field(default_factory=dict)
    own_speed: float | None = None
    """Tokens per second as the server measured it (llama-server)."""
    finish: str = ""

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.pieces)

    @property
    def tokens(self) -> int:
        return int(self.usage.get("completion_tokens") or len(self.pieces))

    @property
    def first_token_seconds(self) -> float:
        return round(self.pieces[0][0] - self.begun, 4)

    @property
    def spread(self) -> float:
        """Seconds from the first to the last piece."""
        return self.pieces[-1][0] - self.pieces[0][0]

    @property
    def tokens_per_second(self) -> float | None:
        """What the server says itself, or else the tokens after the first one over the time they took."""
        speed = self.own_speed
        if speed is None and self.spread > 0:
            speed = (self.tokens - 1) / self.spread
        return None if speed is None else round(speed, 1)


def _judge(endpoint: Endpoint, path: str, status: int, body: str) -> None:
    """Raise what an HTTP status other than 200 means."""
    where = f"{endpoint.url}{path}"
    if status in (401, 403):
        raise KeyRefusedError(f"{where} refuses the API key (HTTP {status})")
    said = f"{where} says HTTP {status}: {body.strip()[:200]}"
    if status == 503:
        raise NotYetError(said)
    if status in (404, 405, 501):
        raise MissingError(said)
    if status != 200:
        raise FailedError(said)


def get(endpoint: Endpoint, path: str) -> str:
    """Return what ``path`` answers with HTTP 200."""
    try:
        status, body = endpoint.get(path, timeout=5)
    except (OSError, http.client.HTTPException) as error:
        raise NotYetError(f"{endpoint.url}{path} does not answer: {error}") from None
    _judge(endpoint, path, status, body)
    return body


def post(endpoint: Endpoint, path: str, payload: t.Any) -> t.Any:
    """Return the decoded answer to ``payload``."""
    try:
        status, body = endpoint.post(path, payload)
    except (OSError, http.client.HTTPException) as error:
        raise NotYetError(f"{endpoint.url}{path} does not answer: {error}") from None
    _judge(endpoint, path, status, body)
    try:
        return json.loads(body)
    except ValueError:
        raise FailedError(f"{endpoint.url}{path} answers what is no JSON: {body.strip()[:200]}") from None


def shaped(endpoint: Endpoint, path: str, payload: t.Any, read: t.Callable[[t.Any], t.Any]) -> t.Any:
    """Return ``read`` of the answer; one of another shape is a failure that shows it."""
    answer = post(endpoint, path, payload)
    try:
        return read(answer)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        shown = json.dumps(answer, ensure_ascii=False)[:200]
        raise FailedError(f"{endpoint.url}{path} answers in a shape that is not expected: {shown}") from None


def check_model(endpoint: Endpoint, served_name: str) -> list[str]:
    """Return the names of the models listed, among which ``served_name`` has to be."""
    body = get(endpoint, MODELS)
    try:
        listed = [str(model["id"]) for model in json.loads(body)["data"]]
    except (ValueError, KeyError, TypeError):
        raise FailedError(f"{endpoint.url}{MODELS} is not a model list: {body.strip()[:200]}") from None
    if served_name not in listed:
        raise FailedError(f"{endpoint.url} serves {', '.join(listed) or 'no model'}, not {served_name}")
    return listed


def text_of(message: t.Mapping[str, t.Any]) -> str:
    """Return the text of a message or of a piece of one, thoughts included."""
    return next((str(message[key]) for key in _TEXTS if message.get(key)), "")


def chat_stream(endpoint: Endpoint, served_name: str, prompt: str, max_tokens: int) -> Streamed:
    """Return a streamed chat completion with at least one token."""
    payload = {
        "model": served_name,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    reply = Streamed(time.monotonic())
    try:
        for moment, event in endpoint.events(CHAT, payload):
            if "error" in event:
                raise FailedError(f"{endpoint.url} failed while answering: {event['error']}")
            for choice in event.get("choices", ()):
                text = text_of(choice.get("delta", {}))
                reply.pieces += [(moment, text)] if text else []
                reply.finish = choice.get("finish_reason") or reply.finish
            reply.usage = event.get("usage") or reply.usage
            reply.own_speed = (event.get("timings") or {}).get("predicted_per_second", reply.own_speed)
    except RefusedError as error:
        if error.status == 503:
            raise NotYetError(f"{endpoint.url} is still loading") from None
        raise FailedError(f"{endpoint.url} refuses a chat completion: {error}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotYetError(f"{endpoint.url} broke off while answering: {error}") from None
    if not reply.pieces:
        raise FailedError(f"{endpoint.url} answered the prompt without a single token")
    return reply


def _finite(endpoint: Endpoint, what: str, numbers: t.Sequence[t.Any]) -> list[float]:
    """Return ``numbers``, which must be there and finite."""
    if not numbers or not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
        raise FailedError(f"{endpoint.url} answers {what} that are no finite numbers: {str(list(numbers))[:200]}")
    return [float(number) for number in numbers]


def embed(endpoint: Endpoint, served_name: str, texts: t.Sequence[str] = TEXTS) -> list[list[float]]:
    """Return the vectors of ``texts``, of which none is all zero."""
    payload = {"model": served_name, "input": list(texts)}
    rows = shaped(endpoint, TASK_PATHS["embed"], payload, lambda answer: [row["embedding"] for row in answer["data"]])
    vectors = [_finite(endpoint, "vectors", row) for row in rows]
    if len(vectors) != len(texts) or len({len(vector) for vector in vectors}) != 1:
        raise FailedError(f"{endpoint.url} answers {len(vectors)} vectors to {len(texts)} texts, or unequal ones")
    if not all(any(vector) for vector in vectors):
        raise FailedError(f"{endpoint.url} answers a vector of zeros")
    return vectors


def rerank(endpoint: Endpoint, served_name: str, query: str, documents: t.Sequence[str] = TEXTS) -> list[float]:
    """Return the scores of ``documents``, which the answer holds once each, the best first."""
    payload = {"model": served_name, "query": query, "documents": list(documents)}
    rows = shaped(
        endpoint,
        TASK_PATHS["rerank"],
        payload,
        lambda answer: [(row["index"], row["relevance_score"]) for row in answer["results"]],
    )
    scores = _finite(endpoint, "scores", [score for _, score in rows])
    if sorted(index for index, _ in rows) != list(range(len(documents))):
        raise FailedError(f"{endpoint.url} does not answer each of {len(documents)} documents once: {str(rows)[:200]}")
    if scores != sorted(scores, reverse=True):
        raise FailedError(f"{endpoint.url} does not put the best document first: {str(rows)[:200]}")
    return scores


def score(endpoint: Endpoint, served_name: str, query: str, documents: t.Sequence[str] = TEXTS) -> list[float]:
    """Return how well each of ``documents`` fits ``query``."""
    payload = {"model": served_name, "text_1": query, "text_2": list(documents)}
    rows = shaped(endpoint, TASK_PATHS["score"], payload, lambda answer: [row["score"] for row in answer["data"]])
    if len(rows) != len(documents):
        raise FailedError(f"{endpoint.url} answers {len(rows)} scores to {len(documents)} documents")
    return _finite(endpoint, "scores", rows)


def classify(endpoint: Endpoint, served_name: str, texts: t.Sequence[str] = TEXTS) -> list[list[float]]:
    """Return the probabilities of the classes for each of ``texts``."""
    payload = {"model": served_name, "input": list(texts)}
    rows = shaped(endpoint, TASK_PATHS["classify"], payload, lambda answer: [row["probs"] for row in answer["data"]])
    if len(rows) != len(texts):
        raise FailedError(f"{endpoint.url} answers {len(rows)} classes to {len(texts)} texts")
    return [_finite(endpoint, "probabilities", row) for row in rows]
