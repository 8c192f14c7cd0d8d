"""A small HTTP client for probing endpoints: no proxy, no redirects, short time limits, streaming."""

from __future__ import annotations

import http.client
import json
import time
import typing as t
import urllib.parse


class Endpoint:
    """An OpenAI-compatible server at ``url`` (http or https, with or without a path prefix)."""

    def __init__(self, url: str, api_key: str = "", timeout: float = 60.0) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http(s) URL: {url}")
        self.url = url.rstrip("/")
        self._secure = parts.scheme == "https"
        self._address = (parts.hostname, parts.port or (443 if self._secure else 80))
        self._prefix = parts.path.rstrip("/")
        self._timeout = timeout
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def _request(
        self, method: str, path: str, payload: t.Any, timeout: float | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(*self._address, timeout=timeout or self._timeout)
        body = None if payload is None else json.dumps(payload)
        headers = {**self._headers, **({"Content-Type": "application/json"} if body else {})}
        connection.request(method, self._prefix + path, body=body, headers=headers)
        return connection, connection.getresponse()

    def get(self, path: str, timeout: float | None = None) -> tuple[int, str]:
        """Return (status, body); raises OSError or http.client.HTTPException when there is no answer."""
        connection, response = self._request("GET", path, None, timeout)
        try:
            return response.status, response.read(1 << 20).decode(errors="replace")
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
