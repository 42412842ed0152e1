#!/usr/bin/env python3
"""Writes docs/configuration.md from the options, so that it cannot say anything else than the code does.

Usage: tools/config_reference.py [--check]: with --check nothing is written, and the exit status is 1 when the file in
docs/ is not what the options say.
"""

import sys
from pathlib import Path

from oslo_config import cfg

from fastmeta.conf import list_opts
from fastmeta.conf.running import FIXED

FILE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

INTRODUCTION = f"""\
# Configuration

<!-- Made by tools/config_reference.py from the options in fastmeta/conf/options.py; change them there. -->

`fastmeta agent --config-file FILE` may be given several files; later ones win. The options of `[DEFAULT]` are Neutron's
own, with Neutron's meaning, so `neutron.conf` and `metadata_agent.ini` can be given as they are; what fastmeta does not
know in them is ignored. The options of oslo.log (`debug`, `log_file`, `log_dir`, …) work as everywhere in OpenStack.

On SIGHUP the same files are read again, and what is different takes effect ([operations.md](operations.md)). Only
{", ".join(f"`{name}`" for name in FIXED)}, the options of the message bus
([bus.md](bus.md)) and oslo.log's options but `debug` need a restart.

A file that holds the secret, and the ports file, must belong to root or to the user that fastmeta runs as, and nobody
else may be able to write them; otherwise fastmeta refuses to start and says what to do.
"""


def default(option: cfg.Opt) -> str:
    if option.default is None or option.default == []:
        return "none"
    if option.default == "":
        return "empty"
    return f"`{str(option.default).lower() if isinstance(option.default, bool) else option.default}`"


def kind(option: cfg.Opt) -> str:
    choices = getattr(option.type, "choices", None)
    if choices:
        return " or ".join(f"`{choice}`" for choice in choices)
    if option.multi:
        return "string, may be given many times"
    text = str(option.type.type_name).split(" value")[0]
    if getattr(option.type, "min", None) is not None and option.type.max is not None:
        text += f", {option.type.min:,} to {option.type.max:,}"
    return text


def reference() -> str:
    parts = [INTRODUCTION]
    for group, options in list_opts():
        parts.append(f"\n## [{getattr(group, 'name', group)}]\n\n")
        parts.append("| option | kind | default | meaning |\n|---|---|---|---|\n")
        for option in options:
            meaning = " ".join((option.help or "").split()).replace("|", "\\|").replace("<", "&lt;")
            parts.append(f"| `{option.name}` | {kind(option)} | {default(option)} | {meaning} |\n")
    return "".join(parts)


def main() -> int:
    text = reference()
    if "--check" in sys.argv[1:]:
        if not FILE.exists() or FILE.read_text(encoding="utf-8") != text:
            print(f"{FILE} is not what the options say: run tools/config_reference.py", file=sys.stderr)
            return 1
        return 0
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
