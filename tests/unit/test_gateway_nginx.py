"""nginx's configuration, as far as it can be judged without nginx: nothing of it may turn into more than was meant."""

from __future__ import annotations

import json
import re

import pytest
from ansible.module_utils.llmfleet.gateway import nginx
from ansible.module_utils.llmfleet.gateway.request import make
from test_gateway_request import HOSTS, KEY, SAID

LAYOUT = {"js_module": "/modules/js.so", "binary": "nginx"}


def files(hosts=HOSTS, private_key="key", **said):
    return nginx.files(make({**SAID, **said}, hosts, "a"), "program", LAYOUT, "certificate", private_key)


def tables(made):
    return json.loads(made["tables.js"].removeprefix("export default ").removesuffix(";\n"))


def test_what_the_program_reads():
    made = files(keys=[KEY, {"name": "bob", "key": "b" * 16, "services": ["embed"]}])
    found = tables(made)
    assert found["names"] == {"chat": 0, "embed": 1}
    assert found["allowed"] == {"alice": [0, 1], "bob": [1]}
    assert found["groups"][1] == {"model": "embed", "service": "embed", "paths": ["/v1/embeddings"]}
    assert tables(files(bind="127.0.0.1", keys=[]))["allowed"] == {"anybody": [0, 1]}


def test_every_location_is_exact_but_for_those_of_the_gateway_itself():
    heads = re.findall(r"location (.+) \{", files()["nginx.conf"])
    inexact = [head for head in heads if not head.startswith("= ")]
    assert inexact == ["^~ /v1/models/", "^~ /v1/", "@llm_0", "@llm_1", "/"]
    assert "= /v1/chat/completions" in heads
    assert "= /embed/v1/embeddings" in heads
    assert "= /embed/v1/chat/completions" not in heads


def test_no_key_of_a_caller_is_written():
    made = files()
    assert not any(KEY["key"] in text for text in made.values())
    assert 'default "";' in made["nginx.conf"].split("map $llm_digest")[1]


def test_without_keys_there_is_no_bound_and_a_name_for_everybody():
    assert 'default "anybody";' in files(bind="127.0.0.1", keys=[])["nginx.conf"]
    assert "limit_req zone" not in files()["nginx.conf"]
    limited = files(keys=[{**KEY, "requests_per_minute": 60, "parallel": 2}])["nginx.conf"]
    # names are no good: `default` means something else to nginx
    assert '"alice" counted' not in limited
    # every location that takes requests of keys, and no other
    assert limited.count("limit_req zone=rate_0 burst=59 nodelay;") == limited.count('if ($llm_key = "")')
    assert limited.count("limit_conn parallel_0 2;") == limited.count('if ($llm_key = "")')


@pytest.mark.parametrize("key", ["a'b", "a\\", "a$host", 'a"b', "a;}b", "$"])
def test_a_key_of_an_engine_stays_one_word(key):
    hosts = [{**HOSTS[0], "services": [{"name": "chat", "model": "tiny", "port": 8001, "api_key": key}]}]
    (line,) = [
        row for row in files(hosts)["nginx.conf"].splitlines() if "Authorization" in row and "Bearer KEY" not in row
    ]
    word = re.fullmatch(r"\s*proxy_set_header Authorization '((?:[^'\\]|\\.)*)';", line)
    assert word
    assert re.sub(r"\\(.)", r"\1", word[1]).replace("${llm_dollar}", "$") == f"Bearer {key}"
    assert "$" not in word[1].replace("${llm_dollar}", "")


def test_a_change_of_anything_shows_in_the_answer_to_health():
    serials = [nginx.serial(made) for made in (files(), files(max_body_mib=33), files(private_key="other"), files())]
    assert len(set(serials)) == 3
    assert serials[0] == serials[3]
    assert serials[0] in files()["nginx.conf"].split("location = /health")[1]


def test_addresses():
    assert "listen 0.0.0.0:8443 ssl;" in files()["nginx.conf"]
    assert "listen [::]:8443 ssl ipv6only=off;" in files(bind="::")["nginx.conf"]
    assert files().keys() == {"nginx.conf", "gateway.js", "tables.js", "certificate.pem", "private_key.pem"}


def test_errors_have_one_form_and_a_path_each():
    text = files()["nginx.conf"]
    paths = re.findall(r"error_page [\d ]+ = (\S+);", text)
    assert len(paths) == len(set(paths)) == text.count("internal;")
    for body in re.findall(r"return \d+ '(\{\"error.*)';", text):
        assert json.loads(body)["error"].keys() == {"message", "type", "param", "code"}
