"""What gguf_info tells of a model: the edge that opens its files, on the host or on a server."""

from __future__ import annotations

import os
import socket
import ssl
import typing as t
import urllib.error
import urllib.parse

from ansible.module_utils.llmfleet import gguf, model_file
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.gguf.remote import OpenRange, read_remote_model
from ansible.module_utils.llmfleet.hub import source_web, web
from ansible.module_utils.llmfleet.hub.reply import UNKNOWN, Broken, Reply, TransferError, reply_of
from ansible.module_utils.llmfleet.hub.sources import HF, Source, parse_sources, why_no_token
from ansible.module_utils.llmfleet.memory import shape

_TOKEN_HINTS = {
    401: "it wants a login; give `token_file`, accepting the model's licence on its page first where it has one",
    403: "it refuses access; accept the model's licence on its page, or give the `token_file` of an account that did",
}
_LASTING = (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError)
"""What another attempt will not change when the server has not answered before."""


def look_at_path(path: str) -> dict[str, t.Any]:
    """Return the facts of the model whose (first) file is ``path``; raises LlmfleetError with the path in it."""
    try:
        files = list(model_file.read(path, any_mode=True).files)
        header = gguf.read_model(files)
        size = sum(os.path.getsize(file) for file in files)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    except OSError as error:
        raise BadInput(f"{error.filename or path}: it cannot be read: {error.strerror or error}") from None
    return {**_facts(header), "files": files, "size": size}


def look_at_url(
    url: str, *, token: str = "", token_file: str = "", timeout: float = 30.0, time_limit: float = 300.0
) -> dict[str, t.Any]:
    """Return the facts of the model whose (first) file is at ``url``; only the beginnings of files are transferred.

    ``timeout``: seconds without a byte; ``time_limit``: seconds for each file. A token goes to the URL's own host
    alone; without one, that of the host's environment is used for the hub it belongs to. Raises LlmfleetError with the
    address in it, without what follows a `?`.
    """
    parts = _parts_of(url)
    site = f"{parts.scheme}://{parts.netloc}"
    open_url = _Opener(_source_of(site, token, token_file), timeout)
    sizes: dict[str, int] = {}

    def open_file(path: str) -> OpenRange:
        address = urllib.parse.urlunsplit(parts._replace(path=path, fragment=""))

        def open_range(start: int, end: int) -> Reply:
            reply = open_url(address, start, end)
            sizes[path] = reply.total
            return reply

        return open_range

    try:
        header = read_remote_model(open_file, parts.path, time_limit=time_limit)
    except LlmfleetError as error:
        raise type(error)(f"{shown(url)}: {' '.join(str(error).split())}") from None
    return {**_facts(header), "files": [shown(site + path) for path in sizes], "size": sum(sizes.values())}


def shown(url: str) -> str:
    """Return ``url`` for messages: without a login, and without the signature that a `?` may begin."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))[:300]


def _parts_of(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        host, user, _ = parts.hostname, parts.username, parts.port
    except ValueError as error:
        raise BadInput(f"`url` is not a valid URL ({error})") from None
    if user is not None:
        raise BadInput("`url` may not hold a user name or password, which logs would show; use `token_file`")
    if parts.scheme.lower() not in ("http", "https") or not host or not url.isascii() or not url.isprintable():
        raise BadInput(f"`url` must be an http or https URL of a GGUF file, not {shown(url)!r}")
    if " " in url:
        raise BadInput("`url` holds a blank; write %20 instead")
    return parts


def _facts(header: gguf.GgufHeader) -> dict[str, t.Any]:
    try:
        found = shape.from_gguf(header).as_data()
    except BadInput:
        # an architecture that the plan does not know is still told about
        found = {}
    return {**gguf.summary(header), "shape": found}


def _source_of(site: str, token: str, token_file: str) -> Source:
    """Return ``site`` as a source, with the token that may go there where there is one."""
    if token or token_file:
        given = {"url": site, "token": token, "token_file": token_file}
        try:
            source = parse_sources([given], {})[0]
        except BadInput as error:
            raise BadInput(str(error).replace("sources[0]", "`token` and `token_file`", 1)) from None
        refused = why_no_token(source, site)
        if refused:
            raise BadInput(f"the token is not sent: {refused}; use an https URL")
        return source
    known = parse_sources(None, os.environ)
    own = Source(urllib.parse.urlsplit(site).netloc, HF, site)
    return next((source for source in known if source.has_token and not why_no_token(source, site)), own)


class _Opener:
    """Opens ranges of files at URLs, through the environment's proxies; the token goes only where it may."""

    def __init__(self, source: Source, timeout: float) -> None:
        self._source = source
        self._timeout = timeout
        self._web = source_web.Web(timeout)
        self._answered = False

    def __call__(self, url: str, start: int, end: int) -> Reply:
        headers = {"User-Agent": web.USER_AGENT, "Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        try:
            response, _ = self._web.get(self._source, url, headers, self._timeout)
        except source_web.Unreachable as error:
            message = f"the server {error.words(self._source, self._timeout)}"
            reason = error.reason.reason if isinstance(error.reason, urllib.error.URLError) else error.reason
            if isinstance(reason, _LASTING) and not self._answered:
                raise TransferError(message) from None
            raise Broken(message) from None
        self._answered = True
        if response.status == 416:
            return Reply(416, response.headers, UNKNOWN, response)
        if response.status in (200, 206):
            return reply_of(response)
        with response:
            said = f"the server answers HTTP {response.status} {str(response.reason)[:100]}"
            if response.status in web.TRANSIENT:
                raise Broken(said, web.retry_after(response.headers, self._web.now()))
        hints = {**web.HINTS, **_TOKEN_HINTS}
        raise TransferError(f"{said}: {hints.get(response.status, 'check the URL')}")
