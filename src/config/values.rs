//! The values of the configuration. Each type checks its value when it is read, and says what it expects.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::error::shortened;

/// Declares string types, each with a condition and with the problem of a text that doesn't meet it. White space around
/// the text is dropped: none of these values can begin or end with it, but text that was copied or read from a file
/// may.
macro_rules! checked_text {
    ($($(#[$doc:meta])* $name:ident: $accepts:expr, $otherwise:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                check(text.trim(), $accepts, $otherwise).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

fn check(text: &str, accepts: fn(&str) -> bool, otherwise: fn(&str) -> String) -> Result<String, String> {
    // The text may be the content of a wrong secret, which can be of any length.
    if accepts(text) { Ok(text.to_owned()) } else { Err(otherwise(&shortened(without_api_key(text)))) }
}

pub(super) fn is_made_of(text: &str, length: RangeInclusive<usize>, punctuation: &str) -> bool {
    length.contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || punctuation.contains(c))
}

checked_text! {
    /// The limit of 48 leaves room for a prefix in a role session name, which has at most 64 characters.
    TargetName: |name| is_made_of(name, 1..=48, "-_."),
        |_| "expected 1 to 48 letters, digits, '-', '_' and '.'".to_owned();
    Region: |name| is_made_of(name, 1..=usize::MAX, "-") && !name.contains(|c: char| c.is_ascii_uppercase()),
        |name| format!("found {name:?}; expected a region's name such as \"us-east-1\"");
    RoleArn: is_role_arn,
        |arn| format!("found {arn:?}; expected a role's ARN such as \"arn:aws:iam::123456789012:role/bedrock\"");
    ExternalId: |id| is_made_of(id, 2..=1_224, "_+=,.@:/-"),
        |_| "expected 2 to 1,224 letters, digits and the characters _+=,.@:/-".to_owned();
    /// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
    SourceIdentity: |identity| is_made_of(&SessionNames::SAMPLE.expand(identity), SOURCE_IDENTITY, "_+=,.@-"),
        |identity| format!("found {identity:?}; expected 2 to 64 letters, digits and the characters _+=,.@-, with \
                            {{target}} and {{trigger}} as placeholders");
    UserName: |name| is_made_of(name, 1..=64, "_+=,.@-"),
        |name| format!("found {name:?}; expected an IAM user's name, without its path");
    ModelId: |id| !id.is_empty(),
        |_| "expected a model ID".to_owned();
    /// The name of an `ai_secret`, of an organization, or of a project, or a project's ID.
    Name: |name| !name.is_empty(),
        |_| "it may not be empty".to_owned();
    /// An object in Amazon S3.
    S3Uri: is_s3_uri,
        |uri| format!("found {uri:?}; expected s3:// with a bucket and a key, such as s3://acme-rotator/targets.json");
    /// The name or ARN of a Secrets Manager secret.
    // Security: remedies have it in commands for a shell. The "!" is in names that AWS's services choose.
    SecretId: |id| is_made_of(id, 1..=2_048, "/_+=.@-:!") && !looks_like_an_api_key(id),
        // Security: the text is not repeated, because it may be an API key.
        |id| match id {
            "" => "it is empty; expected a secret's name or ARN",
            id if !looks_like_an_api_key(id) => "expected a secret's name or ARN: letters, digits and the characters \
                                                 /_+=.@-:!",
            _ => "found what looks like an API key; expected the name or ARN of the secret that holds it. Replace that \
                  key now, because it is no longer secret",
        }.to_owned();
}

fn is_s3_uri(uri: &str) -> bool {
    let Some((bucket, key)) = s3_parts(uri) else { return false };
    let is_bucket = is_made_of(bucket, 3..=63, ".-") && !bucket.contains(|c: char| c.is_ascii_uppercase());
    // S3 takes a key literally, but in a URL, these segments would lead to another key.
    let is_relative = |segment| segment == "." || segment == "..";
    is_bucket && (1..=1_024).contains(&key.len()) && !key.contains(char::is_control) && !key.split('/').any(is_relative)
}

fn s3_parts(uri: &str) -> Option<(&str, &str)> {
    uri.strip_prefix("s3://")?.split_once('/')
}

impl S3Uri {
    /// The bucket and the key.
    pub fn parts(&self) -> (&str, &str) {
        s3_parts(&self.0).unwrap_or_default()
    }
}

// Security: errors repeat what was found, and somebody may have given an API key in the wrong field.
fn without_api_key(text: &str) -> &str {
    if looks_like_an_api_key(text) { "sk-…" } else { text }
}

fn looks_like_an_api_key(text: &str) -> bool {
    text.starts_with("sk-") || text.starts_with("bt-st-")
}

fn is_role_arn(arn: &str) -> bool {
    let ["arn", partition, "iam", "", account, resource] = arn.splitn(6, ':').collect::<Vec<_>>()[..] else {
        return false;
    };
    let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let is_name = |name| is_made_of(name, 1..=576, "+=,.@_/-");
    partition.starts_with("aws") && is_account && resource.strip_prefix("role/").is_some_and(is_name)
}

impl RoleArn {
    /// The name, without the path.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    pub fn account(&self) -> &str {
        self.0.split(':').nth(4).unwrap_or_default()
    }
}

impl SecretId {
    /// Whether both identify the same secret: by its ARN, its ARN without the six random characters at the end, or its
    /// name.
    pub fn is_same_secret(&self, other: &str) -> bool {
        let is_id_of = |id: &str, arn: &str| id == arn || id == partial(arn) || name(partial(arn)) == id;
        is_id_of(&self.0, other) || is_id_of(other, &self.0)
    }

    /// The names that the secret may have: two IDs of one secret have one in common.
    pub(super) fn possible_names(&self) -> impl Iterator<Item = &str> {
        let (full, partial) = (name(&self.0), name(partial(&self.0)));
        [Some(full), (partial != full).then_some(partial)].into_iter().flatten()
    }
}

/// An ARN without the six characters that Secrets Manager adds.
fn partial(arn: &str) -> &str {
    let full = arn.rsplit_once('-').filter(|(partial, end)| partial.starts_with("arn:") && end.len() == 6);
    full.map_or(arn, |(partial, _)| partial)
}

/// The name at the end of an ARN. A name is its own.
fn name(id: &str) -> &str {
    id.rsplit(':').next().unwrap_or(id)
}

/// A UUID as Braintrust writes it. Without hyphens, it may be a name.
pub(super) fn hyphenated_uuid(text: &str) -> Option<Uuid> {
    Uuid::parse_str(text).ok().filter(|id| text.eq_ignore_ascii_case(&id.to_string()))
}

/// The ID of an `ai_secret` or of a project's provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "String")]
pub struct AiSecretId(#[cfg_attr(test, schemars(with = "String"))] pub Uuid);

impl TryFrom<String> for AiSecretId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let otherwise = |text: &str| format!("found {:?}; expected a UUID", shortened(text));
        Uuid::parse_str(text.trim()).map(Self).map_err(|_| otherwise(without_api_key(text.trim())))
    }
}

/// The lengths that STS accepts.
pub(super) const SOURCE_IDENTITY: RangeInclusive<usize> = 2..=64;
pub(super) const TAG_VALUE: RangeInclusive<usize> = 0..=256;

/// What the placeholders in a session's source identity and in the values of its tags stand for.
#[derive(Clone, Copy)]
pub struct SessionNames<'a> {
    pub target: &'a str,
    /// What sent the event, as in the report.
    pub trigger: &'a str,
}

impl SessionNames<'_> {
    /// A short name, and the longest trigger.
    pub(super) const SAMPLE: Self = Self { target: "xx", trigger: "schedule" };

    pub fn expand(self, text: &str) -> String {
        text.replace("{target}", self.target).replace("{trigger}", self.trigger)
    }
}

/// The tags of a session, as values by their keys.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html#id_session-tags_know>
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct SessionTags(BTreeMap<String, String>);

impl SessionTags {
    pub fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<String, String>> for SessionTags {
    type Error = String;

    fn try_from(tags: BTreeMap<String, String>) -> Result<Self, String> {
        let is_tag_character = |c: char| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c);
        let is_valid = |text: &str, length: RangeInclusive<usize>| {
            length.contains(&text.chars().count()) && text.chars().all(is_tag_character)
        };
        let mut keys = HashSet::new();
        for (key, value) in &tags {
            let (shown, lowercase) = (shortened(key), key.to_lowercase());
            if !is_valid(key, 1..=128) || !is_valid(&SessionNames::SAMPLE.expand(value), TAG_VALUE) {
                let expected = "a key of 1 to 128 characters and a value of up to 256: letters, digits, spaces and \
                                _.:/=+-@, and in the value {target} and {trigger} as placeholders";
                return Err(format!("the tag {shown:?} is refused; expected {expected}"));
            }
            if lowercase.starts_with("aws:") {
                return Err(format!("the tag {shown:?} is refused, because AWS reserves the prefix aws:"));
            }
            if !keys.insert(lowercase) {
                return Err(format!("the tag {shown:?} is given twice: AWS doesn't distinguish case in tag keys"));
            }
        }
        if tags.len() > 50 { Err("AWS accepts at most 50 tags".to_owned()) } else { Ok(Self(tags)) }
    }
}

/// How new credentials are proven.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// `ListFoundationModels`, which is free.
    #[default]
    Models,
    /// A `Converse` call that generates one token with this model, at its price. Of several models, one that works is
    /// enough.
    Converse(ModelIds),
}

/// The proof through Braintrust: a chat completion of one token with this model, at its price.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object such as {\"model\": \"…\"}")]
pub struct EndToEnd {
    /// The model, as Braintrust names it.
    #[cfg_attr(test, schemars(regex(pattern = r"\S")))]
    pub model: ModelId,
}

/// One or more models. They are called side by side.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct ModelIds(Vec<ModelId>);

const MAX_MODELS: usize = 10;

impl ModelIds {
    pub fn as_slice(&self) -> &[ModelId] {
        &self.0
    }
}

impl TryFrom<Value> for ModelIds {
    type Error = String;

    fn try_from(found: Value) -> Result<Self, String> {
        let expected = || "expected a model ID, or an array of 1 to 10 different ones".to_owned();
        let found = match found {
            Value::Array(models) => models,
            Value::String(_) => vec![found],
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return Err(expected()),
        };
        let model = |found| serde_json::from_value(found).map_err(|_| expected());
        let models = found.into_iter().map(model).collect::<Result<Vec<ModelId>, _>>()?;
        let is_new = |(index, model)| !models.iter().take(index).any(|before| before == model);
        let is_accepted = (1..=MAX_MODELS).contains(&models.len()) && models.iter().enumerate().all(is_new);
        if is_accepted { Ok(Self(models)) } else { Err(expected()) }
    }
}

#[cfg(test)]
impl schemars::JsonSchema for ModelIds {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ModelIds".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let model = serde_json::json!({"type": "string", "pattern": r"\S"});
        schemars::json_schema!({
            "anyOf": [
                model,
                {"type": "array", "items": model, "minItems": 1, "maxItems": MAX_MODELS, "uniqueItems": true},
            ],
        })
    }
}

/// Which metadata fields of an `ai_secret` hold the credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LayoutChoice {
    /// Chosen by what the metadata already holds.
    #[default]
    Auto,
    /// The fields that Braintrust's gateway reads.
    Gateway,
    /// The `aws_*` fields that Braintrust's documentation shows. They can't hold an API key.
    Documented,
}

/// A period in minutes, hours or days, such as `90m`, `12h` or `30d`.
pub(super) fn period(text: &str) -> Result<Duration, String> {
    let seconds = [('m', 60), ('h', 3_600), ('d', 86_400)].into_iter().find_map(|(unit, seconds)| {
        let digits = text.trim().strip_suffix(unit)?;
        let is_number = digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| is_number).map(|count| count * seconds)
    });
    let expected = "minutes, hours or days, such as \"90m\", \"12h\", \"30d\"";
    seconds.map(Duration::from_secs).ok_or_else(|| format!("found {:?}; expected {expected}", shortened(text)))
}

/// The period as a person would write it.
pub(super) fn period_text(period: Duration) -> String {
    let seconds = period.as_secs();
    let (unit, size) =
        [("d", 86_400), ("h", 3_600)].into_iter().find(|(_, size)| seconds.is_multiple_of(*size)).unwrap_or(("m", 60));
    format!("{}{unit}", seconds / size)
}

/// STS accepts 900 seconds to the role's maximum.
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
pub(super) fn duration_seconds(found: &Value) -> Result<u16, String> {
    let why = "a role that assumes another role, which AWS calls role chaining, gets at most one hour";
    whole_number(found, 900..=3_600).map_err(|problem| format!("{problem} ({why})"))
}

pub(super) fn whole_number(found: &Value, accepted: RangeInclusive<u16>) -> Result<u16, String> {
    let number = found.as_u64().and_then(|number| u16::try_from(number).ok());
    number.filter(|number| accepted.contains(number)).ok_or_else(|| {
        let found = shortened(&found.to_string());
        format!("found {found}; expected a whole number from {} to {}", accepted.start(), accepted.end())
    })
}

/// The URL of a service. The service receives credentials, so only a loopback address needs no TLS.
pub(super) fn service_url(text: &str) -> Result<Url, String> {
    // Security: the text is not repeated, because it may hold a password.
    let expected = "Expected: an https:// URL, or http:// to a loopback address; no user, query or fragment";
    let refuse = |found: &str| Err::<Url, _>(format!("found {found}. {expected}"));
    let url = Url::parse(text).or_else(|error| refuse(&format!("what is not a URL ({error})")))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return refuse("a URL with a user, a query or a fragment");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => refuse("a URL with http:// to a host that is not loopback, which would send credentials unencrypted"),
        scheme => refuse(&format!("a URL with {scheme}://")),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_recognized_by_its_arn_its_partial_arn_and_its_name() {
        let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:team/braintrust-keys-AbCdEf";
        for (configured, same) in [
            (arn, true),
            ("arn:aws:secretsmanager:us-east-1:123456789012:secret:team/braintrust-keys", true),
            ("team/braintrust-keys", true),
            ("braintrust-keys", false),
            ("team/braintrust", false),
            ("arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/braintrust-keys-AbCdEf", false),
        ] {
            let id = SecretId::try_from(configured.to_owned()).unwrap();
            assert_eq!(id.is_same_secret(arn), same, "{configured}");
        }
    }

    #[test]
    fn a_secrets_id_is_harmless_in_a_command() {
        for accepted in
            ["team/braintrust_keys+=.@-1", "arn:aws:secretsmanager:us-east-1:123456789012:secret:rds!db-AbCdEf"]
        {
            assert_eq!(SecretId::try_from(accepted.to_owned()).unwrap().as_str(), accepted);
        }
        for refused in
            ["a; id", "$(id)", "`id`", "a|id", "a'b", "a\"b", "a\\b", "a\nb", "a&b", "a>b", "{\"api_key\":1}"]
        {
            let problem = SecretId::try_from(refused.to_owned()).unwrap_err();
            assert!(problem.starts_with("expected a secret's name or ARN") && !problem.contains(refused), "{problem}");
        }
    }

    #[test]
    fn an_s3_uri_has_a_bucket_and_a_key_that_a_url_can_have() {
        for (accepted, parts) in [
            ("s3://acme-rotator/targets.json", ("acme-rotator", "targets.json")),
            (" s3://acme.rotator/fleet/eu/a b+ü.json\n", ("acme.rotator", "fleet/eu/a b+ü.json")),
        ] {
            assert_eq!(S3Uri::try_from(accepted.to_owned()).unwrap().parts(), parts);
        }
        let long = format!("s3://acme/{}", "k".repeat(1_025));
        for refused in [
            "acme/targets.json",
            "https://acme.s3.amazonaws.com/targets.json",
            "s3://acme",
            "s3://acme/",
            "s3:///key",
            "s3://Acme/key",
            "s3://ac/key",
            "s3://acme/a/../key",
            "s3://acme/./key",
            "s3://acme/a\nb",
            &long,
            "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/key",
        ] {
            let problem = S3Uri::try_from(refused.to_owned()).unwrap_err();
            assert!(problem.contains("expected s3:// with a bucket and a key"), "{problem}");
        }
    }

    #[test]
    fn white_space_around_a_value_is_dropped() {
        for around in [" x", "x\n", "\t x \r\n"] {
            let text = |value: &str| around.replace('x', value);
            assert_eq!(TargetName::try_from(text("prod")).unwrap().as_str(), "prod");
            assert_eq!(Region::try_from(text("us-east-1")).unwrap().as_str(), "us-east-1");
            let arn = "arn:aws:iam::123456789012:role/bedrock";
            assert_eq!(RoleArn::try_from(text(arn)).unwrap().as_str(), arn);
            assert_eq!(ExternalId::try_from(text("ab")).unwrap().as_str(), "ab");
            assert_eq!(UserName::try_from(text("user")).unwrap().as_str(), "user");
            assert_eq!(ModelId::try_from(text("model")).unwrap().as_str(), "model");
            assert_eq!(Name::try_from(text("AWS Bedrock")).unwrap().as_str(), "AWS Bedrock");
            assert_eq!(SecretId::try_from(text("staged")).unwrap().as_str(), "staged");
            assert_eq!(AiSecretId::try_from(text(&Uuid::max().to_string())).unwrap().0, Uuid::max());
            assert_eq!(period(&text("90m")).unwrap().as_secs(), 5_400);
            assert_eq!(service_url(&text("https://x.example")).unwrap().as_str(), "https://x.example/");
            assert!(SecretId::try_from(text("sk-live")).unwrap_err().contains("looks like an API key"));
        }
    }

    #[test]
    fn a_long_value_that_is_refused_is_shortened() {
        let long = "é".repeat(5_000);
        for problem in [
            RoleArn::try_from(long.clone()).unwrap_err(),
            Region::try_from(long.clone()).unwrap_err(),
            UserName::try_from(long.clone()).unwrap_err(),
            AiSecretId::try_from(long.clone()).unwrap_err(),
            period(&long).unwrap_err(),
            whole_number(&long.clone().into(), 1..=2).unwrap_err(),
        ] {
            assert!(problem.contains("é…") && problem.len() < 500, "{problem}");
        }
    }

    #[test]
    fn a_roles_account_is_the_fifth_part_of_its_arn() {
        let arn = RoleArn::try_from("arn:aws-cn:iam::123456789012:role/path/name".to_owned()).unwrap();
        assert_eq!((arn.account(), arn.name()), ("123456789012", "name"));
    }

    #[test]
    fn a_period_is_a_number_and_a_unit() {
        for (text, seconds) in [("90m", Some(5_400)), ("12h", Some(43_200)), ("30d", Some(2_592_000)), ("0h", Some(0))]
            .into_iter()
            .chain(["", "d", "30", "30s", "+30d", "-1h", "1 h", "1.5h", "9999999999m", "€"].map(|text| (text, None)))
        {
            let period = period(text).ok().map(|period| period.as_secs());
            assert_eq!(period, seconds, "{text}");
        }
    }
}
