"""Open WebUI: the official image, or a lean one of PyPI's packages that leaves models to the services."""

from __future__ import annotations

from ansible.module_utils.llmfleet.constants import RUN_UID
from ansible.module_utils.llmfleet.packaged.base import Recipe
from ansible.module_utils.llmfleet.packaged.open_webui_pins import PINS, VERSION, requirements

_ROOT = "/opt/open-webui"

_SCRIPT = f"""\
#!/bin/sh
set -eu
root={_ROOT}
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
apt-get update
apt-get install -y --no-install-recommends python3 python3-venv ca-certificates
rm -rf /var/lib/apt/lists/*
python3 -m venv "$root"
# every package is named with its version, so nothing is left to resolve
PIP_CONFIG_FILE=/run/llmfleet/pip.conf "$root/bin/pip" install --no-deps --only-binary=:all: \\
  --find-links /run/python-wheels -r /run/llmfleet-tools/requirements.txt
for folder in "$root"/lib/python3*/site-packages; do
  find "$folder" -type d -name tests -prune -exec rm -rf {{}} +
  find "$folder/open_webui/frontend" -name '*.map' -delete
done
"""

_CONFIG = f"""\
ENV PATH={_ROOT}/bin:/usr/local/bin:/usr/bin:/bin
USER {RUN_UID}:{RUN_UID}
EXPOSE 8080
ENTRYPOINT ["open-webui", "serve"]
"""

# the whole program is imported, as the pins leave out much of what it names
_TRIAL = """\
import os
os.environ.update(WEBUI_SECRET_KEY="trial", DATA_DIR="/tmp/data", STATIC_DIR="/tmp/static", FROM_INIT_PY="true",
    HOME="/tmp", OFFLINE_MODE="true", RAG_EMBEDDING_ENGINE="openai", ENABLE_OLLAMA_API="false")
os.makedirs("/tmp/data")
import open_webui.main
print(open_webui.main.VERSION)
"""

RECIPE = Recipe(
    kind="open_webui",
    title="Open WebUI",
    version=VERSION,
    repositories=(
        "ghcr.io/open-webui/open-webui",
        "ghcr.nju.edu.cn/open-webui/open-webui",
        "ghcr.m.daocloud.io/open-webui/open-webui",
    ),
    tag=f"v{VERSION}",
    script=_SCRIPT,
    config=_CONFIG,
    trial=(f"{_ROOT}/bin/python", "-c", _TRIAL),
    layouts={
        "official": {"python": "/usr/local/bin/python", "env": {}},
        # says to it that it was installed as a package, with its pages inside of it
        "built": {"python": f"{_ROOT}/bin/python", "env": {"FROM_INIT_PY": "true"}},
    },
    files={"requirements.txt": requirements()},
    packages=PINS,
    # it asks for Python 3.11 or 3.12
    too_old=(
        "bullseye",
        "buster",
        "bionic",
        "focal",
        "jammy",
        "trixie",
        "forky",
        "sid",
        "plucky",
        "questing",
        "resolute",
    ),
)
