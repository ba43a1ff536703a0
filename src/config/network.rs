//! How the services are reached: through which proxy, at which endpoints, and with which certificates.

use std::fmt;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

/// Loopback addresses. Lambda's Runtime API is at one of them.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// Certificates in PEM format that are trusted in addition to the public roots.
pub struct CaBundle {
    /// The variable that holds the certificates or the path of their file.
    pub variable: &'static str,
    pub pem: Vec<u8>,
}

impl fmt::Debug for CaBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.variable)
    }
}

impl CaBundle {
    /// Reads the certificates from the text, or from the file that the text names.
    pub(super) fn read(variable: &'static str, text: String) -> Result<Self, String> {
        if text.contains("-----BEGIN") {
            return Ok(Self { variable, pem: text.into_bytes() });
        }
        let pem = std::fs::read(&text).map_err(|error| {
            let expected = "certificates in PEM format, or the path of a file in the function's package or a layer";
            format!("the file {text:?} can't be read ({error}); expected {expected}")
        })?;
        Ok(Self { variable, pem })
    }
}

/// The proxy for HTTPS, and the hosts that are reached without it.
#[derive(Debug)]
pub struct HttpsProxy {
    // Security: it may hold a password.
    url: SecretString,
    bypassed: String,
}

impl HttpsProxy {
    /// Loopback addresses are always reached without the proxy.
    pub(super) fn new(url: SecretString, no_proxy: Option<&str>) -> Self {
        // `*.example.com` is a common way to write `.example.com`.
        let entries = no_proxy.unwrap_or_default().split(',').map(str::trim);
        let entries =
            entries.map(|entry| entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(entry));
        let bypassed = entries.filter(|entry| !entry.is_empty()).chain([LOOPBACK]).collect::<Vec<_>>().join(",");
        Self { url, bypassed }
    }

    /// The proxy as reqwest takes it. Requests with `http://` never use it, because they go only to loopback addresses.
    pub fn to_reqwest(&self) -> reqwest::Result<reqwest::Proxy> {
        // Security: exposed to reqwest, which sends the user name and password only to the proxy.
        let proxy = reqwest::Proxy::https(self.url.expose_secret())?;
        Ok(proxy.no_proxy(reqwest::NoProxy::from_string(&self.bypassed)))
    }
}

/// The URL of a proxy. As in AWS's own tools, one without a scheme is an `http://` URL.
pub(super) fn proxy_url(text: String) -> Result<SecretString, String> {
    // Security: the text is not repeated, because it may hold a password.
    let expected = "expected the http:// or https:// URL of a proxy, such as http://proxy.example.com:3128";
    let text = if text.contains("://") { text } else { format!("http://{text}") };
    let url = Url::parse(&text).map_err(|error| format!("found what is not a URL ({error}); {expected}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("found a URL that begins neither with http:// nor with https://; {expected}"));
    }
    // The HTTP client would ignore a proxy whose URL it can't parse.
    match url.as_str().parse::<http::Uri>() {
        Ok(_) => Ok(String::from(url).into()),
        Err(_) => Err(format!("found a URL with characters that must be percent-encoded; {expected}")),
    }
}

/// The endpoint of an AWS service. White space is refused, because the SDK reads the same variable and doesn't trim it.
pub(super) fn endpoint(text: &str) -> Result<Url, String> {
    if text.trim() != text {
        return Err("found white space before or after the URL".to_owned());
    }
    super::values::service_url(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_has_an_http_or_https_url_and_http_is_the_default() {
        for (text, url) in [
            ("http://proxy.example.com:3128", "http://proxy.example.com:3128/"),
            ("proxy.example.com:3128", "http://proxy.example.com:3128/"),
            ("me:pa55@proxy.example.com:3128", "http://me:pa55@proxy.example.com:3128/"),
            ("https://proxy.example.com", "https://proxy.example.com/"),
        ] {
            assert_eq!(proxy_url(text.to_owned()).unwrap().expose_secret(), url);
        }
    }

    #[test]
    fn the_url_of_a_proxy_is_never_repeated() {
        for text in
            ["socks5://me:pa55@proxy", "http://", "http://me:pa55@proxy:port", "http://me:pa55@pro xy", "me:pa55@"]
        {
            let problem = proxy_url(text.to_owned()).unwrap_err();
            assert!(problem.contains("expected the http:// or https:// URL of a proxy"), "{problem}");
            assert!(!problem.contains("pa55"), "{problem}");
        }
        let proxy = HttpsProxy::new(proxy_url("me:pa55@proxy".to_owned()).unwrap(), None);
        assert!(!format!("{proxy:?}").contains("pa55"));
    }

    #[test]
    fn loopback_addresses_and_named_hosts_bypass_the_proxy() {
        let bypassed = |no_proxy| HttpsProxy::new(SecretString::from("http://proxy/"), no_proxy).bypassed;
        assert_eq!(bypassed(None), LOOPBACK);
        assert_eq!(bypassed(Some(" *.example.com, ,10.0.0.0/8,*")), format!(".example.com,10.0.0.0/8,*,{LOOPBACK}"));
    }
}
