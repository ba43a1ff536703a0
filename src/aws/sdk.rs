//! What the AWS SDK's clients share: their configuration and transport, and how their errors are explained.

#[cfg(test)]
pub(super) mod replay;

use std::error::Error as StdError;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sts::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};
use aws_smithy_types::retry::RetryConfig;
use aws_types::SdkConfig;
use aws_types::region::Region;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use jiff::Timestamp;
use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};

use super::refusals::{self, Refusal};
use crate::credentials::SessionCredentials;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorClass, Service};
use crate::http::{self, Failure};

/// As many as for a call to Braintrust.
const MAX_ATTEMPTS: u32 = 5;
/// Far more than a secret can hold.
pub(super) const MAX_RESPONSE_MEGABYTES: usize = 4;

/// Reads the environment variables of AWS's SDKs that mean something in Lambda: region, credentials, and endpoints.
///
/// `aws-config` isn't used, because it would make the binary larger: it also looks for settings and credentials in
/// places that don't exist in Lambda, such as profiles, instance metadata, and web identities.
pub fn config(http: Client, variable: &dyn Fn(&str) -> Option<String>) -> SdkConfig {
    let set = |name| variable(name).filter(|text| !text.trim().is_empty());
    let is_true = |name| set(name).is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let credentials = || {
        let (id, key) = (set("AWS_ACCESS_KEY_ID")?, set("AWS_SECRET_ACCESS_KEY")?);
        let credentials = Credentials::new(id, key, set("AWS_SESSION_TOKEN"), None, "environment");
        Some(SharedCredentialsProvider::new(credentials))
    };
    let connector = SharedHttpConnector::new(Transport(http));
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        // The HTTP client limits the time of an attempt.
        .http_client(http_client_fn(move |_, _| connector.clone()))
        .retry_config(RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS))
        .region(set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION")).map(Region::new))
        .service_config(ServiceEndpoints(ENDPOINT_VARIABLES.map(|(service, name)| (service, set(name)))))
        .use_fips(is_true("AWS_USE_FIPS_ENDPOINT"))
        .use_dual_stack(is_true("AWS_USE_DUALSTACK_ENDPOINT"));
    config.set_endpoint_url(set("AWS_ENDPOINT_URL"));
    config.set_credentials_provider(credentials());
    config.build()
}

/// The services by the SDK's names, and the variable that overrides `AWS_ENDPOINT_URL` for each.
const ENDPOINT_VARIABLES: [(&str, &str); 3] = [
    ("STS", "AWS_ENDPOINT_URL_STS"),
    ("IAM", "AWS_ENDPOINT_URL_IAM"),
    ("Secrets Manager", "AWS_ENDPOINT_URL_SECRETS_MANAGER"),
];

/// The SDK's clients ask for the endpoint of their service, and for no other setting.
#[derive(Debug)]
struct ServiceEndpoints([(&'static str, Option<String>); 3]);

impl LoadServiceConfig for ServiceEndpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let is_asked = |(service, _): &&(&str, _)| *service == key.service_id() && key.env() == "AWS_ENDPOINT_URL";
        self.0.iter().find(is_asked)?.1.clone()
    }
}

/// The URL that replaces the endpoints of a service.
pub(super) fn endpoint_url(config: &SdkConfig, service_id: &str) -> Option<String> {
    let key = ServiceConfigKey::builder().service_id(service_id).env("AWS_ENDPOINT_URL").profile("endpoint_url");
    let own = config.service_config().zip(key.build().ok()).and_then(|(services, key)| services.load_config(key));
    own.or_else(|| config.endpoint_url().map(str::to_owned))
}

/// A configuration with `endpoint_url` for all services.
#[cfg(test)]
pub fn config_for_test(http: Client, endpoint_url: &str) -> SdkConfig {
    config(http, &|name| {
        let value = match name {
            "AWS_ACCESS_KEY_ID" => "AKIATEST",
            "AWS_SECRET_ACCESS_KEY" => "secret",
            "AWS_REGION" => "us-east-1",
            "AWS_ENDPOINT_URL" => endpoint_url,
            _ => return None,
        };
        Some(value.to_owned())
    })
}

/// Carries the SDK's requests over the function's own HTTP client.
#[derive(Debug)]
struct Transport(Client);

impl HttpConnector for Transport {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(exchange(self.0.clone(), request))
    }
}

async fn exchange(client: Client, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    // No call here streams its body.
    let request = request.map(|body| body.bytes().map(bytes::Bytes::copy_from_slice).unwrap_or_default());
    let request = reqwest::Request::try_from(request);
    let request = request.map_err(|error| ConnectorError::user(error.without_url().into()))?;
    let mut response = client.execute(request).await.map_err(|error| {
        let failure = Failure::of(&error);
        match (error.is_timeout(), failure.is_lasting) {
            (true, _) => ConnectorError::timeout(failure.into()),
            // The SDK retries I/O errors.
            (false, false) => ConnectorError::io(failure.into()),
            (false, true) => ConnectorError::other(failure.into(), None),
        }
    })?;
    let body = http::read_body(&mut response, MAX_RESPONSE_MEGABYTES).await;
    let body = SdkBody::from(body.map_err(|problem| ConnectorError::io(Failure::passing(problem).into()))?);
    let response = ::http::Response::<reqwest::Body>::from(response).map(|_| body);
    HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
}

/// The domain of the region's partition, such as `amazonaws.com`, for services without a client of the SDK. It comes
/// from the endpoint rules of STS, which contain the partitions. They aren't asked for a FIPS endpoint, because STS has
/// no separate ones in AWS GovCloud.
pub(super) async fn domain(region: &str, dual_stack: bool) -> Option<String> {
    let parameters = Params::builder().region(region).use_dual_stack(dual_stack).use_global_endpoint(false);
    let endpoint = DefaultResolver::new().resolve_endpoint(&parameters.build().ok()?).await.ok()?;
    endpoint.url().strip_prefix("https://sts.")?.strip_prefix(region)?.strip_prefix('.').map(str::to_owned)
}

/// Credentials for a client or a signature.
pub(super) fn credentials(id: &str, key: &SecretString, session_token: Option<&SecretString>) -> Credentials {
    // Security: exposed to the SDK, which keeps secrets in zeroized memory.
    let session_token = session_token.map(|token| token.expose_secret().to_owned());
    Credentials::new(id, key.expose_secret(), session_token, None, "rotator")
}

pub(super) fn session(session: &SessionCredentials) -> Credentials {
    credentials(&session.access_key_id, &session.secret_access_key, Some(&session.session_token))
}

pub(super) type SdkResult<T, E> = Result<T, SdkError<E, HttpResponse>>;

/// Sends a request, which the SDK retries. The error is final.
pub(super) fn send<T, E: ProvideErrorMetadata>(
    service: Service,
    call: &'static str,
    deadline: Deadline,
    request: impl Future<Output = SdkResult<T, E>>,
) -> impl Future<Output = Result<T, Error>> {
    // The SDK's futures are large, and every target that is under way has one.
    let request = Box::pin(request);
    let explain = move |error: SdkError<E, _>| explain(service, call, &error.map_service_error(|e| e.meta().clone()));
    let response = async move { request.await.map_err(explain) };
    async move { deadline.bound(service, call, response).await.map_err(Error::into_final) }
}

/// Explains an error of the SDK.
#[expect(clippy::wildcard_enum_match_arm, reason = "SdkError is non-exhaustive")]
fn explain(service: Service, call: &'static str, error: &SdkError<ErrorMetadata, HttpResponse>) -> Error {
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    let request_id = error.raw_response().and_then(|response| response.headers().get("x-amzn-requestid"));
    let no_answer = || "did not answer in time".to_owned();
    let (class, problem) = match error {
        SdkError::ServiceError(_) => {
            let (code, message) = (error.code().unwrap_or_default(), error.message().unwrap_or_default());
            return refusals::explain(Refusal { service, call, status, code, message, request_id });
        }
        SdkError::ResponseError(_) => (ErrorClass::Unavailable, format!("answered {status} with an unreadable body")),
        SdkError::TimeoutError(_) => (ErrorClass::Timeout, no_answer()),
        SdkError::DispatchFailure(cause) if cause.is_timeout() => (ErrorClass::Timeout, no_answer()),
        _ => match failure(error) {
            Some(failure) => (ErrorClass::Unavailable, failure.problem.clone()),
            None => return no_request(service, call),
        },
    };
    let remedy = failure(error).and_then(|failure| failure.remedy).unwrap_or_else(|| refusals::remedy(class));
    Error::new(class, service, call, problem, remedy).with_aws(refusals::details(class, "", request_id))
}

/// The error if there is no region, no credentials, or no endpoint.
pub(super) fn no_request(service: Service, call: &'static str) -> Error {
    let remedy =
        "Check AWS_REGION, AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_<SERVICE>, and that the function has credentials";
    Error::new(ErrorClass::Configuration, service, call, "the request could not be made", remedy)
}

/// What the transport found, if it failed.
fn failure<E>(error: &SdkError<E, HttpResponse>) -> Option<&Failure> {
    let SdkError::DispatchFailure(cause) = error else { return None };
    cause.as_connector_error().and_then(StdError::source).and_then(|cause| cause.downcast_ref())
}

/// The error for a successful response that lacks `what`.
pub(super) fn missing(service: Service, call: &'static str, what: &str) -> Error {
    let problem = format!("answered without {what}");
    Error::new(ErrorClass::Unavailable, service, call, problem, "The next scheduled run tries again")
}

/// The SDK reads a missing time as 1970.
pub(super) fn timestamp(time: &aws_smithy_types::DateTime) -> Option<Timestamp> {
    Timestamp::from_second(time.secs()).ok().filter(|time| *time > Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aws_credential_types::provider::ProvideCredentials;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> SdkConfig {
        let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        config(http::client(None, None).unwrap(), &value)
    }

    #[test]
    fn the_region_is_lambdas_or_else_the_default_one() {
        let region = |variables: &[(&str, &str)]| read(variables).region().map(ToString::to_string);
        let default = ("AWS_DEFAULT_REGION", "eu-west-1");
        assert_eq!(region(&[("AWS_REGION", "us-gov-west-1"), default]).as_deref(), Some("us-gov-west-1"));
        assert_eq!(region(&[("AWS_REGION", ""), default]).as_deref(), Some("eu-west-1"));
        assert_eq!(region(&[]), None);
    }

    #[tokio::test]
    async fn the_credentials_are_those_of_the_functions_role() {
        let (id, key) = (("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "key"));
        let provider = read(&[id, key, ("AWS_SESSION_TOKEN", "token")]).credentials_provider().unwrap();
        let found = provider.provide_credentials().await.unwrap();
        assert_eq!(
            (found.access_key_id(), found.secret_access_key(), found.session_token()),
            ("AKIATEST", "key", Some("token"))
        );
        for incomplete in [&[id][..], &[key], &[id, ("AWS_SECRET_ACCESS_KEY", " ")]] {
            assert!(read(incomplete).credentials_provider().is_none());
        }
    }

    #[test]
    fn fips_and_dual_stack_endpoints_are_used_if_their_variables_are_true() {
        for (value, expected) in [("true", true), ("TRUE", true), ("false", false), ("", false), ("1", false)] {
            let config = read(&[("AWS_USE_FIPS_ENDPOINT", value)]);
            assert_eq!((config.use_fips(), config.use_dual_stack()), (Some(expected), Some(false)), "{value}");
            let config = read(&[("AWS_USE_DUALSTACK_ENDPOINT", value)]);
            assert_eq!((config.use_fips(), config.use_dual_stack()), (Some(false), Some(expected)), "{value}");
        }
    }

    #[tokio::test]
    async fn each_service_is_called_at_its_own_endpoint_or_at_the_general_one_or_at_the_regions() {
        let (sts, general) = (("AWS_ENDPOINT_URL_STS", "https://sts.test"), ("AWS_ENDPOINT_URL", "https://aws.test"));
        let iam = ("AWS_ENDPOINT_URL_IAM", "https://iam.test");
        let secrets_manager = ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "https://secrets.test");
        let (fips, dual_stack) = (("AWS_USE_FIPS_ENDPOINT", "true"), ("AWS_USE_DUALSTACK_ENDPOINT", "true"));
        let regions = ["sts.us-west-2.amazonaws.com", "iam.amazonaws.com", "secretsmanager.us-west-2.amazonaws.com"];
        for (variables, expected) in [
            (vec![], regions),
            (vec![("AWS_ENDPOINT_URL", ""), ("AWS_ENDPOINT_URL_STS", "")], regions),
            (vec![general], ["aws.test"; 3]),
            (vec![general, sts], ["sts.test", "aws.test", "aws.test"]),
            (vec![sts, iam, secrets_manager], ["sts.test", "iam.test", "secrets.test"]),
            (
                vec![fips],
                [
                    "sts-fips.us-west-2.amazonaws.com",
                    "iam-fips.amazonaws.com",
                    "secretsmanager-fips.us-west-2.amazonaws.com",
                ],
            ),
            (
                vec![dual_stack],
                ["sts.us-west-2.api.aws", "iam.global.api.aws", "secretsmanager.us-west-2.amazonaws.com"],
            ),
        ] {
            assert_eq!(hosts(&variables).await, expected, "{variables:?}");
        }
    }

    /// The hosts that the clients of STS, IAM, and Secrets Manager call.
    async fn hosts(variables: &[(&str, &str)]) -> Vec<String> {
        let function =
            [("AWS_REGION", "us-west-2"), ("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "key")];
        let (hosts, config) = (Hosts::default(), read(&[&function, variables].concat()));
        let connector = SharedHttpConnector::new(hosts.clone());
        let config = config.into_builder().http_client(http_client_fn(move |_, _| connector.clone())).build();
        let sts = aws_sdk_sts::Client::new(&config).get_caller_identity().send().await.is_err();
        let iam = aws_sdk_iam::Client::new(&config).list_access_keys().send().await.is_err();
        let secret =
            aws_sdk_secretsmanager::Client::new(&config).get_secret_value().secret_id("id").send().await.is_err();
        assert!(sts && iam && secret);
        hosts.0.lock().unwrap().clone()
    }

    /// Refuses each request, and keeps its host.
    #[derive(Clone, Debug, Default)]
    struct Hosts(Arc<Mutex<Vec<String>>>);

    impl HttpConnector for Hosts {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let uri: ::http::Uri = request.uri().parse().unwrap();
            self.0.lock().unwrap().push(uri.host().unwrap().to_owned());
            HttpConnectorFuture::ready(Err(ConnectorError::other("refused".into(), None)))
        }
    }
}
