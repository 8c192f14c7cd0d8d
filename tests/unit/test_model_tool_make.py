"""model_tool_make with stand-ins for the tools: what is made, kept, refused, and what a failure leaves behind."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import model_tool_make
import pytest
import tiny_hf
from ansible.module_utils.llmfleet import made_note, tiny_gguf, weight_types
from ansible.module_utils.testing import patch_module_args

TESTS = Path(__file__).resolve().parents[1]
TYPES = {name: row.number for name, row in weight_types.TYPES.items()}


def small() -> bytes:
    stream = io.BytesIO()
    tiny_gguf.write(stream, layers=1, dim=32)
    return stream.getvalue()


SMALL = small()
Run = t.Callable[..., "dict[str, t.Any]"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with an F32 model and one in Hugging Face format."""
    tmp_path.chmod(0o755)
    (tmp_path / "small-F32.gguf").write_bytes(SMALL)
    tiny_hf.write(tmp_path / "hf" / "Tiny-1B", layers=1, dim=32)
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{TESTS / "fake_tools.py"}" "$@"\n')
    docker.chmod(0o755)
    return tmp_path


def arguments(place: Path, **more: t.Any) -> dict[str, t.Any]:
    return {
        "source": str(place / "small-F32.gguf"),
        "dest": str(place / "models"),
        "image": "tools",
        "log_dir": str(place / "logs"),
        "docker_cli": str(place / "docker"),
        **more,
    }


def basics(place: Path) -> dict[str, t.Any]:
    """Return what the stand-in needs to know in any case."""
    model = place / "model"
    model.write_bytes(SMALL)
    return {"model": str(model), "types": TYPES}


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("FAKE_TOOLS_CALLS", str(place / "calls"))

    def run(*, check: bool = False, told: t.Any = None, **more: t.Any) -> dict[str, t.Any]:
        monkeypatch.setenv("FAKE_TOOLS", json.dumps({**basics(place), **(told or {})}))
        with patch_module_args({**arguments(place, **more), "_ansible_check_mode": check}), pytest.raises(SystemExit):
            model_tool_make.main()
        return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out.splitlines()[-1]))

    return run


def calls(place: Path) -> list[list[str]]:
    """Return what docker was asked to run since the last question."""
    path = place / "calls"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return [words for words in found if words[0] == "run"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_result_is_made_once(run: Run, place: Path) -> None:
    planned = run(check=True)
    assert (planned["changed"], planned["action"], planned["files"]) == (True, "make", [])
    assert not (place / "models").exists()
    assert not calls(place)

    made = run()
    assert not made.get("failed"), made
    path = place / "models/small-Q4_K_M.gguf"
    assert (made["changed"], made["path"], made["files"]) == (True, str(path), [str(path)])
    assert planned["path"] == made["path"]
    assert planned["diff"] == made["diff"]
    assert made["gguf"]["architecture"] == "llama"
    assert names(place / "models") == ["small-Q4_K_M.gguf", "small-Q4_K_M.made.json"]
    assert path.stat().st_mode & 0o777 == 0o644
    assert Path(made["log"]).read_text().count("llama-quantize has done its work") == 1
    assert len(calls(place)) == 1

    again = run()
    assert (again["changed"], again["action"], again["path"]) == (False, "keep", str(path))
    assert again["diff"]["before"] == again["diff"]["after"]
    assert not run(check=True)["changed"]
    # another image alone is no reason
    assert not run(image="other", told={"images": ["other"]})["changed"]
    assert not calls(place)


def test_the_container_can_do_no_harm(run: Run, place: Path) -> None:
    run(source=str(place / "hf/Tiny-1B"), threads=3)
    convert, quantize = calls(place)
    for words in (convert, quantize):
        for word in ("--read-only", "--cap-drop", "no-new-privileges", "--rm"):
            assert word in words
        assert words[words.index("--network") + 1] == "none"
        assert words[words.index("--user") + 1].split(":")[0] not in ("0", "root")
        writable = [word for word in words if word.startswith("type=bind") and "readonly" not in word]
        assert len(writable) == 1
        assert writable[0].endswith("dst=/out")
    assert quantize[-1] == "3"
    assert convert[convert.index("tools") + 1] == "/app/convert_hf_to_gguf.py"


@pytest.mark.parametrize(
    ("change", "keys"),
    [({"type": "Q8_0"}, "type"), ({"options": ["--pure"]}, "options"), ({"split_size": "1G"}, "split_bytes")],
)
def test_other_options_make_it_again(run: Run, place: Path, change: dict[str, t.Any], keys: str) -> None:
    dest = str(place / "models/mine.gguf")
    run(dest=dest)
    again = run(dest=dest, **change)
    assert (again["changed"], again["why"]) == (True, f"it was made with another {keys}")


def test_another_source_makes_it_again(run: Run, place: Path) -> None:
    run()
    (place / "small-F32.gguf").write_bytes(SMALL + b"more")
    assert run()["why"] == "it was made with another source"
    assert run(force=True)["why"] == "force is set"


def test_a_split_replaces_what_was_made_before_and_back(run: Run, place: Path) -> None:
    dest = str(place / "models/mine.gguf")
    run(dest=dest)
    split = run(dest=dest, split_size="1M")
    assert [Path(file).name for file in split["files"]] == [f"mine-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert split["path"] == split["files"][0]
    assert names(place / "models") == [*(Path(file).name for file in split["files"]), "mine.made.json"]
    assert not run(dest=dest, split_size="1M")["changed"]
    run(dest=dest)
    assert names(place / "models") == ["mine.gguf", "mine.made.json"]


def test_a_part_that_went_is_made_again(run: Run) -> None:
    made = run(split_size="1M")
    os.unlink(made["files"][1])
    again = run(split_size="1M")
    assert again["why"] == "its files are not there as they were made"
    assert all(os.path.exists(file) for file in made["files"])


def test_a_split_that_fits_into_one_part_is_one_file(run: Run, place: Path) -> None:
    assert run(split_size="9G", told={"parts": 1})["path"] == str(place / "models/small-Q4_K_M.gguf")


@pytest.mark.parametrize("name", ["small-Q4_K_M.gguf", "small-Q4_K_M-00001-of-00002.gguf"])
def test_a_file_of_the_user_is_never_replaced(run: Run, place: Path, name: str) -> None:
    (place / "models").mkdir()
    (place / "models" / name).write_bytes(b"the user's")
    for check in (True, False):
        result = run(check=check, force=True)
        assert result["failed"]
        assert f"{name} is there and was not made by this module" in result["msg"]
    assert (place / "models" / name).read_bytes() == b"the user's"
    assert not calls(place)


def test_what_the_user_has_put_in_its_place_is_kept(run: Run) -> None:
    path = Path(run()["path"])
    path.write_bytes(b"replaced by hand")
    assert "was not made by this module" in run()["msg"]
    assert path.read_bytes() == b"replaced by hand"


def test_the_source_is_never_the_result(run: Run, place: Path) -> None:
    source = place / "small-F32.gguf"
    big = SMALL + bytes(2_000_000)
    source.write_bytes(big)
    # parts beside the model have other names
    assert run(dest=str(place), type="keep", split_size="1M")["changed"]
    result = run(dest=str(source), type="Q8_0")
    assert "the result would take the place of its source" in result["msg"]
    first = str(place / "small-F32-00001-of-00003.gguf")
    result = run(source=first, dest=str(source), type="keep")
    assert "small-F32.gguf is there and was not made by this module" in result["msg"]
    assert source.read_bytes() == big


def test_a_source_that_was_made_here_stays(run: Run, place: Path) -> None:
    big = place / "big"
    big.write_bytes(SMALL + bytes(2_000_000))
    told = {"model": str(big)}
    whole = Path(run(dest=str(place / "small.gguf"), type="Q8_0", told=told)["path"])
    content = whole.read_bytes()
    split = {"source": str(whole), "dest": str(whole), "type": "keep", "split_size": "1M"}
    made = run(**split)
    assert not made.get("failed"), made
    assert made.get("changed"), made
    assert len(made["files"]) > 1
    assert whole.read_bytes() == content
    # the same again still finds its source
    assert not run(**split)["changed"]


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"fail": {"llama-quantize": [1, "No space left on device"]}}, "`quantise to Q4_K_M` failed: the disk is full"),
        ({"fail": {"llama-quantize": [137, ""]}}, "it was killed, most likely because memory ran out"),
        ({"fail": {"llama-quantize": [9, "odd\nlast words"]}}, "it ended with status 9 and said: last words"),
        ({"type": 2}, "what was made is Q4_0 and not Q4_K_M"),
        ({"images": []}, "the image tools is not on this host"),
    ],
)
def test_a_failure_leaves_what_was_there(run: Run, place: Path, told: dict[str, t.Any], sentence: str) -> None:
    dest = str(place / "models/mine.gguf")
    run(dest=dest, type="Q8_0")
    before = {path.name: path.read_bytes() for path in (place / "models").iterdir()}
    result = run(dest=dest, told=told)
    assert result["failed"]
    assert sentence in result["msg"]
    assert {path.name: path.read_bytes() for path in (place / "models").iterdir()} == before


def test_a_step_that_takes_too_long_is_stopped(run: Run, place: Path) -> None:
    result = run(told={"sleep": 5}, timeout=1)
    assert "it took longer than `timeout`" in result["msg"]
    removed = [json.loads(line) for line in (place / "calls").read_text().splitlines()][-1]
    assert removed[:2] == ["rm", "--force"]
    assert names(place / "models") == []


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"type": "Q9"}, "type 'Q9' is none of"),
        ({"source": "relative.gguf"}, "source must be an absolute path"),
        ({"source": "/nonexistent"}, "there is no such file"),
        ({"dest": "models"}, "dest must be an absolute path"),
        ({"dest": "/x/a-00001-of-00002.gguf"}, "is no name for a model"),
        ({"threads": -1}, "threads must not be -1"),
        ({"timeout": 0}, "timeout must not be 0"),
        ({"imatrix": "/nonexistent"}, "imatrix /nonexistent is not a file"),
        ({"type": "IQ2_XS"}, "IQ2_XS needs an importance matrix"),
        ({"type": "keep"}, "nothing to do"),
        ({"split_size": "ten"}, "split_size 'ten' is no size"),
    ],
)
def test_bad_input_is_one_sentence(run: Run, more: dict[str, t.Any], sentence: str) -> None:
    # options that are checked on the host anyway are refused in check mode too
    for check in (True, False):
        result = run(check=check, **more)
        assert result["failed"]
        assert result["msg"].startswith("model ")
        assert sentence in result["msg"]
        assert "Traceback" not in result["msg"]


def test_too_small_a_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    result = run(check=True)
    assert "has 0.0 GiB free and making small-Q4_K_M takes about" in result["msg"]


def start(place: Path, told: t.Any, **more: t.Any) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "FAKE_TOOLS": json.dumps({**basics(place), **told}),
        "FAKE_TOOLS_CALLS": str(place / "calls"),
    }
    command = [sys.executable, str(TESTS / "run_module.py"), "model_tool_make", json.dumps(arguments(place, **more))]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def wait_for_tool(place: Path) -> None:
    """Wait until a tool runs: before that, whoever starts it shares the lock of its run for a moment."""
    calls, end = place / "calls", time.monotonic() + 20
    while not (calls.exists() and '["run", ' in calls.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_runs_do_not_meet(run: Run, place: Path) -> None:
    first = start(place, {"sleep": 3})
    wait_for_tool(place)
    assert "another run is making" in run()["msg"]
    out, _ = first.communicate()
    assert json.loads(out)["changed"]
    assert not run()["changed"]


def test_a_killed_run_is_cleared_away_by_the_next(run: Run, place: Path) -> None:
    killed = start(place, {"sleep": 60})
    wait_for_tool(place)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    made = run()
    assert made.get("changed"), made
    assert names(place / "models") == ["small-Q4_K_M.gguf", "small-Q4_K_M.made.json"]
    removals = [json.loads(line) for line in (place / "calls").read_text().splitlines()]
    # what the killed run has started would still write
    assert ["rm", "--force"] in [words[:2] for words in removals]


def test_an_interrupted_move_is_known_as_ours(run: Run, place: Path) -> None:
    dest = str(place / "models/mine.gguf")
    old = run(dest=dest)
    note = made_note.read(str(place / "models/mine.made.json"))
    # the note of the next result was written, its files were not moved yet
    following = made_note.Note({**note.recipe, "type": "Q8_0"}, {"mine.gguf": [1, 2]}, note.files, "tools")
    made_note.write(str(place / "models/mine.made.json"), following)
    made = run(dest=dest, type="Q8_0")
    assert (made["changed"], made["path"]) == (True, old["path"])
    assert made_note.read(str(place / "models/mine.made.json")).outgoing == {}
