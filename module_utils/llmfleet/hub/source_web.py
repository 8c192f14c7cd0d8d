"""HTTP(S) to a source: redirects that are followed, a token that goes only where it may, no answer. Edge code.

Redirects are followed by hand, because a token must not go to the host that a hub redirects to. Proxies and
certificates are those of the environment.
"""

from __future__ import annotations

import http.client
import string
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request

from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.hub import web
from ansible.module_utils.llmfleet.hub.sources import Source, why_no_token

_HOPS = 8
_REDIRECTS = (301, 302, 303, 307, 308)


class Unreachable(OSError):
    """No answer came; ``reason`` is why, ``url`` whom it was to come from."""

    def __init__(self, url: str, reason: Exception) -> None:
        super().__init__(str(reason))
        self.url = url
        self.reason = reason

    def words(self, source: Source, timeout: float) -> str:
        """Return what cannot be reached, and why, after the name of ``source`` (``timeout``: seconds it had)."""
        why = web.explain(self.reason, timeout)
        host = urllib.parse.urlsplit(self.url).netloc.rpartition("@")[2]
        if host == urllib.parse.urlsplit(source.place).netloc:
            return f"cannot be reached: {why}"
        return f"sends on to {host}, which cannot be reached: {why}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: t.Any, **__: t.Any) -> None:
        return None


class Web:
    """HTTP(S) as a hub needs it; used by several threads at once. ``open_url`` takes a request and ``timeout``."""

    def __init__(
        self,
        timeout: float,
        open_url: t.Callable[..., t.Any] | None = None,
        sleep: t.Callable[[float], None] = time.sleep,
        now: t.Callable[[], float] = time.time,
    ) -> None:
        self.timeout = timeout
        self.sleep = sleep
        self.now = now
        self._open = open_url or urllib.request.build_opener(_NoRedirect()).open

    def get(self, source: Source, url: str, headers: t.Mapping[str, str], timeout: float) -> tuple[t.Any, str]:
        """Return the answer, whatever its status, and the URL that it came from in the end.

        The token of ``source`` goes where it may. Raises Unreachable where there is no answer, LlmfleetError where
        redirects do not end or the token's file cannot be read.
        """
        for _ in range(_HOPS):
            request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 -- checked here and by sources
            token = "" if why_no_token(source, url) else _token_of(source)
            if token:
                request.add_unredirected_header("Authorization", f"Bearer {token}")
            try:
                response = self._open(request, timeout=timeout)
            except urllib.error.HTTPError as error:
                response = error
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise Unreachable(url, error) from None
            place = response.headers.get("Location", "") if response.status in _REDIRECTS else ""
            if not place:
                return response, url
            response.close()
            url = joined(url, place)
            if not url:
                raise LlmfleetError("it redirects to something that is no http(s) URL; is this the URL of a hub?")
        raise LlmfleetError(f"it redirects more than {_HOPS} times; is this the URL of a hub?")


def joined(url: str, place: str) -> str:
    """Return the URL of ``place``, a header's words, seen from ``url``; "" unless it is one of http(s)."""
    try:
        # servers put letters there as they are, which http.client decodes as Latin-1
        there = urllib.parse.urljoin(url, urllib.parse.quote(place, safe=string.punctuation, encoding="iso-8859-1"))
        return there if urllib.parse.urlsplit(there).scheme.lower() in ("http", "https") else ""
    except ValueError:
        return ""


def _token_of(source: Source) -> str:
    """Return the token for a source, "" where there is none; raises BadInput when its file cannot be used."""
    if source.token or not source.token_file:
        return source.token
    try:
        with open(source.token_file, encoding="utf-8") as stream:
            token = stream.read(4096).strip()
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or "it is no text"
        raise BadInput(
            f"the file {source.token_file} with the token for {source.name} cannot be read: {said}"
        ) from None
    if not token or not token.isascii() or any(character <= " " for character in token):
        raise BadInput(f"the file {source.token_file} holds no token for {source.name}: one line, without blanks")
    return token
