"""The table of all services, for people and as JSON."""

from __future__ import annotations

import json
import re

import pytest
from ansible.module_utils.llmfleet.status_table import document, table
from ansible.module_utils.llmfleet.text_table import width

LOAD = {"streams": 4, "total_tokens_per_second": 801.25, "first_token_p50": 0.1, "first_token_p95": 0.21}
SINGLE = {"streams": 1, "tokens_per_second": 310.5, "first_token_p50": 0.021, "total_tokens_per_second": 200.0}
ROW = {
    "name": "chat",
    "state": "running",
    "verdict": "ready",
    "in_inventory": True,
    "answering": True,
    "problem": "",
    "fix": "",
    "verification": {
        "levels": {"http": 0.01, "token": 0.31},
        "first_token_seconds": 0.5,
        "tokens_per_second": 9.0,
    },
    "loads": [],
    "urls": {"host": "http://127.0.0.1:8080/v1", "lan": None},
    "image_id": "sha256:0123456789abcdef0123",
    "model": {"path": "/m", "source": "", "digest": "sha256:fedcba9876543210fedc"},
    "memory_bytes": 1288490188,
    "gpu_memory_bytes": None,
    "uptime_seconds": 3 * 86400 + 4 * 3600 + 59,
    "restarts": 0,
}


def host(*rows, name="gpu1", **more):
    return {"host": name, "problem": "", "wsl": False, "services": list(rows), "helpers": [], **more}


def cells(*hosts, line=1):
    return re.split(r" {2,}", table(hosts).splitlines()[line])


def test_a_row_tells_all_of_a_service():
    assert cells(host(ROW)) == [
        *("gpu1", "chat", "ready", "token 0.31 s", "0.500 s", "9.0", "1.2 GiB", "3 d 4 h"),
        *("0123456789ab", "fedcba987654", "http://127.0.0.1:8080/v1"),
    ]
    assert table([host(ROW)]).splitlines()[0].split("  ")[0] == "HOST"


def test_a_load_says_more_than_the_verification():
    loaded = {**ROW, "loads": [SINGLE, LOAD]}
    found = cells(host(loaded, {**ROW, "name": "other"}))
    assert found[4:7] == ["0.021 s", "310.5", "801.2 tokens/s, p95 0.210 s"]
    assert "4 STREAMS" in table([host(loaded)]).splitlines()[0]


def test_a_load_that_nobody_answered_has_no_figure():
    none = {**LOAD, "total_tokens_per_second": None, "first_token_p95": None}
    assert "4 STREAMS" not in table([host({**ROW, "loads": [none]})])


def test_the_address_for_others_is_the_one_to_print():
    assert cells(host({**ROW, "urls": {"host": "h", "lan": "http://192.0.2.1:8080/v1"}}))[-1].startswith("http://192")


@pytest.mark.parametrize(
    ("seconds", "restarts", "expected"),
    [(0, 0, "0 s"), (59, 0, "59 s"), (61, 0, "1 min 1 s"), (7200, 0, "2 h 0 min"), (5, 2, "5 s, 2 restarts")],
)
def test_uptime_is_told_in_two_units(seconds, restarts, expected):
    assert expected in cells(host({**ROW, "uptime_seconds": seconds, "restarts": restarts}))


def test_memory_of_the_gpu_stands_beside_that_of_the_host():
    assert "1.2 GiB, GPU 20.0 GiB" in cells(host({**ROW, "gpu_memory_bytes": 20 << 30}))
    assert "9 MiB" in cells(host({**ROW, "memory_bytes": 9 << 20}))


def test_other_digests_than_sha256_say_what_they_are():
    assert "fingerprint abcdefabcdef" in table([host({**ROW, "model": {"digest": "fingerprint:abcdefabcdefabc"}})])


def test_columns_line_up_beside_wide_names():
    lines = table([host(ROW, name="上海一号"), host({**ROW, "name": "聊天"})]).splitlines()
    assert len({width(line[: line.index("token 0.31")]) for line in lines[1:]}) == 1


def test_a_host_that_is_away_and_one_without_services_are_rows():
    text = table([host(name="a", problem="unreachable: no route"), host(name="b"), host(ROW, name="c")])
    assert re.search(r"^a +unreachable$", text, re.MULTILINE)
    assert re.search(r"^b +no services$", text, re.MULTILINE)
    assert "a: unreachable: no route" in text
    assert table([]) == "there are no hosts"


def test_a_service_that_is_gone_has_few_cells_and_a_sentence():
    gone = {"name": "old", "state": "absent", "verdict": "missing", "in_inventory": True, "answering": None}
    text = table([host({**gone, "problem": "", "fix": "deploy it with site.yml"}, ROW)])
    assert re.search(r"^gpu1 +old +missing$", text, re.MULTILINE)
    assert "gpu1: service old is missing; deploy it with site.yml" in text


def test_one_that_does_not_answer_says_what_docker_says():
    row = {**ROW, "verdict": "not ready", "state": "restarting", "problem": "it ended", "fix": "see its log"}
    text = table([host(row)])
    assert "not ready (restarting)" in text
    assert "gpu1: service chat is not ready: it ended; see its log" in text


def test_a_problem_of_one_that_answers_is_said_too():
    text = table([host({**ROW, "problem": "the LAN address does not work", "fix": "open the port"})])
    assert "gpu1: service chat: the LAN address does not work; open the port" in text


def test_what_no_inventory_names_is_marked():
    assert "chat (not in the inventory)" in cells(host({**ROW, "in_inventory": False}))


def test_helpers_have_a_row_and_fronts_a_line():
    helper = {"name": "gateway", "state": "running", "memory_bytes": 4 << 20, "uptime_seconds": 61, "restarts": 0}
    fronts = {"gateway": [{"urls": ["https://gw:8443/v1", "https://gw:8443/v1"]}], "web UI": []}
    text = table([host(ROW, helpers=[helper])], fronts)
    assert re.search(r"^gpu1 +gateway +running +4 MiB +1 min 1 s$", text, re.MULTILINE)
    assert text.endswith("gateway: https://gw:8443/v1")
    assert "web UI" not in text


def test_on_wsl_the_address_is_explained():
    lan = {**ROW, "urls": {"host": "h", "lan": "http://172.20.1.2:8080/v1"}}
    assert "Windows reaches it as localhost" in table([host(lan, wsl=True)])
    assert "Windows" not in table([host(ROW, wsl=True)])


def test_the_document_holds_everything_and_says_whether_all_is_well():
    good = json.loads(document([host(ROW, name="上海")], "2026-01-01T00:00:00Z", {"gateway": [{"urls": ["u"]}]}))
    assert (good["ok"], good["made_at"], good["fronts"]["gateway"]) == (True, "2026-01-01T00:00:00Z", [{"urls": ["u"]}])
    assert good["hosts"][0]["services"][0]["model"]["digest"] == ROW["model"]["digest"]
    bad = json.loads(document([host(problem="unreachable: no route")], ""))
    assert (bad["ok"], bad["hosts"][0]["wrong"]) == (False, ["unreachable: no route"])
    assert "上海" in document([host(name="上海")], "")
