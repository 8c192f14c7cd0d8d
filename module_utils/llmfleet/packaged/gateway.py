"""nginx with its JavaScript module: the image of the gateway."""

from __future__ import annotations

from ansible.module_utils.llmfleet.constants import RUN_UID
from ansible.module_utils.llmfleet.packaged.base import Recipe

_SCRIPT = """\
#!/bin/sh
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y --no-install-recommends nginx libnginx-mod-http-js openssl ca-certificates
rm -rf /var/lib/apt/lists/* /var/log/nginx /var/lib/nginx /etc/nginx/sites-enabled
"""

_CONFIG = f"""\
ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin
USER {RUN_UID}:{RUN_UID}
STOPSIGNAL SIGQUIT
ENTRYPOINT ["nginx"]
CMD ["-g", "daemon off;"]
"""

_COMMON = {
    "binary": "nginx",
    "js_module": "/usr/lib/nginx/modules/ngx_http_js_module.so",
    "mime_types": "/etc/nginx/mime.types",
    "ca_bundle": "/etc/ssl/certs/ca-certificates.crt",
}

RECIPE = Recipe(
    kind="gateway",
    title="nginx",
    version="1.30.4",
    repositories=("docker.io/library/nginx", "docker.m.daocloud.io/library/nginx"),
    tag="1.30.4-trixie",
    script=_SCRIPT,
    config=_CONFIG,
    trial=("nginx", "-V"),
    layouts={"official": _COMMON, "built": _COMMON},
    # these have no libnginx-mod-http-js
    too_old=("bullseye", "buster", "bionic", "focal", "jammy"),
)
