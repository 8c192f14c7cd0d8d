"""Download one large file over HTTP: resumed where it stopped, watched for stalls, trusted only by its digest."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import re
import shutil
import socket
import ssl
import time
import typing as t
import urllib.error
import urllib.request

from ansible.module_utils.llmfleet.errors import LlmfleetError

BLOCK = 1 << 20
ATTEMPTS = 3
"""How often in a row a transfer may break without a byte gained before the download is given up."""

_TRANSIENT = (429, 500, 502, 503, 504)
_HINTS = {
    401: "it wants a login; use a URL that needs none",
    403: "it refuses access; use a URL that needs no login, or a fresh one when it is a signed link",
    404: "there is no such file; check the URL",
    407: "the proxy wants a login; put it into the proxy settings of the host",
    410: "the file is gone; use another URL",
}


class DownloadError(LlmfleetError):
    """The file could not be downloaded."""


class _InterruptedError(Exception):
    """The transfer broke in a way that another attempt may mend."""


class Download:
    """One download into the file ``partial``, which a broken run leaves behind and the next one continues.

    ``timeout`` is the longest time without a byte. ``check_start`` gets the first bytes and the full size before
    anything is stored, and raises when they cannot be the wanted file.
    """

    def __init__(
        self,
        url: str,
        sha256: str,
        partial: str,
        timeout: float,
        check_start: t.Callable[[bytes, int], None],
        open_url: t.Callable[..., t.Any],
        sleep: t.Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url
        self._sha256 = sha256
        self._partial = partial
        self._timeout = timeout
        self._check_start = check_start
        self._open_url = open_url
        self._sleep = sleep
        self._total = 0
        self._connected = False

    def run(self, finish: t.Callable[[str], None]) -> None:
        """Bring the whole, verified file to ``partial`` and call ``finish`` with its path while it is still locked."""
        try:
            with open(self._partial, "a+b") as file:
                self._lock(file)
                try:
                    self._bring(file)
                    finish(self._partial)
                finally:
                    # nothing arrived: nothing to continue from
                    if os.fstat(file.fileno()).st_size == 0:
                        os.unlink(self._partial)
        except OSError as error:
            raise DownloadError(f"cannot write {error.filename or self._partial}: {error.strerror or error}") from None

    def _bring(self, file: t.BinaryIO) -> None:
        os.fchmod(file.fileno(), 0o644)
        resumed = self._fill(file)
        digest = _digest(file)
        if digest != self._sha256 and resumed:
            # the bytes of the interrupted run may be of another version of the file
            file.truncate(0)
            self._fill(file)
            digest = _digest(file)
        if digest != self._sha256:
            file.truncate(0)
            raise DownloadError(
                f"the file that arrived has the sha256 {digest} instead of the expected {self._sha256}; "
                "it was deleted: correct the sha256, or the URL"
            )
        os.fsync(file.fileno())

    def _lock(self, file: t.BinaryIO) -> None:
        busy = DownloadError(f"another run is downloading it to {self._partial}; wait for it and start again")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(self._partial)):
                raise busy
        except (BlockingIOError, FileNotFoundError):
            raise busy from None

    def _fill(self, file: t.BinaryIO) -> bool:
        """Append what is missing; return whether the file was put together from more than one transfer."""
        resumed = False
        failures = most = 0
        while True:
            before = file.seek(0, os.SEEK_END)
            resumed = resumed or before > 0
            most = max(most, before)
            try:
                self._transfer(file, before)
                return resumed
            except _InterruptedError as error:
                have = file.seek(0, os.SEEK_END)
                failures = 0 if have > most else failures + 1
                if failures >= ATTEMPTS:
                    of_total = f" of {self._total}" if self._total else ""
                    raise DownloadError(
                        f"{error}; {have}{of_total} bytes are kept, and the next run continues from there"
                    ) from None
                self._sleep(0.25 * 2**failures)

    def _transfer(self, file: t.BinaryIO, offset: int) -> None:
        with self._request(file, offset) as response:
            if response is None:
                return
            if response.status == 206:
                found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
                if not found or int(found.group(1)) != offset:
                    file.truncate(0)
                    raise _InterruptedError("the server continued at another place than asked")
            else:
                offset = 0
            length = response.headers.get("Content-Length", "")
            self._total = offset + int(length) if length.isdigit() else 0
            block = self._read(response, at_least=64 if offset == 0 else 1)
            if offset == 0:
                self._check_start(block, self._total or len(block))
                file.truncate(0)
            self._check_space(offset)
            while block:
                file.write(block)
                offset += len(block)
                block = self._read(response)
            file.flush()
            if offset < self._total:
                raise _InterruptedError("the connection was closed too early")

    def _request(self, file: t.BinaryIO, offset: int) -> t.Any:
        headers = {"User-Agent": "llmfleet", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        request = urllib.request.Request(self._url, headers=headers)  # noqa: S310 -- model_ref lets only http(s) pass
        try:
            response = self._open_url(request, timeout=self._timeout)
            self._connected = True
            return response
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and offset:
                if error.headers.get("Content-Range", "") == f"bytes */{offset}":
                    return _Nothing()
                file.truncate(0)
                raise _InterruptedError("the server has less than what an interrupted run left") from None
            said = f"the server answers HTTP {error.code} {error.reason}"
            if error.code in _TRANSIENT:
                raise _InterruptedError(said) from None
            raise DownloadError(f"{said}: {_HINTS.get(error.code, 'check the URL')}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            message = f"the server cannot be reached: {self._explain(reason)}"
            if self._connected:
                raise _InterruptedError(message) from None
            raise DownloadError(message) from None

    def _read(self, response: t.Any, at_least: int = 1) -> bytes:
        """Return the next bytes; fewer than ``at_least`` only at the end."""
        data = b""
        try:
            while len(data) < at_least:
                block = response.read1(BLOCK)
                if not block:
                    break
                data += block
        except (OSError, http.client.HTTPException) as error:
            raise _InterruptedError(f"the transfer broke: {self._explain(error)}") from None
        return data

    def _check_space(self, offset: int) -> None:
        folder = os.path.dirname(self._partial)
        free = shutil.disk_usage(folder).free
        if self._total - offset > free:
            raise DownloadError(
                f"{folder} has {free} bytes free and the download needs {self._total - offset} more; "
                "make room, or choose another directory"
            )

    def _explain(self, reason: t.Any) -> str:
        if isinstance(reason, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({reason.verify_message}); if a proxy replaces certificates, add "
                "its CA to the host's bundle or name the bundle in SSL_CERT_FILE"
            )
        if isinstance(reason, socket.gaierror):
            return "its host name does not resolve; check the URL, the host's DNS and its proxy settings"
        if isinstance(reason, (socket.timeout, TimeoutError)):
            return f"no byte came for {self._timeout:g} seconds; check the network and the host's proxy settings"
        if isinstance(reason, ConnectionRefusedError):
            return "the connection was refused; check host and port of the URL and the host's proxy settings"
        return str(getattr(reason, "strerror", None) or reason or type(reason).__name__)


class _Nothing:
    """Stands for a response when nothing is left to transfer."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _digest(file: t.BinaryIO) -> str:
    """Return the sha256 of all of ``file``, front to back."""
    file.flush()
    file.seek(0)
    digest = hashlib.sha256()
    while True:
        block = file.read(BLOCK)
        if not block:
            return digest.hexdigest()
        digest.update(block)
