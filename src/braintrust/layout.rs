//! Where Bedrock credentials go inside an `ai_secret`, and whether they arrived; pure, and it must never touch an `ai_secret` that is not Bedrock's.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;
use serde::Serialize;

use super::{AiSecret, Metadata};
use crate::config::LayoutChoice;
use crate::credentials::{Credentials, KindName, Secret};
use crate::error::{Cause, Error, Service, shortened};

const CALL: &str = "PATCH /v1/ai_secret/{id}";

/// Room, in bytes, for a secret access key, a session token of STS's usual one kilobyte and the names, without a
/// reallocation that would leave a copy behind.
const BODY: usize = 8_192;

const API_KEY: &str = "api_key";

/// Clocks differ: a change this long before the credentials were made still counts as theirs.
const LEEWAY: SignedDuration = SignedDuration::from_mins(5);

/// The two known ways to keep AWS credentials in an `ai_secret`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// What the gateway reads: `secret`, `metadata.access_key`, `metadata.session_token`, `metadata.region`.
    Gateway,
    /// What the help article shows: `metadata.aws_access_key_id` and its siblings.
    Documented,
}

/// Chooses the layout of an `ai_secret`.
///
/// # Errors
/// `conflict`, if it must not be touched: another type, or `auth_type` `assume_role`.
pub fn choose(choice: LayoutChoice, kind: KindName, ai_secret: &AiSecret) -> Result<Layout, Error> {
    let refuse =
        |problem: String, remedy: &str| Err(Error::new(Cause::Conflict, Service::Braintrust, CALL, problem, remedy));
    let (id, metadata) = (ai_secret.id, &ai_secret.metadata);
    match ai_secret.provider.as_deref() {
        Some("bedrock") => {}
        other => {
            let (name, found) = (shortened(&ai_secret.name), shortened(other.unwrap_or("none")));
            return refuse(
                format!("the ai_secret {id} ({name:?}) has type {found:?}, not \"bedrock\"; it was not touched"),
                "Name an ai_secret of type bedrock in the target's ai_secrets",
            );
        }
    }
    match metadata.auth_type.as_deref() {
        None | Some("iam_credentials" | "api_key") => {}
        Some("assume_role") => {
            return refuse(
                format!("the ai_secret {id} has auth_type \"assume_role\"; it was not touched"),
                "Braintrust assumes a role by itself there and needs no rotation: take it out of the targets, or make \
                 another ai_secret for this function",
            );
        }
        Some(other) => {
            return refuse(
                format!("the ai_secret {id} has auth_type {:?}; it was not touched", shortened(other)),
                "Known are \"iam_credentials\" and \"api_key\": name another ai_secret, or change this one in Braintrust",
            );
        }
    }
    let has_documented_keys =
        metadata.aws_access_key_id.is_some() || metadata.has_aws_secret_access_key || metadata.has_aws_session_token;
    Ok(match choice {
        _ if matches!(kind, KindName::ShortTermApiKey | KindName::LongTermApiKey) => Layout::Gateway,
        LayoutChoice::Gateway => Layout::Gateway,
        LayoutChoice::Documented => Layout::Documented,
        LayoutChoice::Auto if has_gateway_keys(metadata) || !has_documented_keys => Layout::Gateway,
        LayoutChoice::Auto => Layout::Documented,
    })
}

fn has_gateway_keys(metadata: &Metadata) -> bool {
    metadata.access_key.is_some() || metadata.auth_type.is_some()
}

/// What the operator should know about an `ai_secret` that is written in `layout`.
pub fn warnings(layout: Layout, ai_secret: &AiSecret) -> Vec<String> {
    let (id, metadata) = (ai_secret.id, &ai_secret.metadata);
    let mut warnings = Vec::new();
    if layout == Layout::Gateway && metadata.has_aws_secret_access_key {
        warnings.push(format!(
            "the ai_secret {id} still has metadata.aws_secret_access_key, which everybody who may list ai_secrets can \
             read and PATCH cannot remove: retire that key, and replace the ai_secret by a new one"
        ));
    }
    if layout == Layout::Documented {
        warnings.push(format!(
            "the ai_secret {id} has the documented layout, where everybody who may list ai_secrets can read the secret \
             access key{}: a new ai_secret made in Braintrust's UI has the gateway layout",
            if has_gateway_keys(metadata) { ", and the gateway goes on reading the other layout's fields" } else { "" }
        ));
    }
    warnings
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Gateway { secret: &'a str, metadata: GatewayMetadata<'a> },
    ApiKey { secret: &'a str, metadata: ApiKeyMetadata<'a> },
    Documented { metadata: DocumentedMetadata<'a> },
}

#[derive(Serialize)]
struct GatewayMetadata<'a> {
    auth_type: &'static str,
    access_key: &'a str,
    session_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
}

#[derive(Serialize)]
struct ApiKeyMetadata<'a> {
    auth_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
}

#[derive(Serialize)]
struct DocumentedMetadata<'a> {
    aws_access_key_id: &'a str,
    aws_secret_access_key: &'a str,
    aws_session_token: &'a str,
}

/// The body of the one PATCH that carries all parts, since a pair in two requests is mismatched for a moment. No other
/// key is added: gateways parse the metadata strictly. Without a session token an empty one is sent, since leaving it out
/// would keep a stale one. This buffer is zeroized once it is sent.
///
/// # Errors
/// `configuration`, if it cannot be serialized, which would be a bug.
pub fn patch(layout: Layout, credentials: &Credentials, region: &str, current: &Metadata) -> Result<Bytes, Error> {
    let region = (current.region.as_deref() != Some(region)).then_some(region);
    // Security: the parts are exposed into the request body only.
    let body = match (&credentials.secret, layout) {
        (Secret::ApiKey(key), _) => {
            Body::ApiKey { secret: key.expose_secret(), metadata: ApiKeyMetadata { auth_type: API_KEY, region } }
        }
        (Secret::AccessKey { secret_access_key, session_token }, layout) => {
            let secret = secret_access_key.expose_secret();
            let session_token = session_token.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
            let access_key = &credentials.id;
            match layout {
                Layout::Gateway => Body::Gateway {
                    secret,
                    metadata: GatewayMetadata { auth_type: "iam_credentials", access_key, session_token, region },
                },
                Layout::Documented => Body::Documented {
                    metadata: DocumentedMetadata {
                        aws_access_key_id: access_key,
                        aws_secret_access_key: secret,
                        aws_session_token: session_token,
                    },
                },
            }
        }
    };
    let mut json = Zeroizing::new(Vec::with_capacity(BODY));
    serde_json::to_writer(&mut *json, &body).map_err(|_| {
        Error::new(Cause::Configuration, Service::Braintrust, CALL, "the body cannot be made", "Report this as a bug")
    })?;
    Ok(Bytes::from_owner(json))
}

/// Whether `after` holds what was sent: the access key id (or the auth type) reads back, and where the data plane has
/// `secret_updated_at`, it moved since `before`, or is not before the credentials were made where `before` is not known.
pub fn arrived(
    layout: Layout,
    credentials: &Credentials,
    before: Option<&AiSecret>,
    after: &AiSecret,
) -> Result<(), &'static str> {
    if before.is_some_and(|before| before.id != after.id) {
        return Err("another ai_secret was answered");
    }
    if !reads_back(layout, credentials, after) {
        return Err("something else reads back than was sent");
    }
    // The documented layout does not touch the encrypted value.
    if layout == Layout::Gateway && !moved(layout, credentials, before, after) {
        return Err("secret_updated_at did not move, so the secret did not change");
    }
    Ok(())
}

/// The same where the PATCH's answer was lost. An API key does not read back, so that only a secret that changed shows it,
/// or an `auth_type`: one that was there before may be another key's. Older data planes show neither.
pub fn arrived_unseen(
    layout: Layout,
    credentials: &Credentials,
    before: &AiSecret,
    after: &AiSecret,
) -> Result<(), &'static str> {
    if matches!(credentials.secret, Secret::ApiKey(_))
        && before.secret_updated_at == after.secret_updated_at
        && reads_back(layout, credentials, before)
    {
        return Err("nothing shows that the secret changed");
    }
    arrived(layout, credentials, Some(before), after)
}

/// The access key id that an `ai_secret` shows; none where it holds an API key.
pub fn access_key_id(layout: Layout, metadata: &Metadata) -> Option<String> {
    match layout {
        _ if metadata.auth_type.as_deref() == Some(API_KEY) => None,
        Layout::Gateway => metadata.access_key.clone(),
        Layout::Documented => metadata.aws_access_key_id.clone(),
    }
}

/// Whether an `ai_secret` holds a standing credential, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holds {
    /// It holds another, or none.
    No,
    /// It holds an API key, which does not read back.
    Perhaps,
    /// It shows its id.
    Yes,
}

/// Whether `ai_secret` holds the credential `id` of a kind, made at some time, where `layout` is what is read of it. A
/// secret that is older than an API key is another one.
pub fn holds(layout: Layout, kind: KindName, id: &str, made_at: Option<Timestamp>, ai_secret: &AiSecret) -> Holds {
    let metadata = &ai_secret.metadata;
    match kind {
        KindName::Temporary | KindName::AccessKey if access_key_id(layout, metadata).as_deref() == Some(id) => {
            Holds::Yes
        }
        KindName::Temporary | KindName::AccessKey => Holds::No,
        KindName::ShortTermApiKey | KindName::LongTermApiKey => {
            let is_older = match (changed_at(ai_secret), made_at) {
                (Some(changed), Some(made)) => made.duration_since(changed) > LEEWAY,
                _ => false,
            };
            if metadata.auth_type.as_deref() == Some(API_KEY) && !is_older { Holds::Perhaps } else { Holds::No }
        }
    }
}

fn reads_back(layout: Layout, credentials: &Credentials, ai_secret: &AiSecret) -> bool {
    let metadata = &ai_secret.metadata;
    match (&credentials.secret, layout) {
        (Secret::ApiKey(_), _) => metadata.auth_type.as_deref() == Some(API_KEY),
        (_, Layout::Gateway) => metadata.access_key.as_ref() == Some(&credentials.id),
        (_, Layout::Documented) => metadata.aws_access_key_id.as_ref() == Some(&credentials.id),
    }
}

fn moved(layout: Layout, credentials: &Credentials, before: Option<&AiSecret>, after: &AiSecret) -> bool {
    // An API key does not read back by itself, so that clocks get no leeway.
    let leeway = if matches!(credentials.secret, Secret::ApiKey(_)) { SignedDuration::ZERO } else { LEEWAY };
    let is_since = |time: Timestamp, leeway: SignedDuration| time.duration_since(credentials.minted_at) >= -leeway;
    match (before, before.and_then(changed_at), changed_at(after)) {
        // A run that was cut off may have written the same value before, which then does not change.
        (Some(before), Some(was), Some(is)) => {
            is > was || (reads_back(layout, credentials, before) && is_since(is, leeway))
        }
        (Some(_), Some(_), None) => false,
        (None, _, Some(is)) => is_since(is, LEEWAY),
        // An older data plane, or a first secret: there is nothing to compare.
        (Some(_), None, _) | (None, _, None) => true,
    }
}

/// When the secret itself last changed, where the data plane tells.
pub fn changed_at(ai_secret: &AiSecret) -> Option<Timestamp> {
    ai_secret.secret_updated_at.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    fn ai_secret(metadata: &Value) -> AiSecret {
        let json = json!({"id": Uuid::nil(), "name": "x", "type": "bedrock", "metadata": metadata});
        serde_json::from_value(json).unwrap()
    }

    fn at(metadata: Value, time: Option<&str>) -> AiSecret {
        AiSecret { secret_updated_at: time.map(str::to_owned), ..ai_secret(&metadata) }
    }

    fn made(kind: KindName, secret: Secret) -> Credentials {
        let minted_at = "2026-01-01T00:00:00Z".parse().unwrap();
        Credentials { kind, id: "ASIANEW".to_owned(), secret, minted_at, expires_at: None }
    }

    fn credentials() -> Credentials {
        made(
            KindName::Temporary,
            Secret::AccessKey {
                secret_access_key: SecretString::from("key"),
                session_token: Some(SecretString::from("token")),
            },
        )
    }

    #[test]
    fn a_time_at_the_worlds_end_aborts_nothing() {
        let after = at(json!({"access_key": "ASIANEW"}), Some("2026-01-01T00:00:00Z"));
        for minted_at in [Timestamp::MIN, Timestamp::MAX] {
            let credentials = Credentials { minted_at, ..credentials() };
            assert_eq!(arrived(Layout::Gateway, &credentials, None, &after).is_ok(), minted_at == Timestamp::MIN);
        }
    }

    #[test]
    fn auto_follows_the_metadata() {
        for (metadata, layout) in [
            (json!(null), Layout::Gateway),
            (json!({}), Layout::Gateway),
            (json!({"region": "us-east-1", "models": ["a"]}), Layout::Gateway),
            (json!({"access_key": "AKIA"}), Layout::Gateway),
            (json!({"auth_type": "api_key"}), Layout::Gateway),
            (json!({"aws_access_key_id": "AKIA", "access_key": "AKIA"}), Layout::Gateway),
            (json!({"aws_access_key_id": "AKIA"}), Layout::Documented),
            (json!({"aws_access_key_id": "AKIA", "region": "us-east-1"}), Layout::Documented),
            (json!({"aws_secret_access_key": "x"}), Layout::Documented),
            (json!({"aws_session_token": "x"}), Layout::Documented),
        ] {
            assert_eq!(
                choose(LayoutChoice::Auto, KindName::Temporary, &ai_secret(&metadata)).unwrap(),
                layout,
                "{metadata}"
            );
        }
    }

    #[test]
    fn an_access_key_id_is_shown_where_the_layout_has_it_and_none_beside_an_api_key() {
        let both = json!({"access_key": "AKIAGATEWAY", "aws_access_key_id": "AKIADOCUMENTED"});
        let id = |layout, metadata: &Value| access_key_id(layout, &ai_secret(metadata).metadata);
        assert_eq!(id(Layout::Gateway, &both).as_deref(), Some("AKIAGATEWAY"));
        assert_eq!(id(Layout::Documented, &both).as_deref(), Some("AKIADOCUMENTED"));
        assert_eq!(id(Layout::Gateway, &json!({"auth_type": "api_key", "access_key": "AKIALEFT"})), None);
    }

    #[test]
    fn an_explicit_layout_wins_over_the_metadata() {
        let documented = ai_secret(&json!({"aws_access_key_id": "AKIA"}));
        assert_eq!(choose(LayoutChoice::Gateway, KindName::Temporary, &documented).unwrap(), Layout::Gateway);
        let api_key = choose(LayoutChoice::Auto, KindName::ShortTermApiKey, &documented);
        assert_eq!(api_key.unwrap(), Layout::Gateway);
        let gateway = ai_secret(&json!({"access_key": "AKIA"}));
        assert_eq!(choose(LayoutChoice::Documented, KindName::Temporary, &gateway).unwrap(), Layout::Documented);
    }

    #[test]
    fn another_type_and_assume_role_are_refused_in_every_layout() {
        for choice in [LayoutChoice::Auto, LayoutChoice::Gateway, LayoutChoice::Documented] {
            for provider in [None, Some("openai".to_owned())] {
                let other = AiSecret { provider, ..ai_secret(&json!({})) };
                assert_eq!(choose(choice, KindName::Temporary, &other).unwrap_err().cause, Cause::Conflict);
            }
            for auth_type in [json!("web_identity"), json!(5), json!({})] {
                let unknown = ai_secret(&json!({"auth_type": auth_type}));
                assert!(
                    choose(choice, KindName::Temporary, &unknown).unwrap_err().to_string().contains("was not touched"),
                    "{auth_type}"
                );
            }
            let assume_role = ai_secret(&json!({"auth_type": "assume_role"}));
            assert!(
                choose(choice, KindName::Temporary, &assume_role)
                    .unwrap_err()
                    .to_string()
                    .contains("needs no rotation")
            );
        }
    }

    #[test]
    fn the_body_has_all_parts_and_no_other_key() {
        let body = |layout, metadata: &Value| -> Value {
            let body = patch(layout, &credentials(), "us-east-1", &ai_secret(metadata).metadata).unwrap();
            serde_json::from_slice(&body).unwrap()
        };
        let parts = json!({"auth_type": "iam_credentials", "access_key": "ASIANEW", "session_token": "token"});
        let same_region = body(Layout::Gateway, &json!({"region": "us-east-1"}));
        assert_eq!(same_region, json!({"secret": "key", "metadata": parts}));
        for metadata in [json!({}), json!({"region": "eu-west-1"})] {
            assert_eq!(body(Layout::Gateway, &metadata)["metadata"]["region"], "us-east-1");
        }
        let parts =
            json!({"aws_access_key_id": "ASIANEW", "aws_secret_access_key": "key", "aws_session_token": "token"});
        assert_eq!(body(Layout::Documented, &json!({})), json!({"metadata": parts}));
    }

    #[test]
    fn what_arrived_has_the_new_id_and_a_later_time() {
        let (early, late) = (Some("2026-01-01T00:00:00Z"), Some("2026-01-01T00:00:00.001Z"));
        let new = || json!({"access_key": "ASIANEW"});
        let old = || json!({"access_key": "ASIAOLD"});
        for (before, after, holds) in [
            (at(old(), early), at(new(), late), true),
            (at(old(), None), at(new(), late), true),
            (at(old(), None), at(new(), None), true),
            (at(old(), early), at(new(), early), false),
            (at(old(), early), at(new(), None), false),
            (at(old(), early), AiSecret { id: Uuid::max(), ..at(new(), late) }, false),
            (at(old(), late), at(new(), early), false),
            (at(old(), early), at(old(), late), false),
            (at(old(), early), at(json!({"aws_access_key_id": "ASIANEW"}), late), false),
        ] {
            assert_eq!(arrived(Layout::Gateway, &credentials(), Some(&before), &after).is_ok(), holds, "{after:?}");
        }
        let documented = at(json!({"aws_access_key_id": "ASIANEW"}), early);
        assert!(arrived(Layout::Documented, &credentials(), Some(&at(json!({}), early)), &documented).is_ok());
        let key = made(KindName::LongTermApiKey, Secret::ApiKey(SecretString::from("key")));
        for (after, holds) in [
            (at(json!({"auth_type": "api_key"}), early), true),
            (at(json!({"auth_type": "api_key"}), Some("2025-12-31T23:55:00Z")), true),
            (at(json!({"auth_type": "api_key"}), Some("2025-12-31T23:54:59Z")), false),
            (at(json!({"auth_type": "api_key"}), None), true),
            (at(json!({"auth_type": "iam_credentials"}), early), false),
            (at(json!({}), early), false),
        ] {
            assert_eq!(arrived(Layout::Gateway, &key, None, &after).is_ok(), holds, "{after:?}");
        }
    }

    #[test]
    fn a_lost_answer_proves_nothing_of_an_api_key_where_one_was_before() {
        let (early, late) = (Some("2026-01-01T00:00:00Z"), Some("2026-01-01T00:00:00.001Z"));
        let (key, other) = (|| json!({"auth_type": "api_key"}), || json!({"auth_type": "iam_credentials"}));
        let made = made(KindName::LongTermApiKey, Secret::ApiKey(SecretString::from("key")));
        for (before, after, holds) in [
            (at(key(), early), at(key(), early), false),
            (at(key(), early), at(key(), late), true),
            (at(key(), None), at(key(), late), true),
            (at(key(), None), at(key(), None), false),
            (at(other(), None), at(key(), None), true),
            (at(other(), early), at(key(), early), false),
        ] {
            assert_eq!(arrived_unseen(Layout::Gateway, &made, &before, &after).is_ok(), holds, "{before:?} {after:?}");
        }
        let (id, before) = (json!({"access_key": "ASIANEW"}), at(json!({"access_key": "ASIAOLD"}), None));
        assert!(arrived_unseen(Layout::Gateway, &credentials(), &before, &at(id, None)).is_ok());
    }

    #[test]
    fn secrets_that_everybody_may_read_are_warned_of() {
        let leftover = ai_secret(&json!({"access_key": "AKIA", "aws_secret_access_key": "hidden"}));
        let warning = warnings(Layout::Gateway, &leftover).pop().unwrap();
        assert!(warning.contains("metadata.aws_secret_access_key") && !warning.contains("hidden"));
        assert!(warnings(Layout::Gateway, &ai_secret(&json!({"aws_secret_access_key": ""}))).is_empty());
        assert!(warnings(Layout::Documented, &leftover).pop().unwrap().contains("the gateway goes on reading"));
    }
}
