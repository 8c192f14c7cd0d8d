"""When the gateway's certificate is made anew, and the module around it."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.gateway import certificate

PEM = "".join(f"-----BEGIN {what}-----\ntext\n-----END {what}-----\n" for what in ("PRIVATE KEY", "CERTIFICATE"))
NOW = 1_000_000.0
DAY = 86400


def test_both_parts_are_found_whatever_openssl_says_around_them():
    text, key = certificate.split(f".....+++\n{PEM}-----\n")
    assert "CERTIFICATE" in text
    assert "PRIVATE KEY" in key
    with pytest.raises(LlmfleetError, match="openssl made no certificate but nothing"):
        certificate.split("error")


def test_names():
    found = certificate.names(["llm.example.org", "10.0.0.1"], ["bad name", "node_1", "10.0.0.1", "::1", ""])
    assert found == ["llm.example.org", "10.0.0.1", "node_1", "::1"]
    assert "subjectAltName=DNS:llm.example.org,IP:10.0.0.1,DNS:node_1,IP:::1" in certificate.command(found)
    for bad in ("bad name", "", "a,DNS:b", "-a", "a..b"):
        with pytest.raises(BadInput, match="neither a host name nor"):
            certificate.names([bad], [])


@pytest.mark.parametrize(
    ("wanted", "later", "why"),
    [
        (["a", "b"], 0, ""),
        (["b"], 0, ""),
        (["a", "c"], 0, "it is not for c"),
        (["a"], (certificate.DAYS - certificate.RENEW_DAYS) * DAY - 1, ""),
        (["a"], (certificate.DAYS - certificate.RENEW_DAYS) * DAY + 1, "it ends in 60 days"),
        (["a"], 2 * certificate.DAYS * DAY, "it ends in 0 days"),
    ],
)
def test_why_another_one_is_needed(wanted, later, why):
    kept = certificate.record(["a", "b"], NOW, "text", "key")
    assert certificate.why_new(kept, "text", "key", wanted, NOW + later) == why


def test_what_an_interruption_leaves_is_made_anew():
    kept = certificate.record(["a"], NOW, "text", "key")
    assert certificate.why_new("", "", "key", ["a"], NOW) == "there is none"
    assert certificate.why_new(kept, "text", "new key", ["a"], NOW) == "it is not the one that was made here"
    for broken in ("{", "[]", json.dumps({"ends": "x", "digest": "", "names": []})):
        assert certificate.why_new(broken, "text", "key", ["a"], NOW) == "its record cannot be read"
