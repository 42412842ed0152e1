"""fastmeta: the metadata path of an OpenStack node in one service."""

__version__ = "0.1.0"
