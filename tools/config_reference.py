#!/usr/bin/env python3
"""Writes what says which options there are, from the options, so that it cannot say anything else than the code does:
docs/configuration.md, docs/options-of-neutron.md and, by oslo-config-generator, etc/fastmeta.conf.sample.

Usage: tools/config_reference.py [--check]: with --check nothing is written, and the exit status is 1 when one of the
files is not what the options say.
"""

import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from oslo_config import cfg, generator

from fastmeta.conf import list_opts
from fastmeta.conf.running import FIXED
from fastmeta.conf.stock import rows
from fastmeta.conf.stock_rows import Effect, StockOption

ROOT = Path(__file__).resolve().parent.parent

INTRODUCTION = f"""\
# Configuration

<!-- Made by tools/config_reference.py from the options in fastmeta/conf/; change them there. -->

`fastmeta agent --config-file FILE` may be given several files; later ones win. The options of `[DEFAULT]` are Neutron's
own, with Neutron's meaning, so `neutron.conf` and `metadata_agent.ini` can be given as they are; what fastmeta does not
know in them is ignored. The options of oslo.log (`debug`, `log_file`, `log_dir`, …) work as everywhere in OpenStack.

On SIGHUP the same files are read again, and what is different takes effect ([operations.md](operations.md)). Only
{", ".join(f"`{name}`" for name in FIXED)}, all of `[neutron]`, the options of the
agent's unix socket (`metadata_proxy_…`), those that go with `discover` ([discovery.md](discovery.md)), those of the
message bus ([bus.md](bus.md)) and oslo.log's but `debug` need a restart.

A file that holds the secret, and the ports file, must belong to root or to the user that fastmeta runs as, and nobody
else may be able to write them; otherwise fastmeta refuses to start and says what to do. Configuration files may be
written by that user's group, too, if nobody else is in it, as Debian has it.
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


STOCK = """\
# Options of neutron-metadata-agent

<!-- Made by tools/config_reference.py from fastmeta/conf/stock.py; change it there. -->

`fastmeta agent --config-file /etc/neutron/neutron.conf --config-file /etc/neutron/metadata_agent.ini` takes the files
of `neutron-metadata-agent` as they are. Below is every option that this agent reads, or once read; that none is missing
is found out by letting the stock agent write down what it reads (`tests/openstack/test_options.py`). All others that
these files may have, for Neutron's server and its other agents, are ignored, as oslo.config ignores what it does not
know. `fastmeta config check` says it of each option that is set in your files
([operations.md](operations.md#checking-a-configuration)). fastmeta's own options are in
[configuration.md](configuration.md).
"""


def stock_options() -> str:
    parts = [STOCK]
    parts.append("\n## With the same meaning\n\n| option | to be noted | tried by |\n|---|---|---|\n")
    for row in rows(Effect.SAME):
        parts.append(f"| {_name(row)} | {_cell(row.why)} | `{row.shown_by.removeprefix('tests/')}` |\n")
    parts.append(
        "\nThe tests are below `tests/`; each has an agent that runs, with files like an operator's.\n"
    )
    parts.append("\n## Accepted, without effect\n\n")
    parts.append("With each of these an agent starts, serves, and says what it says without it ")
    parts.append("(`operator/test_options_without_effect.py`).\n\n| option | why |\n|---|---|\n")
    for row in rows(Effect.NONE):
        parts.append(f"| {_name(row)} | {_cell(row.why)} |\n")
    return "".join(parts)


def _name(row: StockOption) -> str:
    """With the section first, as [DEFAULT] is not named."""
    return f"`[{row.section}]`, all of it" if row.is_section else f"`{row.shown}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def sample() -> str:
    conf = cfg.ConfigOpts()
    generator.register_cli_opts(conf)
    conf(["--namespace", "fastmeta", "--wrap-width", "100"], default_config_files=[])
    output = io.StringIO()
    generator.generate(conf, output)
    return output.getvalue()


FILES: Mapping[str, Callable[[], str]] = {
    "docs/configuration.md": reference,
    "docs/options-of-neutron.md": stock_options,
    "etc/fastmeta.conf.sample": sample,
}


def main() -> int:
    status = 0
    for name, make in FILES.items():
        file, text = ROOT / name, make()
        if "--check" not in sys.argv[1:]:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            print(f"{name} is not what the options say: make references", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
