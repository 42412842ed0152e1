"""The servers' configuration files, made of a stack's values. Written anew at each start."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .layout import ADDRESS, HOST, REGION, Layout
from .rabbitmq import rabbitmq_configuration

DATABASES = ("keystone", "neutron", "nova", "nova_api", "nova_cell0")
VENDOR_DATA = {"fastmeta": {"what": "an operator's own", "list": [1, 2, 3], "not ASCII": "\u00fc\u4e16"}}
"""What every instance gets of the cloud's operator."""


def write_files(layout: Layout) -> None:
    """All of them, mode 0600; the virtual environment must be there."""
    for name, content in _files(layout).items():
        path = layout.etc / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            file.write(content)
        os.rename(new, path)


def _files(layout: Layout) -> dict[str, str]:
    return {
        "mariadb.cnf": _mariadb(layout),
        "mariadb-init.sql": _mariadb_init(layout),
        "rabbitmq.conf": rabbitmq_configuration(layout),
        "rabbitmq-env.conf": "",
        "enabled_plugins": "[].\n",
        "keystone.conf": _keystone(layout),
        "neutron.conf": _neutron(layout),
        "ml2_conf.ini": _ml2(),
        "nova/nova.conf": _nova(layout),
        "nova/vendor_data.json": json.dumps(VENDOR_DATA),
        # Nova looks for it in the folder of its configuration first.
        "nova/api-paste.ini": (layout.environment / "etc/nova/api-paste.ini").read_text(),
        "keystone-uwsgi.ini": _uwsgi(
            layout.tcp_ports.keystone,
            "keystone.wsgi.api:application",
            f"pyargv = --config-file {layout.etc / 'keystone.conf'}",
            f"env = OS_KEYSTONE_CONFIG_FILES={layout.etc / 'keystone.conf'}",
            threads=2,
        ),
        "neutron-uwsgi.ini": _uwsgi(
            layout.tcp_ports.neutron,
            "neutron.wsgi.api:application",
            f"pyargv = --config-file {layout.etc / 'neutron.conf'} --config-file {layout.etc / 'ml2_conf.ini'}"
            f" --log-file {layout.logs / 'neutron-api.log'}",
            # Neutron's workers tell by it how old they are.
            "start-time = %t",
            processes=2,
        ),
        "nova-uwsgi.ini": _uwsgi(
            layout.tcp_ports.nova,
            "nova.wsgi.metadata:application",
            f"env = OS_NOVA_CONFIG_DIR={layout.etc / 'nova'}",
            threads=4,
        ),
        "admin.json": json.dumps(
            {
                "auth_url": layout.auth_url,
                "username": "admin",
                "password": layout.secrets.admin,
                "project_name": "admin",
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            },
            indent=1,
        ),
    }


def _mariadb(layout: Layout) -> str:
    data = layout.data / "mariadb"
    # A socket's path has at most 107 bytes (unix(7)); relative, it is below the data folder.
    return f"""[mariadbd]
user = root
datadir = {data}
socket = mariadb.sock
pid-file = {layout.run / "mariadbd.pid"}
log-error = {layout.logs / "mariadb.log"}
init-file = {layout.etc / "mariadb-init.sql"}
bind-address = {ADDRESS}
port = {layout.tcp_ports.mariadb}
skip-name-resolve
skip-log-bin
secure-file-priv = {data}
max_connections = 300
innodb_flush_log_at_trx_commit = 2
innodb_buffer_pool_size = 128M
innodb_log_file_size = 32M
character-set-server = utf8mb3
collation-server = utf8mb3_general_ci
"""


def _mariadb_init(layout: Layout) -> str:
    # Carried out at each start before the first connection; one statement a line.
    lines = [f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb3;" for name in DATABASES]
    user = f"'openstack'@'{ADDRESS}'"
    lines.append(f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{layout.secrets.database}';")
    lines += [f"GRANT ALL ON {name}.* TO {user};" for name in DATABASES]
    return "\n".join([*lines, ""])


def _keystone(layout: Layout) -> str:
    return f"""[DEFAULT]
log_file = {layout.logs / "keystone.log"}
[database]
connection = {layout.database_url("keystone")}
[token]
provider = fernet
[fernet_tokens]
key_repository = {layout.data / "keystone/fernet-keys"}
[credential]
key_repository = {layout.data / "keystone/credential-keys"}
[cache]
enabled = false
"""


def _neutron(layout: Layout) -> str:
    data = layout.data / "neutron"
    return f"""[DEFAULT]
log_dir = {layout.logs}
state_path = {data}
core_plugin = ml2
service_plugins = router
auth_strategy = keystone
api_paste_config = {layout.environment / "etc/neutron/api-paste.ini"}
bind_host = {ADDRESS}
bind_port = {layout.tcp_ports.neutron}
rpc_workers = 1
rpc_state_report_workers = 1
transport_url = {layout.transport_url}
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
dhcp_agent_notification = false
default_quota = -1
host = {HOST}
[quotas]
quota_network = -1
quota_subnet = -1
quota_port = -1
quota_router = -1
quota_security_group = -1
quota_security_group_rule = -1
[database]
connection = {layout.database_url("neutron")}
{_authtoken(layout, "neutron")}
[oslo_concurrency]
lock_path = {data / "lock"}
[oslo_messaging_rabbit]
heartbeat_in_pthread = false
[oslo_messaging_notifications]
driver = noop
"""


def _ml2() -> str:
    # Without agents ports stay unbound, which is nothing to the metadata path.
    return """[ml2]
type_drivers = local,flat,vlan,vxlan
tenant_network_types = vxlan
mechanism_drivers = openvswitch
extension_drivers = port_security
[ml2_type_vxlan]
vni_ranges = 1:10000
[securitygroup]
enable_security_group = true
"""


def _nova(layout: Layout) -> str:
    return f"""[DEFAULT]
log_file = {layout.logs / "nova-metadata.log"}
state_path = {layout.data / "nova"}
transport_url = {layout.transport_url}
my_ip = {ADDRESS}
host = {HOST}
[api]
auth_strategy = keystone
local_metadata_per_cell = false
# It asks Neutron for each instance that it has not kept. So long, so that its answers do not depend on a Neutron that a
# test has stopped; what is kept is by instance, and an instance's data stays the same.
metadata_cache_expiration = 3600
vendordata_providers = StaticJSON
vendordata_jsonfile_path = {layout.etc / "nova/vendor_data.json"}
[wsgi]
api_paste_config = {layout.etc / "nova/api-paste.ini"}
[database]
connection = {layout.database_url("nova")}
[api_database]
connection = {layout.database_url("nova_api")}
{_authtoken(layout, "nova")}
[neutron]
{_credentials(layout, "neutron")}
region_name = {REGION}
service_metadata_proxy = true
metadata_proxy_shared_secret = {layout.secrets.metadata}
[placement]
{_credentials(layout, "nova")}
[oslo_concurrency]
lock_path = {layout.data / "nova/lock"}
[oslo_messaging_notifications]
driver = noop
[cache]
enabled = false
"""


def _authtoken(layout: Layout, user: str) -> str:
    return f"""[keystone_authtoken]
www_authenticate_uri = {layout.auth_url.removesuffix("/v3")}
{_credentials(layout, user)}
service_token_roles_required = false"""


def _credentials(layout: Layout, user: str) -> str:
    return f"""auth_type = password
auth_url = {layout.auth_url}
username = {user}
password = {layout.secrets.service}
project_name = service
user_domain_name = Default
project_domain_name = Default"""


def _uwsgi(tcp_port: int, module: str, *lines: str, processes: int = 1, threads: int = 1) -> str:
    return "\n".join(
        [
            "[uwsgi]",
            f"http-socket = {ADDRESS}:{tcp_port}",
            f"module = {module}",
            "master = true",
            f"processes = {processes}",
            f"threads = {threads}",
            "enable-threads = true",
            "lazy-apps = true",
            "need-app = true",
            # Else it would load everything anew on SIGTERM.
            "die-on-term = true",
            # Workers whose master was killed end too.
            "no-orphans = true",
            "buffer-size = 65535",
            "post-buffering = 65536",
            "socket-timeout = 30",
            # It closes after each answer, and must say so: else every second call of a client that keeps its
            # connections fails.
            "add-header = Connection: close",
            "disable-logging = true",
            *lines,
            "",
        ]
    )


def paths(layout: Layout) -> list[Path]:
    """Folders that the servers expect to be there."""
    data = layout.data
    return [data / name for name in ("rabbitmq/mnesia", "keystone", "neutron/lock", "nova/lock")]
