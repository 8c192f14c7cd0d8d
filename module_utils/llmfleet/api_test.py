"""The self-test of a served API: one check after the other, each with what it found or why it failed.

What is checked follows from what the service is for and from the paths that its engine has (PATHS).
"""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet import api_checks
from ansible.module_utils.llmfleet.api_calls import (
    CHAT,
    TASK_PATHS,
    FailedError,
    KeyRefusedError,
    MissingError,
    NotYetError,
)
from ansible.module_utils.llmfleet.api_checks import Subject
from ansible.module_utils.llmfleet.engines.dialects import DIALECTS


@dataclass(frozen=True)
class Check:
    """One check, and whether it applies."""

    name: str
    about: str
    """What it proves."""
    fix: str
    run: t.Callable[[Subject], str]
    applies: t.Callable[[Subject], bool]
    optional: bool = False
    """Whether older builds do without it."""


def _offers(path: str) -> t.Callable[[Subject], bool]:
    return lambda subject: path in subject.paths


def _engine_itself(subject: Subject) -> bool:
    return subject.direct and subject.engine in DIALECTS


_LOG = "see the service's log (docker logs NAME)"
_VERSION = "use a build that has this path, or leave its callers another one"

_FIXES: tuple[tuple[type[Exception], str], ...] = (
    (KeyRefusedError, "give the `api_key` with which the service was launched"),
    (NotYetError, "see whether it runs (docker ps), and whether this address reaches it from here"),
)
"""What to do where the reason is another one than what is checked."""

CHECKS = (
    Check(
        "health",
        "the health path answers whoever asks",
        "a proxy in front may want a key for it: monitors and balancers have none",
        api_checks.health,
        lambda subject: bool(subject.health_path),
    ),
    Check(
        "models",
        "/v1/models lists the served name",
        "callers have to use a name that is listed; `served_name` sets it",
        api_checks.models,
        lambda _: True,
    ),
    Check(
        "key",
        "no path answers without the API key or with a wrong one",
        "publish the service through the gateway, or bind it to 127.0.0.1, until this is mended",
        api_checks.key,
        lambda subject: subject.has_key,
    ),
    Check(
        "closed",
        "paths that are not for callers do not answer even with the key",
        "take them out of the gateway's list",
        api_checks.closed,
        lambda subject: bool(subject.closed),
    ),
    Check("chat", "a chat completion has text and counts its tokens", _LOG, api_checks.chat, _offers(CHAT)),
    Check(
        "chat_stream",
        "a streamed one arrives in pieces while it is made, with the usage at its end",
        "turn off buffering in what stands between (nginx: proxy_buffering off)",
        api_checks.chat_stream,
        _offers(CHAT),
    ),
    Check(
        "chinese",
        "a Chinese prompt is answered, whole and streamed, without broken characters",
        "use a newer build of the engine, or another tokenizer",
        api_checks.chinese,
        _offers(CHAT),
    ),
    Check("completions", "a plain completion has text", _LOG, api_checks.completions, _offers("/v1/completions"), True),
    Check(
        "responses", "OpenAI's Responses API answers", _VERSION, api_checks.responses, _offers("/v1/responses"), True
    ),
    Check("messages", "Anthropic's Messages API answers", _VERSION, api_checks.messages, _offers("/v1/messages"), True),
    Check(
        "embeddings",
        "two texts have two vectors of equal length, of finite numbers, not the same",
        "use a model made for embeddings, and the pooling that it was made for",
        api_checks.embeddings,
        _offers(TASK_PATHS["embed"]),
    ),
    Check(
        "rerank",
        "each document has a finite score, the best one comes first",
        "use a model made for ranking",
        api_checks.rerank,
        _offers(TASK_PATHS["rerank"]),
    ),
    Check("score", "each document has a finite score", _LOG, api_checks.score, _offers(TASK_PATHS["score"])),
    Check("classify", "a text has finite probabilities", _LOG, api_checks.classify, _offers(TASK_PATHS["classify"])),
    Check("metrics", "/metrics holds the engine's own figures", _LOG, api_checks.metrics, _engine_itself),
    Check(
        "tokenize",
        "a text of Latin, Chinese and emoji becomes tokens and the same text again",
        "the model's tokenizer loses characters: fetch the model again, or use another one",
        api_checks.tokenize,
        _engine_itself,
        optional=True,
    ),
)


def run(subject: Subject, names: t.Collection[str] = ()) -> list[dict[str, t.Any]]:
    """Return {name, ok, seconds, why, fix} of each check that applies (of those named, where any is).

    ``ok`` is None where this build does not offer what is checked, and ``fix`` says what to do where it is False. A
    server that is not there, or does not take the key, is not asked for all the rest.
    """
    results = []
    for check in CHECKS:
        if not check.applies(subject) or (names and check.name not in names):
            continue
        begun, ok, fix = time.monotonic(), t.cast("bool | None", True), ""
        try:
            why = check.run(subject)
        except (FailedError, NotYetError) as error:
            ok, why, fix = False, str(error), next((fix for kind, fix in _FIXES if isinstance(error, kind)), check.fix)
            if check.optional and isinstance(error, MissingError):
                ok, fix = None, ""
        seconds = round(time.monotonic() - begun, 3)
        results.append({"name": check.name, "ok": ok, "seconds": seconds, "why": why, "fix": fix})
        if check.name == "models" and fix and fix != check.fix:
            break
    return results


def lines(title: str, checks: t.Sequence[t.Mapping[str, t.Any]]) -> list[str]:
    """Return what was found for people to read, a line a check."""
    words = {True: "ok", False: "FAILED", None: "not there"}
    return [
        title,
        *(f"  {row['name']:<12}{words[row['ok']]:<10}{row['seconds']:>7.3f} s  {row['why']}" for row in checks),
    ]


def summary(checks: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """Return one sentence about the checks that failed, each with its reason and what to do; "" when none did."""
    failed = [check for check in checks if check["ok"] is False]
    if not failed:
        return ""
    said = "; ".join(f"{check['name']}: {check['why']} ({check['fix']})" for check in failed)
    return f"{len(failed)} of {len(checks)} checks of the API failed: {said}"
