//! The HTTP client that the AWS SDK, the probe and Braintrust's client share, so that there is one TLS stack.

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Response, Url, Version};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::sync::Semaphore;

use crate::config::{CaBundle, HttpsProxy};
use crate::error::{Error, ErrorClass, shortened};

/// A handshake on Lambda's throttled CPU takes a few tenths of a second. An unreachable host should not cost much more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The limit for one attempt, from the connection to the end of the response. A healthy service answers each of the
/// function's calls in well under a second.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// After Lambda freezes and thaws the function, its idle connections are dead, so they are dropped early.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections that are opened early at the same time. With a host that doesn't answer, each takes one of the 1,024 file
/// descriptors that Lambda allows until [`CONNECT_TIMEOUT`].
static EARLY_CONNECTIONS: Semaphore = Semaphore::const_new(64);

/// Makes a client that trusts the public roots and the certificates of `ca_bundle`. The client follows no redirects,
/// because a redirect could take the API key to another host.
pub fn client(ca_bundle: Option<&CaBundle>, proxy: Option<&HttpsProxy>) -> Result<Client, Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(CaBundle { variable, pem }) = ca_bundle {
        trust(&mut roots, pem).map_err(|problem| {
            let remedy = "Provide one or more certificates in PEM format, or the path of a file that contains them (the \
                          parameters AwsCaBundle and BraintrustCaBundle)";
            Error::configuration(variable, problem, remedy)
        })?;
    }
    client_with(roots, proxy).map_err(|error| {
        let problem = format!("the HTTPS client can't be created: {error}");
        Error::configuration("TLS", problem, "Report this as a bug")
    })
}

fn trust(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        count += 1;
        let added = certificate.ok().and_then(|certificate| roots.add(certificate).ok());
        added.ok_or_else(|| format!("certificate {count} can't be read"))?;
    }
    if count == 0 { Err("it contains no certificate".to_owned()) } else { Ok(()) }
}

fn client_with(roots: RootCertStore, proxy: Option<&HttpsProxy>) -> Result<Client, Box<dyn StdError>> {
    let tls = ClientConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        // Security: reqwest would otherwise read proxy variables that the configuration doesn't check, and a proxy
        // would see requests to a loopback address in clear text, including the API key.
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ATTEMPT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")));
    let client = match proxy {
        // Security: the error would show the URL, which may hold a password.
        Some(proxy) => client.proxy(proxy.to_reqwest().map_err(reqwest::Error::without_url)?),
        None => client,
    };
    Ok(client.build()?)
}

/// Opens a connection to the URL's host in the background, unless the pool has an idle one, so that a later request
/// doesn't wait for the handshakes. No request is sent.
pub fn connect_early(client: &Client, url: &Url) {
    // Plain HTTP goes only to loopback addresses, where a handshake takes no time.
    if url.scheme() != "https" {
        return;
    }
    if let Ok(permit) = EARLY_CONNECTIONS.try_acquire() {
        // The client speaks HTTP/1.1. It refuses a request in HTTP/2 once it has the connection, which then stays in
        // its pool. If the connection fails, the later request reports why.
        let refused = client.head(url.clone()).version(Version::HTTP_2).send();
        drop(tokio::spawn(async move { (refused.await, permit) }));
    }
}

/// Reads a response's body up to a bound, so that an endless body can't fill the memory. The error says what happened.
pub async fn read_body(response: &mut Response, max_megabytes: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Failure::of(&error).problem)? {
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

/// The class of an error after which there is no complete response.
pub fn class(error: &reqwest::Error) -> ErrorClass {
    if error.is_timeout() { ErrorClass::Timeout } else { ErrorClass::Unavailable }
}

/// Why there was no complete response.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct Failure {
    pub problem: String,
    /// What to do, if the failure shows that.
    pub remedy: Option<&'static str>,
    /// Whether another attempt would fail in the same way.
    pub is_lasting: bool,
}

impl Failure {
    /// A failure that may be temporary, and about which no more is known.
    pub fn passing(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: None, is_lasting: false }
    }

    /// Leaves out reqwest's own text, because it contains the URL.
    pub fn of(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::passing("did not answer in time");
        }
        let causes = || std::iter::successors(error.source(), |&cause| cause.source());
        let (proxy, tls) = (causes().find_map(Self::of_the_proxy), causes().find_map(tls_error).map(Self::of_tls));
        match (proxy, tls) {
            // The tunnel was not established, so the handshake that failed was with the proxy.
            (Some(_), Some(tls)) => Self { problem: format!("could not be reached: the proxy {}", tls.problem), ..tls },
            (Some(failure), None) | (None, Some(failure)) => failure,
            (None, None) if error.is_connect() => Self::passing("could not be reached"),
            (None, None) => Self::passing("did not complete its response"),
        }
    }

    /// What the proxy did instead of establishing a tunnel. The error's type is private to hyper-util, and its text
    /// shows no other status than 407.
    fn of_the_proxy(cause: &(dyn StdError + 'static)) -> Option<Self> {
        let (did, remedy, is_lasting) = match cause.to_string().strip_prefix("tunnel error: ")? {
            "proxy authorization required" => {
                let remedy = "Put a user name and password that the proxy accepts into the URL in the parameter \
                              HttpsProxy (HTTPS_PROXY), such as http://user:password@proxy.example.com:3128";
                ("answered 407, because it requires a valid user name and password", remedy, true)
            }
            "unsuccessful" => (
                "refused to connect to it",
                "Allow the host in the proxy, or add it to the parameter NoProxy (NO_PROXY)",
                false,
            ),
            "failed to create underlying connection" => {
                let remedy = "Check the host and port in the parameter HttpsProxy (HTTPS_PROXY), and that the function's network \
                              can reach them";
                ("could not be reached", remedy, false)
            }
            _ => (
                "did not make the connection",
                "Check that the parameter HttpsProxy (HTTPS_PROXY) is the URL of an HTTP proxy",
                false,
            ),
        };
        Some(Self { problem: format!("could not be reached: the proxy {did}"), remedy: Some(remedy), is_lasting })
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "CertificateError is non-exhaustive")]
    fn of_tls(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(problem) = error else {
            return Self::passing(format!("did not complete the TLS handshake ({})", shortened(&error.to_string())));
        };
        let replace = "Ask the operator of the service, or of the proxy that inspects TLS, to replace the certificate";
        let (certificate, remedy) = match problem {
            CertificateError::UnknownIssuer => (
                "whose issuer is not trusted".to_owned(),
                "If a private CA or a proxy that inspects TLS issued it, put that CA's certificate into the parameter \
                 AwsCaBundle (for Braintrust, BraintrustCaBundle). Otherwise, check the URL",
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ("that has expired".to_owned(), replace)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                ("that is not valid yet".to_owned(), replace)
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                "for another host name".to_owned(),
                "Check the URL of the service. The certificate must be valid for its host name",
            ),
            other => (format!("that can't be accepted ({})", shortened(&other.to_string())), replace),
        };
        Self { problem: format!("presented a TLS certificate {certificate}"), remedy: Some(remedy), is_lasting: true }
    }

    /// Turns the failure into an error, with the failure's own remedy if it has one. A lasting failure is final.
    pub fn into_error(self, error: impl FnOnce(String) -> Error) -> Error {
        let error = error(self.problem);
        let error = if self.is_lasting { error.into_final() } else { error };
        match self.remedy {
            Some(remedy) => error.with_remedy(remedy),
            None => error,
        }
    }
}

/// I/O errors wrap the errors of rustls, in several layers, and their `source` skips the wrapped error.
fn tls_error<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let wrapped = || tls_error(cause.downcast_ref::<std::io::Error>()?.get_ref()?);
    cause.downcast_ref().or_else(wrapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(pem: &str) -> CaBundle {
        CaBundle { variable: "AWS_CA_BUNDLE", pem: pem.as_bytes().to_vec() }
    }

    #[test]
    fn a_ca_bundle_without_a_certificate_is_refused() {
        let error = client(Some(&bundle("no pem")), None).unwrap_err();
        assert!(error.to_string().contains("AWS_CA_BUNDLE: it contains no certificate"), "{error}");
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_refused() {
        let bundle = bundle("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        assert!(client(Some(&bundle), None).unwrap_err().to_string().contains("certificate 1 can't be read"));
    }

    #[test]
    fn the_public_roots_are_enough_for_a_client() {
        assert!(client(None, None).is_ok());
    }

    #[test]
    fn a_media_type_is_named_without_its_parameters_and_with_a_bound() {
        let media_type = |value: &str| media_type(&HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]));
        assert_eq!(media_type("text/html; charset=utf-8"), "text/html");
        assert_eq!(media_type(&"x".repeat(1_000)).len(), 40);
        assert_eq!(media_type(""), "content of an unknown type");
    }
}
