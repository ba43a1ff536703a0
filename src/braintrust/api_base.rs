//! The field `api_base` of a provider: where its readers send their requests instead of to Bedrock.

use reqwest::Url;

/// The services that serve models.
/// <https://docs.aws.amazon.com/general/latest/gr/bedrock.html>
const SERVICES: [&str; 3] = ["bedrock-runtime", "bedrock-runtime-fips", "bedrock-mantle"];
/// The domains of AWS's partitions, without and with IPv6.
const DOMAINS: [&str; 14] = [
    "amazonaws.com",
    "api.aws",
    "amazonaws.com.cn",
    "api.amazonwebservices.com.cn",
    "amazonaws.eu",
    "api.amazonwebservices.eu",
    "c2s.ic.gov",
    "api.aws.ic.gov",
    "sc2s.sgov.gov",
    "api.aws.scloud",
    "cloud.adc-e.uk",
    "api.cloud-aws.adc-e.uk",
    "csp.hci.ic.gov",
    "api.aws.hci.ic.gov",
];

/// The origin of an `api_base` that is not Bedrock's own.
///
/// Security: a URL may have a secret in its user, its path, or its query, so nothing else of it is kept.
pub(super) fn custom_origin(api_base: &str) -> Option<String> {
    match Url::parse(api_base) {
        Ok(url) if url.scheme() == "https" && url.host_str().is_some_and(is_of_bedrock) => None,
        Ok(url) => Some(url.origin().ascii_serialization()),
        Err(_) => Some("not a URL".to_owned()),
    }
}

/// Anybody can have a host in one of AWS's domains, for example a load balancer, so all parts of the name count.
fn is_of_bedrock(host: &str) -> bool {
    // A VPC endpoint has its own name before the service's.
    let (host, is_vpc_endpoint) = match host.split_once('.') {
        Some((first, rest)) if first.starts_with("vpce-") => (rest, true),
        Some(_) | None => (host, false),
    };
    let [service, region, domain] = host.splitn(3, '.').collect::<Vec<_>>()[..] else { return false };
    let domain = if is_vpc_endpoint { domain.strip_prefix("vpce.") } else { Some(domain) };
    SERVICES.contains(&service) && is_region(region) && domain.is_some_and(|domain| DOMAINS.contains(&domain))
}

/// Whether it looks like `us-east-1`, as opposed to `s3-us-east-1`.
fn is_region(name: &str) -> bool {
    let parts: Vec<_> = name.split('-').collect();
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|letter| letter.is_ascii_lowercase());
    parts.len() > 2 && parts.iter().take(2).all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bedrocks_own_endpoints_are_recognized() {
        let json = include_str!("../../tests/vectors/bedrock_endpoints.json");
        let rows: Vec<(String, bool, bool, String, String)> = serde_json::from_str(json).unwrap();
        for (.., runtime) in &rows {
            assert_eq!(custom_origin(runtime), None, "{runtime}");
        }
        for url in [
            "https://bedrock-runtime.us-gov-west-1.amazonaws.com/",
            "https://bedrock-mantle.us-east-1.api.aws/v1",
            "https://vpce-0a1b-2c3d.bedrock-runtime.us-east-1.vpce.amazonaws.com",
            "https://BEDROCK-RUNTIME.us-east-1.amazonaws.com",
        ] {
            assert_eq!(custom_origin(url), None, "{url}");
        }
    }

    #[test]
    fn every_other_host_is_custom_even_in_one_of_awss_domains() {
        for (url, origin) in [
            ("https://evil.example/bedrock-runtime.us-east-1.amazonaws.com", "https://evil.example"),
            ("https://me:hidden@evil.example:8443/hidden?hidden#hidden", "https://evil.example:8443"),
            ("https://bedrock-runtime.us-east-1.amazonaws.com@evil.example", "https://evil.example"),
            ("http://10.0.0.7:8080", "http://10.0.0.7:8080"),
            ("http://bedrock-runtime.us-east-1.amazonaws.com", "http://bedrock-runtime.us-east-1.amazonaws.com"),
            ("//evil.example", "not a URL"),
            ("hidden", "not a URL"),
        ] {
            assert_eq!(custom_origin(url).as_deref(), Some(origin), "{url}");
        }
        for host in [
            "bedrock-runtime.us-east-1.amazonaws.com.evil.example",
            "bedrock-runtime.us-east-1.elb.amazonaws.com",
            "bedrock-runtime.s3.amazonaws.com",
            "bedrock-runtime.s3-us-west-2.amazonaws.com",
            "bedrock-runtime-1.us-east-1.amazonaws.com",
            "vpce-0a1b.vpce-svc-0a1b.us-east-1.vpce.amazonaws.com",
            "bedrock-runtime.us-east-1.vpce.amazonaws.com",
            "x.execute-api.us-east-1.amazonaws.com",
            "amazonaws.com",
        ] {
            assert!(custom_origin(&format!("https://{host}")).is_some(), "{host}");
        }
    }
}
