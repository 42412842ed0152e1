"""Which lookup source it is. Each is imported only when it is the one: a source's libraries cost memory and time."""

from __future__ import annotations

import importlib
import importlib.util

from fastmeta.conf.running import RunningConfiguration
from fastmeta.exceptions import ConfigError
from fastmeta.folders import FolderWatcher
from fastmeta.lookup.source import LookupSource


def make_source(configuration: RunningConfiguration, folders: FolderWatcher) -> LookupSource:
    """The source that is configured; Settings says which. Raises ConfigError when it can never work so."""
    settings = configuration.settings
    if settings.lookup == "rpc":
        if importlib.util.find_spec("oslo_messaging") is None:
            raise ConfigError(
                "lookup = rpc (transport_url is set) needs oslo.messaging, which is not installed: pip install "
                "fastmeta[rpc]; or set [fastmeta] lookup = rest"
            )
        module = importlib.import_module("fastmeta.lookup.neutron_rpc")
        rpc: LookupSource = module.RpcSource(
            configuration.conf, lookup_timeout=lambda: configuration.settings.lookup_timeout
        )
        return rpc
    if settings.lookup == "rest":
        from fastmeta.lookup.neutron_rest import RestSource

        return RestSource(configuration.conf, lambda: configuration.settings.lookup_timeout)
    from fastmeta.lookup.static import StaticSource

    return StaticSource(settings.ports_file, folders)
