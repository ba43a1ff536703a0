//! What the AWS SDK's clients share: their configuration and transport, and how their errors are explained.

#[cfg(test)]
pub(super) mod replay;

use std::error::Error as StdError;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_credential_types::Credentials;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};
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
const MAX_RESPONSE_MEGABYTES: usize = 4;

/// Reads the SDK's own environment variables, such as `AWS_REGION` and `AWS_ENDPOINT_URL`.
pub async fn config(http: Client) -> SdkConfig {
    loader(http).load().await
}

/// The same configuration with `endpoint_url` for all services, and nothing from the environment.
#[cfg(test)]
pub async fn config_for_test(http: Client, endpoint_url: &str) -> SdkConfig {
    let credentials = Credentials::new("AKIATEST", "secret", None, None, "test");
    let loader = loader(http).empty_test_environment().credentials_provider(credentials);
    loader.region(aws_config::Region::new("us-east-1")).endpoint_url(endpoint_url).load().await
}

/// The HTTP client limits the time of an attempt.
fn loader(http: Client) -> ConfigLoader {
    let connector = SharedHttpConnector::new(Transport(http));
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client_fn(move |_, _| connector.clone()))
        // Lambda provides credentials in the environment. The default chain would also look for files and for instance
        // metadata, which don't exist there.
        .credentials_provider(EnvironmentVariableCredentialsProvider::new())
        .retry_config(RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS))
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
            // The SDK found no region or no credentials.
            None => {
                let remedy = "Check AWS_REGION, AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_<SERVICE>, and that the function \
                              has credentials";
                return Error::new(ErrorClass::Configuration, service, call, "the request could not be made", remedy);
            }
        },
    };
    let remedy = failure(error).and_then(|failure| failure.remedy).unwrap_or_else(|| refusals::remedy(class));
    Error::new(class, service, call, problem, remedy).with_aws(refusals::details(class, "", request_id))
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
