"""The gateway's one server: which paths there are, what is asked of callers, and what is passed on. Pure.

What is let through is a list: these methods and paths, written as they are here. The path that a backend sees is never
the caller's own words, so that no spelling of a path can mean something else to it than to nginx; of the caller's
headers it sees one.
"""

from __future__ import annotations

import json

from ansible.module_utils.llmfleet.gateway.fleet import Group
from ansible.module_utils.llmfleet.gateway.request import Request
from ansible.module_utils.llmfleet.gateway.words import (
    CERTIFICATE,
    DOWN_SECONDS,
    KEY,
    TARGET,
    address,
    block,
    plain,
    quoted,
)

_CONNECT_SECONDS, _TRIES = 3, 3
_ANSWER_SECONDS = 3600
"""Silence of a backend: a long prompt is read for minutes before the first token."""

_ERRORS = (
    # status by nginx, status that is sent, message, type, code, further header
    ("400 494 501 505", 400, "nginx cannot read this request", "invalid_request_error", "bad_request", ""),
    ("497", 400, "this port speaks TLS: use https", "invalid_request_error", "tls_needed", ""),
    (
        "401",
        401,
        "wrong or missing API key: send it as Authorization: Bearer KEY",
        "invalid_request_error",
        "invalid_api_key",
        "WWW-Authenticate Bearer",
    ),
    ("404", 404, "there is nothing at this path", "invalid_request_error", "not_found", ""),
    ("405", 405, "this path does not know this method", "invalid_request_error", "method_not_allowed", ""),
    ("408", 408, "the request came too slowly", "invalid_request_error", "request_too_slow", ""),
    ("413", 413, "the request is larger than @max_body@ MiB", "invalid_request_error", "request_too_large", ""),
    ("414", 414, "the address is too long", "invalid_request_error", "address_too_long", ""),
    ("429", 429, "too many requests for this key", "rate_limit_error", "rate_limit_exceeded", 'Retry-After "5"'),
    ("500", 500, "the gateway failed", "server_error", "internal_error", ""),
    (
        "502 503",
        503,
        "no server of this model answers",
        "server_error",
        "service_unavailable",
        f'Retry-After "{DOWN_SECONDS}"',
    ),
    ("504", 504, "the server of this model did not answer in time", "server_error", "timeout", ""),
)


def server(request: Request, digest: str) -> list[str]:
    """Return the lines of the one server; ``digest`` is what /health says."""
    both = " ipv6only=off" if request.bind == "::" else ""
    rows = [
        f"listen {address(request.bind)}:{request.port} ssl{both};",
        f"listen 127.0.0.1:{request.local_port};",
        f"ssl_certificate {TARGET}/{CERTIFICATE};",
        f"ssl_certificate_key {TARGET}/{KEY};",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        "ssl_session_cache shared:tls:2m;",
        "ssl_session_timeout 1d;",
        "add_header X-Request-Id $request_id always;",
    ]
    rows += _errors(request)
    health = json.dumps({"status": "ok", "serial": digest})
    rows += block("location = /health", *_only("GET"), f"return 200 {quoted(health)};")
    rows += block("location = /v1/models", *_only("GET"), *_asked(), *_bounded(request), "js_content gateway.models;")
    rows += block("location ^~ /v1/models/", *_only("GET"), *_asked(), *_bounded(request), "js_content gateway.model;")
    rows += block("location ^~ /v1/", "return 404;")
    for path in dict.fromkeys(path for group in request.groups for path in group.paths):
        rows += _api(request, path, path, "")
    for group in request.groups:
        for name in group.names:
            for path in group.paths:
                rows += _api(request, f"/{name}{path}", path, name)
            listed = _only("GET"), _asked(), _bounded(request), [f"set $llm_name {name};", "js_content gateway.models;"]
            rows += block(f"location = /{name}/v1/models", *(row for part in listed for row in part))
    for number, group in enumerate(request.groups):
        rows += block(f"location @llm_{number}", *_passed_on(number, group))
    return rows + block("location /", *(_web_ui(request.web_ui) if request.web_ui else ["return 404;"]))


def _errors(request: Request) -> list[str]:
    rows = []
    for statuses, sent, message, kind, code, header in _ERRORS:
        said = {"message": message.replace("@max_body@", str(request.max_body_mib)), "type": kind, "param": None}
        body = json.dumps({"error": {**said, "code": code}})
        more = [f"add_header {header} always;", "add_header X-Request-Id $request_id always;"] if header else []
        # a name in place of a path would not do: of a request that cannot be read nginx has no path to come from
        rows.append(f"error_page {statuses} = /_llmfleet/{code};")
        rows += block(f"location = /_llmfleet/{code}", "internal;", *more, f"return {sent} {quoted(body)};")
    return rows


def _bounded(request: Request) -> list[str]:
    rows = []
    for number, one in enumerate(request.keys):
        if one.requests_per_minute:
            # as many at once as a minute has; after that they come back evenly
            burst = f" burst={one.requests_per_minute - 1}" if one.requests_per_minute > 1 else ""
            rows.append(f"limit_req zone=rate_{number}{burst} nodelay;")
        if one.parallel:
            rows.append(f"limit_conn parallel_{number} {one.parallel};")
    return rows


def _only(method: str) -> list[str]:
    return block(f"if ($request_method != {method})", "return 405;")


def _asked() -> list[str]:
    return block('if ($llm_key = "")', "return 401;")


def _api(request: Request, location: str, path: str, name: str) -> list[str]:
    named = [f"set $llm_name {name};"] if name else []
    rows = (*_asked(), *_only("POST"), f"set $llm_path {path};", *named, *_bounded(request))
    return block(f"location = {location}", *rows, "js_content gateway.route;")


def _passed_on(number: int, group: Group) -> list[str]:
    key = f"Bearer {group.api_key}" if group.api_key else ""
    return [
        f"set $llm_service {group.names[0]};",
        f"proxy_pass http://llm_{number}$llm_path;",
        "proxy_http_version 1.1;",
        "proxy_pass_request_headers off;",
        "proxy_set_header Host llmfleet;",
        'proxy_set_header Connection "";',
        "proxy_set_header Content-Type application/json;",
        "proxy_set_header Accept $http_accept;",
        "proxy_set_header X-Request-Id $request_id;",
        *([f"proxy_set_header Authorization {plain(key)};"] if key else []),
        # tokens go on as they come
        "proxy_buffering off;",
        f"proxy_connect_timeout {_CONNECT_SECONDS}s;",
        f"proxy_read_timeout {_ANSWER_SECONDS}s;",
        "proxy_send_timeout 300s;",
        # only before the first byte of an answer; a completion that is computed twice does no harm
        "proxy_next_upstream error timeout http_502 http_503 non_idempotent;",
        f"proxy_next_upstream_tries {_TRIES};",
        *(f"proxy_hide_header {name};" for name in _HIDDEN),
    ]


_HIDDEN = ("Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "X-Request-Id", "X-Powered-By")
"""llama-server allows every web page to read its answers."""


def _web_ui(address: str) -> list[str]:
    return [
        f"proxy_pass {address};",
        "proxy_http_version 1.1;",
        "proxy_set_header Host $http_host;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header Connection $llm_upgrade;",
        "proxy_set_header X-Real-IP $remote_addr;",
        "proxy_set_header X-Forwarded-For $remote_addr;",
        "proxy_set_header X-Forwarded-Proto $scheme;",
        "client_body_buffer_size 64k;",
        "proxy_request_buffering off;",
        "proxy_buffering off;",
        f"proxy_connect_timeout {_CONNECT_SECONDS}s;",
        f"proxy_read_timeout {_ANSWER_SECONDS}s;",
    ]
