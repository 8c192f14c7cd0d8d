"""Names shared by modules and roles: container and image labels, and where things live on a host."""

from __future__ import annotations

LABEL_SERVICE = "io.llmfleet.service"
"""Container label: the name of the service the container belongs to."""

LABEL_SPEC = "io.llmfleet.spec"
"""Container label: the resolved specification as JSON, secrets as salted digests."""

LABEL_SIDE = "io.llmfleet.side"
"""Container label: the name of the helper (gateway, web UI) that the container belongs to."""

LABEL_BUILD_KEY = "io.llmfleet.build-key"
"""Image label: the identity of what was asked for when the image was built."""

LABEL_VARIANT = "io.llmfleet.variant"
"""Image label: the back-end that the image was built for (cpu, cuda, ...)."""

RUN_UID = 10001
"""User and group id that engines run as inside their containers."""
