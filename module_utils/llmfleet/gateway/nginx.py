"""The gateway's files: nginx's configuration, and the tables its JavaScript part reads. Pure."""

from __future__ import annotations

import hashlib
import json
import typing as t

from ansible.module_utils.llmfleet.gateway.access import ANYBODY, Access
from ansible.module_utils.llmfleet.gateway.fleet import Group
from ansible.module_utils.llmfleet.gateway.request import Request
from ansible.module_utils.llmfleet.gateway.server import server
from ansible.module_utils.llmfleet.gateway.words import CERTIFICATE, DOWN_SECONDS, KEY, TARGET, block, quoted

CONFIG, PROGRAM, TABLES = "nginx.conf", "gateway.js", "tables.js"

ARGV = ("-e", "stderr", "-c", f"{TARGET}/{CONFIG}")

_IDLE_SECONDS = 4
"""For how long a connection to a backend is kept: uvicorn and llama-server close theirs after 5 s."""

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


def _config(request: Request, layout: t.Mapping[str, t.Any], digest: str) -> str:
    rows = [
        "# Made by llmfleet from the inventory; another run replaces it.",
        f"# serial {digest}",
        "daemon off;",
        "pid /tmp/nginx.pid;",
        "worker_processes 4;",
        "error_log stderr error;",
        f"load_module {layout['js_module']};",
        *block("events", "worker_connections 4096;"),
        *block("http", *_http(request, digest)),
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
        *block("map $llm_digest $llm_key", *default, *(f'{one.digest} "{one.name}";' for one in request.keys)),
        *block("map $http_upgrade $llm_upgrade", "default upgrade;", '"" "";'),
        *block("geo $llm_dollar", 'default "$";'),
        # what locations set; a `set` for all of them would forget it again when an error is answered
        *(row for name in ("service", "path", "name") for row in block(f'map "" $llm_{name}', 'default "";')),
        *said,
        # at the level of an error each refused request would be a line
        "limit_req_log_level info;",
        "limit_conn_log_level info;",
        "limit_req_status 429;",
        "limit_conn_status 429;",
        f"log_format llmfleet escape=json {quoted(_LOG)};",
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
        *block("server", *server(request, digest)),
    ]


def _bounds(number: int, one: Access) -> list[str]:
    """Return what counts the requests of one key; those of other keys have nothing there to be counted by."""
    rows = []
    if one.requests_per_minute or one.parallel:
        # by the digest, as a name may be a word that nginx has for itself, such as `default`
        rows += block(f"map $llm_digest $llm_counted_{number}", 'default "";', f"{one.digest} counted;")
    if one.requests_per_minute:
        rows.append(f"limit_req_zone $llm_counted_{number} zone=rate_{number}:32k rate={one.requests_per_minute}r/m;")
    if one.parallel:
        rows.append(f"limit_conn_zone $llm_counted_{number} zone=parallel_{number}:32k;")
    return rows


def _upstream(number: int, group: Group) -> list[str]:
    down = f"max_fails=1 fail_timeout={DOWN_SECONDS}s"
    return block(
        f"upstream llm_{number}",
        # the workers have one view of what is down and how much each has to do
        f"zone llm_{number} 64k;",
        "least_conn;",
        *(f"server {address} {down};" for address in group.backends),
        "keepalive 32;",
        f"keepalive_timeout {_IDLE_SECONDS}s;",
    )
