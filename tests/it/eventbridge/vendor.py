"""The vendor's published client: drives the simulator, then judges the requests that the worker sent.

Arguments: the API's base URL and a token. Reads the worker's requests as JSON; writes what was wrong with them, and what
the client saw.
"""

import inspect
import json
import re
import sys
from urllib.parse import parse_qsl

import PureCloudPlatformClientV2 as vendor

base, token = sys.argv[1:]
vendor.configuration.host = base
client = vendor.api_client.ApiClient(host=base)
client.access_token = token
vendor.configuration.access_token = token
integrations = vendor.IntegrationsApi(client)
KIND = "amazon-eventbridge-source"

# Drive the simulator.
kind = integrations.get_integrations_type(KIND)
request = vendor.CreateIntegrationRequest()
request.name = "by the vendor"
request.integration_type = vendor.IntegrationType()
request.integration_type.id = KIND
created = integrations.post_integrations(body=request)
config = integrations.get_integration_config_current(created.id)
config.properties = {
    "awsAccountId": "123456789012",
    "awsAccountRegion": "us-east-1",
    "eventSourceSuffix": "vendor",
    "eventFilter": ["v2.users.{id}.presence"],
}
stored = integrations.put_integration_config_current(created.id, body=config)
try:
    integrations.put_integration_config_current(created.id, body=config)
    stale = None
except vendor.rest.ApiException as error:
    stale = error.status
change = vendor.Integration()
change.intended_state = "ENABLED"
integrations.patch_integration(created.id, body=change)
seen = integrations.get_integration(created.id)
page = integrations.get_integrations(
    page_size=100, page_number=1, integration_type=KIND, expand=["config.current"]
)
listed = next(one for one in page.entities if one.id == created.id)
organization = vendor.OrganizationApi(client).get_organizations_me()

# Judge the worker's requests.
CALLS = {
    ("GET", "/api/v2/integrations"): (integrations.get_integrations, None),
    ("POST", "/api/v2/integrations"): (integrations.post_integrations, vendor.CreateIntegrationRequest),
    ("GET", "/api/v2/integrations/types/{typeId}"): (integrations.get_integrations_type, None),
    ("GET", "/api/v2/integrations/{integrationId}"): (integrations.get_integration, None),
    ("PATCH", "/api/v2/integrations/{integrationId}"): (integrations.patch_integration, vendor.Integration),
    ("GET", "/api/v2/integrations/{integrationId}/config/current"): (
        integrations.get_integration_config_current,
        None,
    ),
    ("PUT", "/api/v2/integrations/{integrationId}/config/current"): (
        integrations.put_integration_config_current,
        vendor.IntegrationConfiguration,
    ),
    ("GET", "/api/v2/organizations/me"): (vendor.OrganizationApi(client).get_organizations_me, None),
}


def fits(path, template):
    return re.fullmatch(re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(template)), path)


def wrong_with(request):
    """What the client would not have sent."""
    method, path = request["method"], request["path"]
    known = [key for key in CALLS if key[0] == method and fits(path, key[1])]
    # The more exact of two templates, such as types/{typeId} of {integrationId}.
    key = max(known, key=lambda key: len(key[1].split("{")[0]), default=None)
    if key is None:
        return [f"{method} {path} is no call of the client"]
    call, model = CALLS[key]
    source = inspect.getsource(call)
    wrong = []
    if f"'{key[1]}'" not in source or f"'{method}'" not in source:
        wrong.append(f"{method} {path}: the client has another verb or path")
    for name, _ in parse_qsl(request["query"] or ""):
        if f"query_params['{name}']" not in source:
            wrong.append(f"{method} {path}: the client has no query {name}")
    if model is None and request["body"] is not None:
        wrong.append(f"{method} {path}: the client sends no body")
    if model is not None:
        members = set(model().attribute_map.values())
        wrong += [f"{method} {path}: no member {name}" for name in request["body"] if name not in members]
        try:
            client._ApiClient__deserialize(request["body"], model)
        except Exception as error:  # The client raises whatever it meets.
            wrong.append(f"{method} {path}: the body is no {model.__name__}: {error}")
    return wrong


requests = json.load(sys.stdin)
result = {
    "wrong": [each for request in requests for each in wrong_with(request)],
    "judged": len(requests),
    "maxInstances": kind.max_instances,
    "version": stored.version,
    "stale": stale,
    "intended": seen.intended_state,
    "reported": seen.reported_state.code,
    "suffix": listed.config.current.properties["eventSourceSuffix"],
    "organization": organization.id,
}
json.dump(result, sys.stdout)
