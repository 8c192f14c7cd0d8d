"""Verification: what it takes to call a service ready, level by level."""

from __future__ import annotations

import http.client
import json
import time
import typing as t
from dataclasses import asdict, dataclass, field

from ansible.module_utils.llmfleet.http_client import Endpoint, RefusedError
from ansible.module_utils.llmfleet.services import LEVELS, Verify


@dataclass
class Report:
    """What has been verified so far. Times in seconds, speed in tokens per second."""

    levels: dict[str, float] = field(default_factory=dict)
    """Level -> seconds from the beginning of the verification until it was reached."""
    reply: str | None = None
    completion_tokens: int | None = None
    first_token_seconds: float | None = None
    tokens_per_second: float | None = None
    device: str | None = None
    """What proves that it runs on the planned GPU."""

    def as_dict(self) -> dict[str, t.Any]:
        """Return the report as plain data for a module's result."""
        return asdict(self)


class NotYetError(Exception):
    """The endpoint is not ready, but may become so."""


class FailedError(Exception):
    """The endpoint answered, and the answer proves that it will not do."""


def _get(endpoint: Endpoint, path: str) -> str:
    try:
        status, body = endpoint.get(path, timeout=5)
    except (OSError, http.client.HTTPException) as error:
        raise NotYetError(f"{endpoint.url}{path} does not answer: {error}") from None
    if status in (401, 403):
        raise FailedError(f"{endpoint.url}{path} refuses the API key (HTTP {status})")
    if status == 503:
        raise NotYetError(f"{endpoint.url}{path} says HTTP 503: {body.strip()[:200]}")
    if status != 200:
        raise FailedError(f"{endpoint.url}{path} says HTTP {status}: {body.strip()[:200]}")
    return body


def check_http(endpoint: Endpoint, health_path: str) -> None:
    """Level http: the health path answers 200."""
    _get(endpoint, health_path)


def check_model(endpoint: Endpoint, served_name: str) -> None:
    """Level model: /v1/models lists ``served_name``."""
    body = _get(endpoint, "/v1/models")
    try:
        listed = [model["id"] for model in json.loads(body)["data"]]
    except (ValueError, KeyError, TypeError):
        raise FailedError(f"{endpoint.url}/v1/models is not a model list: {body.strip()[:200]}") from None
    if served_name not in listed:
        raise FailedError(f"{endpoint.url} serves {', '.join(listed) or 'no model'}, not {served_name}")


def check_token(endpoint: Endpoint, served_name: str, verify: Verify, report: Report) -> None:
    """Level token: a real prompt is answered with at least one token; fills reply, first token time and speed.

    Speed is what the server reports for itself (``timings.predicted_per_second``, llama-server) or else the
    tokens after the first one over the time they took.
    """
    payload = {
        "model": served_name,
        "messages": [{"role": "user", "content": verify.prompt}],
        "max_tokens": verify.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begun = time.monotonic()
    first = last = None
    pieces: list[str] = []
    tokens = 0
    speed = None
    try:
        for moment, event in endpoint.events("/v1/chat/completions", payload):
            if "error" in event:
                raise FailedError(f"{endpoint.url} failed while answering: {event['error']}")
            for choice in event.get("choices", ()):
                delta = choice.get("delta", {})
                text = delta.get("content") or delta.get("reasoning_content") or ""
                if text:
                    first, last = first or moment, moment
                    pieces.append(text)
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
            speed = (event.get("timings") or {}).get("predicted_per_second", speed)
    except RefusedError as error:
        if error.status == 503:
            raise NotYetError(f"{endpoint.url} is still loading") from None
        raise FailedError(f"{endpoint.url} refuses a chat completion: {error}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotYetError(f"{endpoint.url} broke off while answering: {error}") from None
    tokens = tokens or len(pieces)
    if first is None or last is None or tokens < 1:
        raise FailedError(f"{endpoint.url} answered the prompt without a single token")
    report.reply = "".join(pieces)
    report.completion_tokens = tokens
    report.first_token_seconds = round(first - begun, 4)
    if speed is None and last > first:
        speed = (tokens - 1) / (last - first)
    report.tokens_per_second = None if speed is None else round(speed, 1)


def check_bounds(verify: Verify, report: Report) -> list[str]:
    """Return the further levels (speed, answer) that were asked for and hold; raises FailedError otherwise."""
    reached = []
    if verify.min_tokens_per_second or verify.max_first_token_seconds:
        if verify.min_tokens_per_second and (report.tokens_per_second or 0) < verify.min_tokens_per_second:
            raise FailedError(
                f"{report.tokens_per_second} tokens/s is below the floor of {verify.min_tokens_per_second}"
            )
        limit = verify.max_first_token_seconds
        if limit and (report.first_token_seconds or 0) > limit:
            raise FailedError(f"the first token took {report.first_token_seconds} s, more than {limit} s")
        reached.append("speed")
    if verify.answer:
        if verify.answer not in (report.reply or ""):
            raise FailedError(f"the reply does not contain {verify.answer!r}: {(report.reply or '')[:200]!r}")
        reached.append("answer")
    return reached


def advance(
    endpoint: Endpoint,
    health_path: str,
    served_name: str,
    verify: Verify,
    report: Report,
    begun: float,
    check_device: t.Callable[[], str] | None = None,
) -> None:
    """Climb from the highest level in ``report`` to the goal of ``verify``; raises NotYetError or FailedError.

    ``check_device`` returns what proves level device, None where nothing is to run on a GPU; it may raise DeviceError.
    """

    def device() -> None:
        report.device = check_device() if check_device else None

    steps: dict[str, t.Callable[[], None]] = {
        "http": lambda: check_http(endpoint, health_path),
        "model": lambda: check_model(endpoint, served_name),
        "token": lambda: check_token(endpoint, served_name, verify, report),
        "device": device,
    }
    goal = verify.goal(on_gpu=check_device is not None)
    for level in LEVELS[1 : LEVELS.index(goal) + 1]:
        if level not in report.levels:
            steps[level]()
            report.levels[level] = round(time.monotonic() - begun, 3)
    if LEVELS.index(goal) >= LEVELS.index("token"):
        for level in check_bounds(verify, report):
            report.levels[level] = round(time.monotonic() - begun, 3)
