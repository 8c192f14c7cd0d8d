"""The doorkeeper in front of vLLM: without the API key only /health answers.

vLLM asks for its key below /v1 and a few other paths only; /invocations, /pooling, /tokenize and others answer anybody
("Unprotected Endpoints" in its docs/usage/security.md). It takes more middleware by import path (`--middleware`), and
the text below becomes a file beside the key. It is Python for the container, not for the host.
"""

from __future__ import annotations

GATE_FILE = "llmfleet_gate.py"
MIDDLEWARE = "llmfleet_gate.Gate"

GATE = '''\
"""Lets nobody without the API key through, but for the health check."""

import hashlib
import hmac
import os

OPEN = ("/health",)


def digest(text):
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


class Gate:
    def __init__(self, app):
        self.app = app
        self.key = digest(os.environ["VLLM_API_KEY"])

    def allows(self, scope):
        if scope["type"] not in ("http", "websocket") or scope["path"] in OPEN or scope.get("method") == "OPTIONS":
            return True
        said = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        scheme, _, key = (said[0] if said else b"").decode("latin-1").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(digest(key.strip()), self.key)

    async def __call__(self, scope, receive, send):
        if self.allows(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"error":"Unauthorized"}'})
'''
