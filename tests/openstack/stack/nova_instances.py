"""Run by the stack's own interpreter: writes instances into Nova's databases, through Nova's objects, as if its compute
service had started them.

Usage: nova_instances.py NOVA.CONF LOG. Each line of standard input is an order in JSON, each line of standard output
its result. {"create": {"id", "project_id", "name", "user_data", "ports": [{"id", "mac_address", "network_id", "cidr",
"address"}]}}, user_data in base64, and {"delete": {"id"}} give {}; a failure gives {"error": "…"}.
"""

import contextlib
import json
import os
import sys

os.environ.setdefault("OS_NOVA_DISABLE_EVENTLET_PATCHING", "1")

import netaddr
from nova import config, context, exception, objects
from nova.network import model

USER = "fastmeta"


class Writer:
    def __init__(self):
        self.admin = context.get_admin_context()
        [self.cell] = [cell for cell in objects.CellMappingList.get_all(self.admin) if cell.name == "cell1"]

    def create(self, wanted):
        project_id = wanted["project_id"]
        owner = context.RequestContext(user_id=USER, project_id=project_id, is_admin=True)
        with context.target_cell(owner, self.cell) as cell:
            instance = objects.Instance(
                context=cell,
                uuid=wanted["id"],
                project_id=project_id,
                user_id=USER,
                display_name=wanted["name"],
                hostname=wanted["name"],
                host="fastmeta-stack",
                launch_index=0,
                reservation_id=f"r-{wanted['id'][:8]}",
                image_ref="",
                vm_state="active",
                power_state=1,
                availability_zone="nova",
                memory_mb=512,
                vcpus=1,
                root_gb=1,
                ephemeral_gb=0,
                user_data=wanted["user_data"],
                metadata={"project": project_id},
                system_metadata={"image_base_image_ref": ""},
                flavor=flavor(cell),
                old_flavor=None,
                new_flavor=None,
                keypairs=objects.KeyPairList(objects=[]),
                security_groups=objects.SecurityGroupList(objects=[]),
            )
            cache = objects.InstanceInfoCache(context=cell, instance_uuid=wanted["id"])
            cache.network_info = model.NetworkInfo([interface(port) for port in wanted["ports"]])
            instance.info_cache = cache
            instance.create()
        objects.InstanceMapping(
            self.admin,
            instance_uuid=wanted["id"],
            project_id=project_id,
            user_id=USER,
            cell_mapping=self.cell,
            queued_for_delete=False,
        ).create()
        return {}

    def delete(self, wanted):
        missing = contextlib.suppress(exception.InstanceNotFound)
        with context.target_cell(self.admin, self.cell) as cell, missing:
            objects.Instance.get_by_uuid(cell, wanted["id"]).destroy()
        with contextlib.suppress(exception.InstanceMappingNotFound):
            objects.InstanceMapping.get_by_instance_uuid(self.admin, wanted["id"]).destroy()
        return {}


def flavor(cell):
    return objects.Flavor(
        context=cell,
        id=1,
        name="m1.tiny",
        flavorid="1",
        memory_mb=512,
        vcpus=1,
        root_gb=1,
        ephemeral_gb=0,
        swap=0,
        rxtx_factor=1.0,
        vcpu_weight=0,
        disabled=False,
        is_public=True,
        extra_specs={},
    )


def interface(port):
    subnet = netaddr.IPNetwork(port["cidr"])
    network = model.Network(
        id=port["network_id"],
        bridge="br-int",
        label=port["network_id"][:8],
        subnets=[
            model.Subnet(
                cidr=port["cidr"],
                dns=[],
                gateway=model.IP(address=str(subnet[1]), type="gateway"),
                ips=[model.FixedIP(address=port["address"], floating_ips=[])],
                routes=[],
                version=subnet.version,
            )
        ],
        injected=False,
        mtu=1450,
    )
    return model.VIF(
        id=port["id"],
        address=port["mac_address"],
        network=network,
        type="ovs",
        devname=f"tap{port['id'][:11]}",
        ovs_interfaceid=port["id"],
        active=True,
        vnic_type="normal",
        profile={},
        details={},
    )


def main():
    configuration, log = sys.argv[1:]
    # Answers alone go to the caller, whatever else prints.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    config.parse_args(["nova_instances", "--config-file", configuration, "--log-file", log])
    objects.register_all()
    writer = Writer()
    for line in sys.stdin:
        [(order, wanted)] = json.loads(line).items()
        try:
            result = getattr(writer, order)(wanted)
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
