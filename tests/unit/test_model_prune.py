"""The model_prune module: what nobody names goes, what a service or its container has stays."""

from __future__ import annotations

import hashlib
import json
import typing as t
from pathlib import Path

import model_prune
import pytest
from ansible.module_utils.llmfleet.hub.manifest import GGUF, Manifest, RepoFile
from ansible.module_utils.llmfleet.hub.place import Asked, Place
from ansible.module_utils.llmfleet.hub.store import publish
from ansible.module_utils.testing import patch_module_args


def bring(dest: Path, repo: str, names: t.Sequence[str]) -> Path:
    """Publish a model of small files; return what engines are given."""
    files = tuple(RepoFile(name, 5, sha256=hashlib.sha256(name[:5].encode()).hexdigest()) for name in names)
    manifest = Manifest(repo, "c0ffee", GGUF, files, entry=names[0], quant="Q8_0")
    place = Place(str(dest), repo)
    incoming = Path(place.incoming(manifest.key))
    incoming.mkdir(parents=True)
    for name in names:
        (incoming / name).write_text(name[:5])
    publish(place, manifest, Asked())
    return Path(place.location(manifest))


def run(capsys: t.Any, dest: Path, keep: t.Sequence[str | Path], check: bool = False) -> dict[str, t.Any]:
    arguments = {"dest": str(dest), "keep": [str(path) for path in keep], "_ansible_check_mode": check}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        model_prune.main()
    result: dict[str, t.Any] = json.loads(capsys.readouterr().out)
    return result


def test_what_nobody_names_goes_and_check_mode_only_lists_it(tmp_path, capsys):
    used, unused = bring(tmp_path, "org/used", ["used1.gguf"]), bring(tmp_path, "org/unused", ["other.gguf"])
    for check in (True, False):
        result = run(capsys, tmp_path, [used], check)
        assert [row["path"] for row in result["removed"]] == [str(unused)]
        assert result["changed"]
        assert result["freed"] > 0
        assert unused.exists() is check
    assert used.exists()
    assert not (tmp_path / "hub" / "models--org--unused").exists()
    assert run(capsys, tmp_path, [used])["changed"] is False


def test_a_folder_that_a_container_has_keeps_all_of_its_models(tmp_path, capsys):
    first = bring(tmp_path, "org/split", ["split-00001-of-00002.gguf", "split-00002-of-00002.gguf"])
    assert run(capsys, tmp_path, [first.parent])["removed"] == []
    assert first.exists()


def test_files_of_others_stay(tmp_path, capsys):
    own = tmp_path / "mine.gguf"
    own.write_text("mine")
    assert run(capsys, tmp_path, [])["removed"] == []
    assert own.exists()


def test_a_store_that_is_not_there_has_nothing_to_remove(tmp_path, capsys):
    assert run(capsys, tmp_path / "none", [])["changed"] is False
