"""A company's proxy: which calls use it, and what an error says if it can't connect."""

import pytest
from support.proxy import ConnectProxy
from support.reports import failed_error
from support.tls import private_ca

# Names that resolve nowhere, so that only the proxy reaches the servers.
HOSTS = {
    "BRAINTRUST_API_URL": "braintrust.example",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER": "secretsmanager.example",
    "AWS_ENDPOINT_URL_STS": "sts.example",
    "AWS_ENDPOINT_URL_BEDROCK": "bedrock.example",
}


class Company:
    """Servers with certificates of a private CA that can be reached only through a proxy."""

    def __init__(self, world, directory):
        self._world = world
        tls, bundle = private_ca(directory, *HOSTS.values())
        self.braintrust, aws = world.new_braintrust(tls), world.new_aws(tls)
        self.braintrust.add_key(world.api_key)
        self.ai_secret = self.braintrust.add_ai_secret("AWS Bedrock", metadata={})
        self.target = world.target(self.ai_secret)
        self._ports = {host: aws.port for host in HOSTS.values()} | {"braintrust.example": self.braintrust.port}
        self.variables = {name: f"https://{host}" for name, host in HOSTS.items()}
        self.variables |= {"AWS_CA_BUNDLE": str(bundle), "BRAINTRUST_CA_BUNDLE": str(bundle)}

    def new_proxy(self, **options) -> ConnectProxy:
        proxy = ConnectProxy(self._ports, **options).start()
        self._world.servers.append(proxy)
        return proxy

    def has_working_credentials(self) -> bool:
        return self._world.has_working_credentials(self.ai_secret, self.braintrust)


@pytest.fixture
def company(world, tmp_path):
    return Company(world, tmp_path)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize("user", [None, "me:pa55"])
def test_a_rotation_reaches_every_service_through_the_proxy(world, company, variable, user):
    proxy = company.new_proxy(user=user)
    world.rotate(company.target, **company.variables, **{variable: proxy.url})
    assert company.has_working_credentials()
    assert set(proxy.connects) == {f"{host}:443" for host in HOSTS.values()}


def test_loopback_addresses_are_reached_without_the_proxy(world, private):
    braintrust, bundle = private
    proxy = ConnectProxy({}, refuses_with="403 Forbidden").start()
    world.servers.append(proxy)
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    variables = {"BRAINTRUST_API_URL": braintrust.url, "BRAINTRUST_CA_BUNDLE": str(bundle)}
    world.rotate(world.target(ai_secret), **variables, HTTPS_PROXY=proxy.url, HTTP_PROXY=proxy.url, ALL_PROXY=proxy.url)
    assert world.has_working_credentials(ai_secret, braintrust)
    assert proxy.connects == []


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_only_the_proxy_for_https_is_used(world, company, variable):
    proxy = company.new_proxy()
    world.fail_to_rotate(company.target, **company.variables, **{variable: proxy.url})
    assert proxy.connects == []


@pytest.mark.parametrize(
    "excluded", ["braintrust.example", ".example", "*.example", "other.example, braintrust.example", "*"]
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_an_excluded_host_is_reached_without_the_proxy(world, company, variable, excluded):
    proxy = company.new_proxy()
    variables = {**company.variables, "HTTPS_PROXY": proxy.url, variable: excluded}
    # The other hosts are loopback addresses, so that only Braintrust would be reached through the proxy.
    variables |= {name: world.aws.url for name in HOSTS if name.startswith("AWS_")}
    report = world.fail_to_rotate(company.target, **variables)
    failed_error(report, "unavailable", "braintrust", problem="could not be reached")
    assert proxy.connects == []


@pytest.mark.parametrize("changed_url", [("me:pa55@", ""), ("pa55", "wr0ng")])
@pytest.mark.parametrize("variable", HOSTS)
def test_a_proxy_that_requires_another_user_is_named_for_each_service(world, company, variable, changed_url):
    proxy = company.new_proxy(user="me:pa55")
    report = rotate_with_one_service_behind(world, company, variable, proxy.url.replace(*changed_url))
    failed_error(report, "unavailable", service_of(variable), problem="the proxy answered 407")
    assert "pa55" not in str(report) and "wr0ng" not in str(report)
    assert proxy.hosts == {HOSTS[variable]}


@pytest.mark.parametrize("status", ["403 Forbidden", "502 Bad Gateway"])
@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_STS", "BRAINTRUST_API_URL"])
def test_a_proxy_that_refuses_to_connect_is_named(world, company, variable, status):
    proxy = company.new_proxy(refuses_with=status)
    report = rotate_with_one_service_behind(world, company, variable, proxy.url)
    failed_error(report, "unavailable", service_of(variable), problem="the proxy refused to connect")
    assert proxy.hosts == {HOSTS[variable]}


def test_a_proxy_that_cannot_be_reached_is_named(world, company):
    proxy = company.new_proxy()
    proxy.stop()
    report = world.fail_to_rotate(company.target, **company.variables, HTTPS_PROXY=proxy.url)
    problem = "the proxy could not be reached"
    failed_error(report, "unavailable", report["targets"][0]["error"]["service"], problem=problem)


def test_an_untrusted_certificate_behind_the_proxy_is_the_services(world, company):
    proxy = company.new_proxy()
    report = rotate_with_one_service_behind(world, company, "AWS_ENDPOINT_URL_STS", proxy.url, AWS_CA_BUNDLE="")
    problem = "presented a TLS certificate whose issuer is not trusted"
    error = failed_error(report, "unavailable", "sts", problem=problem)
    assert "proxy" not in error["problem"]


def rotate_with_one_service_behind(world, company, variable, proxy_url, **variables):
    """The report of a rotation that fails. All other services are at loopback addresses."""
    variables = {**company.variables, "HTTPS_PROXY": proxy_url, **variables}
    variables |= {name: world.aws.url for name in HOSTS if name.startswith("AWS_")}
    variables |= {"BRAINTRUST_API_URL": world.braintrust.url, variable: company.variables[variable]}
    target = company.target if variable == "BRAINTRUST_API_URL" else world.target(world.new_ai_secret())
    return world.fail_to_rotate(target, **variables)


def service_of(variable: str) -> str:
    return variable.removeprefix("AWS_ENDPOINT_URL_").removesuffix("_API_URL").lower()
