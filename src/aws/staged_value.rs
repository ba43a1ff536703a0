//! The JSON text of a staged secret, which other consumers read as well.

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use crate::config::{Region, TargetName};
use crate::credentials::{Authentication, Credentials, Kind, Secret};
use crate::error::Error;

/// What a version of a secret holds.
pub enum VersionValue {
    /// The version has no value yet, or a placeholder.
    Empty,
    /// A value that this function didn't write. It may be another application's secret.
    Foreign,
    Credentials(Credentials),
}

/// The initial value of a secret that `template.yaml` creates.
const PLACEHOLDER: &str = r#"{"placeholder":"bedrock-braintrust-rotator replaces this value"}"#;

/// Consumers rely on these names. Some fields are written only for them.
#[derive(Serialize, Deserialize)]
struct Json {
    kind: Kind,
    #[serde(skip_deserializing)]
    target: String,
    #[serde(skip_deserializing)]
    region: String,
    credential_id: String,
    minted_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    aws_access_key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    aws_secret_access_key: Option<SecretString>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    aws_session_token: Option<SecretString>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    api_key: Option<SecretString>,
}

pub fn write(credentials: &Credentials, target: &TargetName, region: &Region) -> Result<SecretString, Error> {
    let (access_key_id, secret_access_key, session_token, api_key) = match credentials.authentication() {
        Authentication::AccessKey { access_key_id, secret_access_key, session_token } => {
            (Some(access_key_id), Some(secret_access_key), session_token, None)
        }
        Authentication::ApiKey(key) => (None, None, None, Some(key)),
    };
    let json = serde_json::to_string(&Json {
        kind: credentials.kind(),
        target: target.to_string(),
        region: region.to_string(),
        credential_id: credentials.id.clone(),
        minted_at: to_the_second(credentials.created_at),
        expires_at: credentials.expires_at.map(to_the_second),
        aws_access_key_id: access_key_id.map(str::to_owned),
        aws_secret_access_key: secret_access_key.cloned(),
        aws_session_token: session_token.cloned(),
        api_key: api_key.cloned(),
    });
    let problem = "the credentials can't be written as JSON";
    json.map(SecretString::from).map_err(|_| Error::configuration("secret_id", problem, "Report this as a bug"))
}

// Security: exposed into the JSON, which becomes a secret itself. The allocator zeroizes its buffers.
fn expose<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(ExposeSecret::expose_secret).serialize(serializer)
}

/// Times in whole seconds always have the same length, for consumers that parse them.
fn to_the_second(time: Timestamp) -> Timestamp {
    time - SignedDuration::from_nanos(time.subsec_nanosecond().into())
}

pub fn parse(text: &SecretString) -> VersionValue {
    // Security: compared in memory.
    if ["", "{}", PLACEHOLDER].contains(&text.expose_secret().trim()) {
        return VersionValue::Empty;
    }
    // Security: exposed to the parser, whose error can quote the text and is dropped.
    let json = serde_json::from_str::<Json>(text.expose_secret()).ok();
    json.and_then(credentials).map_or(VersionValue::Foreign, VersionValue::Credentials)
}

/// `None` if the value doesn't have exactly the secret parts of its kind, or if its ID can't be one of AWS.
fn credentials(json: Json) -> Option<Credentials> {
    if !is_credential_id(&json.credential_id) {
        return None;
    }
    let session_token = json.aws_session_token.filter(|token| !token.expose_secret().is_empty());
    let secret = match (json.kind, json.aws_secret_access_key, session_token, json.api_key) {
        (Kind::Temporary, Some(secret_access_key), Some(session_token), None) => {
            Secret::Temporary { secret_access_key, session_token }
        }
        (Kind::ShortTermApiKey, None, None, Some(key)) => Secret::ShortTermApiKey(key),
        (Kind::AccessKey, Some(secret_access_key), None, None) => Secret::AccessKey { secret_access_key },
        (Kind::LongTermApiKey, None, None, Some(key)) => Secret::LongTermApiKey(key),
        (Kind::Temporary | Kind::ShortTermApiKey | Kind::AccessKey | Kind::LongTermApiKey, ..) => return None,
    };
    Some(Credentials { id: json.credential_id, created_at: json.minted_at, expires_at: json.expires_at, secret })
}

/// Whether IAM could have issued this ID.
///
/// Security: the ID becomes part of commands that somebody copies, and whoever may write the secret chooses it.
fn is_credential_id(id: &str) -> bool {
    matches!(id.len(), 1..=128) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn write_as_json(credentials: &Credentials) -> (SecretString, Value) {
        let (target, region) = ("prod".to_owned().try_into().unwrap(), "us-east-1".to_owned().try_into().unwrap());
        let text = write(credentials, &target, &region).unwrap();
        let json = serde_json::from_str(text.expose_secret()).unwrap();
        (text, json)
    }

    #[test]
    fn credentials_of_every_kind_read_back_as_they_were_written() {
        let key = || SecretString::from("key");
        let pair = json!({"aws_access_key_id": "ID", "aws_secret_access_key": "key"});
        let mut temporary = pair.clone();
        temporary["aws_session_token"] = json!("token");
        for (secret, parts) in [
            (Secret::Temporary { secret_access_key: key(), session_token: "token".into() }, temporary),
            (Secret::ShortTermApiKey(key()), json!({"api_key": "key"})),
            (Secret::AccessKey { secret_access_key: key() }, pair),
            (Secret::LongTermApiKey(key()), json!({"api_key": "key"})),
        ] {
            let created_at = "2026-01-15T12:00:00.5Z".parse().unwrap();
            let credentials = Credentials { id: "ID".to_owned(), created_at, expires_at: None, secret };
            let (text, json) = write_as_json(&credentials);
            let mut expected = json!({
                "kind": credentials.kind(),
                "target": "prod",
                "region": "us-east-1",
                "credential_id": "ID",
                "minted_at": "2026-01-15T12:00:00Z",
            });
            expected.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
            assert_eq!(json, expected);
            let VersionValue::Credentials(read) = parse(&text) else { panic!("{expected} is foreign") };
            assert_eq!(write_as_json(&read).1, expected);
        }
    }

    #[test]
    fn only_an_empty_text_an_empty_object_and_the_templates_placeholder_are_empty() {
        for text in ["", "{}", " {}\n", PLACEHOLDER] {
            assert!(matches!(parse(&SecretString::from(text)), VersionValue::Empty), "{text}");
        }
        for text in ["change me", "null", "[]", r#"{"placeholder":"x"}"#, r#"{"username":"x","password":"y"}"#] {
            assert!(matches!(parse(&SecretString::from(text)), VersionValue::Foreign), "{text}");
        }
    }

    #[test]
    fn a_kind_and_secret_parts_that_disagree_are_foreign() {
        for (kind, parts) in [
            ("temporary", json!({"aws_secret_access_key": "key"})),
            ("temporary", json!({"api_key": "key"})),
            ("short_term_api_key", json!({"aws_secret_access_key": "key", "aws_session_token": "token"})),
            ("access_key", json!({"aws_secret_access_key": "key", "aws_session_token": "token"})),
            ("access_key", json!({"aws_secret_access_key": "key", "api_key": "key"})),
            ("long_term_api_key", json!({})),
            ("password", json!({"api_key": "key"})),
        ] {
            let mut value = json!({"kind": kind, "credential_id": "ID", "minted_at": "2026-01-15T12:00:00Z"});
            value.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
            assert!(matches!(parse(&SecretString::from(value.to_string())), VersionValue::Foreign), "{value}");
        }
    }

    #[test]
    fn a_credential_id_that_aws_would_not_issue_is_foreign() {
        let is_foreign = |id: &str| {
            let value = json!({"kind": "access_key", "credential_id": id, "minted_at": "2026-01-15T12:00:00Z",
                "aws_secret_access_key": "key"});
            matches!(parse(&SecretString::from(value.to_string())), VersionValue::Foreign)
        };
        let longest = "A".repeat(128);
        for id in ["AKIAIOSFODNN7EXAMPLE", "ACCA_1", &longest] {
            assert!(!is_foreign(id), "{id}");
        }
        let too_long = "A".repeat(129);
        for id in ["", "AKIA1; curl x|sh", "AKIA1\n", "$(id)", "--user-name", "ÄKIA", &too_long] {
            assert!(is_foreign(id), "{id:?}");
        }
    }

    #[test]
    fn an_empty_session_token_counts_as_absent() {
        let json = json!({"kind": "access_key", "credential_id": "ID", "minted_at": "2026-01-15T12:00:00Z",
            "aws_secret_access_key": "key", "aws_session_token": ""});
        assert!(matches!(parse(&SecretString::from(json.to_string())), VersionValue::Credentials(_)));
    }
}
