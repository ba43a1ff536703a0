//! Decides where Bedrock credentials go inside a provider, and puts them there with one PATCH.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::ai_provider::{AI_PROVIDER, API_KEY, AiProvider, AuthType, IAM_CREDENTIALS, Metadata, Place};
use super::client::{Braintrust, Request};
use crate::aws::bedrock::Proven;
use crate::config::{LayoutChoice, Region};
use crate::credentials::{Authentication, Kind};
use crate::error::{Error, ErrorClass, Service, shortened};

/// The two known ways to store AWS credentials in a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// What gateways read: `secret`, `metadata.access_key`, `metadata.session_token`, `metadata.region`.
    Gateway,
    /// What Braintrust's help article shows: `metadata.aws_access_key_id` and its siblings.
    Documented,
    /// Both in one PATCH. If somebody followed the article, every reader gets the new credentials in this way.
    Both,
}

impl Layout {
    pub fn has_gateway_fields(self) -> bool {
        match self {
            Self::Gateway | Self::Both => true,
            Self::Documented => false,
        }
    }

    pub fn has_documented_fields(self) -> bool {
        match self {
            Self::Documented | Self::Both => true,
            Self::Gateway => false,
        }
    }
}

/// # Errors
/// `conflict` if the provider must not be written: it has another type, or an `auth_type` that is `assume_role` or
/// unknown, or the documented layout is configured although gateways would go on using the credentials in the other
/// one.
pub fn choose(choice: LayoutChoice, kind: Kind, provider: &AiProvider) -> Result<Layout, Error> {
    refuse_others(provider)?;
    match choice {
        _ if kind.is_api_key() => Ok(Layout::Gateway),
        LayoutChoice::Auto if needs_both(&provider.metadata) => Ok(Layout::Both),
        LayoutChoice::Gateway | LayoutChoice::Auto => Ok(Layout::Gateway),
        LayoutChoice::Documented if has_gateway_credentials(&provider.metadata) => Err(untouched(
            provider,
            "holds credentials in the gateway layout, which gateways would go on using".to_owned(),
            "Remove \"layout\": \"documented\" from the target, or name a provider without those credentials",
        )),
        LayoutChoice::Documented => Ok(Layout::Documented),
    }
}

const NAME_ANOTHER: &str = "Name a provider of type bedrock (the parameter AiSecretName or AiSecretId, or the target's \
                            ai_secrets)";

fn refuse_others(provider: &AiProvider) -> Result<(), Error> {
    let name = shortened(&provider.name);
    if !provider.is_ai_provider() {
        let found = provider.category.as_deref().unwrap_or("none");
        let problem = format!("({name:?}) has secret_category {:?}, not {AI_PROVIDER:?}", shortened(found));
        return Err(untouched(provider, problem, NAME_ANOTHER));
    }
    if !provider.is_bedrock() {
        let found = provider.type_name.as_deref().unwrap_or("none");
        let problem = format!("({name:?}) has type {:?}, not \"bedrock\"", shortened(found));
        return Err(untouched(provider, problem, NAME_ANOTHER));
    }
    match &provider.metadata.auth_type {
        AuthType::Absent | AuthType::Empty | AuthType::IamCredentials | AuthType::ApiKey => Ok(()),
        // With both, Braintrust assumes the role itself, and there is nothing to rotate.
        AuthType::AssumeRole => {
            let missing = if provider.metadata.has_role_arn { "region" } else { "role_arn" };
            Err(untouched(
                provider,
                format!("has auth_type \"assume_role\" and no {missing}, so no call with it can succeed"),
                "Add what is missing in Braintrust's settings, or move back to credentials: see docs/assume-role.md",
            ))
        }
        AuthType::Other(other) => Err(untouched(
            provider,
            format!("has auth_type {:?}", shortened(other)),
            "This function knows \"iam_credentials\" and \"api_key\": name another provider, or change this one in \
             Braintrust",
        )),
    }
}

fn untouched(provider: &AiProvider, problem: String, remedy: &str) -> Error {
    let problem = format!("the {provider} {problem}; it was not touched");
    Error::new(ErrorClass::Conflict, Service::Braintrust, provider.place.patch(), problem, remedy)
}

fn has_gateway_credentials(metadata: &Metadata) -> bool {
    metadata.access_key.is_some() || metadata.auth_type == AuthType::ApiKey
}

/// Whether only the documented layout is there, or both layouts hold the same credentials: in that case, an earlier run
/// wrote both, and the readers of the documented fields still need them. If the credentials differ, the documented ones
/// are stale.
fn needs_both(metadata: &Metadata) -> bool {
    let is_in_step = metadata.auth_type != AuthType::ApiKey && metadata.access_key == metadata.aws_access_key_id;
    !documented_fields(metadata).is_empty() && (is_in_step || !has_gateway_credentials(metadata))
}

fn documented_fields(metadata: &Metadata) -> Vec<&'static str> {
    let fields = [
        ("aws_access_key_id", metadata.aws_access_key_id.is_some()),
        ("aws_secret_access_key", metadata.has_aws_secret_access_key),
        ("aws_session_token", metadata.has_aws_session_token),
    ];
    fields.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect()
}

/// What the operator should know about a provider that is written in this layout.
pub fn warning(layout: Layout, provider: &AiProvider) -> Option<String> {
    const IRREMOVABLE: &str = "A PATCH can't remove these fields, everybody who may list providers can read them, and \
                               some versions of Braintrust's proxy refuse a provider that has them";
    let fields = documented_fields(&provider.metadata).join(", ");
    match layout {
        Layout::Gateway if fields.is_empty() => None,
        Layout::Gateway => Some(format!(
            "the {provider} still has the fields {fields} in its metadata, which are not rotated. {IRREMOVABLE}. \
             Retire those credentials, and replace the provider with a new one"
        )),
        Layout::Both => Some(format!(
            "the {provider} has the fields {fields} in its metadata, so both layouts are written. {IRREMOVABLE}. \
             Replace the provider with one that is created in Braintrust's UI"
        )),
        Layout::Documented => Some(format!(
            "the {provider} is written in the documented layout, which no known gateway reads, and in which \
             everybody who may list providers can read the secret access key. Remove \"layout\" from the target, or \
             name a provider that is created in Braintrust's UI"
        )),
    }
}

impl Braintrust<'_> {
    /// Writes proven credentials over a provider, and returns the result. The call may be retried, because sending
    /// the same body again changes nothing. `check` runs in each attempt, after the wait for the permit, which may be
    /// long. Its argument says whether an earlier attempt may have arrived, because the response to it was lost.
    pub async fn patch(
        &self,
        before: &AiProvider,
        layout: Layout,
        proven: Proven<'_>,
        region: &Region,
        check: impl AsyncFn(bool) -> Result<(), Error>,
    ) -> Result<AiProvider, Error> {
        let (body, call) = (patch_body(layout, proven, region, before)?, before.place.patch());
        let request = Request { body: Some(body), ..self.request(call, Some(before.id)) };
        let lost = RefCell::new(None);
        let attempt = async || {
            let earlier: Option<Error> = lost.borrow().clone();
            check(earlier.is_some()).await.map_err(|error| match earlier {
                // The lost response tells more than the reason why the PATCH was not sent again.
                Some(lost) if error.is_retryable() => lost,
                Some(lost) => lost.into_final(),
                None => error,
            })?;
            let answer = self.exchange_provider(before.place, &request).await;
            if let Err(error) = &answer
                && matches!(error.class, ErrorClass::Unavailable | ErrorClass::Timeout)
            {
                lost.replace(Some(error.clone()));
            }
            answer
        };
        self.deadline.retry(Service::Braintrust, call, || self.with_permit(call, attempt())).await
    }
}

#[derive(Serialize)]
struct Body<'a> {
    /// The PATCH of an `env_var` requires its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// The secret part of an `ai_secret`.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    /// The secret part of an `env_var`.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    metadata: BTreeMap<&'static str, &'a str>,
}

/// The body that writes `proven` over a provider.
///
/// All parts go into one request, because they would not match between two requests. A field that is not needed is left
/// out, because older gateways refuse the metadata if they don't know a field, `auth_type` included, and because some
/// sign an empty session token. An existing token has to be emptied, because Braintrust would otherwise keep it.
pub fn patch_body(layout: Layout, proven: Proven<'_>, region: &Region, before: &AiProvider) -> Result<Bytes, Error> {
    let (current, mut metadata) = (&before.metadata, BTreeMap::new());
    // Security: the parts are exposed into the request's body, which the allocator zeroizes after the request.
    let secret = match proven.credentials().authentication() {
        Authentication::ApiKey(key) => {
            metadata.insert("auth_type", API_KEY);
            Some(key.expose_secret())
        }
        Authentication::AccessKey { access_key_id: id, secret_access_key, session_token } => {
            let secret = secret_access_key.expose_secret();
            let token_over = |is_there: bool| session_token.map(ExposeSecret::expose_secret).or(is_there.then_some(""));
            if current.auth_type != AuthType::Absent {
                metadata.insert("auth_type", IAM_CREDENTIALS);
            }
            if layout.has_gateway_fields() {
                metadata.insert("access_key", id);
                metadata.extend(token_over(current.has_session_token).map(|token| ("session_token", token)));
            }
            if layout.has_documented_fields() {
                metadata.extend([("aws_access_key_id", id), ("aws_secret_access_key", secret)]);
                metadata.extend(token_over(current.has_aws_session_token).map(|token| ("aws_session_token", token)));
            }
            layout.has_gateway_fields().then_some(secret)
        }
    };
    if current.region.as_deref() != Some(region.as_str()) {
        metadata.insert("region", region.as_str());
    }
    let body = match before.place {
        Place::Organization => Body { name: None, secret, value: None, metadata },
        Place::Project => Body { name: Some(&before.name), secret: None, value: secret, metadata },
    };
    serde_json::to_vec(&body)
        .map(Bytes::from)
        .map_err(|_| Error::configuration("ai_secrets", "it can't be written as JSON", "Report this as a bug"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::super::test_server::{Answer, Received, TestServer};
    use super::*;
    use crate::config::for_test::region;
    use crate::credentials::{Credentials, Secret};
    use crate::deadline::Deadline;

    fn provider(metadata: &Value) -> AiProvider {
        AiProvider::for_test(metadata.clone(), None)
    }

    /// The known states of an `ai_secret`, and the layout in which `auto` writes an IAM pair over each.
    #[test]
    fn auto_writes_what_gateways_read_and_both_layouts_if_only_the_documented_one_is_there() {
        let stale = json!({"aws_access_key_id": "AKIASTALE", "access_key": "AKIA"});
        for (metadata, layout) in [
            (json!(null), Layout::Gateway),
            (json!({}), Layout::Gateway),
            (json!({"region": "us-east-1", "models": ["a"]}), Layout::Gateway),
            (json!({"access_key": "AKIA"}), Layout::Gateway),
            (json!({"auth_type": "api_key"}), Layout::Gateway),
            (json!({"auth_type": "api_key", "aws_access_key_id": "AKIA"}), Layout::Gateway),
            (json!({"auth_type": "api_key", "aws_access_key_id": "AKIA", "access_key": "AKIA"}), Layout::Gateway),
            (stale, Layout::Gateway),
            (json!({"access_key": "AKIA", "aws_secret_access_key": "x"}), Layout::Gateway),
            (json!({"aws_access_key_id": "AKIA"}), Layout::Both),
            (json!({"aws_access_key_id": "AKIA", "region": "us-east-1"}), Layout::Both),
            (json!({"aws_access_key_id": "AKIA", "auth_type": "iam_credentials"}), Layout::Both),
            (json!({"aws_access_key_id": "AKIA", "access_key": ""}), Layout::Both),
            (json!({"aws_secret_access_key": "x"}), Layout::Both),
            (json!({"aws_session_token": "x"}), Layout::Both),
            // As the first rotation leaves it.
            (json!({"aws_access_key_id": "AKIA", "access_key": "AKIA"}), Layout::Both),
        ] {
            let chosen = choose(LayoutChoice::Auto, Kind::Temporary, &provider(&metadata)).unwrap();
            assert_eq!(chosen, layout, "{metadata}");
        }
    }

    #[test]
    fn an_explicit_layout_wins_over_the_metadata() {
        let documented = provider(&json!({"aws_access_key_id": "AKIA"}));
        assert_eq!(choose(LayoutChoice::Gateway, Kind::Temporary, &documented).unwrap(), Layout::Gateway);
        for metadata in [json!({}), json!({"aws_access_key_id": "AKIA", "auth_type": null})] {
            let chosen = choose(LayoutChoice::Documented, Kind::Temporary, &provider(&metadata)).unwrap();
            assert_eq!(chosen, Layout::Documented, "{metadata}");
        }
    }

    #[test]
    fn the_documented_layout_is_refused_over_credentials_that_gateways_read() {
        for metadata in [
            json!({"access_key": "AKIA"}),
            json!({"auth_type": "api_key"}),
            json!({"access_key": "AKIA", "aws_access_key_id": "AKIA"}),
        ] {
            let error = choose(LayoutChoice::Documented, Kind::Temporary, &provider(&metadata)).unwrap_err();
            assert_eq!(error.class, ErrorClass::Conflict, "{metadata}");
            assert!(error.problem.contains("was not touched") && error.remedy.contains("layout"), "{error}");
        }
    }

    #[test]
    fn an_api_key_goes_into_the_gateway_layout() {
        let documented = provider(&json!({"aws_access_key_id": "AKIA"}));
        for kind in [Kind::ShortTermApiKey, Kind::LongTermApiKey] {
            assert_eq!(choose(LayoutChoice::Auto, kind, &documented).unwrap(), Layout::Gateway);
            assert!(warning(Layout::Gateway, &documented).is_some());
        }
    }

    #[test]
    fn another_type_and_assume_role_are_refused_in_every_layout() {
        for choice in [LayoutChoice::Auto, LayoutChoice::Gateway, LayoutChoice::Documented] {
            let refused = |provider: &AiProvider| choose(choice, Kind::Temporary, provider).unwrap_err();
            for type_name in [None, Some("openai".to_owned())] {
                let other = AiProvider { type_name, ..provider(&json!({})) };
                assert_eq!(refused(&other).class, ErrorClass::Conflict);
            }
            for auth_type in [json!("web_identity"), json!(5), json!({})] {
                let error = refused(&provider(&json!({"auth_type": auth_type}))).to_string();
                assert!(error.contains("was not touched"), "{auth_type}");
            }
            let role_arn = "arn:aws:iam::000000000000:role/braintrust";
            for (rest, missing) in [(json!({}), "role_arn"), (json!({"role_arn": role_arn}), "region")] {
                let mut metadata = rest;
                metadata["auth_type"] = json!("assume_role");
                let problem = refused(&provider(&metadata)).problem;
                assert!(problem.contains(missing) && problem.contains("was not touched"), "{problem}");
            }
        }
    }

    fn new_credentials(secret: Secret) -> Credentials {
        let created_at = "2026-01-01T00:00:00Z".parse().unwrap();
        Credentials { id: "ASIANEW".to_owned(), created_at, expires_at: None, secret }
    }

    fn body(layout: Layout, secret: Secret, metadata: &Value) -> Value {
        body_over(layout, secret, &provider(metadata))
    }

    fn body_over(layout: Layout, secret: Secret, before: &AiProvider) -> Value {
        let credentials = new_credentials(secret);
        let body = patch_body(layout, Proven::assume(&credentials), &region("us-east-1"), before).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    fn temporary() -> Secret {
        Secret::Temporary { secret_access_key: "key".into(), session_token: "token".into() }
    }

    fn access_key() -> Secret {
        Secret::AccessKey { secret_access_key: "key".into() }
    }

    /// What is written over each state of an `ai_secret` that readers treat differently.
    #[test]
    fn a_pair_is_written_so_that_every_reader_accepts_it() {
        use Layout::{Both, Documented, Gateway};
        let documented = |token: Value| {
            let mut fields = json!({"aws_access_key_id": "ASIANEW", "aws_secret_access_key": "key"});
            fields.as_object_mut().unwrap().extend(token.as_object().unwrap().clone());
            fields
        };
        let with = |mut fields: Value, more: Value| {
            fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            fields
        };
        let (id, iam, region) =
            (json!({"access_key": "ASIANEW"}), json!({"auth_type": "iam_credentials"}), json!({"region": "us-east-1"}));
        let (token, aws_token) = (json!({"session_token": "token"}), json!({"aws_session_token": "token"}));
        for (state, layout, before, of_access_key, more_of_temporary) in [
            ("made in the UI", Gateway, json!({"access_key": "AKIA"}), id.clone(), token.clone()),
            ("new", Gateway, json!({}), id.clone(), token.clone()),
            ("auth_type", Gateway, iam.clone(), with(id.clone(), iam.clone()), token.clone()),
            ("auth_type null", Gateway, json!({"auth_type": null}), with(id.clone(), iam.clone()), token.clone()),
            ("auth_type empty", Gateway, json!({"auth_type": ""}), with(id.clone(), iam.clone()), token.clone()),
            ("an API key", Gateway, json!({"auth_type": "api_key"}), with(id.clone(), iam.clone()), token.clone()),
            (
                "a stale token",
                Gateway,
                json!({"session_token": "stale"}),
                with(id.clone(), json!({"session_token": ""})),
                token.clone(),
            ),
            ("an empty token", Gateway, json!({"session_token": ""}), id.clone(), token.clone()),
            ("a null token", Gateway, json!({"session_token": null}), id.clone(), token.clone()),
            ("stale aws_* fields", Gateway, json!({"aws_session_token": "stale"}), id.clone(), token.clone()),
            ("documented", Documented, json!({}), documented(json!({})), aws_token.clone()),
            (
                "documented, with a stale token",
                Documented,
                json!({"aws_session_token": "stale", "session_token": "stale"}),
                documented(json!({"aws_session_token": ""})),
                aws_token.clone(),
            ),
            ("documented, with auth_type", Documented, iam.clone(), documented(iam.clone()), aws_token.clone()),
            (
                "both",
                Both,
                json!({"aws_access_key_id": "AKIA"}),
                documented(id.clone()),
                with(token.clone(), aws_token.clone()),
            ),
            (
                "both, with a stale token",
                Both,
                json!({"aws_session_token": "stale"}),
                documented(with(id.clone(), json!({"aws_session_token": ""}))),
                with(token.clone(), aws_token.clone()),
            ),
        ] {
            let with_secret = |metadata: Value| match layout {
                Gateway | Both => json!({"secret": "key", "metadata": metadata}),
                Documented => json!({"metadata": metadata}),
            };
            let same_region = with(before.clone(), region.clone());
            let of_temporary = with(of_access_key.clone(), more_of_temporary);
            for (secret, expected) in [(access_key as fn() -> Secret, &of_access_key), (temporary, &of_temporary)] {
                assert_eq!(body(layout, secret(), &same_region), with_secret(expected.clone()), "{state}");
                for other in [json!({}), json!({"region": ""}), json!({"region": null}), json!({"region": "eu-west-1"})]
                {
                    let expected = with_secret(with(expected.clone(), region.clone()));
                    assert_eq!(body(layout, secret(), &with(before.clone(), other)), expected, "{state}");
                }
            }
        }
    }

    #[test]
    fn an_api_key_is_written_with_its_auth_type_whatever_was_there() {
        let (same_region, auth_type) = (json!({"region": "us-east-1"}), json!({"auth_type": "api_key"}));
        for key in [Secret::ShortTermApiKey("key".into()), Secret::LongTermApiKey("key".into())] {
            let expected = json!({"secret": "key", "metadata": auth_type});
            assert_eq!(body(Layout::Gateway, key, &same_region), expected);
        }
        for before in [json!({}), json!({"region": ""}), json!({"region": "eu-west-1", "access_key": "AKIA"})] {
            let body = body(Layout::Gateway, Secret::LongTermApiKey("key".into()), &before);
            assert_eq!(body["metadata"], json!({"auth_type": "api_key", "region": "us-east-1"}));
        }
    }

    #[test]
    fn a_warning_names_what_a_patch_cannot_remove() {
        let warned = |layout, metadata: Value| warning(layout, &provider(&metadata)).unwrap_or_default();
        let stale = json!({"access_key": "AKIA", "aws_secret_access_key": "hidden"});
        let gateway = warned(Layout::Gateway, stale.clone());
        assert!(gateway.contains("aws_secret_access_key") && !gateway.contains("hidden"));
        assert_eq!(warned(Layout::Gateway, json!({"aws_secret_access_key": ""})), "");
        assert!(warned(Layout::Both, stale.clone()).contains("both layouts"));
        assert!(warned(Layout::Documented, stale).contains("no known gateway reads"));
    }

    #[test]
    fn a_projects_provider_gets_the_same_parts_in_an_env_vars_fields() {
        let before = json!({"region": "us-east-1", "session_token": "stale", "aws_access_key_id": "AKIA"});
        let of_a_project = AiProvider::of_a_project_for_test(before.clone());
        for layout in [Layout::Gateway, Layout::Documented, Layout::Both] {
            for secret in [access_key, temporary] {
                let mut expected = body(layout, secret(), &before);
                if let Some(secret) = expected.as_object_mut().unwrap().remove("secret") {
                    expected["value"] = secret;
                }
                expected["name"] = json!("x");
                assert_eq!(body_over(layout, secret(), &of_a_project), expected, "{layout:?}");
            }
        }
    }

    #[test]
    fn an_environment_variable_of_a_project_is_refused() {
        let provider = AiProvider::of_a_project_for_test(json!({}));
        assert_eq!(choose(LayoutChoice::Auto, Kind::Temporary, &provider).unwrap(), Layout::Gateway);
        for category in [None, Some("env_var".to_owned()), Some("sandbox_provider".to_owned())] {
            let other = AiProvider { category, ..provider.clone() };
            let error = choose(LayoutChoice::Auto, Kind::Temporary, &other).unwrap_err();
            assert_eq!((error.class, error.call), (ErrorClass::Conflict, "PATCH /v1/env_var/{id}"));
            assert!(error.problem.contains("of the project") && error.problem.contains("secret_category"), "{error}");
        }
    }

    fn stored() -> Answer {
        Answer::json(&json!({"id": Uuid::nil(), "name": "x"}))
    }

    async fn patch(api: Braintrust<'_>, check: impl AsyncFn(bool) -> Result<(), Error>) -> Result<AiProvider, Error> {
        let credentials = new_credentials(Secret::LongTermApiKey("key".into()));
        let (before, proven) = (provider(&json!({"region": "us-east-1"})), Proven::assume(&credentials));
        api.patch(&before, Layout::Gateway, proven, &region("us-east-1"), check).await
    }

    fn methods(received: &[Received]) -> Vec<&str> {
        received.iter().map(|request| request.method.as_str()).collect()
    }

    #[tokio::test]
    async fn a_patch_whose_response_is_lost_is_sent_again_as_it_was_after_another_check() {
        let server = TestServer::start_with([Answer::HangUp, stored()]);
        let checks = RefCell::new(Vec::new());
        let check = async |may_have_arrived: bool| {
            checks.borrow_mut().push(may_have_arrived);
            Ok(())
        };
        patch(server.api(), check).await.unwrap();
        let (received, body) = (server.received(), json!({"secret": "key", "metadata": {"auth_type": "api_key"}}));
        assert_eq!((methods(&received), checks.into_inner()), (vec!["PATCH"; 2], vec![false, true]));
        assert!(received.iter().all(|request| request.json() == body));
        assert!(received.iter().all(|request| request.target == format!("/v1/ai_secret/{}", Uuid::nil())));
    }

    #[tokio::test]
    async fn a_projects_provider_is_patched_as_an_env_var() {
        let server = TestServer::start(|_| {
            Answer::json(&json!({"id": Uuid::nil(), "name": "x", "object_type": "project",
            "object_id": Uuid::max()}))
        });
        let credentials = new_credentials(Secret::LongTermApiKey("key".into()));
        let (before, proven) = (AiProvider::of_a_project_for_test(json!({})), Proven::assume(&credentials));
        let region = region("us-east-1");
        let after = server.api().patch(&before, Layout::Gateway, proven, &region, async |_| Ok(())).await.unwrap();
        assert_eq!((after.place, after.owner), (Place::Project, Some(Uuid::max())));
        assert_eq!(server.received()[0].target, format!("/v1/env_var/{}", Uuid::nil()));
    }

    #[tokio::test]
    async fn a_patch_is_not_sent_when_the_check_fails() {
        let server = TestServer::start(|_| stored());
        let check = async |_| Err(Error::new(ErrorClass::Conflict, Service::Braintrust, "GET", "changed", ""));
        let error = patch(server.api(), check).await.unwrap_err();
        assert_eq!((error.class, server.received().len()), (ErrorClass::Conflict, 0));
    }

    #[tokio::test]
    async fn a_lost_response_outweighs_a_failed_check_before_the_patch_is_sent_again() {
        for (class, attempts) in [(ErrorClass::Permission, 2), (ErrorClass::Conflict, 2), (ErrorClass::Timeout, 5)] {
            let server = TestServer::start(|_| Answer::HangUp);
            let checks = RefCell::new(0);
            let check = async |may_have_arrived: bool| {
                *checks.borrow_mut() += 1;
                if may_have_arrived { Err(Error::new(class, Service::Braintrust, "GET", "failed", "")) } else { Ok(()) }
            };
            let error = patch(server.api(), check).await.unwrap_err();
            assert_eq!((error.class, error.call), (ErrorClass::Unavailable, Place::Organization.patch()), "{class:?}");
            assert_eq!((server.received().len(), checks.into_inner()), (1, attempts), "{class:?}");
        }
    }

    #[tokio::test]
    async fn a_patch_that_was_throttled_has_not_arrived() {
        let server = TestServer::start_with([Answer::status(429), stored()]);
        let check = async |may_have_arrived: bool| {
            assert!(!may_have_arrived);
            Ok(())
        };
        patch(server.api(), check).await.unwrap();
    }

    #[tokio::test]
    async fn a_refused_patch_is_not_retried() {
        for (status, class) in [(400, ErrorClass::Configuration), (403, ErrorClass::Permission)] {
            let server = TestServer::start(move |_| Answer::status(status));
            let error = patch(server.api(), async |_| Ok(())).await.unwrap_err();
            assert_eq!((error.class, server.received().len()), (class, 1));
        }
    }

    #[tokio::test]
    async fn a_check_reads_without_a_permit_of_its_own() {
        let server = TestServer::start(|_| stored());
        let api = || Braintrust { deadline: Deadline::after(Duration::from_secs(3)), ..server.api() };
        let check = async |_| {
            // From now on no call gets a permit before the deadline.
            server.rate_limit.throttled(tokio::time::Instant::now(), Some(Duration::from_secs(5)));
            api().get_under_permit(Place::Organization, Uuid::nil()).await.map(drop)
        };
        patch(api(), check).await.unwrap();
        assert_eq!(methods(&server.received()), ["GET", "PATCH"]);
    }
}
