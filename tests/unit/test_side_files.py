"""The files of helper containers: how they go forward and back, and what counts as a difference."""

from __future__ import annotations

import stat

from ansible.module_utils.llmfleet.side.files import FileKeeper, read
from asked_side import OWN, file


def test_files_go_forward_are_accepted_and_go_back(tmp_path):
    home = tmp_path / "proxy"
    first = {"a.conf": file("one"), "sub/b": file("two", 0o400)}
    keeper = FileKeeper(home, first, OWN)
    assert keeper.why() == "files: a.conf, sub/b"
    keeper.forward()
    assert not (home / "files.previous").exists()
    keeper.accept(["127.0.0.1 1"])
    assert read(home / "files") == first
    assert stat.S_IMODE((home / "record.json").stat().st_mode) == 0o600
    assert "one" not in (home / "record.json").read_text()

    same = FileKeeper(home, first, OWN)
    assert same.proven
    assert same.why() == ""
    assert same.known["listens"] == ["127.0.0.1 1"]

    folder = (home / "files").stat().st_ino
    second = {"a.conf": file("three"), "c": file("")}
    keeper = FileKeeper(home, second, OWN)
    assert keeper.why() == "files: a.conf, c, sub/b"
    keeper.forward()
    # a running container has this very folder
    assert (home / "files").stat().st_ino == folder
    assert read(home / "files") == second
    assert keeper.back() is True
    assert read(home / "files") == first
    assert keeper.back() is False
    keeper.accept([])
    assert FileKeeper(home, first, OWN).proven


def test_a_change_that_nobody_accepted_is_told_and_does_not_become_the_way_back(tmp_path):
    first, second, third = ({"a": file(text)} for text in ("1", "2", "3"))
    keeper = FileKeeper(tmp_path, first, OWN)
    keeper.forward()
    keeper.accept([])
    FileKeeper(tmp_path, second, OWN).forward()
    assert FileKeeper(tmp_path, second, OWN).why() == "files: a former change was not verified"
    keeper = FileKeeper(tmp_path, third, OWN)
    keeper.forward()
    keeper.back()
    assert read(tmp_path / "files") == first


def test_a_file_that_somebody_edited_or_whose_mode_changed_differs(tmp_path):
    keeper = FileKeeper(tmp_path, {"a": file("1")}, OWN)
    keeper.forward()
    keeper.accept([])
    assert FileKeeper(tmp_path, {"a": file("1", 0o400)}, OWN).differs == ["a"]
    (tmp_path / "files" / "a").chmod(0o600)
    (tmp_path / "files" / "a").write_text("edited")
    keeper = FileKeeper(tmp_path, {"a": file("1")}, OWN)
    assert keeper.differs == ["a"]
    keeper.forward()
    assert read(tmp_path / "files") == {"a": file("1")}
    (tmp_path / "record.json").write_text("[]")
    assert FileKeeper(tmp_path, {"a": file("1")}, OWN).why() == "files: a former change was not verified"
