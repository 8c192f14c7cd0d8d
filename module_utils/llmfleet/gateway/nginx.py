"""The gateway's files: nginx's configuration, and the tables its JavaScript part reads. Pure.

What is let through is a list: these methods and paths, written as they are here. The path that a backend sees is never
the caller's own words, so that no spelling of a path can mean something else to it than to nginx; of the caller's
headers it sees two.
"""

from __future__ import annotations

import hashlib
import json
import typing as t

from ansible.module_utils.llmfleet.gateway.access import ANYBODY, Access
from ansible.module_utils.llmfleet.gateway.fleet import Group
from ansible.module_utils.llmfleet.gateway.request import Request

TARGET = "/etc/llmfleet/gateway"
"""Folder of the files in the container."""

CONFIG, PROGRAM, TABLES, CERTIFICATE, KEY = "nginx.conf", "gateway.js", "tables.js", "certificate.pem", "private_key.pem"

ARGV = ("-e", "stderr", "-c", f"{TARGET}/{CONFIG}")

_CONNECT_SECONDS, _DOWN_SECONDS, _TRIES = 3, 5, 3
_IDLE_SECONDS = 4
"""For how long a connection to a backend is kept: uvicorn and llama-server close theirs after 5 s."""
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
        f'Retry-After "{_DOWN_SECONDS}"',
    ),
    ("504", 504, "the server of this model did not answer in time", "server_error", "timeout", ""),
)

_LOG = (
    '{"time":"$time_iso8601","client":"$remote_addr","key":"$llm_key","service":"$llm_service","path":"$llm_path",'
    '"status":$status,"seconds":$request_time,"first_byte":"$upstream_header_time","bytes":$bytes_sent,'
    '"backend":"$upstream_addr","request_id":"$request_id"}'
)
"""A line of the log. Addresses as callers wrote them are not in it: they may hold a key."""


def files(
    request: Request, program: str, layout: t.Mapping[str, t.Any], certificate: str, private_key: str
) -> dict[str, str]:
    """Return name -> content of all files; ``program`` is gateway.js, ``layout`` what is known of the image."""
    tables = f"export default {json.dumps(_tables(request), indent=1)};\n"
    # by the private key nobody who reads it can tell anything of the other secrets in there
    parts = (_config(request, layout, ""), program, tables, certificate, private_key)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return {
        CONFIG: _config(request, layout, digest),
        PROGRAM: program,
        TABLES: tables,
        CERTIFICATE: certificate,
        KEY: private_key,
    }


def serial(made: t.Mapping[str, str]) -> str:
    """Return what /health says of the files ``made``, which tells whether a reload has shown yet."""
    return made[CONFIG].split("# serial ", 1)[1].split("\n", 1)[0]


def _tables(request: Request) -> dict[str, t.Any]:
    groups = [{"model": group.model, "service": group.names[0], "paths": group.paths} for group in request.groups]
    names = {name: at for at, group in enumerate(request.groups) for name in group.names}
    allowed = {one.name: request.allowed(one) for one in request.keys}
    if request.open:
        allowed = {ANYBODY: list(range(len(groups)))}
    return {"groups": groups, "names": names, "allowed": allowed}


def _block(head: str, *rows: str) -> list[str]:
    return [f"{head} {{", *(f"    {row}" for row in rows), "}"]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _config(request: Request, layout: t.Mapping[str, t.Any], digest: str) -> str:
    rows = [
        "# Made by llmfleet from the inventory; another run replaces it.",
        f"# serial {digest}",
        "daemon off;",
        "pid /tmp/nginx.pid;",
        "worker_processes 4;",
        "error_log stderr error;",
        f"load_module {layout['js_module']};",
        *_block("events", "worker_connections 4096;"),
        *_block("http", *_http(request, digest)),
    ]
    return "\n".join(rows) + "\n"


def _http(request: Request, digest: str) -> list[str]:
    said = [row for number, one in enumerate(request.keys) for row in _bounds(number, one)]
    default = [f'default "{ANYBODY if request.open else ""}";']
    return [
        f"js_path {TARGET};",
        f"js_import gateway from {PROGRAM};",
        "js_set $llm_digest gateway.digest;",
        "map_hash_bucket_size 128;",
        *_block("map $llm_digest $llm_key", *default, *(f'{one.digest} "{one.name}";' for one in request.keys)),
        *_block("map $http_upgrade $llm_upgrade", "default upgrade;", '"" "";'),
        *_block("geo $llm_dollar", 'default "$";'),
        # what locations set; a `set` for all of them would forget it again when an error is answered
        *(row for name in ("service", "path", "name") for row in _block(f'map "" $llm_{name}', 'default "";')),
        *said,
        # at the level of an error each refused request would be a line
        "limit_req_log_level info;",
        "limit_conn_log_level info;",
        "limit_req_status 429;",
        "limit_conn_status 429;",
        f"log_format llmfleet escape=json {_quoted(_LOG)};",
        f"access_log {'/dev/stdout llmfleet' if request.access_log else 'off'};",
        # what is answered here is JSON, whatever a path ends in
        "types {}",
        "default_type application/json;",
        "server_tokens off;",
        "merge_slashes off;",
        "keepalive_timeout 75s;",
        "client_header_timeout 20s;",
        "client_body_timeout 60s;",
        "send_timeout 300s;",
        "large_client_header_buffers 4 16k;",
        # the JavaScript part reads the name of the model, for which the body has to be in memory
        f"client_max_body_size {request.max_body_mib}m;",
        f"client_body_buffer_size {request.max_body_mib}m;",
        "client_body_in_single_buffer on;",
        *(f"{kind}_temp_path /tmp/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")),
        *(row for number, group in enumerate(request.groups) for row in _upstream(number, group)),
        *_block("server", *_server(request, digest)),
    ]


def _bounds(number: int, one: Access) -> list[str]:
    """Return what counts the requests of one key; those of other keys have nothing there to be counted by."""
    rows = []
    if one.requests_per_minute or one.parallel:
        rows += _block(f"map $llm_key $llm_counted_{number}", 'default "";', f'"{one.name}" counted;')
    if one.requests_per_minute:
        rows.append(f"limit_req_zone $llm_counted_{number} zone=rate_{number}:32k rate={one.requests_per_minute}r/m;")
    if one.parallel:
        rows.append(f"limit_conn_zone $llm_counted_{number} zone=parallel_{number}:32k;")
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


def _upstream(number: int, group: Group) -> list[str]:
    down = f"max_fails=1 fail_timeout={_DOWN_SECONDS}s"
    return _block(
        f"upstream llm_{number}",
        # the workers have one view of what is down and how much each has to do
        f"zone llm_{number} 64k;",
        "least_conn;",
        *(f"server {address} {down};" for address in group.backends),
        "keepalive 32;",
        f"keepalive_timeout {_IDLE_SECONDS}s;",
    )


def _server(request: Request, digest: str) -> list[str]:
    bind = f"[{request.bind}]" if ":" in request.bind else request.bind
    both = " ipv6only=off" if request.bind == "::" else ""
    rows = [
        f"listen {bind}:{request.port} ssl{both};",
        f"listen 127.0.0.1:{request.local_port};",
        f"ssl_certificate {TARGET}/{CERTIFICATE};",
        f"ssl_certificate_key {TARGET}/{KEY};",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        "ssl_session_cache shared:tls:2m;",
        "ssl_session_timeout 1d;",
        "add_header X-Request-Id $request_id always;",
    ]
    for statuses, sent, message, kind, code, header in _ERRORS:
        said = {"message": message.replace("@max_body@", str(request.max_body_mib)), "type": kind, "param": None}
        body = json.dumps({"error": {**said, "code": code}})
        more = [f"add_header {header} always;", "add_header X-Request-Id $request_id always;"] if header else []
        # a name in place of a path would not do: of a request that cannot be read nginx has no path to come from
        rows.append(f"error_page {statuses} = /_llmfleet/{code};")
        rows += _block(f"location = /_llmfleet/{code}", "internal;", *more, f"return {sent} {_quoted(body)};")
    health = json.dumps({"status": "ok", "serial": digest})
    rows += _block("location = /health", *_only("GET"), f"return 200 {_quoted(health)};")
    rows += _block("location = /v1/models", *_only("GET"), *_asked(), *_bounded(request), "js_content gateway.models;")
    rows += _block("location ^~ /v1/models/", *_only("GET"), *_asked(), *_bounded(request), "js_content gateway.model;")
    rows += _block("location ^~ /v1/", "return 404;")
    for path in dict.fromkeys(path for group in request.groups for path in group.paths):
        rows += _api(request, path, path, "")
    for group in request.groups:
        for name in group.names:
            for path in group.paths:
                rows += _api(request, f"/{name}{path}", path, name)
            listed = _only("GET"), _asked(), _bounded(request), [f"set $llm_name {name};", "js_content gateway.models;"]
            rows += _block(f"location = /{name}/v1/models", *(row for part in listed for row in part))
    for number, group in enumerate(request.groups):
        rows += _block(f"location @llm_{number}", *_passed_on(number, group))
    return rows + _block("location /", *(_web_ui(request.web_ui) if request.web_ui else ["return 404;"]))


def _only(method: str) -> list[str]:
    return _block(f"if ($request_method != {method})", "return 405;")


def _asked() -> list[str]:
    return _block('if ($llm_key = "")', "return 401;")


def _api(request: Request, location: str, path: str, name: str) -> list[str]:
    named = [f"set $llm_name {name};"] if name else []
    rows = (*_asked(), *_only("POST"), f"set $llm_path {path};", *named, *_bounded(request))
    return _block(f"location = {location}", *rows, "js_content gateway.route;")


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
        *([f"proxy_set_header Authorization {_plain(key)};"] if key else []),
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


def _plain(text: str) -> str:
    """Return ``text`` for a value in which nginx would see variables; it has no other way to write a dollar sign."""
    return _quoted(text).replace("$", "${llm_dollar}")


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
