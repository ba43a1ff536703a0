"""The expected endpoints of the probe are those of the endpoint rules in AWS's SDK."""

import json

import botocore.session
import pytest
from botocore.endpoint_provider import EndpointProvider
from support.paths import ROOT

ROWS = json.loads((ROOT / "tests/vectors/bedrock_endpoints.json").read_text())


@pytest.mark.parametrize(("service", "column"), [("bedrock", 3), ("bedrock-runtime", 4)])
def test_the_expected_endpoints_are_those_of_the_sdks_rules(service, column):
    loader = botocore.session.get_session().get_component("data_loader")
    rules = loader.load_service_model(service, "endpoint-rule-set-1")
    provider = EndpointProvider(rules, loader.load_data("partitions"))
    for row in ROWS:
        region, fips, dual_stack = row[:3]
        found = provider.resolve_endpoint(Region=region, UseFIPS=fips, UseDualStack=dual_stack)
        assert found.url == row[column], row
