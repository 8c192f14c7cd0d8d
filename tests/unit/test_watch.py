"""Waiting for a container: death, restarts and silence end it; progress extends it."""

from __future__ import annotations

import json
import types

import pytest
from ansible.module_utils.llmfleet import watch
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines import llama_server
from ansible.module_utils.llmfleet.engines.base import DeviceError, Phase
from ansible.module_utils.llmfleet.services import Verify
from ansible.module_utils.llmfleet.verify import FailedError, NotYetError
from ansible.module_utils.llmfleet.watch import NotReadyError, wait_ready

SPEC = {"name": "chat", "engine": "test", "served_name": "chat", "memory": "1g"}
GPU_SPEC = {**SPEC, "gpus": "nvidia", "argv": ["--n-gpu-layers", "999"]}
UP = {"RestartCount": 0, "State": {"Status": "running", "StartedAt": "t0"}}


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    engine = types.SimpleNamespace(
        HEALTH_PATH="/health",
        FAILURES=llama_server.FAILURES,
        OFFLOAD=llama_server.OFFLOAD,
        PHASES=(Phase("starting", "", 5), Phase("loading model", "loading model", 60)),
    )
    monkeypatch.setattr(watch, "ENGINES", {"test": engine})
    return clock


def engine_room(clock, states, log=""):
    """Return a Docker whose container is in ``states[t]`` from second t on; ``log`` may depend on the time."""

    def run(argv, **_):
        if argv[1] == "logs":
            return 0, log(clock.now) if callable(log) else log, ""
        state = [state for second, state in sorted(states.items()) if second <= clock.now][-1]
        return (1, "", "Error: No such container: chat") if state is None else (0, json.dumps([state]), "")

    return Docker(run)


def never_ready(*_):
    raise NotYetError("it says HTTP 503: Loading model")


def wait(docker, monkeypatch, advance=never_ready, spec=SPEC, **verify):
    monkeypatch.setattr(watch, "advance", advance)
    return wait_ready(docker, spec, None, Verify(**verify))


def test_ready_is_noticed(clock, monkeypatch):
    def ready_after_three_seconds(_endpoint, _health, _name, _verify, report, begun, device, task):
        assert (device, task) == (None, "generate")
        if clock.now < 3:
            never_ready()
        report.levels["token"] = clock.now - begun

    report = wait(engine_room(clock, {0: UP}), monkeypatch, ready_after_three_seconds)
    assert list(report.levels) == ["process", "token"]
    assert clock.now < 3.1


@pytest.mark.parametrize(
    ("events", "cause", "evidence"),
    [
        ("oom \ndie 137\n", "used more than its memory limit (1g)", "OOMKilled, exit code 137"),
        ("die 139\n", "segmentation fault", "exit code 139; last words"),
        # docker forgot, or is too old to say
        ("", "was started again by its restart policy", "last words"),
    ],
)
def test_how_a_container_ended_that_runs_again_is_asked_of_docker(clock, monkeypatch, events, cause, evidence):
    again = {"RestartCount": 1, "State": {"Status": "running", "StartedAt": "t1", "ExitCode": 0}}
    room = engine_room(clock, {0: {**UP, "Id": "abc"}, 1: again}, "last words")

    def run(argv, **_):
        if argv[1] != "events":
            return room.attempt(*argv[1:])
        assert argv[argv.index("--since") + 1] == "t0"
        assert "container=abc" in argv
        return 0, events, ""

    with pytest.raises(NotReadyError) as failure:
        wait(Docker(run), monkeypatch)
    assert cause in failure.value.diagnosis["cause"]
    assert failure.value.diagnosis["evidence"] == evidence


@pytest.mark.parametrize(
    ("late", "cause"), [(0.5, "used more than its memory limit (1g)"), (1.5, "killed from outside")]
)
def test_docker_may_learn_late_that_memory_was_the_reason(clock, monkeypatch, late, cause):
    end = {"Status": "restarting", "StartedAt": "t0", "ExitCode": 137, "OOMKilled": False}
    told = {"RestartCount": 0, "State": {**end, "OOMKilled": True}}
    room = engine_room(clock, {0: UP, 2: {"RestartCount": 0, "State": end}, 2 + late: told}, "last words")
    docker = Docker(lambda argv, **_: (0, "", "") if argv[1] == "events" else room.attempt(*argv[1:]))
    with pytest.raises(NotReadyError) as failure:
        wait(docker, monkeypatch)
    assert cause in failure.value.diagnosis["cause"]
    assert clock.now < 3.4


@pytest.mark.parametrize(
    "state",
    [
        {"RestartCount": 0, "State": {"Status": "exited", "StartedAt": "t0", "ExitCode": 1}},
        # code 0 is a death too, and with a restart policy the container runs again when we look
        {"RestartCount": 0, "State": {"Status": "exited", "StartedAt": "t0", "ExitCode": 0}},
        {"RestartCount": 1, "State": {"Status": "running", "StartedAt": "t0"}},
        {"RestartCount": 0, "State": {"Status": "running", "StartedAt": "t1"}},
    ],
)
def test_death_is_noticed_at_the_next_look(clock, monkeypatch, state):
    docker = engine_room(clock, {0: UP, 2: state}, "error: invalid argument: --nope")
    with pytest.raises(NotReadyError) as failure:
        wait(docker, monkeypatch)
    assert clock.now < 2.3
    assert "does not know the argument --nope" in failure.value.diagnosis["cause"]


def test_the_service_is_asked_for_what_it_is_for(clock, monkeypatch):
    asked = []
    wait(engine_room(clock, {0: UP}), monkeypatch, lambda *given: asked.append(given[7]), {**SPEC, "task": "embed"})
    assert asked == ["embed"]


def test_a_proven_failure_does_not_wait(clock, monkeypatch):
    def refuses(*_):
        raise FailedError("it serves other, not chat")

    with pytest.raises(NotReadyError, match="serves other"):
        wait(engine_room(clock, {0: UP}), monkeypatch, refuses)
    assert clock.now == 0


@pytest.mark.parametrize(
    ("answer", "cause", "fix"),
    [
        ("failed while answering: {'code': 500}", "the model does not fit into memory", "use a smaller quantisation"),
        ("says HTTP 500: dead", "the model does not fit into memory", "use a smaller quantisation"),
        # what is refused says why
        ("says HTTP 400: Pooling type 'none' is not OAI compatible", "the model does not say how", "set `pooling`"),
        # the engine did what it was told
        ("the reply lacks `yes`", "", "see log_tail"),
    ],
)
def test_an_engine_that_fails_while_it_answers_is_asked_why(clock, monkeypatch, answer, cause, fix):
    def refuted(*_):
        raise FailedError(answer)

    with pytest.raises(NotReadyError) as failure:
        wait(engine_room(clock, {0: UP}, log="std::bad_alloc"), monkeypatch, refuted)
    assert failure.value.diagnosis["cause"].startswith(f"{answer}: {cause}" if cause else answer)
    assert failure.value.diagnosis["fix"].startswith(fix)


def test_silence_longer_than_the_phase_allows_ends_it(clock, monkeypatch):
    with pytest.raises(NotReadyError, match="in phase `starting`") as failure:
        wait(engine_room(clock, {0: UP}), monkeypatch)
    assert 5 < clock.now < 7
    assert "Loading model" in failure.value.diagnosis["evidence"]


def test_a_later_phase_may_be_silent_for_longer(clock, monkeypatch):
    with pytest.raises(NotReadyError, match="in phase `loading model`"):
        wait(engine_room(clock, {0: UP}, "srv loading model '/models/m.gguf'"), monkeypatch)
    assert 60 < clock.now < 63


def test_an_engine_that_has_failed_is_not_waited_for_until_it_ends(clock, monkeypatch):
    watch.ENGINES["test"].PHASES += (Phase("giving up", "exiting due to model loading error", 2, failed=True),)
    log = "srv loading model '/models/m.gguf'\ninvalid magic characters: '<!do', expected 'GGUF'\nexiting due to model "
    with pytest.raises(NotReadyError, match="is not a GGUF"):
        wait(engine_room(clock, {0: UP}, f"{log}loading error"), monkeypatch)
    assert 2 < clock.now < 5


def test_progress_in_the_log_extends_the_wait_up_to_the_timeout(clock, monkeypatch):
    docker = engine_room(clock, {0: UP}, lambda now: f"line {int(now)}")
    with pytest.raises(NotReadyError, match="not ready after"):
        wait(docker, monkeypatch, timeout=30)
    assert 30 < clock.now < 32


def test_a_container_removed_by_somebody_else_is_said_to_be(clock, monkeypatch):
    with pytest.raises(NotReadyError, match="removed by somebody else"):
        wait(engine_room(clock, {0: UP, 1: None}), monkeypatch)


def test_the_process_level_wants_it_to_stay_up(clock, monkeypatch):
    report = wait(engine_room(clock, {0: UP}), monkeypatch, level="process")
    assert clock.now >= watch.PROCESS_SECONDS
    assert list(report.levels) == ["process"]


def refute(*_):
    raise DeviceError("it computes on the CPU", "no usable GPU found", "choose another image")


@pytest.fixture
def refuted(monkeypatch):
    monkeypatch.setattr(watch, "check_device", refute)


@pytest.mark.usefixtures("refuted")
def test_a_refuted_device_ends_the_wait_with_its_own_fix(clock, monkeypatch):
    def climb(*arguments):
        arguments[6]()

    with pytest.raises(NotReadyError) as failure:
        wait(engine_room(clock, {0: UP}, "the log"), monkeypatch, climb, GPU_SPEC)
    assert failure.value.diagnosis["fix"] == "choose another image"
    assert failure.value.log == "the log"
    assert clock.now == 0


@pytest.mark.usefixtures("refuted")
def test_a_silent_fallback_is_noticed_while_the_model_still_loads(clock, monkeypatch):
    warning = "warning: no usable GPU found, --gpu-layers option will be ignored"
    with pytest.raises(NotReadyError, match="it computes on the CPU"):
        wait(engine_room(clock, {0: UP}, warning), monkeypatch, spec=GPU_SPEC)
    assert clock.now < 1.2


@pytest.mark.usefixtures("refuted")
@pytest.mark.parametrize(("spec", "level"), [(SPEC, ""), (GPU_SPEC, "token"), (GPU_SPEC, "http")])
def test_the_device_is_asked_for_where_a_gpu_is_planned_and_the_level_reaches_it(clock, monkeypatch, spec, level):
    def climb(*arguments):
        assert arguments[6] is None

    warning = "warning: no usable GPU found, --gpu-layers option will be ignored"
    assert wait(engine_room(clock, {0: UP}, warning), monkeypatch, climb, spec, level=level).device is None
