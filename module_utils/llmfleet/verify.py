"""Verification: what it takes to call a service ready, level by level."""

from __future__ import annotations

import time
import typing as t
from dataclasses import asdict, dataclass, field

from ansible.module_utils.llmfleet import api_calls
from ansible.module_utils.llmfleet.api_calls import FailedError, NotYetError
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.services import LEVELS, Verify

__all__ = ["FailedError", "NotYetError", "Report", "advance"]


@dataclass
class Report:
    """What has been verified so far. Times in seconds, speed in tokens per second."""

    levels: dict[str, float] = field(default_factory=dict)
    """Level -> seconds from the beginning of the verification until it was reached."""
    reply: str | None = None
    """What it said to the prompt; of a service that writes no text, None."""
    proof: str | None = None
    """What a service that writes no text answered, in words."""
    completion_tokens: int | None = None
    first_token_seconds: float | None = None
    tokens_per_second: float | None = None
    device: str | None = None
    """What proves that it runs on the planned GPU."""
    answered: list[str] = field(default_factory=list)
    """Of a service with several models, those that have answered."""

    def as_dict(self) -> dict[str, t.Any]:
        """Return the report as plain data for a module's result."""
        found = asdict(self)
        return found if self.answered else {key: value for key, value in found.items() if key != "answered"}


def check_token(endpoint: Endpoint, served_name: str, verify: Verify, report: Report) -> None:
    """Level token of a service that writes: a real prompt is answered with at least one token."""
    reply = api_calls.chat_stream(endpoint, served_name, verify.prompt, verify.max_tokens)
    report.reply = reply.text
    report.completion_tokens = reply.tokens
    report.first_token_seconds = reply.first_token_seconds
    report.tokens_per_second = reply.tokens_per_second


def check_task(endpoint: Endpoint, served_name: str, task: str, verify: Verify, report: Report) -> None:
    """Level token of any service: it does what it is for."""
    if task == "generate":
        check_token(endpoint, served_name, verify, report)
    elif task == "embed":
        vector = api_calls.embed(endpoint, served_name)[0]
        report.proof = f"vectors of {len(vector)} numbers"
    elif task == "classify":
        classes = api_calls.classify(endpoint, served_name)[0]
        report.proof = f"probabilities of {len(classes)} classes"
    else:
        order = api_calls.rerank if task == "rerank" else api_calls.score
        scores = order(endpoint, served_name, verify.prompt)
        report.proof = f"scores of {len(scores)} documents, {min(scores):.3g} to {max(scores):.3g}"


def check_each(endpoint: Endpoint, names: t.Sequence[str], task: str, verify: Verify, report: Report) -> None:
    """Level token of a service with several models: each of them does what it is for.

    One that has done so is not asked again, as that could unload the next while it is loading.
    """
    for name in names:
        if name in report.answered:
            continue
        try:
            check_task(endpoint, name, task, verify, report)
            check_bounds(verify, report)
        except FailedError as error:
            raise FailedError(f"model {name}: {error}") from None
        report.answered.append(name)
        report.proof = f"{', '.join(report.answered)}: each of them"


def check_bounds(verify: Verify, report: Report) -> list[str]:
    """Return the further levels (speed, answer) that were asked for and hold; raises FailedError otherwise."""
    reached: list[str] = []
    if report.reply is None and (verify.answer or verify.min_tokens_per_second or verify.max_first_token_seconds):
        raise FailedError("a speed or an answer in words is asked of a service that writes no text")
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
    task: str = "generate",
    names: t.Sequence[str] = (),
) -> None:
    """Climb from the highest level in ``report`` to the goal of ``verify``; raises NotYetError or FailedError.

    ``task`` is what the service is for; ``names``: those of its models where it has several; ``check_device`` returns
    what proves level device, None where nothing is to run on a GPU; it may raise DeviceError.
    """

    def device() -> None:
        report.device = check_device() if check_device else None

    steps: dict[str, t.Callable[[], object]] = {
        "http": lambda: api_calls.get(endpoint, health_path),
        "model": lambda: [api_calls.check_model(endpoint, name) for name in names or (served_name,)],
        "token": lambda: (
            check_each(endpoint, names, task, verify, report)
            if names
            else check_task(endpoint, served_name, task, verify, report)
        ),
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
