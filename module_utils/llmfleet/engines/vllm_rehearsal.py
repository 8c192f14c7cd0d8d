"""How vLLM reads its arguments without serving anything: its own parser in a process that ends after it.

`vllm serve --help` would pass over arguments that do not exist. The classes are those of 0.10 to 0.33; a release that
has none of them rehearses nothing.
"""

from __future__ import annotations

import typing as t

_PARSE = """\
import sys
try:
    from vllm.entrypoints.cli.serve import ServeSubcommand
    try:
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:
        from vllm.utils import FlexibleArgumentParser
    parser = FlexibleArgumentParser(prog="vllm")
    command = ServeSubcommand()
    command.subparser_init(parser.add_subparsers())
except Exception:
    sys.exit(0)
command.validate(parser.parse_args(sys.argv[1:]))
"""


def rehearsal(spec: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return what a container of ``spec`` runs instead, so that it only reads its arguments."""
    argv = list(spec["argv"])
    return {"entrypoint": "python3", "argv": ["-c", _PARSE, *argv[argv.index("serve") :]]}
