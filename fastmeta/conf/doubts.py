"""What is valid in a configuration, and most likely not meant: said as warnings when it is taken up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from oslo_config import cfg

from fastmeta.conf import list_opts
from fastmeta.conf.logs import doubts_of_the_log
from fastmeta.conf.neutron import OLD_AUTH_CA_CERT
from fastmeta.conf.options import FASTMETA_GROUP, RATE_LIMIT_GROUP
from fastmeta.conf.settings import Settings, config_files, is_given, uses_old_names

_ONE_UPSTREAM = ("nova_metadata_host", "nova_metadata_port", "nova_metadata_protocol")
_CLIENT = ("nova_client_cert", "nova_client_priv_key")
_TLS = ("auth_ca_cert", "nova_metadata_insecure", *_CLIENT)

REQUESTS_OF_A_BOOT = 29
"""That cloud-init makes, of OpenStack's and EC2's metadata together, in a second or two."""

CLIENT_PATIENCE = 10.0
"""Seconds that cloud-init waits for an answer."""

# A bound that is not below the wider one beside it does not bind: one network, or one guest, may take all then.
_NARROWER = (
    ("max_connections_per_scope", "max_connections", "one network or router"),
    ("max_connections_per_address", "max_connections_per_scope", "one guest"),
    ("max_parked_per_scope", "max_parked", "one network or router"),
    ("max_parked_per_address", "max_parked_per_scope", "one guest"),
)

_DIVIDED = ("max_connections", "max_parked")
"""Of these each loop has a part, and a network or router is on one loop."""


def doubts(conf: cfg.ConfigOpts, settings: Settings) -> Iterator[str]:
    """One text for each. Raises ConfigError when a folder of files cannot be read."""
    core = settings.core
    if not settings.secret:
        yield (
            "metadata_proxy_shared_secret is empty: whoever reaches Nova's metadata API can ask in any "
            "instance's name"
        )
    yield from _doubts_of_upstreams(conf, settings)
    for narrow, wide, who in _NARROWER:
        there, what = core[wide], wide
        if settings.loops > 1 and wide in _DIVIDED:
            there, what = there // settings.loops, f"one loop's share of {wide}"
        if core[narrow] >= there:
            yield (
                f"[fastmeta] {narrow} ({core[narrow]}) is not below {what} ({there}): {who} can take all "
                f"of them from the others; lower it, a quarter of {what} is a good value"
            )
    if core["max_target"] >= core["max_head"]:
        yield (
            f"[fastmeta] max_target ({core['max_target']}) has no effect: max_head ({core['max_head']}) is less"
        )
    if settings.park_timeout >= CLIENT_PATIENCE:
        yield (
            f"[fastmeta] park_timeout ({settings.park_timeout:g}) is not below the {CLIENT_PATIENCE:g} s that "
            "cloud-init waits: it gives up before it is answered"
        )
    yield from _doubts_of_lookups(conf, settings)
    yield from doubts_of_the_log(conf)
    if core["second_try_after_ms"] >= core["upstream_timeout_ms"]:
        yield (
            f"[fastmeta] second_try_after ({core['second_try_after_ms'] / 1000:g}) has no effect: "
            f"upstream_timeout ({core['upstream_timeout_ms'] / 1000:g}) is not more; 0 says that there is to be none"
        )
    # Cloud-init before 25.1 takes the first 429 for final: its instance then has no metadata at all.
    smallest = min(core["base_limit"], core["burst_limit"])
    if core["rate_versions"] and smallest < REQUESTS_OF_A_BOOT:
        yield (
            f"[metadata_rate_limiting] allows {smallest} requests in a window, but a boot of cloud-init makes "
            f"about {REQUESTS_OF_A_BOOT} at once: guests will get 429, which cloud-init before version 25.1 does "
            "not repeat"
        )
    for path in config_files(conf):
        yield from _strange_options(path)


def _doubts_of_lookups(conf: cfg.ConfigOpts, settings: Settings) -> Iterator[str]:
    if settings.ports_file and settings.lookup != "static":
        yield f"[fastmeta] ports_file has no effect: lookup is {settings.lookup}"
    if settings.identity_ttl_with_events < settings.identity_ttl:
        yield (
            f"[fastmeta] identity_ttl_with_events ({settings.identity_ttl_with_events:g}) is less than identity_ttl "
            f"({settings.identity_ttl:g}): who has an address is asked more often when changes are announced"
        )
    if settings.prefetch and not settings.listen and not settings.stand_in:
        yield (
            "[fastmeta] prefetch has no effect: networks and routers that haproxies name on metadata_proxy_socket are "
            "known only when a guest asks"
        )
    if settings.lookup == "rest" and conf.neutron.insecure:
        yield (
            "[neutron] insecure is true: any certificate is taken for Keystone's and Neutron's, so whoever is on the "
            "way can read our password, and say which guest is who; right is false, with cafile"
        )


def _doubts_of_upstreams(conf: cfg.ConfigOpts, settings: Settings) -> Iterator[str]:
    if conf.fastmeta.upstreams:
        for name in _ONE_UPSTREAM:
            if is_given(conf, name):
                yield f"{name} has no effect: [fastmeta] upstreams says where Nova's metadata API is"
    tls = settings.tls
    given = [name for name in _TLS if conf[name]]
    if tls is None:
        for name in given:
            if name == OLD_AUTH_CA_CERT and settings.lookup == "rest" and uses_old_names(conf):
                continue
            yield f"{name} has no effect: no upstream is https, what guests get is sent in the clear"
        given = []
    elif tls.insecure:
        yield (
            "nova_metadata_insecure is true: any certificate is taken for Nova's, so whoever is on the way can read "
            "and change what guests get; right is false, with auth_ca_cert"
        )
        if conf.auth_ca_cert:
            yield "auth_ca_cert has no effect: nova_metadata_insecure is true"
    for name, other in (_CLIENT, _CLIENT[::-1]):
        if name in given and other not in given:
            yield f"{name} has no effect without {other}: no certificate of ours is shown to Nova's metadata API"
    if conf.fastmeta.next_shared_secret and settings.next_secret is None:
        yield "[fastmeta] next_shared_secret has no effect: it equals metadata_proxy_shared_secret; take it out"


def _strange_options(path: str) -> Iterator[str]:
    """Options in sections of ours that are none there: most likely mistyped, or in the wrong section."""
    sections: dict[str, dict[str, Any]] = {}
    cfg.ConfigParser(path, sections).parse()  # has been read before: it can be
    ours = {
        getattr(group, "name", group): [option.name for option in options] for group, options in list_opts()
    }
    for section, options in sections.items():
        own = section.lower()  # as oslo.config compares all sections but DEFAULT
        if own not in (FASTMETA_GROUP.name, RATE_LIMIT_GROUP.name):
            continue
        for written in options:
            if written in ours[own]:
                continue
            # With - for _ an option is one on a command line, and none in a file.
            name = written.replace("-", "_")
            right = [other for other, names in ours.items() if name in names]
            what = f"it belongs to [{right[0]}]" if right else "is it mistyped?"
            if own in right:
                what = f"right is {name}"
            yield f"{path}: [{section}] {written} is no option there, and has no effect; {what}"
    for written in sections.get("DEFAULT", ()):
        if written.replace("-", "_") in ours[FASTMETA_GROUP.name]:
            yield f"{path}: [DEFAULT] {written} has no effect there; it belongs to [{FASTMETA_GROUP.name}]"
