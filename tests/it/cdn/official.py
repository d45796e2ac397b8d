"""Asks the vendors' own libraries about requests: one question as JSON on stdin, the answer as JSON on stdout."""

import datetime
import json
import sys
import xml.etree.ElementTree as ET


def signature(question):
    """The signature that botocore computes for a request as it arrived, and what botocore's model says of its form."""
    import botocore.auth
    import botocore.session
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = question["request"]
    signed_at = datetime.datetime.strptime(request["headers"]["x-amz-date"], "%Y%m%dT%H%M%SZ")
    botocore.auth.get_current_datetime = lambda remove_tzinfo=True: signed_at
    signed = request["headers"]["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    added = ("host", "x-amz-date", "x-amz-security-token")
    headers = {name: request["headers"][name] for name in signed if name not in added}
    again = AWSRequest(method=request["method"], url=question["url"], data=request["body"].encode(), headers=headers)
    credentials = Credentials(question["id"], question["key"], question["token"])
    botocore.auth.SigV4Auth(credentials, "cloudfront", "us-east-1").add_auth(again)

    model = botocore.session.get_session().get_service_model("cloudfront")
    operation = model.operation_model("CreateInvalidation")
    distribution = request["path"].split("/")[3]
    path = operation.http["requestUri"].replace("{DistributionId}", distribution)
    batch = operation.input_shape.members["InvalidationBatch"]
    root = ET.fromstring(request["body"])
    space = "{http://cloudfront.amazonaws.com/doc/2020-05-31/}"
    assert root.tag == space + operation.input_shape.members["InvalidationBatch"].serialization.get("locationName", "InvalidationBatch")
    paths = [item.text for item in root.iter(space + "Path")]
    assert int(root.find(f"{space}Paths/{space}Quantity").text) == len(paths)
    members = sorted(child.tag.removeprefix(space) for child in root)
    assert members == sorted(batch.required_members), batch.required_members
    return {"authorization": again.headers["Authorization"], "paths": paths, "path": path, "members": members}


def cloudflare(question):
    """Lets Cloudflare's own client send the purges."""
    from cloudflare import Cloudflare

    client = Cloudflare(api_token=question["token"], base_url=question["url"] + "/client/v4", max_retries=0)
    for purge in question["purges"]:
        client.cache.purge(zone_id=question["zone"], **purge)
    return {}


def fastly(question):
    """Lets Fastly's own client send the purges."""
    import fastly
    from fastly.api import purge_api

    configuration = fastly.Configuration(host=question["url"])
    configuration.api_token = question["token"]
    with fastly.ApiClient(configuration) as client:
        for purge in question["purges"]:
            purge_api.PurgeApi(client).purge_single_url(cached_url=purge, _host_index=None)
    return {}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    json.dump({"signature": signature, "cloudflare": cloudflare, "fastly": fastly}[asked["check"]](asked), sys.stdout)
