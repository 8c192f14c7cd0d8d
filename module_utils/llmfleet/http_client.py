"""A small HTTP client for probing endpoints: no proxy, no redirects, short time limits, streaming."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import typing as t
import urllib.parse


class Endpoint:
    """An OpenAI-compatible server at ``url`` (http or https, with or without a path prefix)."""

    def __init__(self, url: str, api_key: str = "", timeout: float = 60.0, ca_file: str = "") -> None:
        """``ca_file``: the certificates to trust instead of those of the system."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http(s) URL: {url}")
        self.url = url.rstrip("/")
        self._secure = parts.scheme == "https"
        self._address = (parts.hostname, parts.port or (443 if self._secure else 80))
        self._prefix = parts.path.rstrip("/")
        self._timeout = timeout
        self._ca_file = ca_file
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def with_key(self, api_key: str) -> Endpoint:
        """Return the same server, to be asked with another key ("" for none)."""
        return Endpoint(self.url, api_key, self._timeout, self._ca_file)

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(*self._address, timeout=timeout)
        context = ssl.create_default_context(cafile=self._ca_file or None)
        return http.client.HTTPSConnection(*self._address, timeout=timeout, context=context)

    def _request(
        self, method: str, path: str, payload: t.Any, timeout: float | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self._connection(timeout or self._timeout)
        body = None if payload is None else json.dumps(payload)
        headers = {**self._headers, **({"Content-Type": "application/json"} if body else {})}
        connection.request(method, self._prefix + path, body=body, headers=headers)
        return connection, connection.getresponse()

    def get(self, path: str, timeout: float | None = None) -> tuple[int, str]:
        """Return (status, body); raises OSError or http.client.HTTPException when there is no answer."""
        return self._answer("GET", path, None, timeout)

    def post(self, path: str, payload: t.Any, timeout: float | None = None) -> tuple[int, str]:
        """POST ``payload`` as JSON and return (status, body); raises as `get` does."""
        return self._answer("POST", path, payload, timeout)

    def _answer(self, method: str, path: str, payload: t.Any, timeout: float | None) -> tuple[int, str]:
        connection, response = self._request(method, path, payload, timeout)
        try:
            # an embedding of some thousand numbers for each of some texts is what is long
            return response.status, response.read(1 << 24).decode(errors="replace")
        finally:
            connection.close()

    def events(self, path: str, payload: t.Any) -> t.Iterator[tuple[float, t.Any]]:
        """POST ``payload`` and yield (monotonic time, decoded data) for each server-sent event, up to [DONE].

        Raises RefusedError when the status is not 200, OSError or HTTPException when the connection fails.
        """
        connection, response = self._request("POST", path, payload, None)
        try:
            if response.status != 200:
                raise RefusedError(response.status, response.read(1 << 16).decode(errors="replace"))
            for line in response:
                data = line.decode(errors="replace").strip()
                if data == "data: [DONE]":
                    return
                if data.startswith("data: "):
                    yield time.monotonic(), json.loads(data[len("data: ") :])
        finally:
            connection.close()


class RefusedError(Exception):
    """The server answered with an error status."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"HTTP {status}: {body.strip()[:300]}")
        self.status = status
