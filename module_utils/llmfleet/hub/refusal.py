"""What it means that a source does not give a model, and what its user can do about it. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.hub import web
from ansible.module_utils.llmfleet.hub.sources import HF, MS, Source, why_no_token


class NoAnswer(LlmfleetError):
    """A source does not have a model, or does not give it; ``str()`` is what it said, after its name.

    ``gated``: it would, to those who accepted a licence or have a token.
    """

    def __init__(self, said: str, *, gated: bool = False) -> None:
        super().__init__(said)
        self.gated = gated


def refused(source: Source, repo: str, revision: str, status: int, headers: t.Mapping[str, str]) -> NoAnswer:
    """Return what an answer with an error status means, and what to do."""
    code = headers.get("X-Error-Code", "") or ""
    token = "HF_TOKEN" if source.kind == HF else "MODELSCOPE_API_TOKEN"
    ways = f"`token_file` of the source, or {token} in the environment"
    page = f"{source.place}/{repo}" if source.kind == HF else f"{source.place}/models/{repo}"
    withheld = why_no_token(source, source.place) if source.has_token else ""
    if withheld:
        ways = f"an https URL of the source, as its token is not sent because {withheld}"
    if code == "GatedRepo" or (source.kind == MS and status in (401, 403)):
        if source.has_token and not withheld:
            return NoAnswer(
                f"{repo} is gated and the token's account has not been let in: accept the licence at {page} with it",
                gated=True,
            )
        return NoAnswer(
            f"{repo} is gated: accept the licence at {page} and give a token of that account ({ways})", gated=True
        )
    said = f"it answers HTTP {status}"
    if code == "RevisionNotFound" or (status == 404 and revision and code != "RepoNotFound"):
        return NoAnswer(f"{repo} has no revision {revision or 'main'}: check the branch, tag or commit behind the @")
    if status == 401 and code != "RepoNotFound" and source.has_token:
        return NoAnswer(f"its token is not valid ({_message(headers) or said}): make a new one", gated=True)
    if code == "RepoNotFound" or status in (401, 404):
        private = "" if source.has_token and not withheld else f"; a private one needs a token ({ways})"
        return NoAnswer(f"it has no repository {repo}: check the name, upper and lower case too{private}")
    if status == 403:
        return NoAnswer(f"it refuses access to {repo} ({_message(headers) or said})", gated=True)
    if status == 429:
        return NoAnswer(f"it has been asked too often (HTTP 429): wait, or give a token ({ways})")
    return NoAnswer(f"{said}: {web.HINTS.get(status, 'try again later, or name another source')}")


def _message(headers: t.Mapping[str, str]) -> str:
    text = headers.get("X-Error-Message", "") or ""
    return text[:200] if text.isprintable() else ""
