"""The systemd unit of a service: its text, and the specification that stands in it. Pure."""

from __future__ import annotations

import json
import re
import typing as t

from ansible.module_utils.llmfleet.engines.base import SECRETS_DIR
from ansible.module_utils.llmfleet.spec import STOP_SECONDS, Spec

_SPEC = "Spec="
RESTART_SECONDS = 5

_HARDENING = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=tmpfs
PrivateTmp=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
UMask=0077
LimitCORE=0
LimitNOFILE=65536
"""

# the names in /proc/devices; a pattern, as which of them there are depends on the driver
_GPU_DEVICES = """\
DevicePolicy=closed
DeviceAllow=char-nvidia* rw
DeviceAllow=char-drm rw
"""


def quoted(word: str, command: bool = False) -> str:
    """Return ``word`` as systemd reads it back; in a ``command`` a dollar would be a variable."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("%", "%%")
    return f'"{text.replace("$", "$$") if command else text}"'


def render(spec: Spec, secrets_dir: str) -> str:
    """Return the text of the unit for ``spec``; ``secrets_dir`` has its secret files."""

    def placed(word: str) -> str:
        return word.replace(SECRETS_DIR, secrets_dir)

    lines = [
        "# Written by llmfleet; changes are overwritten. Your own settings: systemctl edit.",
        "[Unit]",
        f"Description=llmfleet: {spec['engine']} service {spec['name']}",
        "Wants=network-online.target",
        "After=network-online.target nvidia-persistenced.service",
        # it is started again however often it ends
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=exec",
        f"User={spec['user']}",
        f"Group={spec['user']}",
        f"ExecStart={' '.join(quoted(placed(word), command=True) for word in spec['argv'])}",
        *(f"Environment={quoted(placed(f'{name}={value}'))}" for name, value in sorted(spec["env"].items())),
        "Restart=always",
        f"RestartSec={RESTART_SECONDS}",
        "KillMode=mixed",
        f"TimeoutStopSec={STOP_SECONDS}",
        "SuccessExitStatus=143",
        "LogRateLimitIntervalSec=0",
        *_memory(spec["memory"]),
        *_shared_memory(spec.get("shm_mib", 0)),
        *(f"ReadWritePaths={quoted(folder)}" for folder in spec["writes"]),
        *(f"BindReadOnlyPaths={quoted(folder)}" for folder in spec.get("reads", ())),
        *(_GPU_DEVICES if spec.get("gpus") else "PrivateDevices=yes\n").splitlines(),
        *_HARDENING.splitlines(),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
        # systemd passes over sections that begin so
        "[X-Llmfleet]",
        f"{_SPEC}{json.dumps(spec, sort_keys=True)}",
    ]
    return "\n".join(lines) + "\n"


def _memory(limit: str) -> list[str]:
    """Return the lines for a limit such as 8g; no swap, so that what does not fit fails at once."""
    return [f"MemoryMax={limit[:-1] if limit.endswith('b') else limit.upper()}", "MemorySwapMax=0"] if limit else []


def _shared_memory(mib: int) -> list[str]:
    """Return the lines for a /dev/shm of its own: where the host is a container itself, that one has 64 MiB."""
    return [f"TemporaryFileSystem=/dev/shm:rw,nosuid,nodev,mode=1777,size={mib}M"] if mib else []


def stored(text: str) -> Spec | None:
    """Return the specification in the text of a unit; None when it has none of ours."""
    found = re.search(rf"^{_SPEC}(.+)$", text, re.MULTILINE)
    try:
        return t.cast(Spec, json.loads(found[1])) if found else None
    except ValueError:
        return None
