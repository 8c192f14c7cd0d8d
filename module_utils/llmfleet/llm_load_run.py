"""A short load: several streams of chat completions at once against a served endpoint, and what they got.

Each request asks something else, also in another run, so that no engine answers out of its prompt cache what a user
would wait for.
"""

from __future__ import annotations

import http.client
import math
import secrets
import socket
import statistics
import threading
import time
import typing as t
from collections import Counter
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.api_calls import CHAT, text_of
from ansible.module_utils.llmfleet.http_client import Endpoint, RefusedError

PROMPT = "Tell a short story."
LEAST_SECONDS = 1.0
"""What an answer that was asked for late is waited for all the same."""


@dataclass(frozen=True)
class Load:
    """How much to ask. It ends after ``requests``, or after ``seconds``, whichever comes first."""

    streams: int = 4
    requests: int = 0
    """0 asks twice per stream."""
    seconds: float = 10.0
    max_tokens: int = 32
    prompt: str = PROMPT

    @property
    def count(self) -> int:
        return self.requests or 2 * self.streams


@dataclass
class Request:
    """What became of one request; moments are of the monotonic clock."""

    begun: float
    first: float | None = None
    last: float | None = None
    tokens: int = 0
    error: str = ""
    cut: bool = False
    """Whether it was still going on when the time was over."""


@dataclass
class _Work:
    """What the streams of one load share."""

    load: Load
    begun: float
    numbers: t.Iterator[int]
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: list[Request] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.begun + self.load.seconds - time.monotonic()

    def take(self) -> int | None:
        """Return the number of the next request, None when there is none."""
        with self.lock:
            return next(self.numbers, None) if self.left > 0 else None


def run(url: str, api_key: str, served_name: str, load: Load) -> dict[str, t.Any]:
    """Put ``load`` on the endpoint at ``url`` and return what `summary` makes of it. Raises ValueError for no URL."""
    Endpoint(url)  # a wrong URL is the caller's error, not that of each request
    first = secrets.randbelow(10**6)
    work = _Work(load, time.monotonic(), iter(range(first, first + load.count)))

    def stream() -> None:
        while (number := work.take()) is not None:
            request = _ask(url, api_key, served_name, number, work)
            with work.lock:
                work.done.append(request)

    threads = [threading.Thread(target=stream, daemon=True) for _ in range(min(load.streams, load.count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return summary(load.streams, work.done)


def _ask(url: str, api_key: str, served_name: str, number: int, work: _Work) -> Request:
    """Send one request and read its answer for as long as there is time."""
    payload = {
        "model": served_name,
        "messages": [{"role": "user", "content": f"{number}. {work.load.prompt}"}],
        "max_tokens": work.load.max_tokens,
        # both engines know it: every answer is as long as the others, whatever the model would say
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    endpoint = Endpoint(url, api_key, timeout=max(work.left, LEAST_SECONDS))
    request = Request(time.monotonic())
    events = endpoint.events(CHAT, payload)
    try:
        for moment, event in events:
            _note(request, moment, event)
            if work.left <= 0 and not request.error:
                request.cut = True
                break
    except socket.timeout:
        # the same as TimeoutError only from Python 3.10 on
        request.cut = True
    except (RefusedError, OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        request.error = f"{type(error).__name__}: {error}"[:200] if not isinstance(error, RefusedError) else str(error)
    finally:
        t.cast("t.Generator[t.Any, None, None]", events).close()
    if not request.error and not request.cut and request.first is None:
        request.error = "answered without a single token"
    return request


def _note(request: Request, moment: float, event: t.Any) -> None:
    """Take one event of a stream into account."""
    if not isinstance(event, dict):
        raise ValueError(f"the stream holds {str(event)[:50]!r} in place of a mapping")
    if "error" in event:
        request.error = str(event["error"])[:200]
    for choice in event.get("choices", ()):
        if text_of(choice.get("delta") or {}):
            request.first, request.last = request.first or moment, moment
            request.tokens += 1
    # a piece may hold more than one token
    request.tokens = (event.get("usage") or {}).get("completion_tokens") or request.tokens


def percentile(values: t.Sequence[float], share: float) -> float:
    """Return the smallest of ``values`` that ``share`` (0 to 1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary(streams: int, done: t.Sequence[Request]) -> dict[str, t.Any]:
    """Return what a load came to; ``first_token_*`` and speeds are None where there is nothing to tell them from.

    ``tokens_per_second`` is that of one stream (the median of the requests, after their first token),
    ``total_tokens_per_second`` all tokens over the time from the first request to the last token.
    """
    waits = [request.first - request.begun for request in done if request.first is not None]
    speeds = [
        (request.tokens - 1) / (request.last - request.first)
        for request in done
        if request.first is not None and request.last is not None and request.last > request.first
    ]
    ends = [request.last for request in done if request.last is not None]
    span = max(ends) - min(request.begun for request in done) if ends else 0.0
    tokens = sum(request.tokens for request in done)
    return {
        "streams": streams,
        "requests": len(done),
        "answered": sum(not request.error and not request.cut for request in done),
        "unfinished": sum(request.cut for request in done),
        "errors": dict(Counter(request.error for request in done if request.error).most_common(5)),
        "tokens": tokens,
        "seconds": round(span, 3),
        "first_token_p50": _rounded(percentile(waits, 0.5) if waits else None, 4),
        "first_token_p95": _rounded(percentile(waits, 0.95) if waits else None, 4),
        "tokens_per_second": _rounded(statistics.median(speeds) if speeds else None, 1),
        "total_tokens_per_second": _rounded(tokens / span if span else None, 1),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def failed(result: t.Mapping[str, t.Any]) -> str:
    """Return what a load proves to be wrong, one sentence; "" when every request was answered or only time lacked."""
    if result["errors"]:
        text = next(iter(result["errors"]))
        count = sum(result["errors"].values())
        return f"{count} of {result['requests']} requests of {result['streams']} streams failed: {text}"
    if result["requests"] and result["first_token_p50"] is None:
        return f"none of {result['requests']} requests was given a token in time; give the load more `seconds`"
    return ""
