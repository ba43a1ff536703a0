//! Decides where Bedrock credentials go inside an `ai_secret`, and puts them there with one PATCH.

use std::collections::BTreeMap;

use bytes::Bytes;
use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;
use serde::Serialize;

use super::ai_secret::{AiSecret, Metadata};
use super::client::{Braintrust, Request};
use crate::aws::bedrock::Proven;
use crate::config::{LayoutChoice, Region};
use crate::credentials::{Authentication, Kind};
use crate::error::{Error, ErrorClass, Service, shortened};

pub const PATCH: &str = "PATCH /v1/ai_secret/{id}";
pub(super) const API_KEY: &str = "api_key";
pub(super) const IAM_CREDENTIALS: &str = "iam_credentials";

/// The two known ways to store AWS credentials in an `ai_secret`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// What the gateway reads: `secret`, `metadata.access_key`, `metadata.session_token`, `metadata.region`.
    Gateway,
    /// What Braintrust's help article shows: `metadata.aws_access_key_id` and its siblings.
    Documented,
}

/// # Errors
/// `conflict` if the `ai_secret` must not be written: it has another type, or an `auth_type` that is `assume_role` or
/// unknown.
pub fn choose(choice: LayoutChoice, kind: Kind, ai_secret: &AiSecret) -> Result<Layout, Error> {
    refuse_others(ai_secret)?;
    let metadata = &ai_secret.metadata;
    let has_documented_keys =
        metadata.aws_access_key_id.is_some() || metadata.has_aws_secret_access_key || metadata.has_aws_session_token;
    Ok(match choice {
        _ if kind.is_api_key() => Layout::Gateway,
        LayoutChoice::Auto if has_documented_keys && !has_gateway_keys(metadata) => Layout::Documented,
        LayoutChoice::Gateway | LayoutChoice::Auto => Layout::Gateway,
        LayoutChoice::Documented => Layout::Documented,
    })
}

fn refuse_others(ai_secret: &AiSecret) -> Result<(), Error> {
    let (problem, remedy) = match (ai_secret.is_bedrock(), ai_secret.metadata.auth_type.as_deref()) {
        (true, None | Some(IAM_CREDENTIALS | API_KEY)) => return Ok(()),
        (true, Some("assume_role")) => (
            "has auth_type \"assume_role\"".to_owned(),
            "Braintrust assumes the role itself, so this ai_secret needs no rotation: remove it from the targets, or \
             create another one for this function",
        ),
        (true, Some(other)) => (
            format!("has auth_type {:?}", shortened(other)),
            "This function knows \"iam_credentials\" and \"api_key\": name another ai_secret, or change this one in \
             Braintrust",
        ),
        (false, _) => {
            let (name, found) = (&ai_secret.name, ai_secret.provider.as_deref().unwrap_or("none"));
            let problem = format!("({:?}) has type {:?}, not \"bedrock\"", shortened(name), shortened(found));
            (problem, "Name an ai_secret of type bedrock in the target's ai_secrets")
        }
    };
    let problem = format!("the ai_secret {} {problem}; it was not touched", ai_secret.id);
    Err(Error::new(ErrorClass::Conflict, Service::Braintrust, PATCH, problem, remedy))
}

fn has_gateway_keys(metadata: &Metadata) -> bool {
    metadata.access_key.is_some() || metadata.auth_type.is_some()
}

/// What the operator should know about an `ai_secret` that is written in this layout.
pub fn warning(layout: Layout, ai_secret: &AiSecret) -> Option<String> {
    let (id, metadata) = (ai_secret.id, &ai_secret.metadata);
    let and = if has_gateway_keys(metadata) { ". The gateway keeps reading the other layout's fields" } else { "" };
    match layout {
        Layout::Gateway => metadata.has_aws_secret_access_key.then(|| {
            format!(
                "the ai_secret {id} still has metadata.aws_secret_access_key, which everybody who may list ai_secrets \
                 can read and PATCH can't remove. Retire that key, and replace the ai_secret with a new one"
            )
        }),
        Layout::Documented => Some(format!(
            "the ai_secret {id} has the documented layout, in which everybody who may list ai_secrets can read the \
             secret access key{and}. A new ai_secret that is created in Braintrust's UI has the gateway layout"
        )),
    }
}

impl Braintrust<'_> {
    /// Writes proven credentials over an `ai_secret`, and returns the result. The call may be retried, because sending
    /// the same body again changes nothing. `check` runs in each attempt, after the wait for the permit, which may be
    /// long.
    pub async fn patch(
        &self,
        before: &AiSecret,
        layout: Layout,
        proven: Proven<'_>,
        region: &Region,
        check: impl AsyncFn() -> Result<(), Error>,
    ) -> Result<AiSecret, Error> {
        let body = patch_body(layout, proven, region, &before.metadata)?;
        let request = Request { body: Some(body), ..self.request(PATCH, Some(before.id)) };
        let attempt = async || {
            check().await?;
            self.exchange(&request).await
        };
        self.deadline.retry(Service::Braintrust, PATCH, || self.with_permit(PATCH, attempt())).await
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    metadata: BTreeMap<&'static str, &'a str>,
}

/// The body that writes `proven` over an `ai_secret` with the metadata `current`.
///
/// All parts go into one request, because between two requests they would not match. No other field is added, because
/// some gateways parse the metadata strictly. Credentials without a session token send an empty one, because leaving it
/// out would keep a stale token.
pub fn patch_body(layout: Layout, proven: Proven<'_>, region: &Region, current: &Metadata) -> Result<Bytes, Error> {
    // Security: the parts are exposed into the request's body, which is zeroized after the request.
    let (secret, mut metadata) = match (proven.credentials().authentication(), layout) {
        (Authentication::ApiKey(key), _) => (Some(key.expose_secret()), BTreeMap::from([("auth_type", API_KEY)])),
        (Authentication::AccessKey { access_key_id: id, secret_access_key, session_token }, Layout::Gateway) => {
            let token = session_token.map_or("", ExposeSecret::expose_secret);
            let parts = [("auth_type", IAM_CREDENTIALS), ("access_key", id), ("session_token", token)];
            (Some(secret_access_key.expose_secret()), parts.into())
        }
        (Authentication::AccessKey { access_key_id: id, secret_access_key, session_token }, Layout::Documented) => {
            let token = session_token.map_or("", ExposeSecret::expose_secret);
            let secret = secret_access_key.expose_secret();
            let parts = [("aws_access_key_id", id), ("aws_secret_access_key", secret), ("aws_session_token", token)];
            (None, parts.into())
        }
    };
    if layout == Layout::Gateway && current.region.as_deref() != Some(region.as_str()) {
        metadata.insert("region", region.as_str());
    }
    // Room for the longest parts: STS's session tokens have a kilobyte. Growing the buffer would leave a copy behind.
    let mut json = Zeroizing::new(Vec::with_capacity(8 << 10));
    serde_json::to_writer(&mut *json, &Body { secret, metadata })
        .map_err(|_| Error::configuration("ai_secret", "it can't be written as JSON", "Report this as a bug"))?;
    Ok(Bytes::from_owner(json))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::super::test_server::{Answer, Received, TestServer};
    use super::*;
    use crate::config::for_test::region;
    use crate::credentials::{Credentials, Secret};
    use crate::deadline::Deadline;

    fn ai_secret(metadata: &Value) -> AiSecret {
        AiSecret::for_test(metadata.clone(), None)
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
            let chosen = choose(LayoutChoice::Auto, Kind::Temporary, &ai_secret(&metadata)).unwrap();
            assert_eq!(chosen, layout, "{metadata}");
        }
    }

    #[test]
    fn an_explicit_layout_wins_over_the_metadata() {
        let documented = ai_secret(&json!({"aws_access_key_id": "AKIA"}));
        assert_eq!(choose(LayoutChoice::Gateway, Kind::Temporary, &documented).unwrap(), Layout::Gateway);
        let gateway = ai_secret(&json!({"access_key": "AKIA"}));
        assert_eq!(choose(LayoutChoice::Documented, Kind::Temporary, &gateway).unwrap(), Layout::Documented);
    }

    #[test]
    fn an_api_key_goes_into_the_gateway_layout() {
        let documented = ai_secret(&json!({"aws_access_key_id": "AKIA"}));
        for kind in [Kind::ShortTermApiKey, Kind::LongTermApiKey] {
            assert_eq!(choose(LayoutChoice::Auto, kind, &documented).unwrap(), Layout::Gateway);
        }
    }

    #[test]
    fn another_type_and_assume_role_are_refused_in_every_layout() {
        for choice in [LayoutChoice::Auto, LayoutChoice::Gateway, LayoutChoice::Documented] {
            let refused = |ai_secret: &AiSecret| choose(choice, Kind::Temporary, ai_secret).unwrap_err();
            for provider in [None, Some("openai".to_owned())] {
                let other = AiSecret { provider, ..ai_secret(&json!({})) };
                assert_eq!(refused(&other).class, ErrorClass::Conflict);
            }
            for auth_type in [json!("web_identity"), json!(5), json!({})] {
                let error = refused(&ai_secret(&json!({"auth_type": auth_type}))).to_string();
                assert!(error.contains("was not touched"), "{auth_type}");
            }
            let error = refused(&ai_secret(&json!({"auth_type": "assume_role"}))).to_string();
            assert!(error.contains("needs no rotation"), "{error}");
        }
    }

    fn new_credentials(secret: Secret) -> Credentials {
        let created_at = "2026-01-01T00:00:00Z".parse().unwrap();
        Credentials { id: "ASIANEW".to_owned(), created_at, expires_at: None, secret }
    }

    fn body(layout: Layout, secret: Secret, metadata: &Value) -> Value {
        let (credentials, current) = (new_credentials(secret), ai_secret(metadata).metadata);
        let body = patch_body(layout, Proven::assume(&credentials), &region("us-east-1"), &current).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn the_body_has_all_parts_and_no_other_field() {
        let temporary = || Secret::Temporary { secret_access_key: "key".into(), session_token: "token".into() };
        let same_region = &json!({"region": "us-east-1"});
        let parts = json!({"auth_type": "iam_credentials", "access_key": "ASIANEW", "session_token": "token"});
        let expected = json!({"secret": "key", "metadata": parts});
        assert_eq!(body(Layout::Gateway, temporary(), same_region), expected);
        let parts = json!({
            "aws_access_key_id": "ASIANEW", "aws_secret_access_key": "key", "aws_session_token": "token",
        });
        assert_eq!(body(Layout::Documented, temporary(), &json!({})), json!({"metadata": parts}));
        let expected = json!({"secret": "key", "metadata": {"auth_type": "api_key"}});
        for key in [Secret::ShortTermApiKey("key".into()), Secret::LongTermApiKey("key".into())] {
            assert_eq!(body(Layout::Gateway, key, same_region), expected);
        }
    }

    #[test]
    fn a_region_is_written_where_it_differs() {
        for metadata in [json!({}), json!({"region": ""}), json!({"region": "eu-west-1"})] {
            let key = body(Layout::Gateway, Secret::LongTermApiKey("key".into()), &metadata);
            let pair = body(Layout::Gateway, Secret::AccessKey { secret_access_key: "key".into() }, &metadata);
            assert_eq!(
                (&key["metadata"]["region"], &pair["metadata"]["region"]),
                (&json!("us-east-1"), &json!("us-east-1"))
            );
        }
    }

    #[test]
    fn an_access_key_sends_an_empty_session_token_over_a_stale_one() {
        for (layout, field) in [(Layout::Gateway, "session_token"), (Layout::Documented, "aws_session_token")] {
            let body = body(layout, Secret::AccessKey { secret_access_key: "key".into() }, &json!({}));
            assert_eq!(body["metadata"][field], "");
        }
    }

    #[test]
    fn secrets_that_everybody_may_read_are_warned_of() {
        let stale = ai_secret(&json!({"access_key": "AKIA", "aws_secret_access_key": "hidden"}));
        let gateway = warning(Layout::Gateway, &stale).unwrap();
        assert!(gateway.contains("metadata.aws_secret_access_key") && !gateway.contains("hidden"));
        assert!(warning(Layout::Gateway, &ai_secret(&json!({"aws_secret_access_key": ""}))).is_none());
        assert!(warning(Layout::Documented, &stale).unwrap().contains("The gateway keeps reading"));
    }

    fn stored() -> Answer {
        Answer::json(&json!({"id": Uuid::nil(), "name": "x"}))
    }

    async fn patch(api: Braintrust<'_>, check: impl AsyncFn() -> Result<(), Error>) -> Result<AiSecret, Error> {
        let credentials = new_credentials(Secret::LongTermApiKey("key".into()));
        let (before, proven) = (ai_secret(&json!({"region": "us-east-1"})), Proven::assume(&credentials));
        api.patch(&before, Layout::Gateway, proven, &region("us-east-1"), check).await
    }

    fn methods(received: &[Received]) -> Vec<&str> {
        received.iter().map(|request| request.method.as_str()).collect()
    }

    #[tokio::test]
    async fn a_patch_whose_response_is_lost_is_sent_again_as_it_was_after_another_check() {
        let server = TestServer::start_with([Answer::HangUp, stored()]);
        let checks = Cell::new(0);
        let check = async || {
            checks.set(checks.get() + 1);
            Ok(())
        };
        patch(server.api(), check).await.unwrap();
        let (received, body) = (server.received(), json!({"secret": "key", "metadata": {"auth_type": "api_key"}}));
        assert_eq!((methods(&received), checks.get()), (vec!["PATCH"; 2], 2));
        assert!(received.iter().all(|request| request.json() == body));
        assert!(received.iter().all(|request| request.target == format!("/v1/ai_secret/{}", Uuid::nil())));
    }

    #[tokio::test]
    async fn a_patch_is_not_sent_when_the_check_fails() {
        let server = TestServer::start(|_| stored());
        let check = async || Err(Error::new(ErrorClass::Conflict, Service::Braintrust, PATCH, "changed", ""));
        let error = patch(server.api(), check).await.unwrap_err();
        assert_eq!((error.class, server.received().len()), (ErrorClass::Conflict, 0));
    }

    #[tokio::test]
    async fn a_refused_patch_is_not_retried() {
        for (status, class) in [(400, ErrorClass::Configuration), (403, ErrorClass::Permission)] {
            let server = TestServer::start(move |_| Answer::status(status));
            let error = patch(server.api(), async || Ok(())).await.unwrap_err();
            assert_eq!((error.class, server.received().len()), (class, 1));
        }
    }

    #[tokio::test]
    async fn a_check_reads_without_a_permit_of_its_own() {
        let server = TestServer::start(|_| stored());
        let api = || Braintrust { deadline: Deadline::after(Duration::from_secs(3)), ..server.api() };
        let check = async || {
            // From now on no call gets a permit before the deadline.
            server.rate_limit.throttled(tokio::time::Instant::now(), Some(Duration::from_secs(5)));
            api().get_under_permit(Uuid::nil()).await.map(drop)
        };
        patch(api(), check).await.unwrap();
        assert_eq!(methods(&server.received()), ["GET", "PATCH"]);
    }
}
