"""Every host has the models whole, where other programs find them too, and nothing is left of their journey."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

HUB = Path(__file__).resolve().parents[3] / ".cache/fixtures/hub"
STORE = "/var/lib/llmfleet/models/hub"


@pytest.mark.parametrize(("name", "file"), [("large", "large-Q8_0.gguf"), ("small", "small-F32.gguf")])
def test_the_model_is_whole_and_the_only_one_of_its_kind(host, name, file):
    folder = f"{STORE}/models--org--{name}"
    commit = host.file(f"{folder}/refs/main").content_string.strip()
    assert host.check_output(f"ls {folder}/snapshots") == commit
    found = host.file(f"{folder}/snapshots/{commit}/{file}")
    assert found.sha256sum == hashlib.sha256((HUB / "org" / name / file).read_bytes()).hexdigest()
    assert found.mode == 0o644
    assert host.check_output(f"ls {folder}/snapshots/{commit}") == file


def test_engines_can_go_through_the_folders(host):
    for folder in host.check_output(f"find {STORE}/*/snapshots -type d").split():
        assert host.file(folder).mode & 0o055 == 0o055


def test_nothing_half_is_left(host):
    assert not host.run(f"find {STORE} -name 'incoming-*' -o -name '*.part' -o -name '*.new'").stdout.split()


def test_nobody_shares_any_more(host):
    assert "python3" not in host.check_output("ss --listening --tcp --processes --numeric")
