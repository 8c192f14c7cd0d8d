"""Files over HTTP(S): what an error means in words, and the opener of files that have a plain URL. Edge code."""

from __future__ import annotations

import http.client
import socket
import ssl
import typing as t
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime

from ansible.module_utils.llmfleet.hub.manifest import RepoFile
from ansible.module_utils.llmfleet.hub.reply import UNKNOWN, Broken, Headers, Reply, TransferError, reply_of

USER_AGENT = "llmfleet"
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that another attempt may mend."""

HINTS = {
    401: "it wants a login; use a URL that needs none",
    403: "it refuses access; use a URL that needs no login, or a fresh one when it is a signed link",
    404: "there is no such file; check the URL",
    407: "the proxy wants a login; put it into the proxy settings of the host",
    410: "the file is gone; use another URL",
}


def explain(reason: t.Any, timeout: float) -> str:
    """Return what a failed connection means and what to do; ``timeout``: the seconds it was given."""
    if isinstance(reason, urllib.error.URLError) and not isinstance(reason, urllib.error.HTTPError):
        reason = reason.reason
    if isinstance(reason, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({reason.verify_message}); if a proxy replaces certificates, add "
            "its CA to the host's bundle or name the bundle in SSL_CERT_FILE"
        )
    if isinstance(reason, socket.gaierror):
        return "its host name does not resolve; check the URL, the host's DNS and its proxy settings"
    if isinstance(reason, (socket.timeout, TimeoutError)):
        return f"no byte came for {timeout:g} seconds; check the network and the host's proxy settings"
    if isinstance(reason, ConnectionRefusedError):
        return "the connection was refused; check host and port of the URL and the host's proxy settings"
    if isinstance(reason, http.client.IncompleteRead):
        return "the connection was closed too early"
    return str(getattr(reason, "strerror", None) or reason or type(reason).__name__)


def retry_after(headers: Headers, now: float) -> float:
    """Return the seconds of a Retry-After header (a number or a date; ``now``: seconds since 1970), 0 without one."""
    said = (headers.get("Retry-After", "") or "").strip()
    try:
        return float(max(0, int(said))) if said.isdigit() else max(0.0, parsedate_to_datetime(said).timestamp() - now)
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0


def range_headers(file: RepoFile, start: int, end: int) -> dict[str, str]:
    """Return the request headers for a range as Opener gets it; none is asked for where all of the file is wanted."""
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if start or end not in (UNKNOWN, file.size):
        headers["Range"] = f"bytes={start}-{end - 1 if end != UNKNOWN else ''}"
    return headers


class UrlOpener:
    """Opens files that lie at plain http(s) URLs, one per path; ``open_url`` is ``urllib``'s.

    A server that cannot be reached before it ever answered is an error at once: the URL is likely wrong.
    """

    def __init__(
        self, urls: t.Mapping[str, str], timeout: float, open_url: t.Callable[..., t.Any], now: t.Callable[[], float]
    ) -> None:
        self._urls = urls
        self._timeout = timeout
        self._open_url = open_url
        self._now = now
        self._connected = False

    def __call__(self, file: RepoFile, start: int, end: int) -> Reply:
        """Open a range; see Opener."""
        request = urllib.request.Request(  # noqa: S310 -- model_words lets only http(s) pass
            self._urls[file.path], headers=range_headers(file, start, end)
        )
        try:
            response = self._open_url(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            self._connected = True
            with error:
                if error.code == 416:
                    return Reply(416, error.headers, UNKNOWN, error)
                if 300 <= error.code < 400:
                    # urllib puts a text of several lines there
                    raise TransferError("the server redirects in a circle, or to nowhere; check the URL") from None
                said = f"the server answers HTTP {error.code} {error.reason}"
                if error.code in TRANSIENT:
                    raise Broken(said, retry_after(error.headers, self._now())) from None
            raise TransferError(f"{said}: {HINTS.get(error.code, 'check the URL')}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            message = f"the server cannot be reached: {explain(error, self._timeout)}"
            if self._connected:
                raise Broken(message) from None
            raise TransferError(message) from None
        self._connected = True
        return reply_of(response)
