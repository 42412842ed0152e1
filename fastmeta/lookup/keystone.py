"""What section ``[neutron]`` says, made into what keystoneauth1 wants: who asks, and over which session."""

from __future__ import annotations

import urllib.parse
import warnings
from typing import Any

import urllib3
from keystoneauth1 import exceptions, loading
from keystoneauth1.identity import generic
from keystoneauth1.plugin import BaseAuthPlugin
from keystoneauth1.session import Session
from oslo_config import cfg
from oslo_log import log as logging

from fastmeta import __version__
from fastmeta.conf.neutron import AUTH_OPTS, NEUTRON_GROUP, OLD_AUTH_CA_CERT
from fastmeta.conf.settings import read, uses_old_names
from fastmeta.exceptions import ConfigError
from fastmeta.lookup import bounded_http
from fastmeta.trusted_files import read_trusted_file

LOG = logging.getLogger(__name__)

_DOMAINS = (
    "user_domain_name",
    "user_domain_id",
    "project_domain_name",
    "project_domain_id",
    "default_domain_name",
    "default_domain_id",
)
_SCOPES = ("project_name", "project_id", "system_scope", "domain_name", "domain_id", "trust_id")


class NeutronOptions:
    """The values of one configuration. Raises ConfigError where one cannot be used."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    def __getitem__(self, name: str) -> Any:
        return self.of(NEUTRON_GROUP.name, name)

    def of(self, section: str, name: str) -> Any:
        """A value of another section (auth_section)."""
        return read(self._conf[section], name, f"[{section}] {name}")

    def url(self, section: str, name: str) -> str | None:
        """A value that must be the address of a server; None when there is none."""
        text: str | None = self.of(section, name)
        if not text:
            return None
        try:
            parts = urllib.parse.urlsplit(text)
            right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            right = False
        if not right or parts.username is not None or parts.query or parts.fragment or not text.isascii():
            raise ConfigError(
                f"[{section}] {name} is not like https://<host>:<tcp port>/<path>, which is what it must be"
            )
        return text


def make_session(conf: cfg.ConfigOpts, threads: int) -> Session:
    """Raises ConfigError, UnsafeFileError."""
    # It would say so each time, in a text of its own, what is said once by us.
    logging.getLogger("keystoneauth.identity.generic.base").logger.setLevel("ERROR")
    options = NeutronOptions(conf)
    cafile, certfile, keyfile = options["cafile"], options["certfile"], options["keyfile"]
    if not cafile and uses_old_names(conf):
        cafile = read(conf, OLD_AUTH_CA_CERT, OLD_AUTH_CA_CERT)
    for name, path in (("cafile", cafile), ("certfile", certfile), ("keyfile", keyfile)):
        if path:
            try:
                read_trusted_file(path)
            except ConfigError as error:
                raise type(error)(f"[neutron] {name} = {error}") from error
    if keyfile and not certfile:
        raise ConfigError("[neutron] keyfile is set without certfile: both are needed, or none")
    insecure = options["insecure"]
    if insecure:
        # It would warn of each request; that is said once, at the start.
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
    return Session(
        auth=_make_auth(conf, options),
        session=bounded_http.session(threads),
        verify=False if insecure else (cafile or True),
        cert=(certfile, keyfile) if certfile and keyfile else (certfile or None),
        redirect=3,
        app_name="fastmeta",
        app_version=__version__,
    )


def _make_auth(conf: cfg.ConfigOpts, options: NeutronOptions) -> BaseAuthPlugin:
    section: str = options["auth_section"] or NEUTRON_GROUP.name
    if section != NEUTRON_GROUP.name:
        conf.register_opts(AUTH_OPTS, group=section)
    kind: str = options.of(section, "auth_type") or "password"
    loader: Any
    try:
        loader = loading.get_plugin_loader(kind)
        for option in loading.get_auth_plugin_conf_options(loader):
            if option.dest not in conf[section]:
                conf.register_opt(option, group=section)
    except exceptions.NoMatchingPlugin:
        raise ConfigError(f"[{section}] auth_type = {kind}: keystoneauth has no such plugin") from None
    values = {
        option.dest: options.of(section, option.dest)
        for option in loading.get_auth_plugin_conf_options(loader)
    }
    if "auth_url" in values:
        values["auth_url"] = options.url(section, "auth_url")
    if kind == "password":
        _check_password(section, values)
    try:
        auth: BaseAuthPlugin = loader.load_from_options_getter(lambda option: values[option.dest])
    except exceptions.MissingRequiredOptions as error:
        missing = ", ".join(option.dest for option in error.options)
        raise ConfigError(f"[{section}] auth_type = {kind} needs {missing}") from None
    except exceptions.OptionError as error:
        raise ConfigError(f"[{section}]: {error}") from None
    if isinstance(auth, generic.base.BaseGenericPlugin):
        # Discovery finds out which versions there are, from the place where all of them are.
        auth.auth_url = _without_version_2(auth.auth_url)
    return auth


def _check_password(section: str, values: dict[str, Any]) -> None:
    """What is missing is said at the start, and not by Keystone's "400: Expecting to find domain in user"."""
    for names in (("auth_url",), ("username", "user_id"), ("password",), _SCOPES):
        if not any(values.get(name) for name in names):
            others = f" (or {', '.join(names[1:])})" if names[1:] else ""
            raise ConfigError(f"[{section}] {names[0]}{others} is not set, and Keystone needs it")
    if not any(values.get(name) for name in _DOMAINS):
        values["default_domain_id"] = "default"


def _without_version_2(url: str) -> str:
    stripped = url.rstrip("/")
    if stripped.endswith("/v2.0"):
        return stripped.removesuffix("v2.0")
    return url
