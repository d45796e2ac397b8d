"""Judges requests by the vendor's published client, and lets that client work with the simulator.

Reads {"url", "requests": [{"method", "path", "query", "body"}], "flow"} from stdin. Prints what does not fit, one line
each, and exits with 1 if there is any.
"""

import inspect
import json
import re
import sys
import urllib.parse
import urllib.request

import PureCloudPlatformClientV2 as vendor
from PureCloudPlatformClientV2 import models

APIS = [vendor.WebDeploymentsApi, vendor.ArchitectApi, vendor.RoutingApi, vendor.OrganizationApi]
wrong = []


def operations():
    """Every operation of the vendor's client: verb, pattern of the path, names in the query, type of the body."""
    for api in APIS:
        for _, method in inspect.getmembers(api, inspect.isfunction):
            source = inspect.getsource(method)
            path = re.search(r"resource_path = '([^']+)'", source)
            verb = re.search(r"call_api\(resource_path, '([A-Z]+)'", source)
            if not path or not verb:
                continue
            pattern = re.compile("^" + re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path[1])) + "$")
            query = set(re.findall(r"query_params\['(\w+)'\]", source))
            body = re.search(r"body_params = params\['(\w+)'\]", source)
            named = body and re.search(r":param (\S+) %s:" % body[1], source)
            kind = named[1] if named else None
            literal = path[1].count("{")
            yield literal, verb[1], pattern, query, kind


def misfits(value, kind, at):
    """What of a body is not a member of the vendor's model, or has another type."""
    if kind.startswith("list["):
        if not isinstance(value, list):
            return [f"{at} is no list"]
        return [each for i, one in enumerate(value) for each in misfits(one, kind[5:-1], f"{at}/{i}")]
    simple = {"str": str, "bool": bool, "int": int, "float": (int, float), "object": object, "date": str, "datetime": str}
    if kind in simple:
        return [] if isinstance(value, simple[kind]) else [f"{at} is no {kind}"]
    if kind.startswith("dict("):
        return []
    model = getattr(models, kind)()
    types = {json_name: model.swagger_types[name] for name, json_name in model.attribute_map.items()}
    found = [f"{at}/{name} is no member of {kind}" for name in value if name not in types]
    return found + [e for n, one in value.items() if n in types and one is not None for e in misfits(one, types[n], f"{at}/{n}")]


def judge(requests):
    # Paths without placeholders first: `draft` is no version.
    known = sorted(operations(), key=lambda operation: operation[0])
    for request in requests:
        name = f"{request['method']} {request['path']}"
        matching = [o for o in known if o[1] == request["method"] and o[2].match(request["path"])]
        if not matching:
            wrong.append(f"{name}: the vendor's client has no such operation")
            continue
        _, _, _, query, kind = matching[0]
        given = [pair[0] for pair in urllib.parse.parse_qsl(request["query"] or "")]
        wrong.extend(f"{name}: no query parameter {each}" for each in given if each not in query)
        if kind:
            wrong.extend(f"{name}: {each}" for each in misfits(request["body"], kind, ""))
        elif request["body"] not in (None, "", {}):
            wrong.append(f"{name}: takes no body")


def expect(what, found, wanted):
    if found != wanted:
        wrong.append(f"{what}: {found!r}, not {wanted!r}")


def drive(url, flow, token):
    """The vendor's client makes, reads, changes and publishes what a job does."""
    vendor.configuration.host = url
    vendor.configuration.access_token = token
    api = vendor.WebDeploymentsApi()
    there = api.get_webdeployments_deployments(page_size="100").entities
    expect("deployments of the job", [one.status for one in there], ["Active"])
    ours = api.get_webdeployments_deployment(there[0].id)
    expect("the flow", ours.flow.id, flow)
    served = api.get_webdeployments_deployment_configurations(ours.id).configuration_version
    expect("the version", (served.id, served.version), (ours.configuration.id, ours.configuration.version))
    limits = vendor.OrganizationApi().get_organizations_limits_namespace("web.deployments").entities
    expect("limits", sorted(one.key for one in limits), ["configuration.max", "deployments.max"])
    expect("the flow's type", vendor.ArchitectApi().get_flow(flow).type, "INBOUNDSHORTMESSAGE")

    document = models.WebDeploymentConfigurationVersion()
    document.name, document.languages, document.default_language = "Theirs", ["en-us"], "en-us"
    made = api.post_webdeployments_configurations(document)
    expect("a new configuration", made.version, "DRAFT")
    draft = api.get_webdeployments_configuration_versions_draft(made.id)
    draft.description = "changed"
    api.put_webdeployments_configuration_versions_draft(made.id, draft)
    published = api.post_webdeployments_configuration_versions_draft_publish(made.id)
    expect("the published version", published.version, "1")
    expect("it", api.get_webdeployments_configuration_version(made.id, "1").description, "changed")
    versions = api.get_webdeployments_configuration_versions(made.id).entities
    expect("versions", sorted(one.version for one in versions), ["1", "DRAFT"])

    deployment = models.WebDeployment()
    deployment.name, deployment.allow_all_domains, deployment.allowed_domains = "Theirs", False, ["their.example"]
    deployment.flow = models.WebDeploymentFlowEntityRef()
    deployment.flow.id = flow
    deployment.configuration = models.WebDeploymentConfigurationVersionEntityRef()
    deployment.configuration.id, deployment.configuration.version = made.id, "1"
    theirs = api.post_webdeployments_deployments(deployment)
    theirs.description, theirs.status = "changed", "Inactive"
    expect("a changed deployment", api.put_webdeployments_deployment(theirs.id, theirs).status, "Inactive")
    spare = api.post_webdeployments_configurations(document)
    api.delete_webdeployments_configuration(spare.id)
    expect("configurations", len(api.get_webdeployments_configurations().entities), 2)


given = json.load(sys.stdin)
judge(given["requests"])
form = urllib.parse.urlencode({"grant_type": "client_credentials"}).encode()
request = urllib.request.Request(given["url"] + "/oauth/token", form, {"Authorization": "Basic dmVuZG9yOmh1c2g="})
drive(given["url"], given["flow"], json.load(urllib.request.urlopen(request))["access_token"])
print("\n".join(wrong))
sys.exit(1 if wrong else 0)
