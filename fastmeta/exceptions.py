"""All exceptions of fastmeta. This module imports nothing, so that every other one (the core too) may use it."""

from __future__ import annotations


class FastmetaError(Exception):
    """Base of everything that fastmeta raises on purpose; its text says what, where and what to do."""


class ConfigError(FastmetaError):
    """A configuration file or option cannot be used."""


class UnsafeFileError(ConfigError):
    """A file that holds secrets or decides identities could be changed by somebody else."""


class NamespaceError(FastmetaError):
    """A network namespace cannot be entered or listed."""


class NamespaceNotFoundError(NamespaceError):
    """The namespace does not exist (yet), or its name is not mounted yet."""


class ListenError(FastmetaError):
    """A listening socket cannot be opened."""


class RulesError(FastmetaError):
    """The rules of a router's namespace cannot be read or changed."""


class LookupFailedError(FastmetaError):
    """A lookup source did not answer a question."""


class LookupUnavailableError(LookupFailedError):
    """The source is away or too slow; the same question may be asked again."""


class LookupRefusedError(LookupUnavailableError):
    """The source refuses us: configuration or credentials are wrong, and an operator must act."""


class LookupMalformedError(LookupFailedError):
    """The source answered something that cannot be trusted."""


class MetadataApiError(FastmetaError):
    """The embedded metadata API cannot start with what it was given."""


class LabError(FastmetaError):
    """The lab of namespaces cannot be set up."""


class CoreError(FastmetaError):
    """An invariant of the compiled core is broken, or it cannot go on."""


class ControlError(FastmetaError):
    """No agent answers on the control socket, or it cannot do what was asked."""


class StandInError(FastmetaError):
    """What a stand-in or holder has handed over cannot be taken."""
