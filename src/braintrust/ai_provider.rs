//! An AI provider in Braintrust, reduced to what a rotation needs: an organization's `ai_secret`, or a project's own
//! provider, which the API calls an `env_var`.
//!
//! <https://www.braintrust.dev/docs/reference/api/AiSecrets>, <https://www.braintrust.dev/docs/reference/api/EnvVars>

use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use uuid::Uuid;

use super::api_base;
use super::client::{Braintrust, Request};
use crate::config::Lookup;
use crate::error::{Error, ErrorClass};

pub(super) const API_KEY: &str = "api_key";
pub(super) const IAM_CREDENTIALS: &str = "iam_credentials";
pub(super) const AI_PROVIDER: &str = "ai_provider";
pub(super) const BEDROCK: &str = "bedrock";
/// The `object_type` of a project's `env_var`.
pub(super) const PROJECT: &str = "project";

/// Where a provider is, and so which calls read and write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An `ai_secret`.
    Organization,
    /// An `env_var`. In its project, it takes precedence over the organization's `ai_secret` of the same type.
    Project,
}

impl Place {
    pub const fn list(self) -> &'static str {
        match self {
            Self::Organization => "GET /v1/ai_secret",
            Self::Project => "GET /v1/env_var",
        }
    }

    pub const fn get(self) -> &'static str {
        match self {
            Self::Organization => "GET /v1/ai_secret/{id}",
            Self::Project => "GET /v1/env_var/{id}",
        }
    }

    pub const fn patch(self) -> &'static str {
        match self {
            Self::Organization => "PATCH /v1/ai_secret/{id}",
            Self::Project => "PATCH /v1/env_var/{id}",
        }
    }

    pub fn of(lookup: &Lookup) -> Self {
        match lookup {
            Lookup::Id(_) | Lookup::Name { .. } => Self::Organization,
            Lookup::InProject { .. } => Self::Project,
        }
    }
}

#[derive(Clone, Debug)]
pub struct AiProvider {
    pub id: Uuid,
    pub place: Place,
    /// The organization or the project. `None` if Braintrust doesn't say, or if an `env_var` is not a project's.
    pub owner: Option<Uuid>,
    /// Unique within the organization or the project.
    pub name: String,
    /// An `env_var` may also be a plain environment variable. An `ai_secret` is always an `ai_provider`.
    pub category: Option<String>,
    /// Only a provider of type `bedrock` may be written.
    pub type_name: Option<String>,
    pub metadata: Metadata,
    /// When the encrypted value last changed. Older data planes don't have this field.
    pub secret_updated_at: Option<String>,
}

/// The fields of both an `ai_secret` and an `env_var`. The API may add fields, leave optional ones out, or set them to
/// null.
#[derive(Deserialize)]
pub(super) struct Record {
    id: Uuid,
    name: String,
    org_id: Option<Uuid>,
    #[serde(rename = "type")]
    type_name: Option<String>,
    object_type: Option<String>,
    object_id: Option<Uuid>,
    secret_category: Option<String>,
    secret_type: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    metadata: Metadata,
    secret_updated_at: Option<String>,
}

impl AiProvider {
    /// What the fields mean depends on the call that answered, and not on the answer.
    pub(super) fn of(place: Place, record: Record) -> Self {
        let Record { id, name, metadata, secret_updated_at, .. } = record;
        let (owner, category, type_name) = match place {
            Place::Organization => (record.org_id, Some(AI_PROVIDER.to_owned()), record.type_name),
            Place::Project => {
                let is_of_a_project = record.object_type.as_deref() == Some(PROJECT);
                (record.object_id.filter(|_| is_of_a_project), record.secret_category, record.secret_type)
            }
        };
        Self { id, place, owner, name, category, type_name, metadata, secret_updated_at }
    }

    /// Reads the answer to a call, for property tests.
    ///
    /// # Errors
    /// If it is not a provider.
    #[cfg(any(test, fuzzing))]
    pub fn from_json(place: Place, json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json).map(|record| Self::of(place, record))
    }

    pub fn is_ai_provider(&self) -> bool {
        self.category.as_deref() == Some(AI_PROVIDER)
    }

    pub fn is_bedrock(&self) -> bool {
        self.is_ai_provider() && self.type_name.as_deref() == Some(BEDROCK)
    }

    /// Whether Braintrust assumes a role itself to call Bedrock with this provider, which has all the fields that this
    /// takes.
    pub fn uses_assume_role(&self) -> bool {
        self.is_bedrock() && self.metadata.assumes_a_role()
    }
}

impl fmt::Display for AiProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.place, self.owner) {
            (Place::Organization, _) => write!(f, "ai_secret {}", self.id),
            (Place::Project, Some(project)) => write!(f, "provider {} of the project {project}", self.id),
            (Place::Project, None) => write!(f, "provider {} of no project", self.id),
        }
    }
}

/// The fields that Braintrust stores in clear text beside the encrypted value.
///
/// Security: both layouts have secrets here. Only whether they are present is kept.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Metadata {
    #[serde(default, deserialize_with = "auth_type")]
    pub auth_type: AuthType,
    /// The access key ID of the gateway layout.
    #[serde(default, deserialize_with = "text")]
    pub access_key: Option<String>,
    /// Whether the gateway layout has a session token.
    #[serde(default, deserialize_with = "is_set", rename = "session_token")]
    pub has_session_token: bool,
    #[serde(default, deserialize_with = "text")]
    pub region: Option<String>,
    /// Whether there is a role for Braintrust to assume.
    #[serde(default, deserialize_with = "is_text", rename = "role_arn")]
    pub has_role_arn: bool,
    /// The access key ID of the documented layout.
    #[serde(default, deserialize_with = "text")]
    pub aws_access_key_id: Option<String>,
    #[serde(default, deserialize_with = "is_set", rename = "aws_secret_access_key")]
    pub has_aws_secret_access_key: bool,
    #[serde(default, deserialize_with = "is_set", rename = "aws_session_token")]
    pub has_aws_session_token: bool,
    /// Where readers send their requests, with the credentials, if that is not Bedrock.
    #[serde(default, deserialize_with = "custom_api_base", rename = "api_base")]
    pub custom_api_base: Option<String>,
}

impl Metadata {
    pub fn assumes_a_role(&self) -> bool {
        self.auth_type == AuthType::AssumeRole && self.has_role_arn && self.region.is_some()
    }
}

/// The field `auth_type`. A PATCH can't remove a field, and gateways treat an empty one and an absent one differently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuthType {
    /// Gateways treat it as `iam_credentials`.
    #[default]
    Absent,
    /// Null or an empty string.
    Empty,
    IamCredentials,
    ApiKey,
    /// Braintrust assumes a role itself.
    AssumeRole,
    /// An `auth_type` that this function doesn't know.
    Other(String),
}

fn null_is_default<'de, D: Deserializer<'de>>(from: D) -> Result<Metadata, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A string that is not empty. Anything else counts as absent.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Value::deserialize(from)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned))
}

fn is_text<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    text(from).map(|text| text.is_some())
}

fn auth_type<'de, D: Deserializer<'de>>(from: D) -> Result<AuthType, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Null => AuthType::Empty,
        Value::String(text) => match text.as_str() {
            "" => AuthType::Empty,
            IAM_CREDENTIALS => AuthType::IamCredentials,
            API_KEY => AuthType::ApiKey,
            "assume_role" => AuthType::AssumeRole,
            _ => AuthType::Other(text),
        },
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            AuthType::Other("not a string".to_owned())
        }
    })
}

fn custom_api_base<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(text(from)?.as_deref().and_then(api_base::custom_origin))
}

/// Whether there is a value other than null or an empty string, even one of the wrong type.
fn is_set<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    let value = Value::deserialize(from)?;
    Ok(!value.is_null() && value != "")
}

impl Braintrust<'_> {
    /// Finds the one provider that `lookup` names. For a name, the errors `not_found` and `conflict` list the
    /// candidates.
    pub async fn find(&self, lookup: &Lookup) -> Result<AiProvider, Error> {
        match lookup {
            Lookup::Id(id) => self.get(Place::Organization, *id).await,
            Lookup::Name { name, org_name } => self.find_ai_secret(lookup, name, org_name.as_deref()).await,
            Lookup::InProject { project, provider } => self.find_in_project(lookup, project, provider).await,
        }
    }

    /// The error is `not_found` for an unknown ID, unless the data plane answers 403 for it.
    pub async fn get(&self, place: Place, id: Uuid) -> Result<AiProvider, Error> {
        let mut answer = self.send(&self.request(place.get(), Some(id))).await;
        if let Err(Error { class: ErrorClass::NotFound, problem, .. }) = &mut answer {
            problem.push_str(&format!(" for the ID {id}"));
        }
        answer.map(|record| AiProvider::of(place, record))
    }

    /// Reads one provider once, under the permit of the call that is under way.
    pub async fn get_under_permit(&self, place: Place, id: Uuid) -> Result<AiProvider, Error> {
        self.exchange_provider(place, &self.request(place.get(), Some(id))).await
    }

    /// Sends a request whose answer is one provider, without a permit or a retry.
    pub(super) async fn exchange_provider(&self, place: Place, request: &Request) -> Result<AiProvider, Error> {
        self.exchange(request).await.map(|record| AiProvider::of(place, record))
    }
}

/// How many candidates an error lists. Reading stops after one more.
pub(super) const MAX_CANDIDATES: usize = 10;

/// The candidates for an error, each in words.
pub(super) fn candidates<T>(found: &[T], in_words: impl Fn(&T) -> String) -> String {
    if found.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<_> = found.iter().take(MAX_CANDIDATES).map(in_words).collect();
    shown.join(", ") + if found.len() > MAX_CANDIDATES { ", …" } else { "" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    impl AiProvider {
        /// An `ai_secret` of type `bedrock` with this metadata.
        pub fn for_test(metadata: Value, secret_updated_at: Option<&str>) -> Self {
            let json = json!({
                "id": Uuid::nil(), "name": "x", "type": "bedrock",
                "metadata": metadata, "secret_updated_at": secret_updated_at,
            });
            Self::from_json(Place::Organization, json.to_string().as_bytes()).unwrap()
        }

        /// A project's provider of type `bedrock` with this metadata.
        pub fn of_a_project_for_test(metadata: Value) -> Self {
            let json = json!({
                "id": Uuid::nil(), "name": "x", "object_type": "project", "object_id": Uuid::max(),
                "secret_category": "ai_provider", "secret_type": "bedrock", "metadata": metadata,
            });
            Self::from_json(Place::Project, json.to_string().as_bytes()).unwrap()
        }
    }

    #[test]
    fn an_answer_with_nulls_gaps_and_unknown_fields_is_read() {
        let minimal = json!({"id": Uuid::nil(), "name": "x"});
        let odd = json!({
            "id": Uuid::nil(), "name": "x", "org_id": null, "type": null, "metadata": null, "secret_updated_at": null,
            "future": {"a": []},
        });
        for answer in [minimal, odd] {
            for place in [Place::Organization, Place::Project] {
                let provider = AiProvider::from_json(place, answer.to_string().as_bytes()).unwrap();
                assert!(!provider.is_bedrock() && provider.metadata.access_key.is_none());
                assert_eq!(provider.owner, None);
            }
        }
    }

    #[test]
    fn only_an_ai_provider_of_a_project_is_one_whatever_else_the_answer_says() {
        let env_var = |change: Value| {
            let mut json = json!({
                "id": Uuid::nil(), "name": "x", "object_type": "project", "object_id": Uuid::max(),
                "secret_category": "ai_provider", "secret_type": "bedrock",
            });
            json.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let provider = AiProvider::from_json(Place::Project, json.to_string().as_bytes()).unwrap();
            (provider.is_bedrock(), provider.owner.is_some())
        };
        for (change, expected) in [
            (json!({}), (true, true)),
            (json!({"secret_category": "env_var"}), (false, true)),
            (json!({"secret_category": null, "type": "bedrock"}), (false, true)),
            (json!({"secret_type": "openai", "type": "bedrock"}), (false, true)),
            (json!({"object_type": "organization"}), (true, false)),
            (json!({"object_type": "function"}), (true, false)),
        ] {
            assert_eq!(env_var(change.clone()), expected, "{change}");
        }
    }

    #[test]
    fn metadata_of_the_wrong_type_counts_as_absent() {
        let odd = json!({"access_key": {"a": 1}, "region": "", "aws_secret_access_key": ""});
        let metadata: Metadata = serde_json::from_value(odd).unwrap();
        assert!(metadata.access_key.is_none() && metadata.region.is_none());
        assert!(!metadata.has_aws_secret_access_key);
    }

    #[test]
    fn an_empty_auth_type_differs_from_an_absent_one_and_an_unknown_one_is_kept() {
        let other = |name: &str| AuthType::Other(name.to_owned());
        for (metadata, expected) in [
            (json!({}), AuthType::Absent),
            (json!({"auth_type": null}), AuthType::Empty),
            (json!({"auth_type": ""}), AuthType::Empty),
            (json!({"auth_type": "iam_credentials"}), AuthType::IamCredentials),
            (json!({"auth_type": "api_key"}), AuthType::ApiKey),
            (json!({"auth_type": "assume_role"}), AuthType::AssumeRole),
            (json!({"auth_type": "web_identity"}), other("web_identity")),
            (json!({"auth_type": 5}), other("not a string")),
        ] {
            let found: Metadata = serde_json::from_value(metadata.clone()).unwrap();
            assert_eq!(found.auth_type, expected, "{metadata}");
        }
    }

    #[test]
    fn braintrust_assumes_a_role_only_with_a_role_and_a_region() {
        let moved = json!({"auth_type": "assume_role", "role_arn": "arn:aws:iam::1:role/x", "region": "us-east-1"});
        assert!(AiProvider::for_test(moved.clone(), None).uses_assume_role());
        assert!(AiProvider::of_a_project_for_test(moved.clone()).uses_assume_role());
        for (field, value) in [
            ("auth_type", json!("iam_credentials")),
            ("role_arn", json!(null)),
            ("role_arn", json!("")),
            ("role_arn", json!({})),
            ("region", json!(null)),
            ("region", json!("")),
        ] {
            let mut metadata = moved.clone();
            metadata[field] = value.clone();
            assert!(!AiProvider::for_test(metadata, None).uses_assume_role(), "{field} {value}");
        }
    }

    #[test]
    fn a_session_token_is_present_unless_it_is_null_or_empty() {
        for (token, is_there) in [(json!(null), false), (json!(""), false), (json!("x"), true), (json!({}), true)] {
            let found: Metadata = serde_json::from_value(json!({"session_token": token})).unwrap();
            assert_eq!(found.has_session_token, is_there, "{token}");
        }
        assert!(!Metadata::default().has_session_token);
    }

    #[test]
    fn a_secret_in_the_metadata_is_not_kept() {
        let documented = json!({
            "aws_secret_access_key": "hidden", "aws_session_token": "hidden", "session_token": "hidden",
            "api_base": "https://hidden@proxy.example/hidden",
        });
        let metadata: Metadata = serde_json::from_value(documented).unwrap();
        assert!(metadata.has_aws_secret_access_key && metadata.has_aws_session_token && metadata.has_session_token);
        assert_eq!(metadata.custom_api_base.as_deref(), Some("https://proxy.example"));
        assert!(!format!("{metadata:?}").contains("hidden"));
    }
}
