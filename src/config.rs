//! The function's configuration, read once at cold start; a wrong value must never become a warning or a default.

mod read_targets;
mod target;

use std::path::Path;

use reqwest::Url;

use crate::error::Error;
pub use target::{AiSecret, AssumeRole, Kind, LayoutChoice, Lookup, Probe, Standing, Target};

const SCHEDULE_EXPRESSION: &str = "SCHEDULE_EXPRESSION";
const METRICS_NAMESPACE: &str = "METRICS_NAMESPACE";
const TARGETS: &str = "TARGETS";
const TARGETS_SECRET_ID: &str = "TARGETS_SECRET_ID";
const API_KEY_SECRET_ID: &str = "BRAINTRUST_API_KEY_SECRET_ID";
const API_URL: &str = "BRAINTRUST_API_URL";
const CA_BUNDLE: &str = "BRAINTRUST_CA_BUNDLE";

const DEFAULT_API_URL: &str = "https://api.braintrust.dev";

/// What the environment says, before the targets are read.
#[derive(Debug)]
pub struct Config {
    /// `SCHEDULE_EXPRESSION`.
    pub schedule: Option<String>,
    /// `METRICS_NAMESPACE`.
    pub metrics_namespace: String,
    /// `TARGETS` or `TARGETS_SECRET_ID`.
    pub targets: TargetsSource,
    /// What a target's `ai_secret`s fall back on.
    pub defaults: Defaults,
    /// `BRAINTRUST_CA_BUNDLE`: PEM that is trusted besides the public roots.
    pub ca_bundle: Option<Vec<u8>>,
    /// `AWS_ENDPOINT_URL_BEDROCK`, or `AWS_ENDPOINT_URL`: where the probe goes instead of the region's endpoint.
    pub bedrock_endpoint: Option<Url>,
    /// `AWS_ENDPOINT_URL_BEDROCK_RUNTIME`, or `AWS_ENDPOINT_URL`: the same for a Converse probe.
    pub bedrock_runtime_endpoint: Option<Url>,
}

/// Where the array of targets is.
#[derive(Debug)]
pub enum TargetsSource {
    /// The JSON itself.
    Inline(String),
    /// The id of the Secrets Manager secret that holds it.
    Secret(String),
}

/// What an entry of `ai_secrets` may leave out.
#[derive(Debug)]
pub struct Defaults {
    /// `BRAINTRUST_API_URL`.
    pub api_url: Url,
    /// `BRAINTRUST_API_KEY_SECRET_ID`.
    pub api_key_secret_id: Option<String>,
}

impl Config {
    /// Reads the variables through `variable`; an empty one counts as absent, as CloudFormation cannot leave one out.
    ///
    /// # Errors
    /// `configuration`, naming the variable.
    pub fn read(variable: &impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let set = |name| variable(name).filter(|value| !value.trim().is_empty());
        let any_endpoint = "AWS_ENDPOINT_URL";
        let endpoint = |name: &'static str| match set(name) {
            Some(url) => endpoint(name, &url).map(Some),
            None => set(any_endpoint).map(|url| endpoint(any_endpoint, &url)).transpose(),
        };
        Ok(Self {
            schedule: set(SCHEDULE_EXPRESSION),
            metrics_namespace: metrics_namespace(set(METRICS_NAMESPACE))?,
            targets: targets_source(set(TARGETS), set(TARGETS_SECRET_ID))?,
            defaults: Defaults {
                api_url: braintrust_url(set(API_URL).as_deref().unwrap_or(DEFAULT_API_URL))
                    .map_err(|problem| Error::configuration(API_URL, problem, ACCEPTED_URL))?,
                api_key_secret_id: set(API_KEY_SECRET_ID).map(secret_id).transpose().map_err(|problem| {
                    Error::configuration(API_KEY_SECRET_ID, problem, "Give the secret's name or ARN")
                })?,
            },
            ca_bundle: set(CA_BUNDLE).map(|bundle| ca_bundle(&bundle)).transpose()?,
            bedrock_endpoint: endpoint("AWS_ENDPOINT_URL_BEDROCK")?,
            bedrock_runtime_endpoint: endpoint("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")?,
        })
    }

    /// Reads the array of targets that `targets` points to.
    ///
    /// # Errors
    /// `configuration`, naming the target and the field.
    pub fn read_targets(&self, json: &str) -> Result<Vec<Target>, Error> {
        let (variable, secret) = match &self.targets {
            TargetsSource::Inline(_) => (TARGETS, None),
            TargetsSource::Secret(id) => (TARGETS_SECRET_ID, Some(id.as_str())),
        };
        read_targets::read_all(json, &self.defaults, secret).map_err(|wrong| {
            // Security: it may be the wrong secret, whose content must not be repeated.
            let wrong = if secret.is_some() { wrong.place() } else { wrong.to_string() };
            Error::configuration(variable, wrong, "The README's table of target fields says what is accepted")
        })
    }
}

/// Whether a configured secret, by name or ARN, is the one with this ARN. An ARN ends in six random characters, which a
/// name and a partial ARN lack.
pub fn is_same_secret(configured: &str, arn: &str) -> bool {
    let without_suffix = without_suffix(arn);
    let name = |arn: &str| arn.splitn(7, ':').nth(6).map(str::to_owned);
    configured == arn || configured == without_suffix || name(without_suffix).as_deref() == Some(configured)
}

fn without_suffix(arn: &str) -> &str {
    arn.rsplit_once('-').filter(|(_, suffix)| suffix.len() == 6).map_or(arn, |(arn, _)| arn)
}

/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html>
fn metrics_namespace(found: Option<String>) -> Result<String, Error> {
    let namespace = found.unwrap_or_else(|| "BedrockBraintrustRotator".to_owned());
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-_/#:".contains(c);
    if namespace.len() > 255 || !namespace.chars().all(fits) || namespace.starts_with("AWS/") {
        let remedy = "Accepted: 1 to 255 letters, digits and . - _ / # :, not beginning with AWS/";
        return Err(Error::configuration(METRICS_NAMESPACE, format!("found {namespace:?}"), remedy));
    }
    Ok(namespace)
}

fn targets_source(inline: Option<String>, secret: Option<String>) -> Result<TargetsSource, Error> {
    let remedy = "Set exactly one of TARGETS (the JSON array) and TARGETS_SECRET_ID (the secret that holds it)";
    match (inline, secret) {
        (Some(json), None) => Ok(TargetsSource::Inline(json)),
        (None, Some(id)) => Ok(TargetsSource::Secret(id)),
        (None, None) => Err(Error::configuration(TARGETS, "neither TARGETS nor TARGETS_SECRET_ID is set", remedy)),
        (Some(_), Some(_)) => Err(Error::configuration(TARGETS, "both TARGETS and TARGETS_SECRET_ID are set", remedy)),
    }
}

const ACCEPTED_URL: &str = "Accepted: an https:// URL, or http:// to a loopback address; no user, query or fragment";

/// The id of a secret, and not what belongs into one.
fn secret_id(id: String) -> Result<String, &'static str> {
    let is_key = ["sk-", "bt-st-"].iter().any(|prefix| id.starts_with(prefix));
    if is_key { Err("found what looks like the API key itself; it should be changed now") } else { Ok(id) }
}

/// A Braintrust data plane's URL. The API key travels to it, so nothing but TLS will do.
fn braintrust_url(text: &str) -> Result<Url, String> {
    // The text is not repeated: it may hold a password.
    let url = Url::parse(text).map_err(|error| format!("found what is not a URL ({error})"))?;
    let found = |what: &str| Err(format!("found a URL {what}"));
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return found("with a user, a query or a fragment");
    }
    match (url.scheme(), is_loopback(&url)) {
        ("https", _) | ("http", true) => Ok(url),
        ("http", false) => {
            found("with http:// to a host that is not loopback, which would show the API key to the network")
        }
        (scheme, _) => found(&format!("with {scheme}://")),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn endpoint(name: &'static str, text: &str) -> Result<Url, Error> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| Error::configuration(name, format!("found {text:?}"), "Accepted: an http:// or https:// URL"))
}

fn ca_bundle(bundle: &str) -> Result<Vec<u8>, Error> {
    if bundle.contains("-----BEGIN") {
        return Ok(bundle.as_bytes().to_vec());
    }
    std::fs::read(Path::new(bundle)).map_err(|error| {
        Error::configuration(
            CA_BUNDLE,
            format!("the file {bundle:?} cannot be read ({error})"),
            "Accepted: certificates in PEM, or the path of a file inside the function's package or a layer",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, Error> {
        Config::read(&|name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn each_wrong_variable_is_named_with_what_was_found() {
        for (variables, expected) in [
            (vec![], "TARGETS: neither TARGETS nor TARGETS_SECRET_ID is set"),
            (vec![("TARGETS", " ")], "TARGETS: neither TARGETS nor TARGETS_SECRET_ID is set"),
            (
                vec![("TARGETS", "[]"), ("TARGETS_SECRET_ID", "x")],
                "TARGETS: both TARGETS and TARGETS_SECRET_ID are set",
            ),
            (vec![("TARGETS", "[]"), (API_URL, "http://braintrust.example")], "http:// to a host that is not loopback"),
            (
                vec![("TARGETS", "[]"), (API_URL, "http://127.0.0.1.example.com")],
                "http:// to a host that is not loopback",
            ),
            (vec![("TARGETS", "[]"), (API_URL, "ftp://127.0.0.1")], "found a URL with ftp://"),
            (vec![("TARGETS", "[]"), (API_URL, "api.braintrust.dev")], "found what is not a URL"),
            (vec![("TARGETS", "[]"), (API_URL, "https://me@api.braintrust.dev")], "with a user"),
            (vec![("TARGETS", "[]"), (API_URL, "https://:pw@api.braintrust.dev")], "with a user"),
            (vec![("TARGETS", "[]"), (API_URL, "https://api.braintrust.dev?org=x")], "a query"),
            (vec![("TARGETS", "[]"), (API_URL, "https://api.braintrust.dev#x")], "a fragment"),
            (vec![("TARGETS", "[]"), (CA_BUNDLE, "/no/such/file.pem")], "BRAINTRUST_CA_BUNDLE: the file"),
            (vec![("TARGETS", "[]"), ("AWS_ENDPOINT_URL_BEDROCK", "nowhere")], "AWS_ENDPOINT_URL_BEDROCK: found"),
            (
                vec![("TARGETS", "[]"), ("AWS_ENDPOINT_URL_BEDROCK", "ftp://127.0.0.1")],
                "AWS_ENDPOINT_URL_BEDROCK: found",
            ),
        ] {
            let error = read(&variables).unwrap_err();
            assert_eq!(error.cause, crate::error::Cause::Configuration);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_namespace_is_taken_as_cloudwatch_takes_it() {
        let namespace =
            |value: &str| read(&[("TARGETS", "[]"), (METRICS_NAMESPACE, value)]).map(|config| config.metrics_namespace);
        let longest = "n".repeat(255);
        for accepted in ["Team/Rotator.a-b_c#d:e", &longest] {
            assert_eq!(namespace(accepted).unwrap(), accepted);
        }
        assert_eq!(namespace(" ").unwrap(), "BedrockBraintrustRotator");
        for refused in ["AWS/Lambda", "two words", &format!("{longest}n")] {
            let error = namespace(refused).unwrap_err();
            assert!(error.to_string().contains("METRICS_NAMESPACE: found"), "{error}");
        }
    }

    #[test]
    fn a_url_with_a_password_is_not_repeated() {
        let error = read(&[("TARGETS", "[]"), (API_URL, "https://me:pa55@api.braintrust.dev")]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("pa55"));
    }

    #[test]
    fn an_api_key_in_the_place_of_its_secrets_id_is_refused_and_not_repeated() {
        for key in ["sk-live", "bt-st-live"] {
            let error = read(&[("TARGETS", "[]"), (API_KEY_SECRET_ID, key)]).unwrap_err();
            assert!(error.to_string().contains("looks like the API key itself"));
            assert!(!format!("{error} {error:?}").contains(key));
        }
    }

    #[test]
    fn of_a_wrong_targets_secret_the_place_is_told_and_the_content_is_not() {
        let config = read(&[("TARGETS_SECRET_ID", "x"), (API_KEY_SECRET_ID, "y")]).unwrap();
        for (secret, place) in [
            (r#""hidden""#, "the array."),
            (r#"["hidden"]"#, "target number 1."),
            (r#"{"password":"hidden"}"#, "the array."),
            (r#"[{"name":"prod","kind":"hidden"}]"#, "target \"prod\": kind."),
            (
                r#"[{"name":"prod","kind":"temporary","region":"us-east-1","role_arn":"hidden","ai_secrets":[{"name":"x"}]}]"#,
                "target \"prod\": role_arn.",
            ),
        ] {
            let error = config.read_targets(secret).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hidden"), "{error}");
            assert!(error.to_string().contains(&format!("TARGETS_SECRET_ID: {place}")), "{error}");
        }
    }

    #[test]
    fn loopback_may_do_without_tls() {
        for url in ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"] {
            assert!(read(&[("TARGETS", "[]"), (API_URL, url)]).is_ok(), "{url}");
        }
    }

    #[test]
    fn a_services_own_endpoint_goes_before_the_general_one() {
        let config = read(&[
            ("TARGETS", "[]"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("AWS_ENDPOINT_URL_BEDROCK", "http://127.0.0.1:2"),
        ])
        .unwrap();
        assert_eq!(config.bedrock_endpoint.unwrap().port(), Some(2));
        assert_eq!(config.bedrock_runtime_endpoint.unwrap().port(), Some(1));
    }

    #[test]
    fn a_secret_is_known_by_its_arn_its_partial_arn_and_its_name() {
        let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:team/braintrust-keys-AbCdEf";
        for (configured, same) in [
            (arn, true),
            ("arn:aws:secretsmanager:us-east-1:123456789012:secret:team/braintrust-keys", true),
            ("team/braintrust-keys", true),
            ("braintrust-keys", false),
            ("team/braintrust", false),
            ("arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/braintrust-keys-AbCdEf", false),
        ] {
            assert_eq!(is_same_secret(configured, arn), same, "{configured}");
        }
    }
}
