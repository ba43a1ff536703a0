//! The HTTP client, shared by the AWS SDK, the probe and Braintrust (which gets another where it has a private CA): one TLS stack. It must never follow a redirect, and never read without a bound.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::shared::IntoShared;
use aws_smithy_types::body::SdkBody;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::error::Error;

const CA_BUNDLE: &str = "BRAINTRUST_CA_BUNDLE";

/// A handshake on Lambda's throttled CPU takes tenths of a second; a host that is gone should not take many.
const CONNECT: Duration = Duration::from_secs(5);

/// One attempt, answer included. Every call here is answered in well under a second when all is well.
const ATTEMPT: Duration = Duration::from_secs(10);

/// The largest answer of AWS that is read, in MB: far more than a secret can hold.
const LARGEST_ANSWER: usize = 4;

/// Makes the client; `ca_bundle` is PEM that is trusted besides the public roots.
///
/// # Errors
/// `configuration`, if the bundle holds no certificate that can be used.
pub fn client(ca_bundle: Option<&[u8]>) -> Result<Client, Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(pem) = ca_bundle {
        trust(&mut roots, pem)?;
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| broken(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        // HTTP_PROXY would be shown what goes to loopback in clear, the API key included.
        .no_proxy()
        .connect_timeout(CONNECT)
        .timeout(ATTEMPT)
        // A frozen function thaws with dead connections: forget them soon.
        .pool_idle_timeout(Duration::from_secs(20))
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| broken(&error))
}

fn trust(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), Error> {
    let refuse = |problem: String| {
        Error::configuration(CA_BUNDLE, problem, "Give one or more certificates in PEM, or the path of such a file")
    };
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        found += 1;
        certificate
            .map_err(|_| ())
            .and_then(|certificate| roots.add(certificate).map_err(|_| ()))
            .map_err(|()| refuse(format!("certificate {found} cannot be read")))?;
    }
    if found == 0 { Err(refuse("there is no certificate in it".to_owned())) } else { Ok(()) }
}

fn broken(error: &dyn std::error::Error) -> Error {
    Error::configuration("TLS", format!("the HTTPS client cannot be made: {error}"), "Report this as a bug")
}

/// Reads an answer's body up to a bound in MB, so that an endless one cannot fill the memory.
///
/// # Errors
/// The problem in words: it broke off, or is too large.
pub async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable_because(&error))? {
        if body.len() + chunk.len() > most << 20 {
            return Err(format!("answered more than {most} MB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The media type, for an error's reader: `text/html` says that something stands between.
pub fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind: String =
        value.chars().take_while(|c| c.is_ascii_alphanumeric() || "/.+-".contains(*c)).take(40).collect();
    if kind.is_empty() { "something without a content type".to_owned() } else { kind }
}

/// Why there was no whole answer, in words. reqwest's own text is left out, because it holds the URL.
pub fn unreachable_because(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "did not answer in time".to_owned();
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return format!("could not be reached: its TLS certificate or protocol is refused ({tls})");
        }
        // hyper and tokio wrap what rustls said in an I/O error, whose `source` skips it.
        if let Some(tls) = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return format!("could not be reached: its TLS certificate or protocol is refused ({tls})");
        }
        source = cause.source();
    }
    if error.is_connect() { "could not be reached" } else { "broke off its answer" }.to_owned()
}

/// The client in the form that the AWS SDK takes.
pub fn for_the_sdk(client: Client) -> SharedHttpClient {
    SdkClient(client).into_shared()
}

/// Carries the SDK's requests over the one client.
#[derive(Clone, Debug)]
struct SdkClient(Client);

impl HttpClient for SdkClient {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        self.clone().into_shared()
    }
}

impl HttpConnector for SdkClient {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self(client) = self.clone();
        HttpConnectorFuture::new(async move {
            let response = client.execute(outgoing(request)?).await.map_err(|error| failed(&error))?;
            incoming(response).await
        })
    }
}

fn outgoing(request: HttpRequest) -> Result<reqwest::Request, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    // The calls made here have small bodies, all in memory.
    let request = request.map(|body| body.bytes().map(bytes::Bytes::copy_from_slice).unwrap_or_default());
    reqwest::Request::try_from(request).map_err(|error| ConnectorError::user(error.without_url().into()))
}

async fn incoming(response: Response) -> Result<HttpResponse, ConnectorError> {
    let mut answer = http::Response::new(SdkBody::empty());
    *answer.status_mut() = response.status();
    *answer.headers_mut() = response.headers().clone();
    *answer.body_mut() =
        SdkBody::from(read(response, LARGEST_ANSWER).await.map_err(|problem| ConnectorError::io(problem.into()))?);
    HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
}

fn failed(error: &reqwest::Error) -> ConnectorError {
    let problem = unreachable_because(error).into();
    if error.is_timeout() { ConnectorError::timeout(problem) } else { ConnectorError::io(problem) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_bundle_without_a_certificate_is_refused() {
        let error = client(Some(b"no pem")).unwrap_err();
        assert!(error.to_string().contains("BRAINTRUST_CA_BUNDLE: there is no certificate in it"), "{error}");
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_refused() {
        let pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(client(Some(pem)).unwrap_err().to_string().contains("certificate 1 cannot be read"));
    }

    #[test]
    fn the_public_roots_are_enough_for_a_client() {
        assert!(client(None).is_ok());
    }
}
