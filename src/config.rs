//! The function's configuration, read once at cold start.
//!
//! A wrong value fails the start with one error. It is never replaced by a default.

#[cfg(test)]
mod examples;
#[cfg(test)]
pub mod for_test;
mod network;
mod parse;
#[cfg(test)]
mod schema;
mod target;
mod values;

use std::time::Duration;

use reqwest::Url;

use crate::error::Error;
pub use network::{CaBundle, HttpsProxy};
pub use target::*;
pub use values::{LayoutChoice, ModelId, Probe, Region, RoleArn, S3Uri, SecretId, SessionNames, TargetName, UserName};

const TARGETS: &str = "TARGETS";
const TARGETS_SECRET_ID: &str = "TARGETS_SECRET_ID";
const TARGETS_S3_URI: &str = "TARGETS_S3_URI";

/// What the environment variables say.
#[derive(Debug)]
pub struct Config {
    pub schedule: Option<String>,
    pub metrics: MetricsSettings,
    /// The time over which a run of all targets is spread.
    pub spread: Duration,
    pub targets: TargetsConfig,
    /// Trusted for AWS's services.
    pub aws_ca_bundle: Option<CaBundle>,
    /// Trusted for Braintrust.
    pub braintrust_ca_bundle: Option<CaBundle>,
    pub proxy: Option<HttpsProxy>,
    /// Where the probe's `ListFoundationModels` goes instead of the region's endpoint.
    pub bedrock_endpoint: Option<Url>,
    /// Where the probe's `Converse` goes instead of the region's endpoint.
    pub bedrock_runtime_endpoint: Option<Url>,
    /// Where S3 is called instead of at the region's endpoint.
    pub s3_endpoint: Option<Url>,
}

#[derive(Debug)]
pub struct MetricsSettings {
    pub namespace: String,
    /// Whether each target has metrics of its own, which CloudWatch charges for.
    pub per_target: bool,
}

/// Where the JSON array of targets is.
#[derive(Debug)]
pub enum TargetsSource {
    Inline(String),
    Secret(SecretId),
    Object(S3Uri),
}

/// Where the targets are, and the defaults of their fields.
#[derive(Debug)]
pub struct TargetsConfig {
    pub source: TargetsSource,
    defaults: Defaults,
}

/// An environment variable that is set.
struct Variable {
    name: &'static str,
    text: String,
}

impl Variable {
    fn parse<T>(self, parse: impl FnOnce(String) -> Result<T, String>) -> Result<T, Error> {
        parse(self.text).map_err(|problem| Error::configuration(self.name, problem, where_it_is_set(self.name)))
    }
}

/// Where to correct a variable: in a parameter of the template, if there is one for it.
fn where_it_is_set(variable: &str) -> String {
    let parameter = match variable {
        TARGETS => "Targets",
        TARGETS_SECRET_ID => "TargetsSecretArn",
        TARGETS_S3_URI => "TargetsBucket",
        "BRAINTRUST_API_KEY_SECRET_ID" => "BraintrustApiKeySecretArn",
        "BRAINTRUST_API_URL" => "BraintrustApiUrl",
        "BRAINTRUST_CA_BUNDLE" => "BraintrustCaBundle",
        "AWS_CA_BUNDLE" => "AwsCaBundle",
        "HTTPS_PROXY" => "HttpsProxy",
        "METRICS_NAMESPACE" => "MetricsNamespace",
        "METRICS_PER_TARGET" => "MetricsPerTarget",
        "SPREAD_SECONDS" => "SpreadSeconds",
        _ => {
            return format!(
                "Change the function's environment variable {variable}. docs/configuration.md describes it"
            );
        }
    };
    format!("Change the stack's parameter {parameter}. docs/configuration.md describes what the variable accepts")
}

impl Config {
    /// Reads the environment variables. An empty one counts as absent, because CloudFormation can't leave one out.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let raw = |name: &'static str| {
            let text = variable(name).filter(|text| !text.trim().is_empty())?;
            Some(Variable { name, text })
        };
        let set = |name| raw(name).map(|set| Variable { text: set.text.trim().to_owned(), ..set });
        let set_or = |name, default: &str| set(name).unwrap_or_else(|| Variable { name, text: default.to_owned() });
        let endpoint = |name| raw(name).map(|url| url.parse(|url| network::endpoint(&url))).transpose();
        let ca_bundle = |name| set(name).map(|set| set.parse(|text| CaBundle::read(name, text))).transpose();
        let general_endpoint = endpoint("AWS_ENDPOINT_URL")?;
        // These are only checked here. `aws::sdk` reads them.
        for name in ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_IAM", "AWS_ENDPOINT_URL_SECRETS_MANAGER"] {
            endpoint(name)?;
        }
        let api_key = set("BRAINTRUST_API_KEY_SECRET_ID");
        Ok(Self {
            schedule: set("SCHEDULE_EXPRESSION").map(|schedule| schedule.text),
            metrics: MetricsSettings {
                namespace: set_or("METRICS_NAMESPACE", "BedrockBraintrustRotator").parse(metrics_namespace)?,
                per_target: set_or("METRICS_PER_TARGET", "true").parse(metrics_per_target)?,
            },
            spread: set_or("SPREAD_SECONDS", "0").parse(spread)?,
            targets: TargetsConfig {
                source: targets_source(set(TARGETS), set(TARGETS_SECRET_ID), set(TARGETS_S3_URI))?,
                defaults: Defaults {
                    api_url: set_or("BRAINTRUST_API_URL", "https://api.braintrust.dev")
                        .parse(|url| values::service_url(&url))?,
                    api_key_secret_id: api_key.map(|id| id.parse(SecretId::try_from)).transpose()?,
                },
            },
            aws_ca_bundle: ca_bundle("AWS_CA_BUNDLE")?,
            braintrust_ca_bundle: ca_bundle("BRAINTRUST_CA_BUNDLE")?,
            proxy: https_proxy(&set)?,
            bedrock_endpoint: endpoint("AWS_ENDPOINT_URL_BEDROCK")?.or_else(|| general_endpoint.clone()),
            bedrock_runtime_endpoint: endpoint("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")?
                .or_else(|| general_endpoint.clone()),
            s3_endpoint: endpoint("AWS_ENDPOINT_URL_S3")?.or(general_endpoint),
        })
    }
}

impl TargetsConfig {
    /// Parses the JSON array of targets. The error names the target and the field.
    pub fn parse(&self, json: &str) -> Result<Vec<Target>, Error> {
        let secret_id = match &self.source {
            TargetsSource::Secret(id) => Some(id),
            TargetsSource::Inline(_) | TargetsSource::Object(_) => None,
        };
        parse::targets(json, &self.defaults, secret_id).map_err(|invalid| {
            let (variable, problem, place) = match &self.source {
                TargetsSource::Inline(_) => (TARGETS, invalid.to_string(), "the stack's parameter Targets"),
                // Security: it may be the wrong secret, whose content must not be repeated.
                TargetsSource::Secret(_) => (TARGETS_SECRET_ID, invalid.place, "the secret in TargetsSecretArn"),
                TargetsSource::Object(uri) => (TARGETS_S3_URI, format!("{uri}: {invalid}"), "the object in S3"),
            };
            let remedy = format!(
                "Change {place}, or the parameter that sets the field. docs/configuration.md describes every field of \
                 a target"
            );
            Error::configuration(variable, problem, remedy)
        })
    }
}

/// Exactly one of the three variables says where the targets are.
fn targets_source(
    json: Option<Variable>,
    secret: Option<Variable>,
    object: Option<Variable>,
) -> Result<TargetsSource, Error> {
    let problem = match (json, secret, object) {
        (Some(json), None, None) => return Ok(TargetsSource::Inline(json.text)),
        (None, Some(id), None) => return id.parse(SecretId::try_from).map(TargetsSource::Secret),
        (None, None, Some(uri)) => return uri.parse(S3Uri::try_from).map(TargetsSource::Object),
        (None, None, None) => "none of TARGETS, TARGETS_SECRET_ID and TARGETS_S3_URI is set",
        _ => "more than one of TARGETS, TARGETS_SECRET_ID and TARGETS_S3_URI is set",
    };
    let remedy = "Set exactly one of TARGETS (the JSON array; the parameter Targets), TARGETS_SECRET_ID (the secret that \
                  holds it; the parameter TargetsSecretArn) and TARGETS_S3_URI (the object in S3 that holds it; the \
                  parameter TargetsBucket)";
    Err(Error::configuration(TARGETS, problem, remedy))
}

/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html>
fn metrics_namespace(text: String) -> Result<String, String> {
    if values::is_made_of(&text, 1..=255, ".-_/#:") && !text.starts_with("AWS/") {
        return Ok(text);
    }
    Err(format!("found {text:?}; expected 1 to 255 letters, digits and . - _ / # :, not beginning with AWS/"))
}

fn metrics_per_target(text: String) -> Result<bool, String> {
    text.parse().map_err(|_| format!("found {text:?}; expected true or false"))
}

/// At most a third of Lambda's longest timeout. With the default schedule, a run and its two retries then end before
/// the next run.
fn spread(text: String) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= 300);
    seconds.map(Duration::from_secs).ok_or_else(|| format!("found {text:?}; expected a whole number from 0 to 300"))
}

/// As in AWS's own tools, the lowercase names take precedence. `HTTP_PROXY` applies to `http://` only, and AWS's tools
/// don't read `ALL_PROXY`.
fn https_proxy(set: &dyn Fn(&'static str) -> Option<Variable>) -> Result<Option<HttpsProxy>, Error> {
    let Some(url) = set("https_proxy").or_else(|| set("HTTPS_PROXY")) else { return Ok(None) };
    let bypassed = set("no_proxy").or_else(|| set("NO_PROXY"));
    let url = url.parse(network::proxy_url)?;
    Ok(Some(HttpsProxy::new(url, bypassed.as_ref().map(|hosts| hosts.text.as_str()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, Error> {
        Config::read(&|name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn an_error_names_the_templates_parameter_if_there_is_one() {
        for (variable, expected) in [
            ("BRAINTRUST_API_URL", "the stack's parameter BraintrustApiUrl."),
            ("HTTPS_PROXY", "the stack's parameter HttpsProxy."),
            ("AWS_ENDPOINT_URL_STS", "the function's environment variable AWS_ENDPOINT_URL_STS."),
        ] {
            let remedy = read(&[("TARGETS", "[]"), (variable, "ftp://example")]).unwrap_err().remedy;
            assert!(remedy.contains(expected), "{remedy}");
        }
    }

    #[test]
    fn each_wrong_variable_is_named_with_what_was_found() {
        for (variables, expected) in [
            (vec![], "TARGETS: none of TARGETS, TARGETS_SECRET_ID and TARGETS_S3_URI is set"),
            (vec![("TARGETS", " ")], "TARGETS: none of TARGETS, TARGETS_SECRET_ID and TARGETS_S3_URI is set"),
            (vec![("TARGETS", "[]"), ("TARGETS_SECRET_ID", "x")], "TARGETS: more than one of TARGETS,"),
            (vec![("TARGETS", "[]"), ("TARGETS_S3_URI", "s3://acme/targets.json")], "TARGETS: more than one of"),
            (vec![("TARGETS_SECRET_ID", "x"), ("TARGETS_S3_URI", "s3://acme/targets.json")], "more than one of"),
            (
                vec![("TARGETS_S3_URI", "acme/targets.json")],
                "TARGETS_S3_URI: found \"acme/targets.json\"; expected s3://",
            ),
            (
                vec![("TARGETS", "[]"), ("BRAINTRUST_API_URL", "http://braintrust.example")],
                "http:// to a host that is not loopback",
            ),
            (
                vec![("TARGETS", "[]"), ("BRAINTRUST_API_URL", "http://127.0.0.1.example.com")],
                "http:// to a host that is not loopback",
            ),
            (vec![("TARGETS", "[]"), ("BRAINTRUST_API_URL", "ftp://127.0.0.1")], "found a URL with ftp://"),
            (vec![("TARGETS", "[]"), ("BRAINTRUST_API_URL", "api.braintrust.dev")], "found what is not a URL"),
            (vec![("TARGETS", "[]"), ("BRAINTRUST_API_URL", "https://me@api.braintrust.dev")], "with a user"),
            (vec![("TARGETS", "[]"), ("BRAINTRUST_API_URL", "https://:pw@api.braintrust.dev")], "with a user"),
            (vec![("TARGETS", "[]"), ("BRAINTRUST_API_URL", "https://api.braintrust.dev?org=x")], "a query"),
            (vec![("TARGETS", "[]"), ("BRAINTRUST_API_URL", "https://api.braintrust.dev#x")], "a fragment"),
            (vec![("TARGETS", "[]"), ("BRAINTRUST_CA_BUNDLE", "/no/such/file.pem")], "BRAINTRUST_CA_BUNDLE: the file"),
            (vec![("TARGETS", "[]"), ("AWS_CA_BUNDLE", "/no/such/file.pem")], "AWS_CA_BUNDLE: the file"),
            (vec![("TARGETS", "[]"), ("HTTPS_PROXY", "socks5://proxy:1080")], "HTTPS_PROXY: found a URL that begins"),
            (vec![("TARGETS", "[]"), ("https_proxy", "http://")], "https_proxy: found what is not a URL"),
        ] {
            let error = read(&variables).unwrap_err();
            assert_eq!(error.class, crate::error::ErrorClass::Configuration);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn an_endpoint_that_would_receive_credentials_in_clear_text_is_refused_and_not_repeated() {
        for name in ["", "_STS", "_IAM", "_SECRETS_MANAGER", "_BEDROCK", "_BEDROCK_RUNTIME", "_S3"] {
            let name = format!("AWS_ENDPOINT_URL{name}");
            for (url, problem) in [
                ("nowhere", "found what is not a URL"),
                ("ftp://127.0.0.1", "found a URL with ftp://"),
                ("http://aws.example", "found a URL with http:// to a host that is not loopback"),
                ("https://me:pa55@aws.example", "found a URL with a user"),
                ("https://aws.example?key=pa55", "found a URL with a user, a query"),
                (" https://aws.example", "found white space"),
            ] {
                let error = read(&[("TARGETS", "[]"), (&name, url)]).unwrap_err();
                assert!(error.to_string().contains(&format!("{name}: {problem}")), "{error}");
                assert!(!format!("{error} {error:?}").contains("pa55"));
            }
            for url in ["https://aws.example/path", "http://localhost:4566", "http://[::1]:1"] {
                assert!(read(&[("TARGETS", "[]"), (&name, url)]).is_ok(), "{name} {url}");
            }
        }
    }

    #[test]
    fn the_proxy_in_lowercase_takes_precedence_and_an_empty_one_is_absent() {
        let proxy = |variables: &[(&str, &str)]| {
            let config = read(&[&[("TARGETS", "[]")], variables].concat()).unwrap();
            config.proxy.map(|proxy| format!("{:?}", proxy.to_reqwest().unwrap()))
        };
        for (variables, expected) in [
            (vec![("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "http://lower:1")], "lower"),
            (vec![("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "")], "upper"),
            (vec![("HTTPS_PROXY", " http://upper:1\n")], "upper"),
        ] {
            assert!(proxy(&variables).is_some_and(|proxy| proxy.contains(expected)), "{variables:?}");
        }
        for name in ["HTTP_PROXY", "ALL_PROXY", "NO_PROXY"] {
            assert_eq!(proxy(&[(name, "http://proxy:1")]), None, "{name}");
        }
        assert_eq!(proxy(&[("HTTPS_PROXY", " ")]), None);
    }

    #[test]
    fn a_namespace_is_accepted_as_cloudwatch_accepts_it() {
        let namespace = |value: &str| {
            read(&[("TARGETS", "[]"), ("METRICS_NAMESPACE", value)]).map(|config| config.metrics.namespace)
        };
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
    fn each_target_has_metrics_unless_they_are_turned_off() {
        let per_target = |value: &str| {
            read(&[("TARGETS", "[]"), ("METRICS_PER_TARGET", value)]).map(|config| config.metrics.per_target)
        };
        for (value, expected) in [("", true), ("true", true), ("false", false), (" false ", false)] {
            assert_eq!(per_target(value).unwrap(), expected, "{value:?}");
        }
        for refused in ["no", "False", "0"] {
            let error = per_target(refused).unwrap_err();
            assert!(error.to_string().contains("METRICS_PER_TARGET: found"), "{error}");
        }
    }

    #[test]
    fn a_spread_is_a_number_of_seconds_that_leaves_time_for_retries() {
        let spread = |value: &str| read(&[("TARGETS", "[]"), ("SPREAD_SECONDS", value)]).map(|config| config.spread);
        for (value, expected) in [("", 0), ("0", 0), ("60", 60), ("300", 300)] {
            assert_eq!(spread(value).unwrap(), Duration::from_secs(expected), "{value:?}");
        }
        for refused in ["301", "-1", "1.5", "60s"] {
            let error = spread(refused).unwrap_err();
            assert!(error.to_string().contains("SPREAD_SECONDS: found"), "{error}");
        }
    }

    #[test]
    fn a_url_with_a_password_is_not_repeated() {
        let error =
            read(&[("TARGETS", "[]"), ("BRAINTRUST_API_URL", "https://me:pa55@api.braintrust.dev")]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("pa55"));
    }

    #[test]
    fn an_api_key_instead_of_its_secrets_id_is_refused_and_not_repeated() {
        for key in ["sk-live", "bt-st-live", " sk-live"] {
            for variables in
                [vec![("TARGETS", "[]"), ("BRAINTRUST_API_KEY_SECRET_ID", key)], vec![(TARGETS_SECRET_ID, key)]]
            {
                let error = read(&variables).unwrap_err();
                assert!(error.to_string().contains("looks like an API key"), "{error}");
                assert!(!format!("{error} {error:?}").contains(key));
            }
        }
    }

    #[test]
    fn an_error_in_a_targets_secret_names_the_field_and_not_the_content() {
        let config = read(&[("TARGETS_SECRET_ID", "x"), ("BRAINTRUST_API_KEY_SECRET_ID", "y")]).unwrap();
        for (secret, place) in [
            (r#""hidden""#, "the array."),
            (r#"["hidden"]"#, "target number 1."),
            (r#"{"password":"hidden"}"#, "the array."),
            (r#"[{"name":"prod","kind":"hidden"}]"#, "target \"prod\": kind."),
            (r#"[{"name":"prod","kind":"hidden","kind":"hidden"}]"#, "target \"prod\": kind."),
            (
                r#"[{"name":"prod","kind":"temporary","region":"us-east-1","role_arn":"hidden",
                     "ai_secrets":[{"name":"x"}]}]"#,
                "target \"prod\": role_arn.",
            ),
        ] {
            let error = config.targets.parse(secret).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hidden"), "{error}");
            assert!(error.to_string().contains(&format!("TARGETS_SECRET_ID: {place}")), "{error}");
        }
    }

    #[test]
    fn an_error_in_an_object_names_the_object_the_target_the_field_and_what_was_found() {
        let uri = "s3://acme-rotator/fleet/targets.json";
        let config = read(&[("TARGETS_S3_URI", uri), ("BRAINTRUST_API_KEY_SECRET_ID", "y")]).unwrap();
        let error = config.targets.parse(r#"[{"name":"prod","kind":"permanent"}]"#).unwrap_err();
        assert!(error.to_string().contains(&format!("TARGETS_S3_URI: {uri}: target \"prod\": kind: ")), "{error}");
        assert!(error.problem.contains("permanent"), "{error}");
    }

    #[test]
    fn a_loopback_address_needs_no_tls() {
        for url in ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"] {
            assert!(read(&[("TARGETS", "[]"), ("BRAINTRUST_API_URL", url)]).is_ok(), "{url}");
        }
    }

    #[test]
    fn the_endpoint_of_a_service_takes_precedence_over_the_general_one() {
        let config = read(&[
            ("TARGETS", "[]"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("AWS_ENDPOINT_URL_BEDROCK", "http://127.0.0.1:2"),
        ])
        .unwrap();
        assert_eq!(config.bedrock_endpoint.unwrap().port(), Some(2));
        assert_eq!(config.bedrock_runtime_endpoint.unwrap().port(), Some(1));
        assert_eq!(config.s3_endpoint.unwrap().port(), Some(1));
    }
}
