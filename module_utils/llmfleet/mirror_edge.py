"""Asking mirrors over HTTP: one deadline for all that a candidate is asked, limits on what is read, all at once.

Proxies come from the environment (``http_proxy``, ``https_proxy``, ``no_proxy``).
"""

from __future__ import annotations

import concurrent.futures
import email.message
import http.client
import os
import socket
import ssl
import tempfile
import threading
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass

from ansible.module_utils.llmfleet.image_source import public_url
from ansible.module_utils.llmfleet.mirror_index import Wrong, is_page
from ansible.module_utils.llmfleet.mirror_rank import Sample

BLOCK = 1 << 16
USER_AGENT = "llmfleet"
REDIRECTS = (301, 302, 303, 307, 308)

T = t.TypeVar("T")


class OverdueError(Exception):
    """The time of a candidate is used up."""


@dataclass(frozen=True)
class Answer:
    """What came back: ``whole`` unless reading was stopped at a limit; ``length`` is what the server announced."""

    status: int
    headers: email.message.Message
    body: bytes
    whole: bool
    length: int | None
    sample: Sample

    def is_page(self) -> bool:
        """Whether it is a web page."""
        return is_page(self.headers.get("Content-Type", ""), self.body)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows 308 too, which Python does from 3.11 on."""

    def redirect_request(
        self, req: t.Any, fp: t.Any, code: int, msg: str, headers: t.Any, newurl: str
    ) -> urllib.request.Request | None:
        return super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


def _opener(context: ssl.SSLContext) -> urllib.request.OpenerDirector:
    """Return an opener for http and https alone: a redirect must not lead to a file or to FTP."""
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        director.add_handler(handler)
    return director


class Visit:
    """All that one candidate is asked. Another thread may look how far it came when its time is used up."""

    def __init__(self, context: ssl.SSLContext, seconds: float) -> None:
        self._opener = _opener(context)
        self.started = time.monotonic()
        self.seconds = seconds
        self.vouched = False
        self.sampling = False
        self.released: float | None = None
        self.version = ""
        self.received = 0
        self._asked = self.started

    def vouch(self, released: float | None = None) -> None:
        """Note that what was seen so far is right."""
        self.vouched = True
        self.released = released

    def elapsed(self) -> float:
        """Return the seconds since the visit began."""
        return time.monotonic() - self.started

    def so_far(self) -> Sample:
        """Return what came of the answer that is being read."""
        return Sample(self.received, time.monotonic() - self._asked)

    def get(
        self, url: str, limit: int, headers: t.Mapping[str, str] | None = None, seconds: float | None = None
    ) -> Answer:
        """Return the answer to GET ``url``, of its body at most ``limit`` bytes and what comes within ``seconds``.

        ``headers`` are not sent on to where a redirect leads, since they may hold a token. Raises Wrong when there is
        no answer or it breaks off, OverdueError when the visit's time is used up.
        """
        self.received, self._asked = 0, time.monotonic()
        request = urllib.request.Request(url)  # noqa: S310 - the opener knows http and https alone
        request.add_header("User-Agent", USER_AGENT)
        request.add_header("Accept-Encoding", "identity")
        for name, value in (headers or {}).items():
            request.add_unredirected_header(name, value)
        try:
            try:
                response = self._opener.open(request, timeout=self._left())
            except urllib.error.HTTPError as error:
                if error.code in REDIRECTS:
                    error.close()
                    raise Wrong("redirects in a circle, or to where it should not") from None
                response = error
            with response:
                return self._read(response, limit, seconds)
        except (socket.timeout, TimeoutError):
            raise OverdueError from None
        except Wrong:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(reason, (socket.timeout, TimeoutError)):
                raise OverdueError from None
            raise Wrong(_words(reason) + _proxy_of(url)) from None

    def _left(self) -> float:
        left = self.seconds - self.elapsed()
        if left <= 0:
            raise OverdueError
        return left

    def _read(self, response: t.Any, limit: int, seconds: float | None) -> Answer:
        announced = response.headers.get("Content-Length", "")
        length = int(announced) if announced.isdecimal() and len(announced) < 19 else None
        body, ended = bytearray(), False
        while len(body) < limit and not (body and seconds and time.monotonic() - self._asked >= seconds):
            block = response.read1(min(BLOCK, limit - len(body)))
            if not block:
                ended = True
                break
            body += block
            self.received = len(body)
            self._left()
        if ended and length is not None and len(body) < length:
            raise Wrong("breaks off in the middle of a file")
        whole = ended or len(body) == length
        return Answer(response.status, response.headers, bytes(body), whole, length, self.so_far())


def _words(reason: t.Any) -> str:
    """Return what went wrong on the way to a candidate."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"has a certificate that is not trusted ({reason.verify_message})"
    if isinstance(reason, socket.gaierror):
        return "has a name that does not resolve"
    if isinstance(reason, ConnectionRefusedError):
        return "refuses the connection"
    if isinstance(reason, http.client.RemoteDisconnected):
        return "closes the connection without an answer"
    if isinstance(reason, http.client.IncompleteRead):
        return "breaks off in the middle of a file"
    if isinstance(reason, http.client.HTTPException):
        return "does not speak HTTP"
    return f"cannot be reached ({getattr(reason, 'strerror', None) or reason or type(reason).__name__})"


def _proxy_of(url: str) -> str:
    """Return a remark about the proxy that stands between this host and ``url``, "" when there is none."""
    proxy = urllib.request.getproxies().get(url.partition("://")[0])
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
    except ValueError:
        return ""
    if not proxy or urllib.request.proxy_bypass(host):
        return ""
    return f" (through the proxy {public_url(proxy)})"


def tls_context(ca_bundle: str) -> ssl.SSLContext:
    """Return the certificates to trust, the host's own with ""; raises OSError when the file cannot be used."""
    return ssl.create_default_context(cafile=ca_bundle or None)


def all_at_once(jobs: t.Sequence[t.Callable[[], T]], seconds: float) -> list[T | None]:
    """Return the results of ``jobs``, None for those that are not done after ``seconds``.

    Those are left behind in daemon threads: a look-up of a name that hangs cannot be stopped, and must not hold anyone.
    """
    futures: list[concurrent.futures.Future[T]] = [concurrent.futures.Future() for _ in jobs]

    def work(job: t.Callable[[], T], future: concurrent.futures.Future[T]) -> None:
        try:
            future.set_result(job())
        except BaseException as error:  # noqa: BLE001 - raised again by result() below
            future.set_exception(error)

    for number, job in enumerate(jobs):
        threading.Thread(target=work, args=(job, futures[number]), daemon=True).start()
    concurrent.futures.wait(futures, timeout=seconds)
    return [future.result() if future.done() else None for future in futures]


def write_cache(path: str, text: str) -> None:
    """Write the cache file, for its owner alone and all at once; raises OSError."""
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, mode=0o755, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=folder, prefix=".mirror_probe.")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, path)
    except OSError:
        with suppress(OSError):
            os.unlink(draft)
        raise
