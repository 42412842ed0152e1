"""What is done once for a stack: databases and their tables, keys, cells, the servers' users and endpoints."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .api import Api
from .files import paths
from .layout import ADDRESS, REGION, Layout
from .packages import CONSTRAINTS, run
from .services import Services

_VERSION = "1"
"""Grows when what is prepared changes: older stacks are then made anew."""


def fingerprint(layout: Layout) -> str:
    """What a prepared stack depends on."""
    return f"{_VERSION} {layout.tcp_ports.base} {layout.environment}\n{CONSTRAINTS.read_text()}"


def prepared(layout: Layout) -> bool:
    try:
        return (layout.data / "prepared").read_text() == fingerprint(layout)
    except FileNotFoundError:
        return False


def prepare(layout: Layout, services: Services, api: Callable[[], Api]) -> None:
    """With nothing in the data folder and nothing running; afterwards the database, the bus and Keystone run. Raises
    SetUpError, ProcessError."""
    for path in paths(layout):
        path.mkdir(parents=True, exist_ok=True)
    log = layout.logs / "prepare.log"
    command = ["mariadb-install-db", "--no-defaults", "--user=root", "--skip-test-db"]
    run([*command, f"--datadir={layout.data / 'mariadb'}", "--innodb-log-file-size=32M"], log)
    for service in (services.database, services.port_mapper, services.bus):
        service.launch()
    services.database.wait()
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(work, layout) for work in (_keystone, _neutron, _nova)]:
            done.result()
    services.bus.wait()
    services.keystone.start()
    _register(layout, api())
    (layout.data / "prepared").write_text(fingerprint(layout))


def _run(layout: Layout, log: str, program: str, *arguments: str) -> None:
    environment = {**os.environ, "OS_BOOTSTRAP_PASSWORD": layout.secrets.admin}
    run([layout.program(program), *arguments], layout.logs / log, environment=environment)


def _keystone(layout: Layout) -> None:
    def manage(*arguments: str) -> None:
        configuration = str(layout.etc / "keystone.conf")
        _run(layout, "keystone-manage.out", "keystone-manage", "--config-file", configuration, *arguments)

    manage("db_sync")
    for keys in ("fernet_setup", "credential_setup"):
        manage(keys, "--keystone-user", "root", "--keystone-group", "root")
    urls = [
        f"--bootstrap-{interface}-url={layout.auth_url}/" for interface in ("admin", "internal", "public")
    ]
    manage("bootstrap", *urls, "--bootstrap-region-id", REGION)


def _neutron(layout: Layout) -> None:
    files = [f"--config-file={layout.etc / name}" for name in ("neutron.conf", "ml2_conf.ini")]
    _run(layout, "neutron-db.out", "neutron-db-manage", *files, "upgrade", "heads")


def _nova(layout: Layout) -> None:
    def manage(*arguments: str) -> None:
        configuration = f"--config-file={layout.etc / 'nova/nova.conf'}"
        _run(layout, "nova-manage.out", "nova-manage", configuration, *arguments)

    manage("api_db", "sync")
    manage("cell_v2", "map_cell0", "--database_connection", layout.database_url("nova_cell0"))
    manage("db", "sync")
    manage("cell_v2", "create_cell", "--name", "cell1")


def _register(layout: Layout, api: Api) -> None:
    """The project "service", its users, and where Neutron is."""
    project = api.create_project("service")
    for name in ("neutron", "nova"):
        user = api.create_user(name, layout.secrets.service, project)
        for role in ("admin", "service"):
            api.grant(project, user, role)
    api.register("neutron", "network", f"http://{ADDRESS}:{layout.tcp_ports.neutron}")
