"""Nothing of vLLM is left on the host; the model, which llmfleet did not fetch, is."""

from __future__ import annotations


def test_nothing_runs_and_nothing_is_left(host):
    assert not host.check_output("systemctl list-units --all --plain --no-legend 'llmfleet-*'")
    for path in ("/etc/systemd/system/llmfleet-vllm-chat.service", "/opt/llmfleet", "/var/lib/llmfleet"):
        assert not host.file(path).exists, path
    assert not host.user("llmfleet-vllm").exists


def test_the_users_model_stays(host):
    assert host.file("/srv/models/tiny-hf/config.json").exists
