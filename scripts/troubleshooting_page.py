"""The text of docs/troubleshooting.md, of the tables by which failures are explained. Part of scripts/docs."""

from __future__ import annotations

import re
import typing as t

INTRO = """\
# Troubleshooting

A task that fails says what happened in one sentence: the cause, the line that proves it in brackets, and what to do.

```text
service chat: llama-server does not know the argument --no-such-flag (error: invalid argument: --no-such-flag);
correct or remove it in `args` (…). The previous container is back and verified
```

The result of the task holds the same as data: `diagnosis` (cause, evidence, fix), `log_tail` (the last lines of the
container that failed), `rolled_back` and `previous_verification`. `docker logs NAME` shows a log that is still there.

**To find a message** search this page for a few words of it, without names, paths and numbers: those are written `<so>`
here. In each table the first row that fits counts, since general lines follow the cause.

| What you have | Where to look |
| --- | --- |
| a line of llama-server's log | [llama_server](#llama_server) |
| a line of vLLM's log | [vllm](#vllm) |
| `docker refuses to start the container`, or words of docker | [Docker](#docker) |
| a container that ended without a word | [Exit codes](#exit-codes) |
| `not ready after … in phase …` | [Starts that take long](#starts-that-take-long) |
| a verification level that was not reached | [Verification](#verification) |
| `checks of the API failed` | [API self-test](#api-self-test) |
| GPUs that containers do not reach | [GPU self-test](#gpu-self-test) |
| a model that cannot be converted or quantised | [Model tools](#model-tools) |
| a model that cannot be fetched | [models.md](models.md) |
| docker itself, its packages or its mirrors | [hosts.md](hosts.md) |
"""

LEVELS = (
    ("process", "the container stays up", "see its log: [Exit codes](#exit-codes) where it says nothing"),
    ("http", "the health path answers 200", "it still loads, or the port is another program's"),
    ("model", "`/v1/models` lists the served name", "callers use another name than `served_name`"),
    (
        "token",
        "it does what it is for: a prompt is answered with at least one token, a text with a vector of finite numbers, "
        "documents with scores in order",
        "the engine's log names the cause; a healthy engine that answers nothing is not ready",
    ),
    ("device", "the planned layers are on the GPU", "the cause says whether image, driver or plan is wrong"),
    ("speed", "the bounds of `verify` for tokens per second and the first token hold", "the figure is in the message"),
    ("answer", "the reply contains `verify.answer`", "the reply is in the message"),
)
_PLACEHOLDER = re.compile(r"\{(\w+)\}")

Table = t.Callable[[t.Sequence[str], t.Iterable[t.Sequence[str]]], list[str]]


def _alternatives(pattern: str) -> list[str]:
    """Return the parts of ``pattern`` between those `|` that stand in no group."""
    parts, depth = [""], 0
    for word in re.findall(r"\\.|.", pattern):
        depth += {"(": 1, ")": -1}.get(word, 0)
        if word == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += word
    return parts


def _expanded(pattern: str) -> list[str]:
    """Return the texts that ``pattern`` stands for, what is optional included."""
    parts = _alternatives(pattern)
    if len(parts) > 1:
        return [text for part in parts for text in _expanded(part)]
    group = re.search(r"\((?:\?:)?((?:\\.|[^()\\])*)\)\??", pattern)
    if group is None:
        return [re.sub(r"(?<=[\w:])\?", "", pattern)]
    before, after = pattern[: group.start()], pattern[group.end() :]
    return [text for part in _alternatives(group[1]) for text in _expanded(before + part + after)]


def readable(pattern: str) -> str:
    """Return the texts that a failure's regular expression stands for, its named groups as <name>."""
    text = re.sub(r"\(\?P<(\w+)>(?:\\.|\[(?:\\.|[^\]\\])*\]|[^()\\])*\)", r"<\1>", pattern)
    # either case of a first letter
    text = re.sub(r"\[[A-Z]([a-z])\]", r"\1", text)
    text = re.sub(r"\\s[+*]?", " ", text)
    text = re.sub(r"\\[SdwW][+*]?\??|\.[+*]\??", "…", text)
    return quoted(dict.fromkeys(re.sub(r"\\(.)", r"\1", part).strip("^$ ") for part in _expanded(text)))


def quoted(texts: t.Iterable[str]) -> str:
    """Return texts as code, joined by `or`; two backticks where one stands within."""
    return " or ".join(f"`` {text} ``" if "`" in text else f"`{text}`" for text in texts)


def failures(rows: t.Iterable[t.Any], table: Table, head: str) -> list[str]:
    """Return the table of failures ``rows``."""
    cells = [
        [
            quoted(row.shown) if row.shown else readable(row.pattern),
            *(_PLACEHOLDER.sub(r"<\1>", text).replace("<", "&lt;") for text in (row.cause, row.fix)),
        ]
        for row in rows
    ]
    return [*table((head, "It means", "Do"), cells), ""]


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def page(notice: str, table: Table, core: t.Callable[[str], t.Any]) -> str:
    """Return the page; ``core`` imports a module of the core by its name."""
    engines: t.Mapping[str, t.Any] = core("engines").ENGINES
    container = core("container_failures")
    lines = [notice, "", *INTRO.splitlines(), ""]
    for name, engine in engines.items():
        lines += [f"## {name}", "", *failures(engine.FAILURES, table, "The log says")]
    lines += ["## Docker", "", "What docker answers when it cannot create or start a container.", ""]
    lines += failures(container.DOCKER_FAILURES, table, "Docker says")
    lines += ["## Exit codes", "", "A container that ended without saying why is judged by its exit code."]
    lines += ["More than its memory limit (`OOMKilled`): raise `memory`, or lower context_length or parallel.", ""]
    rows = [(str(code), *texts) for code, texts in container.EXIT_CODES.items()]
    lines += [*table(("Code", "It means", "Do"), rows), ""]
    lines += ["## Starts that take long", "", "A start is given up when its log stays silent for longer than its phase"]
    lines += ["allows, or after `verify.timeout`. A crash is noticed at once.", ""]
    rows = [
        (name, phase.name, readable(phase.pattern) if phase.pattern else "", _span(phase.stall_seconds))
        for name, engine in engines.items()
        for phase in engine.PHASES
    ]
    lines += [*table(("Engine", "Phase", "Begins with", "May be silent for"), rows), ""]
    lines += ["## Verification", "", "The levels in the order in which they are reached.", ""]
    lines += [*table(("Level", "It proves that", "Where it fails"), [(f"`{row[0]}`", *row[1:]) for row in LEVELS]), ""]
    lines += [
        "## API self-test",
        "",
        "`ansible-playbook playbooks/test-api.yml` asks what callers will ask, on the host",
    ]
    lines += ["and from the controller. After a change it is done by itself (`llm_service_api_test`).", ""]
    rows = [(f"`{check.name}`", check.about, check.fix) for check in core("api_test").CHECKS]
    lines += [*table(("Check", "It proves that", "Where it fails"), rows), ""]
    lines += ["## GPU self-test", "", *failures(core("gpu_self_test").FAILURES, table, "It says")]
    lines += ["## Model tools", "", *failures(core("tool_container").FAILURES, table, "The log says")]
    return "\n".join(lines)
