//! An `ai_secret`, reduced to what a rotation needs, and the calls that find it.
//!
//! <https://www.braintrust.dev/docs/reference/api/AiSecrets>

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use uuid::Uuid;

use super::client::Braintrust;
use crate::config::Lookup;
use crate::error::{Error, ErrorClass, Service, shortened};

const LIST: &str = "GET /v1/ai_secret";
const GET: &str = "GET /v1/ai_secret/{id}";
pub(super) const API_KEY: &str = "api_key";
pub(super) const IAM_CREDENTIALS: &str = "iam_credentials";
const OF_TYPE: &str = "ai_secret_type";
const BEDROCK: &str = "bedrock";
/// How many candidates an error lists. Reading stops after one more.
const MAX_CANDIDATES: usize = 10;

/// The API may add fields, leave optional ones out, or set them to null.
#[derive(Clone, Debug, Deserialize)]
pub struct AiSecret {
    pub id: Uuid,
    pub org_id: Option<Uuid>,
    /// Unique within the organization.
    pub name: String,
    /// Only an `ai_secret` of type `bedrock` may be written.
    #[serde(rename = "type")]
    pub provider: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub metadata: Metadata,
    /// When the encrypted value last changed. Older data planes don't have this field.
    pub secret_updated_at: Option<String>,
}

impl AiSecret {
    pub fn is_bedrock(&self) -> bool {
        self.provider.as_deref() == Some(BEDROCK)
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
    /// The access key ID of the documented layout.
    #[serde(default, deserialize_with = "text")]
    pub aws_access_key_id: Option<String>,
    #[serde(default, deserialize_with = "is_set", rename = "aws_secret_access_key")]
    pub has_aws_secret_access_key: bool,
    #[serde(default, deserialize_with = "is_set", rename = "aws_session_token")]
    pub has_aws_session_token: bool,
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

/// Whether there is a value other than null or an empty string, even one of the wrong type.
fn is_set<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    let value = Value::deserialize(from)?;
    Ok(!value.is_null() && value != "")
}

impl Braintrust<'_> {
    /// Finds the one `ai_secret` that `lookup` names. For a name, the errors `not_found` and `conflict` list the
    /// candidates.
    pub async fn find(&self, lookup: &Lookup) -> Result<AiSecret, Error> {
        let (name, org_name) = match lookup {
            Lookup::Id(id) => return self.get(*id).await,
            Lookup::Name { name, org_name } => (name.as_str(), org_name.as_deref()),
        };
        // An older data plane may ignore the filter.
        let is_named = |ai_secret: &AiSecret| ai_secret.name == name;
        let found = match org_name {
            Some(_) => {
                let is_wanted = |ai_secret: &AiSecret| is_named(ai_secret) && ai_secret.is_bedrock();
                self.list(org_name, "ai_secret_name", name, &is_wanted, MAX_CANDIDATES + 1).await?
            }
            None => self.named_in_the_only_organization(lookup, is_named).await?,
        };
        let failed = |class, problem, remedy| Err(Error::new(class, Service::Braintrust, LIST, problem, remedy));
        if found.len() > 1 {
            let problem = format!("several ai_secrets are named {lookup}: {}", candidates(&found));
            let remedy = "Name the ai_secret by its ID (the parameter AiSecretId, or id in the target's ai_secrets)";
            return failed(ErrorClass::Conflict, problem, remedy);
        }
        if let Some(only) = found.into_iter().next() {
            return Ok(only);
        }
        // One of another type is returned, because `layout::choose` refuses it with a better error.
        let others = self.list(org_name, "ai_secret_name", name, &is_named, 1).await?;
        if let Some(other) = others.into_iter().next() {
            return Ok(other);
        }
        let others = self.list(org_name, OF_TYPE, BEDROCK, &AiSecret::is_bedrock, MAX_CANDIDATES + 1).await?;
        let problem = format!("no ai_secret is named {lookup}. Those of type bedrock: {}", candidates(&others));
        let remedy = "Name one of them (the parameter AiSecretName, or the target's ai_secrets), or create the \
                      ai_secret in Braintrust first";
        failed(ErrorClass::NotFound, problem, remedy)
    }

    /// A name is unique only within an organization. If the key sees several organizations and the right `ai_secret` is
    /// renamed, the only one with that name would be another organization's.
    async fn named_in_the_only_organization(
        &self,
        lookup: &Lookup,
        is_named: impl Fn(&AiSecret) -> bool,
    ) -> Result<Vec<AiSecret>, Error> {
        let all = self.list(None, OF_TYPE, BEDROCK, &AiSecret::is_bedrock, usize::MAX).await?;
        let organizations: BTreeSet<_> = all.iter().filter_map(|ai_secret| ai_secret.org_id).collect();
        let (named, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_named);
        if organizations.len() <= 1 {
            return Ok(named);
        }
        let candidates = candidates(if named.is_empty() { &others } else { &named });
        let problem = format!(
            "the API key sees ai_secrets of {} organizations, and {lookup} could be of any of them: {candidates}",
            organizations.len()
        );
        let remedy = "Name the organization, too (the parameter BraintrustOrgName, or org_name in the target's \
                      ai_secrets), or name the ai_secret by its ID (the parameter AiSecretId, or id)";
        Err(Error::new(ErrorClass::Conflict, Service::Braintrust, LIST, problem, remedy))
    }

    async fn list(
        &self,
        org_name: Option<&str>,
        filter: &str,
        value: &str,
        is_wanted: &dyn Fn(&AiSecret) -> bool,
        enough: usize,
    ) -> Result<Vec<AiSecret>, Error> {
        let mut request = self.request(LIST, None);
        let org_name = org_name.map(|org| ("org_name", org));
        request.url.query_pairs_mut().append_pair(filter, value).extend_pairs(org_name);
        self.pages(&request, |ai_secret: &AiSecret| ai_secret.id, is_wanted, enough).await
    }

    /// The error is `not_found` for an unknown ID, unless the data plane answers 403 for it.
    pub async fn get(&self, id: Uuid) -> Result<AiSecret, Error> {
        let mut answer = self.send(&self.request(GET, Some(id))).await;
        if let Err(Error { class: ErrorClass::NotFound, problem, .. }) = &mut answer {
            problem.push_str(&format!(" for the ID {id}"));
        }
        answer
    }

    /// Reads one `ai_secret` once, under the permit of the call that is under way.
    pub async fn get_under_permit(&self, id: Uuid) -> Result<AiSecret, Error> {
        self.exchange(&self.request(GET, Some(id))).await
    }
}

fn candidates(found: &[AiSecret]) -> String {
    if found.is_empty() {
        return "none".to_owned();
    }
    let candidate = |ai_secret: &AiSecret| {
        let org = ai_secret.org_id.map(|org| format!(" of organization {org}")).unwrap_or_default();
        format!("{} ({:?}{org})", ai_secret.id, shortened(&ai_secret.name))
    };
    let shown: Vec<_> = found.iter().take(MAX_CANDIDATES).map(candidate).collect();
    shown.join(", ") + if found.len() > MAX_CANDIDATES { ", …" } else { "" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test_server::{Answer, TestServer};
    use super::*;

    impl AiSecret {
        /// One of type `bedrock` with this metadata.
        pub fn for_test(metadata: Value, secret_updated_at: Option<&str>) -> Self {
            let json = serde_json::json!({
                "id": Uuid::nil(), "name": "x", "type": "bedrock",
                "metadata": metadata, "secret_updated_at": secret_updated_at,
            });
            serde_json::from_value(json).unwrap()
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
            let ai_secret: AiSecret = serde_json::from_value(answer).unwrap();
            assert!(!ai_secret.is_bedrock() && ai_secret.metadata.access_key.is_none());
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
    fn a_session_token_is_present_unless_it_is_null_or_empty() {
        for (token, is_there) in [(json!(null), false), (json!(""), false), (json!("x"), true), (json!({}), true)] {
            let found: Metadata = serde_json::from_value(json!({"session_token": token})).unwrap();
            assert_eq!(found.has_session_token, is_there, "{token}");
        }
        assert!(!Metadata::default().has_session_token);
    }

    #[test]
    fn a_secret_in_the_metadata_is_not_kept() {
        let documented =
            json!({"aws_secret_access_key": "hidden", "aws_session_token": "hidden", "session_token": "hidden"});
        let metadata: Metadata = serde_json::from_value(documented).unwrap();
        assert!(metadata.has_aws_secret_access_key && metadata.has_aws_session_token && metadata.has_session_token);
        assert!(!format!("{metadata:?}").contains("hidden"));
    }

    fn stored(id: u128, name: &str, provider: &str) -> Value {
        json!({"id": Uuid::from_u128(id), "org_id": Uuid::max(), "name": name, "type": provider})
    }

    /// A data plane that pages and, unless it is an old one, filters.
    fn data_plane(ai_secrets: Vec<Value>, filters: bool) -> TestServer {
        TestServer::start(move |received| {
            let is_in = |ai_secret: &Value, parameter: &str, field: &str| {
                received.query(parameter).is_none_or(|value| !filters || ai_secret[field] == value.as_str())
            };
            let cursor = received.query("starting_after");
            let objects: Vec<_> = ai_secrets
                .iter()
                .skip_while(|it| cursor.as_deref().is_some_and(|last| it["id"] != last))
                .skip(usize::from(cursor.is_some()))
                .filter(|it| is_in(it, "ai_secret_name", "name") && is_in(it, "ai_secret_type", "type"))
                .take(2)
                .collect();
            Answer::json(&json!({"objects": objects}))
        })
    }

    fn by_name(name: &str) -> Lookup {
        Lookup::Name { name: name.to_owned(), org_name: None }
    }

    #[tokio::test]
    async fn the_one_of_type_bedrock_is_found_by_its_name_whether_the_data_plane_filters_or_not() {
        for filters in [true, false] {
            let others = [stored(1, "a", "bedrock"), stored(2, "c", "bedrock"), stored(3, "b", "openai")];
            let server = data_plane(others.into_iter().chain([stored(4, "b", "bedrock")]).collect(), filters);
            assert_eq!(server.api().find(&by_name("b")).await.unwrap().id, Uuid::from_u128(4), "{filters}");
        }
    }

    #[tokio::test]
    async fn the_organization_is_asked_for() {
        let server = data_plane(vec![stored(1, "a", "bedrock")], true);
        let lookup = Lookup::Name { name: "a".to_owned(), org_name: Some("Acme & Co".to_owned()) };
        server.api().find(&lookup).await.unwrap();
        assert!(server.received().iter().all(|page| page.query("org_name").as_deref() == Some("Acme & Co")));
    }

    #[tokio::test]
    async fn a_name_without_an_organization_is_refused_while_the_key_sees_several() {
        let of = |id: u128, name: &str, org: u128| {
            let mut ai_secret = stored(id, name, "bedrock");
            ai_secret["org_id"] = json!(Uuid::from_u128(org));
            ai_secret
        };
        for (case, ai_secrets) in [
            ("the right one was renamed", vec![of(1, "renamed", 8), of(2, "b", 9)]),
            ("each has one", vec![of(1, "b", 8), of(2, "b", 9)]),
            ("none is named so", vec![of(1, "a", 8), of(2, "c", 9)]),
            ("the other one is on a later page", vec![of(1, "b", 8), of(2, "c", 8), of(3, "d", 8), of(4, "e", 9)]),
        ] {
            for filters in [true, false] {
                let error = data_plane(ai_secrets.clone(), filters).api().find(&by_name("b")).await.unwrap_err();
                assert_eq!(error.class, ErrorClass::Conflict, "{case}");
                assert!(error.problem.contains("of 2 organizations") && error.remedy.contains("org_name"), "{error}");
                assert!(error.problem.contains("00000000-0000-0000-0000-00000000000"), "{error}");
            }
        }
        let mut elsewhere = stored(3, "b", "openai");
        elsewhere["org_id"] = json!(Uuid::nil());
        let of_another_type = data_plane(vec![of(1, "b", 8), elsewhere], true);
        assert_eq!(of_another_type.api().find(&by_name("b")).await.unwrap().id, Uuid::from_u128(1));
        assert_eq!(of_another_type.received().len(), 2, "one page and the end");
    }

    #[tokio::test]
    async fn several_of_one_name_are_a_conflict_that_lists_at_most_ten() {
        for (count, ends_with) in [(2, Uuid::max().to_string()), (12, "…".to_owned())] {
            let server = data_plane((1..=count).map(|id| stored(id, "b", "bedrock")).collect(), true);
            let error = server.api().find(&by_name("b")).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::Conflict);
            assert!(error.problem.trim_end_matches(')').ends_with(&ends_with), "{error}");
            assert_eq!(error.problem.matches("\"b\" of organization").count() as u128, count.min(10), "{error}");
        }
    }

    #[tokio::test]
    async fn one_of_another_type_is_returned_for_the_layout_to_refuse() {
        let server = data_plane(vec![stored(1, "a", "openai")], true);
        assert_eq!(server.api().find(&by_name("a")).await.unwrap().provider.as_deref(), Some("openai"));
    }

    #[tokio::test]
    async fn an_unknown_name_is_not_found_and_the_error_lists_those_of_type_bedrock() {
        for (ai_secrets, listed) in [
            (vec![stored(1, "a", "bedrock"), stored(2, "c", "openai")], "Those of type bedrock: 00000000-"),
            (vec![stored(2, "c", "openai")], "Those of type bedrock: none"),
        ] {
            let error = data_plane(ai_secrets, true).api().find(&by_name("b")).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::NotFound);
            assert!(error.problem.contains(listed) && !error.problem.contains("\"c\""), "{error}");
        }
    }

    #[tokio::test]
    async fn an_unknown_id_is_named_whether_it_is_answered_with_400_or_404() {
        for status in [400, 404] {
            let server = TestServer::start(move |_| Answer::status(status));
            let error = server.api().find(&Lookup::Id(Uuid::max())).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::NotFound);
            assert!(error.problem.ends_with(&format!("for the ID {}", Uuid::max())), "{error}");
            assert_eq!(server.received()[0].target, format!("/v1/ai_secret/{}", Uuid::max()));
        }
    }
}
