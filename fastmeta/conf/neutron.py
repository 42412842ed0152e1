"""The options of section ``[neutron]``: where Neutron's API is, and as whom it is asked.

Names and meaning are keystoneauth's, as in every other OpenStack service; a test compares them. They are written down
here again because importing keystoneauth1 costs 8 MB and 150 ms, which only lookup = rest shall pay, and so that their
help says what counts here. Those of rarer kinds of authentication (auth_type) are taken, too, but not listed.
"""

from __future__ import annotations

from oslo_config import cfg

NEUTRON_GROUP = cfg.OptGroup("neutron", title="Neutron's API, as keystoneauth names its options")

OLD_AUTH_CA_CERT = "auth_ca_cert"
"""Of [DEFAULT]. The first metadata agents took it for Keystone and Neutron, too; it counts as cafile where their other
options are used."""

OLD_NAMES = {
    "auth_url": "auth_url",
    "auth_region": "region_name",
    "admin_tenant_name": "project_name",
    "admin_user": "username",
    "admin_password": "password",
    "auth_insecure": "insecure",
}
"""Options of [DEFAULT] in the first metadata agents (until 2015), and what they are called here."""


def _old(name: str) -> list[cfg.DeprecatedOpt]:
    return [cfg.DeprecatedOpt(old, group="DEFAULT") for old, new in OLD_NAMES.items() if new == name]


AUTH_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "auth_type",
        deprecated_opts=[cfg.DeprecatedOpt("auth_plugin", group="neutron")],
        help="The kind of authentication: password (which is taken when there is none), v3applicationcredential, or "
        "any other that keystoneauth has a plugin for; none, with endpoint_override, for a Neutron without Keystone.",
    ),
    cfg.StrOpt(
        "auth_section",
        metavar="SECTION",
        help="A section from which auth_type and its options are taken instead of this one.",
    ),
    cfg.StrOpt(
        "auth_url",
        deprecated_opts=_old("auth_url"),
        metavar="URL",
        help="Where Keystone is: https://keystone.example:5000/v3, or without the version, which is found out then. "
        "One that ends with /v2.0 (Keystone has had none since 2017) finds version 3.",
    ),
    cfg.StrOpt(
        "username",
        deprecated_opts=[cfg.DeprecatedOpt("user_name", group="neutron"), *_old("username")],
        help="Who asks: a user with the role admin or service, else Neutron shows it no ports of other projects, and "
        "guests get 404.",
    ),
    cfg.StrOpt("user_id", help="The same by id; then without the user's domain."),
    cfg.StrOpt("password", secret=True, deprecated_opts=_old("password"), help="The password of the user."),
    cfg.StrOpt("user_domain_name", help="The domain of the user, by its name."),
    cfg.StrOpt("user_domain_id", help="The domain of the user, by its id."),
    cfg.StrOpt(
        "project_name",
        deprecated_opts=[cfg.DeprecatedOpt("tenant_name", group="neutron"), *_old("project_name")],
        help="The project in which the user has its role; most often called service.",
    ),
    cfg.StrOpt(
        "project_id",
        deprecated_opts=[cfg.DeprecatedOpt("tenant_id", group="neutron")],
        help="The same by id; then without the project's domain.",
    ),
    cfg.StrOpt("project_domain_name", help="The domain of the project, by its name."),
    cfg.StrOpt("project_domain_id", help="The domain of the project, by its id."),
    cfg.StrOpt("default_domain_name", help="The domain of user and project where none is given for them."),
    cfg.StrOpt(
        "default_domain_id",
        help="The same by id. Where none of the domains is given it is default, Keystone's first one.",
    ),
    cfg.StrOpt("system_scope", help="all: a token for the whole cloud in place of one for a project."),
    cfg.StrOpt("domain_name", help="For a token of a domain in place of a project."),
    cfg.StrOpt("domain_id", help="For a token of a domain, by its id."),
    cfg.StrOpt("trust_id", help="For a trust of Keystone: its id."),
    cfg.StrOpt(
        "application_credential_id",
        help="For auth_type = v3applicationcredential: its id. It needs neither user nor project.",
    ),
    cfg.StrOpt(
        "application_credential_name",
        help="For auth_type = v3applicationcredential: its name; then with user and domain.",
    ),
    cfg.StrOpt(
        "application_credential_secret",
        secret=True,
        help="For auth_type = v3applicationcredential: its secret.",
    ),
)

SESSION_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "cafile",
        metavar="FILE",
        help="For https: the certificates (PEM) of the authorities that may have issued those of Keystone and "
        "Neutron. Not set: those of the requests library. The environment (REQUESTS_CA_BUNDLE) counts for nothing. "
        "This file and the next two are refused when group or others may write them.",
    ),
    cfg.StrOpt(
        "certfile",
        metavar="FILE",
        help="For https: our own certificate (PEM), for a Keystone or Neutron that asks for one.",
    ),
    cfg.StrOpt(
        "keyfile",
        metavar="FILE",
        help="For https: the private key of certfile, when it is not in the same file.",
    ),
    cfg.BoolOpt(
        "insecure",
        default=False,
        deprecated_opts=_old("insecure"),
        help="For https: takes any certificate. Whoever is on the way can then read our password, and say who is who. "
        "Taken with a warning.",
    ),
)

ADAPTER_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "service_type",
        default="network",
        help="The type that Neutron has in Keystone's catalogue.",
    ),
    cfg.StrOpt("service_name", help="Its name there, where there are several of the type."),
    cfg.ListOpt(
        "valid_interfaces",
        default=["internal", "public"],
        help="Which of Neutron's endpoints in the catalogue is taken: the first of these that there is.",
    ),
    cfg.StrOpt(
        "region_name",
        deprecated_opts=_old("region_name"),
        help="The region whose Neutron it is. Not set: the first in the catalogue, so set it where there are several.",
    ),
    cfg.StrOpt(
        "endpoint_override",
        metavar="URL",
        help="Where Neutron's API is, in place of what the catalogue says; with or without /v2.0 at its end.",
    ),
)

KEYSTONE_OPTS = AUTH_OPTS + SESSION_OPTS + ADAPTER_OPTS

CREDENTIALS = ("auth_type", "auth_section", "auth_url", "username", "user_id", "application_credential_id")
"""Who gives one of these wants Neutron's API to be asked."""
