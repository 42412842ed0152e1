"""Keystone's and Neutron's REST API, as the cloud's administrator uses it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from keystoneauth1.adapter import Adapter
from keystoneauth1.identity.v3 import Password
from keystoneauth1.session import Session

from .layout import REGION, Layout

Item: TypeAlias = dict[str, Any]
"""A network, a port, …, as the API describes it."""


_AT_ONCE = 50
"""Ports made in one call, which has a minute."""
_CALLS = 2
"""Calls at once: as many as Neutron's API has workers."""


class Api:
    """Every call raises keystoneauth1's ClientException when it does not succeed."""

    def __init__(self, layout: Layout) -> None:
        authentication = Password(
            layout.auth_url,
            username="admin",
            password=layout.secrets.admin,
            project_name="admin",
            user_domain_name="Default",
            project_domain_name="Default",
        )
        self._session = Session(authentication, timeout=60)
        options = {"session": self._session, "interface": "public", "region_name": REGION}
        self._identity = Adapter(service_type="identity", **options)
        self._network = Adapter(service_type="network", **options)

    def close(self) -> None:
        self._session.session.close()

    # --- Keystone ----------------------------------------------------------------------------------------

    def create_project(self, name: str) -> str:
        """Its id."""
        body = {"project": {"name": name, "domain_id": "default"}}
        return str(self._identity.post("/projects", json=body).json()["project"]["id"])

    def delete_project(self, project_id: str) -> None:
        self._identity.delete(f"/projects/{project_id}")

    def projects(self) -> list[Item]:
        return list(self._identity.get("/projects").json()["projects"])

    def create_user(self, name: str, password: str, project_id: str) -> str:
        """Its id."""
        user = {"name": name, "password": password, "domain_id": "default", "default_project_id": project_id}
        return str(self._identity.post("/users", json={"user": user}).json()["user"]["id"])

    def delete_user(self, user_id: str) -> None:
        self._identity.delete(f"/users/{user_id}")

    def grant(self, project_id: str, user_id: str, role: str) -> None:
        """role: its name; bootstrap has made those that there are."""
        [found] = self._identity.get("/roles", params={"name": role}).json()["roles"]
        self._identity.put(f"/projects/{project_id}/users/{user_id}/roles/{found['id']}")

    def register(self, name: str, service_type: str, url: str) -> None:
        """A service, with its endpoints in the catalogue."""
        body = {"service": {"name": name, "type": service_type}}
        service_id = self._identity.post("/services", json=body).json()["service"]["id"]
        for interface in ("public", "internal", "admin"):
            endpoint = {"service_id": service_id, "interface": interface, "url": url, "region_id": REGION}
            self._identity.post("/endpoints", json={"endpoint": endpoint})

    # --- Neutron -----------------------------------------------------------------------------------------

    def create_network(self, name: str, project_id: str) -> Item:
        return self._create("network", name=name, project_id=project_id, port_security_enabled=False)

    def create_subnet(
        self, network_id: str, project_id: str, cidr: str, *, gateway: str | None = None, **options: Any
    ) -> Item:
        """IPv4 or IPv6, as cidr is. gateway: none when None; options: further fields."""
        version = 6 if ":" in cidr else 4
        return self._create(
            "subnet",
            network_id=network_id,
            project_id=project_id,
            cidr=cidr,
            ip_version=version,
            gateway_ip=gateway,
            **options,
        )

    def create_port(
        self,
        network_id: str,
        project_id: str,
        addresses: Sequence[str],
        *,
        device_id: str,
        device_owner: str = "compute:nova",
        **options: Any,
    ) -> Item:
        """A port with just these fixed IPs; options: further fields."""
        fixed_ips = [{"ip_address": address} for address in addresses]
        return self._create(
            "port",
            network_id=network_id,
            project_id=project_id,
            fixed_ips=fixed_ips,
            device_id=device_id,
            device_owner=device_owner,
            **options,
        )

    def create_ports(self, network_id: str, project_id: str, instances: Mapping[str, str]) -> list[Item]:
        """One for each instance, whose ids are by their addresses; in this order."""
        ports = [
            {
                "network_id": network_id,
                "project_id": project_id,
                "fixed_ips": [{"ip_address": address}],
                "device_id": instance_id,
                "device_owner": "compute:nova",
            }
            for address, instance_id in instances.items()
        ]
        batches = [ports[at : at + _AT_ONCE] for at in range(0, len(ports), _AT_ONCE)]

        def create(batch: list[Item]) -> list[Item]:
            return list(self._network.post("/v2.0/ports", json={"ports": batch}).json()["ports"])

        pool = ThreadPoolExecutor(_CALLS)
        try:
            return [port for made in pool.map(create, batches) for port in made]
        finally:
            pool.shutdown(cancel_futures=True)

    def update_port(self, port_id: str, **fields: Any) -> Item:
        return self._send("put", "port", port_id, fields)

    def delete_port(self, port_id: str) -> None:
        self._network.delete(f"/v2.0/ports/{port_id}")

    def create_router(self, name: str, project_id: str) -> Item:
        return self._create("router", name=name, project_id=project_id)

    def add_router_interface(self, router_id: str, port_id: str) -> None:
        """A port becomes the router's."""
        self._network.put(f"/v2.0/routers/{router_id}/add_router_interface", json={"port_id": port_id})

    def remove_router_interface(self, router_id: str, port_id: str) -> None:
        """The port goes with it."""
        self._network.put(f"/v2.0/routers/{router_id}/remove_router_interface", json={"port_id": port_id})

    def items(self, kind: str, **query: Any) -> list[Item]:
        """kind: network, subnet, port, router, agent."""
        return list(self._network.get(f"/v2.0/{kind}s", params=query).json()[f"{kind}s"])

    def delete(self, kind: str, item_id: str) -> None:
        self._network.delete(f"/v2.0/{kind}s/{item_id}")

    def remove_project(self, project_id: str) -> None:
        """All that the project has in Neutron, then itself."""
        for router in self.items("router", project_id=project_id):
            for port in self.items("port", device_id=router["id"]):
                self.remove_router_interface(router["id"], port["id"])
            self.delete("router", router["id"])
        for kind in ("port", "network"):
            ids = [item["id"] for item in self.items(kind, project_id=project_id, fields="id")]
            with ThreadPoolExecutor(_CALLS) as pool:
                list(pool.map(functools.partial(self.delete, kind), ids))
        for group in self._network.get("/v2.0/security-groups", params={"project_id": project_id}).json()[
            "security_groups"
        ]:
            self._network.delete(f"/v2.0/security-groups/{group['id']}")
        self.delete_project(project_id)

    def _create(self, kind: str, **fields: Any) -> Item:
        return self._send("post", kind, "", fields)

    def _send(self, method: str, kind: str, item_id: str, fields: Item) -> Item:
        path = f"/v2.0/{kind}s/{item_id}".rstrip("/")
        answer = self._network.request(path, method.upper(), json={kind: fields})
        return dict(answer.json()[kind])
