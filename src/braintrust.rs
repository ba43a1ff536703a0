//! Braintrust's `ai_secret`s: the REST client, and the two layouts that Bedrock credentials have inside one.

pub mod client;
pub mod layout;
pub mod pace;
pub mod service_token;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use uuid::Uuid;

/// An `ai_secret` as the API answers it, reduced to what a rotation needs. Unknown fields, nulls and missing optional
/// ones are normal.
#[derive(Clone, Debug, Deserialize)]
pub struct AiSecret {
    /// Its id.
    pub id: Uuid,
    /// The organization it belongs to.
    #[serde(default)]
    pub org_id: Option<Uuid>,
    /// Unique within the organization.
    pub name: String,
    /// The provider: `bedrock` is what may be written.
    #[serde(default, rename = "type")]
    pub provider: Option<String>,
    /// What is stored in clear beside the secret.
    #[serde(default, deserialize_with = "null_is_default")]
    pub metadata: Metadata,
    /// When the encrypted value itself last changed; older data planes lack it.
    #[serde(default)]
    pub secret_updated_at: Option<String>,
}

/// The metadata's fields that matter here.
///
/// Security: the documented layout keeps secrets in metadata. Of those only the presence is kept.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Metadata {
    /// `iam_credentials` when absent, `api_key` or `assume_role`.
    #[serde(default, deserialize_with = "auth_type")]
    pub auth_type: Option<String>,
    /// The access key id of the gateway layout.
    #[serde(default, deserialize_with = "text")]
    pub access_key: Option<String>,
    /// The Bedrock region.
    #[serde(default, deserialize_with = "text")]
    pub region: Option<String>,
    /// The access key id of the documented layout.
    #[serde(default, deserialize_with = "text")]
    pub aws_access_key_id: Option<String>,
    /// Whether the documented layout's secret access key is there.
    #[serde(default, deserialize_with = "is_set", rename = "aws_secret_access_key")]
    pub has_aws_secret_access_key: bool,
    /// Whether the documented layout's session token is there.
    #[serde(default, deserialize_with = "is_set", rename = "aws_session_token")]
    pub has_aws_session_token: bool,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Text, if that is what is there and it is not empty.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    })
}

/// Text; what is no text is not absent, but unknown.
fn auth_type<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::String(text) if !text.is_empty() => Some(text),
        Value::String(_) | Value::Null => None,
        _ => Some("no text".to_owned()),
    })
}

fn is_set<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(text(from)?.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_with_nulls_gaps_and_unknown_fields_is_read() {
        let minimal = json!({"id": Uuid::nil(), "name": "x"});
        let odd = json!({
            "id": Uuid::nil(), "name": "x", "org_id": null, "type": null, "metadata": null, "secret_updated_at": null,
            "future": {"a": []},
        });
        for answer in [minimal, odd] {
            let ai_secret: AiSecret = serde_json::from_value(answer).unwrap();
            assert!(ai_secret.provider.is_none() && ai_secret.metadata.access_key.is_none());
        }
    }

    #[test]
    fn metadata_of_the_wrong_type_counts_as_absent() {
        let odd = json!({"auth_type": "", "access_key": {"a": 1}, "region": "", "aws_secret_access_key": ""});
        let metadata: Metadata = serde_json::from_value(odd).unwrap();
        assert!(metadata.auth_type.is_none() && metadata.access_key.is_none() && metadata.region.is_none());
        assert!(!metadata.has_aws_secret_access_key);
    }

    #[test]
    fn a_secret_in_the_metadata_is_not_kept() {
        let documented =
            json!({"aws_secret_access_key": "hidden", "aws_session_token": "hidden", "session_token": "hidden"});
        let metadata: Metadata = serde_json::from_value(documented).unwrap();
        assert!(metadata.has_aws_secret_access_key && metadata.has_aws_session_token);
        assert!(!format!("{metadata:?}").contains("hidden"));
    }
}
