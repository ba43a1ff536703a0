"""The expected endpoints of S3 are those of the endpoint rules in AWS's SDK."""

import json

import botocore.session
from botocore.endpoint_provider import EndpointProvider
from support.paths import ROOT

ROWS = json.loads((ROOT / "tests/vectors/s3_endpoints.json").read_text())
DEFAULTS = ["ForcePathStyle", "Accelerate", "UseGlobalEndpoint", "UseArnRegion", "DisableMultiRegionAccessPoints"]


def test_the_expected_endpoints_are_those_of_the_sdks_rules():
    loader = botocore.session.get_session().get_component("data_loader")
    rules = loader.load_service_model("s3", "endpoint-rule-set-1")
    provider = EndpointProvider(rules, loader.load_data("partitions"))
    for region, fips, dual_stack, bucket, expected in ROWS:
        asked = {"Region": region, "UseFIPS": fips, "UseDualStack": dual_stack, "Bucket": bucket}
        found = provider.resolve_endpoint(**asked, **dict.fromkeys(DEFAULTS, False))
        assert found.url == expected, (region, fips, dual_stack, bucket)
