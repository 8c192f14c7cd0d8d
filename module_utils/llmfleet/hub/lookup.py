"""What a repository offers, for plans: its files, its types of weights, and what memory plans want to know. Edge."""

from __future__ import annotations

import http.client
import typing as t

from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.gguf.remote import read_remote
from ansible.module_utils.llmfleet.hub import choice, client, gguf_files, own_folder, sources
from ansible.module_utils.llmfleet.hub.manifest import GGUF, Listing, RepoFile
from ansible.module_utils.llmfleet.hub.opener import HubOpener
from ansible.module_utils.llmfleet.hub.reply import Broken, Reply, read_all
from ansible.module_utils.llmfleet.hub.source_web import Web
from ansible.module_utils.llmfleet.memory.config_shape import from_config
from ansible.module_utils.llmfleet.memory.shape import from_gguf
from ansible.module_utils.llmfleet.model_ref import ModelRef

ATTEMPTS = 3
SECONDS = 60.0
"""For a small file, each time."""


def look(
    ref: ModelRef,
    raw_sources: t.Any,
    environ: t.Mapping[str, str],
    engine: str = "",
    timeout: float = 30.0,
    web: Web | None = None,
) -> dict[str, t.Any]:
    """Return listing, source, formats, candidates, config, shape and what sources said that were tried in vain.

    Raises LlmfleetError when no source has the repository, BadInput when it holds nothing that ``engine`` can load.
    """
    web = web or Web(timeout)
    asked = sources.for_model(sources.parse_sources(raw_sources, environ), ref.source, ref.shown)
    listing, source, tried = client.first_that_answers(asked, ref.repo, ref.revision, web)
    manifest = choice.choose(listing, ref, engine)
    opener = HubOpener(listing, [source], web)
    config = _config(opener, listing)
    shape: dict[str, t.Any] = {}
    why = ""
    try:
        if manifest.format == GGUF:
            header = read_remote(_ranges(opener, manifest.files[0]))
            # of a split model the first part alone is read, and only this type of weights
            shape = from_gguf(header).sized(manifest.size, manifest.quant).as_data()
        else:
            weights = [file.size for file in manifest.files if file.path.endswith((".safetensors", ".bin"))]
            shape = from_config(config, sum(weights)).as_data()
    except BadInput as error:
        # it can be listed and fetched, only not planned
        why = str(error)
    return {
        "listing": listing.as_data(),
        "source": source.name,
        "formats": list(choice.formats(listing)),
        "candidates": [row.as_data() for row in gguf_files.candidates(listing)],
        "shape": shape,
        "shape_quant": manifest.quant,
        "config": config,
        "why": why,
        "tried": tried,
    }


def _ranges(opener: HubOpener, file: RepoFile) -> t.Callable[[int, int], Reply]:
    return lambda start, end: opener(file, start, min(end, file.size))


def _config(opener: HubOpener, listing: Listing) -> dict[str, t.Any]:
    """Return what config.json says, {} where there is none that can be read."""
    file = next((file for file in listing.files if file.path == "config.json"), None)
    if file is None or file.size > own_folder.MAX_CONFIG:
        return {}
    return own_folder.parse_config(_read(opener, file))


def _read(opener: HubOpener, file: RepoFile) -> bytes:
    """Return the content of a small file."""
    said = ""
    for _ in range(ATTEMPTS):
        try:
            reply = opener(file, 0, file.size)
            try:
                data = read_all(reply.stream, file.size, SECONDS)
            finally:
                reply.stream.close()
            if len(data) == file.size:
                return data
            said = f"{len(data)} bytes came of {file.size}"
        except (Broken, OSError, http.client.HTTPException) as error:
            said = str(error) or type(error).__name__
    raise LlmfleetError(f"{file.path} could not be read: {said}; try again later")
