//! The HTTP client that the AWS SDK, the probe and Braintrust's client share, so that there is one TLS stack.

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Response};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};

use crate::error::Error;

/// A handshake on Lambda's throttled CPU takes a few tenths of a second. An unreachable host should not cost much more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The limit for one attempt, from the connection to the end of the response. A healthy service answers each of the
/// function's calls in well under a second.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// After Lambda freezes and thaws the function, its idle connections are dead, so they are dropped early.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Makes a client that trusts the public roots and the certificates of `ca_bundle` (PEM). The client follows no
/// redirects, because a redirect could take the API key to another host.
pub fn client(ca_bundle: Option<&[u8]>) -> Result<Client, Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    trust(&mut roots, ca_bundle).map_err(|problem| {
        let remedy = "Provide one or more certificates in PEM format, or the path of such a file";
        Error::configuration("BRAINTRUST_CA_BUNDLE", problem, remedy)
    })?;
    client_with(roots).map_err(|error| {
        let problem = format!("the HTTPS client can't be created: {error}");
        Error::configuration("TLS", problem, "Report this as a bug")
    })
}

fn trust(roots: &mut RootCertStore, ca_bundle: Option<&[u8]>) -> Result<(), String> {
    let Some(pem) = ca_bundle else { return Ok(()) };
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        count += 1;
        let added = certificate.ok().and_then(|certificate| roots.add(certificate).ok());
        added.ok_or_else(|| format!("certificate {count} can't be read"))?;
    }
    if count == 0 { Err("it contains no certificate".to_owned()) } else { Ok(()) }
}

fn client_with(roots: RootCertStore) -> Result<Client, Box<dyn StdError>> {
    let tls = ClientConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        // Security: a proxy would see requests to a loopback address in clear text, including the API key.
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ATTEMPT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")));
    Ok(client.build()?)
}

/// Reads a response's body up to a bound, so that an endless body can't fill the memory. The error says what happened.
pub async fn read_body(response: &mut Response, max_megabytes: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| describe_failure(&error))? {
        if body.len() + chunk.len() > max_megabytes << 20 {
            return Err(format!("answered more than {max_megabytes} MB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The media type of a response, for errors: `text/html` is the sign of a proxy or a firewall.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_part = |c: &char| c.is_ascii_alphanumeric() || "/.+-".contains(*c);
    let media_type: String = value.chars().take_while(is_part).take(40).collect();
    if media_type.is_empty() { "content of an unknown type".to_owned() } else { media_type }
}

/// Says why there was no complete response. reqwest's own text has the URL in it, so it is left out.
pub fn describe_failure(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "did not answer in time".to_owned();
    }
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    match causes.filter_map(tls_error).next() {
        Some(tls) => format!("could not be reached: its TLS certificate or protocol was refused ({tls})"),
        None if error.is_connect() => "could not be reached".to_owned(),
        None => "did not complete its response".to_owned(),
    }
}

/// hyper and tokio wrap an error of rustls in an I/O error, whose `source` skips it.
fn tls_error<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let wrapped = || cause.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref();
    cause.downcast_ref().or_else(wrapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_bundle_without_a_certificate_is_refused() {
        let error = client(Some(b"no pem")).unwrap_err();
        assert!(error.to_string().contains("BRAINTRUST_CA_BUNDLE: it contains no certificate"), "{error}");
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_refused() {
        let pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(client(Some(pem)).unwrap_err().to_string().contains("certificate 1 can't be read"));
    }

    #[test]
    fn the_public_roots_are_enough_for_a_client() {
        assert!(client(None).is_ok());
    }

    #[test]
    fn a_media_type_is_named_without_its_parameters_and_with_a_bound() {
        let media_type = |value: &str| media_type(&HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]));
        assert_eq!(media_type("text/html; charset=utf-8"), "text/html");
        assert_eq!(media_type(&"x".repeat(1_000)).len(), 40);
        assert_eq!(media_type(""), "content of an unknown type");
    }
}
