"""The gateway's own certificate: which names it is for, when it is made anew, and how. Pure.

It is signed by itself and can sign no other: a client that trusts the file trusts this gateway and nobody else.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import typing as t

from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError

DAYS = 825
"""Clients of Apple take none that is valid for longer."""
RENEW_DAYS = 60
"""How long before its end a run makes a new one."""

_DNS = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")
_PARTS = re.compile(r"(-----BEGIN ([A-Z ]+)-----\n.*?-----END \2-----\n)", re.DOTALL)


def kind(name: str) -> str:
    """Return ``IP`` or ``DNS``, "" for what can be no name of a machine."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "DNS" if _DNS.fullmatch(name) and len(name) < 254 else ""
    return "IP"


def names(asked: t.Iterable[str], found: t.Iterable[str]) -> list[str]:
    """Return all names a certificate is for: what the user ``asked`` for, and what was ``found`` and is fit to be one.

    Raises BadInput.
    """
    for name in asked:
        if not kind(name):
            raise BadInput(f"llm_gateway_names: {name!r} is neither a host name nor an IP address")
    return list(dict.fromkeys([*asked, *(name for name in found if kind(name))]))


def command(wanted: t.Sequence[str], days: int = DAYS) -> list[str]:
    """Return what prints a private key and a certificate for ``wanted``, to be run where openssl is."""
    alternatives = ",".join(f"{kind(name)}:{name}" for name in wanted)
    return [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256"),
        *("-days", str(days), "-subj", "/CN=llmfleet gateway", "-keyout", "/dev/stdout"),
        *("-addext", f"subjectAltName={alternatives}"),
        # no authority: whoever trusts it must not have to trust all that its key could sign
        *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=critical,digitalSignature"),
        *("-addext", "extendedKeyUsage=serverAuth"),
    ]


def split(pem: str) -> tuple[str, str]:
    """Return (certificate, private key) of what openssl printed; raises LlmfleetError."""
    parts = {what: text for text, what in _PARTS.findall(pem)}
    if set(parts) != {"CERTIFICATE", "PRIVATE KEY"}:
        raise LlmfleetError(f"openssl made no certificate but {', '.join(parts) or 'nothing'}")
    return parts["CERTIFICATE"], parts["PRIVATE KEY"]


def record(wanted: t.Sequence[str], now: float, certificate: str, private_key: str, days: int = DAYS) -> str:
    """Return what is kept beside a certificate, as reading one takes more than Python has on every host."""
    said = {"names": list(wanted), "ends": int(now + days * 86400), "digest": _digest(certificate, private_key)}
    return json.dumps(said) + "\n"


def _digest(certificate: str, private_key: str) -> str:
    return hashlib.sha256(f"{certificate}{private_key}".encode()).hexdigest()


def why_new(kept: str, certificate: str, private_key: str, wanted: t.Sequence[str], now: float) -> str:
    """Return why another certificate is needed, "" when the one that ``kept`` is the record of will do."""
    if not certificate or not kept:
        return "there is none"
    try:
        said = json.loads(kept)
        ends, digest, has = float(said["ends"]), said["digest"], set(said["names"])
    except (ValueError, KeyError, TypeError):
        return "its record cannot be read"
    if digest != _digest(certificate, private_key):
        return "it is not the one that was made here"
    lacking = [name for name in wanted if name not in has]
    if lacking:
        return f"it is not for {', '.join(lacking)}"
    left = (ends - now) / 86400
    return f"it ends in {max(left, 0):.0f} days" if left < RENEW_DAYS else ""
