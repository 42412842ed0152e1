"""Run in a guest's namespace, by Debian's interpreter: botocore looks for credentials, and for its region, as in every
program that uses it and has them from nowhere else.

Usage: python3 -S -E botocore_credentials.py JSON, an object: "modules", the folders to load from; "timeout", seconds
for each answer. Prints a JSON object.
"""

import json
import logging
import sys

from namespace import refuse_the_machine


def main() -> None:
    refuse_the_machine()
    given = json.loads(sys.argv[1])
    sys.path[:0] = given["modules"]
    from botocore import utils

    logging.basicConfig(level=logging.DEBUG)
    options = {"timeout": given["timeout"], "env": {}, "user_agent": "Botocore"}
    plain = utils.IMDSFetcher(**options)
    token = plain._fetch_metadata_token()
    found = {
        "token": token,
        "instance_id": plain._get_request("latest/meta-data/instance-id", None, token).text,
        "region": utils.InstanceMetadataRegionFetcher(**options).retrieve_region(),
        "credentials": utils.InstanceMetadataFetcher(**options).retrieve_iam_role_credentials(),
    }
    print(json.dumps(found))


main()
