"""Helper containers on the real engine: nginx with files that are read again, replaced and put back."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import signal
import stat
import subprocess
import threading
import time
import urllib.request

import pytest
from helpers import docker, free_port, run_module, start_module

SECRET = "a-secret-of-the-configuration-0123456789"

CONFIG = """
pid /tmp/nginx.pid;
error_log stderr warn;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server {
        listen 127.0.0.1:%(port)s;
        location = /health { return 200 "%(said)s"; }
        location = /slow { limit_rate 1k; root /data; }
        # %(secret)s
        %(more)s
    }
}
"""


@pytest.fixture(scope="module")
def image():
    result = run_module("packaged_image", {"kind": "gateway", "source": "build"})
    assert not result.get("failed"), result
    return result["image"]


@pytest.fixture
def side(request, tmp_path, image):
    """Return a function that runs side_container for one nginx of this test; everything is removed afterwards."""
    name = f"test-side-{abs(hash(request.node.nodeid)) % 10**8}"
    port = free_port()
    home = tmp_path / "side" / name

    def run(said="one", more="", check=False, background=False, **fields):
        content = CONFIG % {"port": fields.pop("port", port), "said": said, "secret": SECRET, "more": more}
        given = {
            "name": name,
            "image": image,
            "network": "host",
            "entrypoint": "nginx",
            "argv": ["-c", "/etc/side/nginx.conf", "-g", "daemon off;"],
            "files": [{"path": "nginx.conf", "content": content}],
            "files_target": "/etc/side",
            "volumes": [{"source": str(home / "data"), "target": "/data"}],
            "listens": [f"127.0.0.1:{port}"],
            "check_argv": ["nginx", "-t", "-c", "/etc/side/nginx.conf"],
            "reload_signal": "HUP",
            "health": {"url": f"http://127.0.0.1:{port}/health", "contains": said, "timeout": 10},
            "stop_seconds": 3,
            "directory": str(tmp_path / "side"),
            **fields,
        }
        return (start_module if background else run_module)("side_container", given, check=check)

    run.name, run.port, run.home = name, port, home
    yield run
    for suffix in ("", ".previous", ".next", ".check"):
        subprocess.run(["docker", "rm", "-f", name + suffix], capture_output=True, check=False)


def said(side):
    with urllib.request.urlopen(f"http://127.0.0.1:{side.port}/health", timeout=5) as answer:
        return answer.read().decode()


def soon(side, text):
    """Whether ``text`` is what it says in the end: for a moment workers of before and after accept side by side."""
    until = time.monotonic() + 10
    while said(side) != text and time.monotonic() < until:
        time.sleep(0.05)
    return said(side) == text


def look(name):
    return json.loads(docker("container", "inspect", name))[0]


def same_run(before, after):
    return (before["Id"], before["State"]["StartedAt"]) == (after["Id"], after["State"]["StartedAt"])


def test_launch_check_repeat_reload_replace_remove(side):
    would = side(check=True)
    assert (would["changed"], would["action"]) == (True, "create")
    assert not side.home.exists()

    launched = side()
    assert not launched.get("failed"), launched
    assert (launched["changed"], launched["action"]) == (True, "create")
    assert said(side) == "one"
    assert launched["health_seconds"] < 10
    first = look(side.name)
    again = side()
    assert (again["changed"], again["action"]) == (False, "keep")
    assert side(check=True)["changed"] is False

    would = side("two", check=True)
    assert (would["action"], would["why"]) == ("reload", "files: nginx.conf")
    assert would["diff"]["before"] != would["diff"]["after"]
    assert SECRET not in json.dumps(would)
    assert said(side) == "one"
    changed = side("two")
    assert (changed["changed"], changed["action"]) == (True, "reload")
    assert soon(side, "two")
    assert same_run(first, look(side.name))
    assert side("two")["changed"] is False

    # a signal by `docker kill` would have ended its restarts
    os.kill(look(side.name)["State"]["Pid"], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not (look(side.name)["RestartCount"] and look(side.name)["State"]["Running"]):
        assert time.monotonic() < deadline
        time.sleep(0.2)

    replaced = side("three", memory="64m")
    assert (replaced["action"], replaced["why"]) == ("replace", "memory: (none) -> 64m; files: nginx.conf")
    assert said(side) == "three"
    assert look(side.name)["Id"] != first["Id"]
    assert not docker("ps", "-aq", "--filter", f"name={side.name}.previous")

    (side.home / "data" / "kept").write_text("x")
    assert side(state="absent", check=True)["changed"]
    gone = side(state="absent")
    assert gone["left"] == [str(side.home / "data")]
    assert [path.name for path in side.home.iterdir()] == ["data"]
    assert side(state="absent")["changed"] is False
    assert side(state="absent", purge=True)["changed"]
    assert not side.home.exists()
    assert side(state="absent", purge=True)["changed"] is False


def test_the_container_is_confined_and_shows_no_content(side):
    side()
    found = look(side.name)
    host = found["HostConfig"]
    assert found["Config"]["User"] == "10001:10001"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"]["Config"] == {"max-size": "50m", "max-file": "3"}
    assert {row["Destination"]: row["RW"] for row in found["Mounts"]} == {"/etc/side": False, "/data": True}
    assert SECRET not in json.dumps(found)
    file = (side.home / "files" / "nginx.conf").stat()
    assert (stat.S_IMODE(file.st_mode), file.st_uid, file.st_gid) == (0o440, 10001, 10001)
    assert stat.S_IMODE(side.home.stat().st_mode) == 0o700


def test_a_configuration_that_the_program_refuses_changes_nothing(side):
    side()
    before = look(side.name)
    for check in (True, False):
        failed = side(more="no_such_directive on;", check=check)
        assert 'unknown directive "no_such_directive"' in failed["msg"]
        assert "nothing was changed" in failed["msg"]
    assert side(more="no_such_directive on;", memory="64m")["failed"]
    assert same_run(before, look(side.name))
    assert said(side) == "one"
    assert not list(side.home.glob("files.*"))
    assert side()["changed"] is False
    assert not docker("ps", "-aq", "--filter", f"name={side.name}.")


def test_files_that_break_it_are_put_back(side):
    side()
    before = look(side.name)
    # nginx takes it, and then nobody answers at the address that is asked
    failed = side(port=free_port(), health={"url": f"http://127.0.0.1:{side.port}/health", "timeout": 2})
    assert failed["rolled_back"], failed
    assert "does not answer as it should" in failed["msg"]
    assert "Its previous files are back and verified" in failed["msg"]
    assert said(side) == "one"
    assert look(side.name)["Id"] == before["Id"]
    assert side()["changed"] is False


def test_a_container_that_dies_is_replaced_by_the_previous_one_with_its_files(side):
    side()
    before = look(side.name)
    begun = time.monotonic()
    health = {"url": f"http://127.0.0.1:{side.port}/health", "timeout": 120}
    failed = side("two", argv=["-c", "/etc/side/nginx.conf", "-g", "no_such_thing on;"], health=health)
    assert time.monotonic() - begun < 60
    assert failed["rolled_back"]
    assert "unknown directive" in failed["diagnosis"]["evidence"]
    assert any("no_such_thing" in line for line in failed["log_tail"])
    assert said(side) == "one"
    assert look(side.name)["Id"] == before["Id"]
    assert side()["changed"] is False


def test_an_address_of_somebody_else_is_told_before_anything_changes(side):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", side.port), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever).start()
    try:
        failed = side()
    finally:
        server.shutdown()
        server.server_close()
    assert f"port {side.port} on 127.0.0.1 is taken" in failed["msg"]
    assert not docker("ps", "-aq", "--filter", f"name={side.name}")
    assert side()["action"] == "create"


def test_answers_in_flight_survive_a_reload(side):
    side()
    (side.home / "data" / "slow").write_bytes(b"x" * 3000)
    connection = http.client.HTTPConnection("127.0.0.1", side.port, timeout=20)
    connection.request("GET", "/slow")
    answer = connection.getresponse()
    read = answer.read(10)
    assert side("two")["action"] == "reload"
    read += answer.read()
    connection.close()
    assert len(read) == 3000


def test_what_was_interrupted_is_finished_by_the_next_run(side):
    side()
    # the files are in place, and nobody has told nginx
    process = side("two", background=True, reload_signal="CONT", health={"url": "http://127.0.0.1:9/", "timeout": 60})
    deadline = time.monotonic() + 20
    while "two" not in (side.home / "files/nginx.conf").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert said(side) == "one"
    would = side("two", check=True)
    assert (would["action"], would["why"]) == ("reload", "files: a former change was not verified")
    assert side("two")["action"] == "reload"
    assert soon(side, "two")
    assert not (side.home / "files.previous").exists()
    # a hand-over that ended before the new container was started
    docker("rename", side.name, f"{side.name}.previous")
    back = side("two")
    assert back["action"] == "restore", back
    assert said(side) == "two"
    docker("kill", side.name)
    assert side("two")["action"] == "start"


def test_without_a_signal_it_is_restarted_and_without_health_it_must_stay_up(side):
    side(reload_signal="", health={})
    first = look(side.name)
    changed = side("two", reload_signal="", health={})
    assert changed["action"] == "restart"
    after = look(side.name)
    assert after["Id"] == first["Id"]
    assert not same_run(first, after)
    assert said(side) == "two"


def test_somebody_elses_container_is_left_alone(side, image):
    docker("create", "--name", side.name, image, "nginx")
    failed = side()
    assert "none of these helpers" in failed["msg"]
    assert side(state="absent")["failed"]
    assert look(side.name)["State"]["Status"] == "created"
