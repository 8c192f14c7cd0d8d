"""The healthcheck of a service in a Compose file: asked by what its image has, or not at all."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading

import pytest
from ansible.module_utils.llmfleet.compose_health import healthcheck
from deployed_services import llama, vllm_service


def test_the_health_of_vllm_is_asked_by_its_python():
    check, why = healthcheck(vllm_service())
    assert check is not None
    assert not why
    assert check["test"][:5] == ["CMD", "python3", "-I", "-S", "-c"]
    compile(check["test"][5], "probe", "exec")
    assert check["start_period"] == f"{600 + 600 + 1800 + 3600 + 1800 + 300}s"


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1), (401, 1), (None, 1)])
def test_the_probe_of_vllm_is_right(status, exit_status):
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/health" else 500)
            self.end_headers()

        def log_message(self, *args):
            """Say nothing."""

    check, _ = healthcheck(vllm_service())
    assert check is not None
    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        port = server.server_port
        if status:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        else:
            server.server_close()
        words = [word.replace("$$", "$").replace("8000", str(port)) for word in check["test"][1:]]
        # a proxy of the environment is none for the container itself
        environment = {**os.environ, "http_proxy": "http://127.0.0.1:1", "PYTHONPATH": "/nonexistent"}
        done = subprocess.run([sys.executable, *words[1:]], env=environment, capture_output=True, check=False)
        if status:
            server.shutdown()
    assert done.returncode == exit_status


def test_images_of_others_are_asked_by_what_their_own_check_uses():
    own = {"Healthcheck": {"Test": ["CMD", "curl", "-f", "http://localhost:8080/health"]}}
    check, _ = healthcheck(llama(image=own))
    assert check is not None
    assert check["test"][:2] == ["CMD", "curl"]
    assert check["test"][-1] == "http://127.0.0.1:8080/health"
    assert check["start_period"] == "960s"
    # one of unknown ways could report a healthy service as ill
    assert healthcheck(llama(image={"Healthcheck": {"Test": ["CMD", "/probe"]}}))[0] == {"disable": True}
    assert healthcheck(llama(image={}))[0] is None
