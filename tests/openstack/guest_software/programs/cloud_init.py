"""Run in a guest's namespace, by Debian's interpreter: a data source of cloud-init finds the instance, as at boot.

Usage: python3 -S -E cloud_init.py JSON, an object: "modules", the folders to load from; "data_source", OpenStack or
Ec2; "folder", for all that it writes; "settings", what cloud.cfg has for the data source. Prints a JSON object; bytes
are in base64.
"""

import base64
import json
import logging
import os
import sys

from namespace import refuse_the_machine

FIRMWARE = {"system-manufacturer": "OpenStack Foundation", "system-product-name": "OpenStack Nova"}
"""What the firmware of an instance says (DMI), and this machine's does not."""


def main() -> None:
    refuse_the_machine()
    given = json.loads(sys.argv[1])
    # The result alone goes to the caller, whatever else prints.
    result = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)d %(name)s: %(message)s")
    sys.path[:0] = given["modules"]
    json.dump(find(given["data_source"], given["folder"], given["settings"]), result, default=encode)
    result.close()


def find(name: str, folder: str, settings: dict[str, object]) -> dict[str, object]:
    from cloudinit import distros, dmi, helpers, sources, version

    dmi.read_dmi_data = FIRMWARE.get
    paths = helpers.Paths({"cloud_dir": f"{folder}/cloud", "run_dir": f"{folder}/run"})
    os.makedirs(paths.run_dir)
    distro = distros.fetch("debian")("debian", {}, paths)
    configuration = {"datasource_list": ["OpenStack", "Ec2"], "datasource": {name: settings}}
    needs = [sources.DEP_FILESYSTEM, sources.DEP_NETWORK]
    [kind] = sources.list_sources([name], needs, ["cloudinit.sources"])
    source = kind(configuration, distro, paths)
    if not source.get_data():
        return {"version": version.version_string(), "found": False}
    found = {
        "version": version.version_string(),
        "found": True,
        "metadata_address": source.metadata_address,
        "instance_id": source.get_instance_id(),
        "user_data": source.get_userdata_raw(),
        "metadata": source.metadata,
    }
    if name == "OpenStack":
        found["network_data"] = source.network_json
        found["network_config"] = source.network_config
        found["ec2_metadata"] = source.ec2_metadata
        found["vendor_data"] = source.vendordata_raw
    return found


def encode(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(value)


main()
