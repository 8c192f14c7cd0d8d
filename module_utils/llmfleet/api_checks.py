"""What the self-test of a served API checks, one function each; the list of them stands in api_test.

Each returns what it found in a few words, and raises FailedError, MissingError (the build has no such path) or
NotYetError (nobody answers).
"""

from __future__ import annotations

import http.client
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet import api_calls
from ansible.module_utils.llmfleet.api_calls import CHAT, FailedError, NotYetError
from ansible.module_utils.llmfleet.engines.dialects import DIALECTS
from ansible.module_utils.llmfleet.http_client import Endpoint

QUESTION = "Say hello in one short sentence."
CHINESE = "请用一句话介绍长城。"
ROUND_TRIP = "Grüße, 世界! 你好 🙂"
"""Characters of one to four bytes."""

WRONG_KEY = "llmfleet-not-the-key"
BUFFERED_SECONDS = 0.3
"""A reply that took less cannot be told from one that something held back until it was whole."""
BUFFERED_PART = 0.05
"""A reply whose pieces all come within this part of its time was held back,"""
BUFFERED_GAP = 0.005
"""if they also come faster than this after each other: a short reply to a prompt that took long was not."""


@dataclass(frozen=True)
class Subject:
    """What is tested, and by which way."""

    endpoint: Endpoint
    served_name: str
    engine: str = ""
    """"" for any server or gateway that speaks the API."""
    paths: tuple[str, ...] = (CHAT,)
    """The POST paths of the API that the task has."""
    health_path: str = "/health"
    has_key: bool = False
    direct: bool = True
    """Whether the engine itself is asked, and not a gateway that lets only its API through."""
    closed: tuple[str, ...] = ()
    """Paths that must not answer even with the key."""
    max_tokens: int = 16
    metrics_path: str = "/metrics"


def models(subject: Subject) -> str:
    return f"lists {', '.join(api_calls.check_model(subject.endpoint, subject.served_name)[:5])}"


def health(subject: Subject) -> str:
    api_calls.get(subject.endpoint.with_key(""), subject.health_path)
    return f"{subject.health_path} answers without a key"


def _open_paths(endpoint: Endpoint, paths: t.Iterable[str], api: t.Iterable[str] = ()) -> list[str]:
    """Return which of ``paths`` and ``api`` let a caller through, each with what it answers.

    ``paths`` are only looked at (GET), since some of them change the server: 405 says that the door was open. Those of
    ``api`` are sent an empty question (POST).
    """
    found = []
    for method, path in [*(("GET", path) for path in paths), *(("POST", path) for path in api)]:
        try:
            status = (endpoint.get(path) if method == "GET" else endpoint.post(path, {}))[0]
        except (OSError, http.client.HTTPException) as error:
            raise NotYetError(f"{endpoint.url}{path} does not answer: {error}") from None
        if status not in (401, 403, 404):
            found.append(f"{method} {path} (HTTP {status})")
    return found


def key(subject: Subject) -> str:
    dialect = DIALECTS.get(subject.engine) if subject.direct else None
    paths = (api_calls.MODELS, *(("/metrics", "/tokenize", "/detokenize", *dialect.guarded) if dialect else ()))
    for word, words in (("", "without a key"), (WRONG_KEY, "with a wrong key")):
        found = _open_paths(subject.endpoint.with_key(word), paths, subject.paths)
        if found:
            raise FailedError(f"{subject.endpoint.url} answers {words}: {', '.join(found)}")
    return f"{len(paths) + len(subject.paths)} paths refuse a caller without the key"


def closed(subject: Subject) -> str:
    found = _open_paths(subject.endpoint, subject.closed)
    if found:
        raise FailedError(f"{subject.endpoint.url} lets callers through to {', '.join(found)}")
    return f"{len(subject.closed)} paths are closed"


def chat(subject: Subject) -> str:
    return _said(subject, QUESTION)


def _said(subject: Subject, prompt: str) -> str:
    payload = {
        "model": subject.served_name,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": subject.max_tokens,
    }
    text, tokens = api_calls.shaped(
        subject.endpoint,
        CHAT,
        payload,
        lambda answer: (api_calls.text_of(answer["choices"][0]["message"]), answer["usage"]["completion_tokens"]),
    )
    if tokens < 1:
        raise FailedError(f"{subject.endpoint.url} answered the prompt without a single token")
    return _whole(subject, text)


def _whole(subject: Subject, text: str) -> str:
    """Return what was said, in which no character may be broken; the last one may be, where the reply was cut there."""
    if "\ufffd" in text[:-1]:
        raise FailedError(f"{subject.endpoint.url} breaks characters: {text[:100]!r}")
    return f"replied {text[:60]!r}"


def chat_stream(subject: Subject) -> str:
    # a busy machine may hold a reply back once by chance
    for _ in range(2):
        reply = _streamed(subject)
        if not _held_back(reply):
            return f"{len(reply.pieces)} pieces, the first after {reply.first_token_seconds:.3f} s"
    raise FailedError(
        f"{subject.endpoint.url} sends {len(reply.pieces)} pieces at once after {reply.first_token_seconds} s"
    )


def _streamed(subject: Subject) -> api_calls.Streamed:
    reply = api_calls.chat_stream(subject.endpoint, subject.served_name, QUESTION, max(subject.max_tokens, 16))
    if not reply.usage:
        raise FailedError(f"{subject.endpoint.url} ends a stream without the usage that was asked for")
    return reply


def _held_back(reply: api_calls.Streamed) -> bool:
    """Whether something between gathered the pieces and let them go when the reply was whole."""
    if len(reply.pieces) < 2:
        # one piece of many tokens was gathered by the engine or by something between
        return reply.tokens > 4
    whole = reply.first_token_seconds + reply.spread
    at_once = reply.spread < min(BUFFERED_PART * whole, BUFFERED_GAP * (len(reply.pieces) - 1))
    return whole >= BUFFERED_SECONDS and at_once


def chinese(subject: Subject) -> str:
    said = _said(subject, CHINESE)
    reply = api_calls.chat_stream(subject.endpoint, subject.served_name, CHINESE, subject.max_tokens)
    _whole(subject, reply.text)
    return said


def completions(subject: Subject) -> str:
    payload = {"model": subject.served_name, "prompt": "The sea is", "max_tokens": subject.max_tokens}
    read: t.Callable[[t.Any], str] = lambda answer: answer["choices"][0]["text"]  # noqa: E731
    return _whole(subject, api_calls.shaped(subject.endpoint, "/v1/completions", payload, read))


def responses(subject: Subject) -> str:
    payload = {"model": subject.served_name, "input": QUESTION, "max_output_tokens": subject.max_tokens}
    kinds = api_calls.shaped(
        subject.endpoint, "/v1/responses", payload, lambda answer: [part["type"] for part in answer["output"]]
    )
    if not kinds:
        raise FailedError(f"{subject.endpoint.url}/v1/responses answers no output")
    return f"answered {', '.join(kinds)}"


def messages(subject: Subject) -> str:
    messages = [{"role": "user", "content": QUESTION}]
    payload = {"model": subject.served_name, "messages": messages, "max_tokens": subject.max_tokens}
    tokens = api_calls.shaped(
        subject.endpoint, "/v1/messages", payload, lambda answer: int(answer["usage"]["output_tokens"])
    )
    if tokens < 1:
        raise FailedError(f"{subject.endpoint.url}/v1/messages answers without a single token")
    return f"{tokens} tokens"


def embeddings(subject: Subject) -> str:
    vectors = api_calls.embed(subject.endpoint, subject.served_name, ["The sea.", CHINESE])
    if vectors[0] == vectors[1]:
        raise FailedError(f"{subject.endpoint.url} answers the same vector to two different texts")
    return f"{len(vectors)} vectors of {len(vectors[0])} numbers"


def rerank(subject: Subject) -> str:
    return f"{len(api_calls.rerank(subject.endpoint, subject.served_name, CHINESE))} documents in order"


def score(subject: Subject) -> str:
    return f"{len(api_calls.score(subject.endpoint, subject.served_name, CHINESE))} scores"


def classify(subject: Subject) -> str:
    return f"{len(api_calls.classify(subject.endpoint, subject.served_name)[0])} classes"


def metrics(subject: Subject) -> str:
    prefix = DIALECTS[subject.engine].metrics
    body = api_calls.get(subject.endpoint, subject.metrics_path)
    count = sum(line.startswith(prefix) for line in body.splitlines())
    if not count:
        raise FailedError(f"{subject.endpoint.url}/metrics holds nothing that begins with {prefix}")
    return f"{count} values"


def tokenize(subject: Subject) -> str:
    dialect, name = DIALECTS[subject.engine], subject.served_name
    tokens = api_calls.shaped(
        subject.endpoint, "/tokenize", dialect.to_tokens(name, ROUND_TRIP), lambda answer: list(answer["tokens"])
    )
    text = api_calls.shaped(
        subject.endpoint, "/detokenize", dialect.to_text(name, tokens), lambda answer: str(answer[dialect.text])
    )
    # some tokenizers put a blank before a text
    if text.strip() != ROUND_TRIP:
        raise FailedError(
            f"{subject.endpoint.url} makes {ROUND_TRIP!r} into {len(tokens)} tokens, and those into {text!r}"
        )
    return f"{len(tokens)} tokens and back"
