"""A model of a hub that is wanted on a host, and what came of it. Pure."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.hub import choice, presence
from ansible.module_utils.llmfleet.hub.manifest import GGUF, Manifest
from ansible.module_utils.llmfleet.hub.place import Asked
from ansible.module_utils.llmfleet.hub.transfer import CONNECTIONS
from ansible.module_utils.llmfleet.model_ref import ModelRef


@dataclass(frozen=True)
class Wanted:
    """A model of a hub, and how it is to be brought."""

    ref: ModelRef
    dest: str
    sources: t.Any = None
    """As the user gives them; None is the default list, and in a dry run no network at all."""
    environ: t.Mapping[str, str] = field(default_factory=dict)
    manifest: Manifest | None = None
    """Its files, where a plan has settled them."""
    engine: str = ""
    quant_limit: int = 0
    """Bytes that the files may take where no quantisation is asked for; 0: unknown."""
    trust_remote_code: bool = False
    update: bool = False
    verify: str = presence.QUICK
    connections: int = CONNECTIONS
    timeout: float = 30.0
    """Seconds without a byte."""
    lock_timeout: float = 3600.0
    """Seconds to wait for another process that brings files of the same repository."""
    peers: t.Sequence[t.Sequence[str]] = ()
    archive: t.Mapping[str, t.Any] = field(default_factory=dict)
    log: str = ""
    pause: float = 0.5
    """Seconds before a broken transfer is tried again; doubles each time."""

    @property
    def asked(self) -> Asked:
        ref = self.ref
        form = GGUF if ref.quant or ref.file else choice.FORMATS.get(self.engine, "")
        return Asked(ref.source, ref.quant, ref.revision, ref.file, form)


@dataclass(frozen=True)
class Done:
    """What was done about a model, or would be done in a dry run."""

    changed: bool
    action: str
    why: str
    manifest: Manifest | None = None
    is_there: bool = False
    source: str = ""
    """Name of the source that files came from, or that listed the model."""
    bytes_fetched: int = 0
    seconds: float = 0.0
    """How long that took."""
    tried: t.Sequence[t.Mapping[str, str]] = ()
    before: str = ""
    after: str = ""
