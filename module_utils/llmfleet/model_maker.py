"""Make a GGUF file on a host: run each step in a container, verify the result, and only then put it in its place.

Edge code: the plan is made by model_steps, the commands by tool_container.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import typing as t
from contextlib import contextmanager

from ansible.module_utils.llmfleet import made_note, model_file, model_steps, weight_types
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines.base import Mount
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.host_edge import JobLog
from ansible.module_utils.llmfleet.model_order import Job, in_the_way
from ansible.module_utils.llmfleet.tool_container import Sandbox, explain, run_argv


def make(job: Job, docker: Docker, log: JobLog, uid: int) -> str:
    """Make the result and return the path to load it by; a run that is interrupted leaves the old one in place."""
    if not os.path.isdir(job.folder):
        os.makedirs(job.folder)
        os.chmod(job.folder, 0o755)  # noqa: S103 -- engines, which are not root, read the models
    work = os.path.join(job.folder, f".{job.name}.making")
    with _workplace(work, job.shown) as output:
        sandbox = Sandbox(
            name=f"llmfleet-make-{hashlib.sha256(job.shown.encode()).hexdigest()[:12]}",
            image=job.order.image,
            user=f"{uid}:{uid}",
            mounts=job.mounts,
            output=Mount(output, model_steps.OUT),
            memory=job.order.memory,
        )
        # one that an interrupted run left behind still writes here
        docker.attempt("rm", "--force", sandbox.name)
        shutil.rmtree(output, ignore_errors=True)
        os.mkdir(output)
        # whichever user a container's is on the host, while only we get as far as here
        os.chmod(output, 0o777)  # noqa: S103
        for step in job.plan.steps:
            _run(step, job, docker, log, sandbox)
            if step.removes:
                os.unlink(os.path.join(output, step.removes))
        made = _collect(job, output)
        _check(job, output, made)
        _put(job, output, made)
    return os.path.join(job.folder, made[0])


def _run(step: model_steps.Step, job: Job, docker: Docker, log: JobLog, sandbox: Sandbox) -> None:
    argv = list(step.argv)
    if step.program == "llama-quantize" and job.order.threads:
        argv.append(str(job.order.threads))
    start = log.path.stat().st_size if log.written else 0
    try:
        rc = log.stream([docker.executable, *run_argv(sandbox, step.program, argv)], {})
    finally:
        # also when the time is up or this run is ended: the client's end is not the container's
        docker.attempt("rm", "--force", sandbox.name)
    if rc:
        with open(log.path, encoding="utf-8", errors="replace") as stream:
            stream.seek(start)
            said = stream.read()
        raise LlmfleetError(f"the step `{step.name}` failed: {explain(rc, said)} (log: {log.path})")


def _collect(job: Job, work: str) -> list[str]:
    """Give the files in ``work`` their final names and return these, the first part first."""
    made = sorted(name for name in os.listdir(work) if name.endswith(".gguf"))
    if not made:
        raise LlmfleetError(f"the step `{job.plan.steps[-1].name}` made no file")
    if len(made) == 1:
        # also of a split: a model that fits into one part is no split model
        os.rename(os.path.join(work, made[0]), os.path.join(work, f"{job.name}.gguf"))
        made = [f"{job.name}.gguf"]
    for name in made:
        path = os.path.join(work, name)
        if os.geteuid() == 0:
            os.chown(path, 0, 0)
        os.chmod(path, 0o644)
    return made


def _check(job: Job, work: str, made: t.Sequence[str]) -> None:
    """Raise LlmfleetError unless what was made is a whole model of the type that was asked for."""
    try:
        found = model_file.read(os.path.join(work, made[0]), any_mode=True)
    except BadInput as error:
        raise LlmfleetError(f"what was made is not usable: {error}") from None
    wanted, kind = job.plan.type, weight_types.of_number(found.header.file_type)
    if wanted and kind and kind != wanted:
        raise LlmfleetError(f"what was made is {kind.name} and not {wanted.name}; report this with the log")


def _put(job: Job, work: str, made: t.Sequence[str]) -> None:
    """Move the files to their place. The note goes first, so that an interrupted move is known to be ours."""
    # something may have come since check_room
    for name in in_the_way(job):
        if name in made:
            raise LlmfleetError(f"{os.path.join(job.folder, name)} has come to be there meanwhile; move it away")
    files = {name: made_note.mark(os.path.join(work, name)) or [] for name in made}
    before = {**job.note.outgoing, **job.note.files}
    # a source made here earlier has the name and the note of what is made of it: it stays, and is the user's from now
    sources = {mount.source for mount in job.mounts}
    outgoing = {
        name: it
        for name, it in before.items()
        if job.note.owns(job.folder, name) and os.path.realpath(os.path.join(job.folder, name)) not in sources
    }
    made_note.write(job.note_path, made_note.Note(job.recipe, files, outgoing, job.order.image))
    # the first part last: what is there under its name is whole at any time
    for name in reversed(made):
        os.replace(os.path.join(work, name), os.path.join(job.folder, name))
    for name in outgoing.keys() - files.keys():
        os.unlink(os.path.join(job.folder, name))
    made_note.write(job.note_path, made_note.Note(job.recipe, files, {}, job.order.image))
    job.files = tuple(made)


@contextmanager
def _workplace(work: str, shown: str) -> t.Iterator[str]:
    """Give the path of a folder that steps write to, for this run alone; all of it goes away at the end."""
    os.makedirs(work, mode=0o700, exist_ok=True)
    handle = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # a run that ended just now has removed it
        held = os.path.isdir(work) and os.fstat(handle).st_ino == os.stat(work).st_ino
    except BlockingIOError:
        held = False
    if not held:
        os.close(handle)
        raise LlmfleetError(f"another run is making {shown} right now; wait until it has ended")
    try:
        yield os.path.join(work, "out")
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(handle)
