//! The access keys or Bedrock API keys of an IAM user, and whether a role may rotate them. `rotation/policy.rs` decides
//! which keys to retire.

use std::cell::OnceCell;

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_iam::Client;
use aws_sdk_iam::config::Builder;
use aws_sdk_iam::config::retry::RetryConfig;
use aws_sdk_iam::operation::RequestId;
use aws_sdk_iam::types::{
    ContextEntry, ContextKeyTypeEnum, EvaluationResult, PolicyEvaluationDecisionType, StatusType,
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::SdkConfig;
use jiff::Timestamp;

use super::requests::AwsRequests;
use super::retries::{CountAttempts, RepeatRefused, RepeatStaleOnly};
use super::sdk::{self, SdkResult};
use crate::config::{RoleArn, UserBased, UserBasedKind, UserName};
use crate::credentials::{Credentials, Secret, SessionCredentials};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorClass, Service};

/// How many keys of one kind IAM allows a user to have, inactive ones included.
pub const MAX_KEYS: usize = 2;

/// The service whose keys Bedrock accepts, by IAM's name.
const BEDROCK: &str = "bedrock.amazonaws.com";

const SIMULATE: &str = "SimulatePrincipalPolicy";

pub struct Iam {
    config: SdkConfig,
    /// Made when it is needed: the SDK parses the endpoints of all partitions for it, and most targets don't call IAM.
    client: OnceCell<Client>,
}

impl Iam {
    pub fn new(config: &SdkConfig) -> Self {
        Self { config: config.clone(), client: OnceCell::new() }
    }

    pub(super) fn client(&self) -> &Client {
        self.client.get_or_init(|| {
            let config = Builder::from(&self.config).interceptor(CountAttempts).retry_classifier(RepeatRefused);
            Client::from_conf(config.build())
        })
    }

    /// The keys of the source's user. They are managed in `session`, or else by the function's own role.
    pub fn user_keys(
        &self,
        source: &UserBased,
        session: Option<&SessionCredentials>,
        deadline: Deadline,
        requests: &AwsRequests,
    ) -> UserKeys {
        let client = session.map(|session| {
            let provider = SharedCredentialsProvider::new(sdk::session(session));
            Client::from_conf(self.client().config().to_builder().credentials_provider(provider).build())
        });
        let client = client.unwrap_or_else(|| self.client().clone());
        UserKeys {
            client,
            user_name: source.user_name.clone(),
            kind: source.kind,
            deadline,
            requests: requests.clone(),
        }
    }

    /// Asks IAM to simulate a rotation's calls by `caller`, and returns an error for each denied action. IAM takes
    /// service control policies into account.
    pub async fn denied_actions(
        &self,
        caller: &RoleArn,
        source: &UserBased,
        deadline: Deadline,
    ) -> Result<Vec<Error>, Error> {
        let account = caller.as_str().split(":role/").next().unwrap_or_default();
        let user_arn = format!("{account}:user/{}", source.user_name);
        let (key, context) = key_and_context(source.kind);
        let verbs = [("Create", ""), ("List", "s"), ("Update", ""), ("Delete", "")];
        let actions = verbs.map(|(verb, plural)| format!("iam:{verb}{key}{plural}")).to_vec();
        let request =
            self.client().simulate_principal_policy().policy_source_arn(caller.as_str()).resource_arns(&user_arn);
        let request = request.set_action_names(Some(actions)).set_context_entries(Some(context)).send();
        let response = sdk::send(Service::Iam, SIMULATE, deadline, request).await?;
        let results = response.evaluation_results.unwrap_or_default();
        let denied = results.iter().filter(|result| result.eval_decision != PolicyEvaluationDecisionType::Allowed);
        Ok(denied.map(|result| explain_denial(result, caller, &user_arn)).collect())
    }
}

/// The keys of one kind that one IAM user has.
pub struct UserKeys {
    client: Client,
    user_name: UserName,
    kind: UserBasedKind,
    deadline: Deadline,
    requests: AwsRequests,
}

/// A key as IAM lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub id: String,
    /// A key with an unknown status counts as active, so that it is deactivated before it is deleted.
    pub active: bool,
    /// `None` if IAM doesn't say.
    pub created_at: Option<Timestamp>,
}

impl UserKeys {
    /// Creates a key. Neither the SDK nor this function retries a failed attempt, because the lost response to a
    /// successful one leaves a key whose secret nobody has. The caller must list the keys before it tries again. The
    /// only request that is sent once more is one whose signature AWS refused for its time.
    /// The error is a `conflict` if the user has [`MAX_KEYS`] keys.
    pub async fn create(&self, now: Timestamp) -> Result<Credentials, Error> {
        let config = self.client.config().to_builder().retry_classifier(RepeatStaleOnly);
        let iam = Client::from_conf(config.retry_config(RetryConfig::standard().with_max_attempts(2)).build());
        let created = match self.kind {
            UserBasedKind::AccessKey => self.create_access_key(&iam, now).await,
            UserBasedKind::LongTermApiKey { credential_age_days: days } => self.create_api_key(&iam, days, now).await,
        };
        created.map_err(|error| Error { is_final: false, ..error })
    }

    async fn create_access_key(&self, iam: &Client, now: Timestamp) -> Result<Credentials, Error> {
        const CALL: &str = "CreateAccessKey";
        let request = iam.create_access_key().user_name(self.user_name.as_str());
        let key = self.change(CALL, request.send()).await?.access_key;
        let key = key.ok_or_else(|| sdk::missing(Service::Iam, CALL, "a key"))?;
        Ok(Credentials {
            created_at: key.create_date.as_ref().and_then(sdk::timestamp).unwrap_or(now),
            id: key.access_key_id,
            expires_at: None,
            secret: Secret::AccessKey { secret_access_key: key.secret_access_key.into() },
        })
    }

    /// The age is never left out, because IAM then creates a key that never expires.
    async fn create_api_key(&self, iam: &Client, age_days: u16, now: Timestamp) -> Result<Credentials, Error> {
        const CALL: &str = "CreateServiceSpecificCredential";
        let missing = || sdk::missing(Service::Iam, CALL, "a key");
        let request = iam.create_service_specific_credential().user_name(self.user_name.as_str());
        let request = request.service_name(BEDROCK).credential_age_days(age_days.into());
        let key = self.change(CALL, request.send()).await?.service_specific_credential.ok_or_else(missing)?;
        Ok(Credentials {
            created_at: sdk::timestamp(&key.create_date).unwrap_or(now),
            expires_at: key.expiration_date.as_ref().and_then(sdk::timestamp),
            id: key.service_specific_credential_id,
            secret: Secret::LongTermApiKey(key.service_credential_secret.ok_or_else(missing)?.into()),
        })
    }

    pub async fn list(&self) -> Result<Vec<Key>, Error> {
        let (iam, user) = (&self.client, self.user_name.as_str());
        let (mut keys, mut marker) = (Vec::new(), None);
        loop {
            marker = match self.kind {
                UserBasedKind::AccessKey => {
                    let request = iam.list_access_keys().user_name(user).set_marker(marker);
                    let page = self.read("ListAccessKeys", request.send()).await?;
                    keys.extend(page.access_key_metadata.into_iter().filter_map(|key| {
                        let active = key.status != Some(StatusType::Inactive);
                        let created_at = key.create_date.as_ref().and_then(sdk::timestamp);
                        Some(Key { id: key.access_key_id?, active, created_at })
                    }));
                    page.marker.filter(|_| page.is_truncated)
                }
                UserBasedKind::LongTermApiKey { .. } => {
                    let request = iam.list_service_specific_credentials().user_name(user).service_name(BEDROCK);
                    let request = request.set_marker(marker);
                    let page = self.read("ListServiceSpecificCredentials", request.send()).await?;
                    keys.extend(page.service_specific_credentials.into_iter().flatten().map(|key| Key {
                        active: !matches!(key.status, StatusType::Inactive | StatusType::Expired),
                        created_at: sdk::timestamp(&key.create_date),
                        id: key.service_specific_credential_id,
                    }));
                    page.marker.filter(|_| page.is_truncated)
                }
            };
            if marker.is_none() {
                return Ok(keys);
            }
        }
    }

    /// Deactivates a key, which can be activated again. A key that doesn't exist counts as deactivated.
    pub async fn deactivate(&self, id: &str) -> Result<(), Error> {
        missing_is_done(self.set_status(id, StatusType::Inactive).await)
    }

    pub async fn activate(&self, id: &str) -> Result<(), Error> {
        self.set_status(id, StatusType::Active).await
    }

    async fn set_status(&self, id: &str, status: StatusType) -> Result<(), Error> {
        let (iam, user) = (&self.client, self.user_name.as_str());
        match self.kind {
            UserBasedKind::AccessKey => {
                let request = iam.update_access_key().user_name(user).access_key_id(id).status(status);
                self.change("UpdateAccessKey", request.send()).await.map(drop)
            }
            UserBasedKind::LongTermApiKey { .. } => {
                let request =
                    iam.update_service_specific_credential().user_name(user).service_specific_credential_id(id);
                self.change("UpdateServiceSpecificCredential", request.status(status).send()).await.map(drop)
            }
        }
    }

    /// Deletes a key. A key that doesn't exist counts as deleted.
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        let (iam, user) = (&self.client, self.user_name.as_str());
        missing_is_done(match self.kind {
            UserBasedKind::AccessKey => {
                let request = iam.delete_access_key().user_name(user).access_key_id(id);
                self.change("DeleteAccessKey", request.send()).await.map(drop)
            }
            UserBasedKind::LongTermApiKey { .. } => {
                let request =
                    iam.delete_service_specific_credential().user_name(user).service_specific_credential_id(id);
                self.change("DeleteServiceSpecificCredential", request.send()).await.map(drop)
            }
        })
    }

    /// Sends a request that creates or changes a key.
    fn change<T: RequestId, E: ProvideErrorMetadata>(
        &self,
        call: &'static str,
        request: impl Future<Output = SdkResult<T, E>>,
    ) -> impl Future<Output = Result<T, Error>> {
        let response = self.requests.send(Service::Iam, call, self.deadline, request);
        async { response.await.map_err(|error| self.explain(error)) }
    }

    fn read<T, E: ProvideErrorMetadata>(
        &self,
        call: &'static str,
        request: impl Future<Output = SdkResult<T, E>>,
    ) -> impl Future<Output = Result<T, Error>> {
        let response = sdk::send(Service::Iam, call, self.deadline, request);
        async { response.await.map_err(|error| self.explain(error)) }
    }

    fn explain(&self, error: Error) -> Error {
        let (call, user_name) = (error.call, &self.user_name);
        let permission = format!(
            "Allow iam:{call} on the IAM user {user_name} in the policy of the function's role (or of the target's \
             role_arn), and look for a service control policy that denies it"
        );
        let not_found = format!(
            "Check that the IAM user {user_name} exists in this account, or in that of the target's role_arn (the \
             parameter IamUserName, or the target's user_name)"
        );
        let error =
            error.with_remedy_for(ErrorClass::Permission, permission).with_remedy_for(ErrorClass::NotFound, not_found);
        if call.starts_with("Create") {
            let conflict = format!("The IAM user {user_name} has two keys. In IAM, delete the one that nothing uses");
            error.with_remedy_for(ErrorClass::Conflict, conflict)
        } else {
            error
        }
    }
}

fn missing_is_done(answer: Result<(), Error>) -> Result<(), Error> {
    answer.or_else(|error| if error.class == ErrorClass::NotFound { Ok(()) } else { Err(error) })
}

/// What IAM's actions call such a key, and the condition keys that a policy can test.
fn key_and_context(kind: UserBasedKind) -> (&'static str, Vec<ContextEntry>) {
    let entry = |name: &str, kind, value: String| {
        ContextEntry::builder().context_key_name(name).context_key_type(kind).context_key_values(value).build()
    };
    match kind {
        UserBasedKind::AccessKey => ("AccessKey", Vec::new()),
        UserBasedKind::LongTermApiKey { credential_age_days: days } => {
            let service = entry("iam:ServiceSpecificCredentialServiceName", ContextKeyTypeEnum::String, BEDROCK.into());
            let age = entry("iam:ServiceSpecificCredentialAgeDays", ContextKeyTypeEnum::Numeric, days.to_string());
            ("ServiceSpecificCredential", vec![service, age])
        }
    }
}

fn explain_denial(denied: &EvaluationResult, caller: &RoleArn, user_arn: &str) -> Error {
    let action = &denied.eval_action_name;
    let remedy = match &denied.organizations_decision_detail {
        Some(detail) if !detail.allowed_by_organizations => format!(
            "A service control policy of the organization denies {action}. Ask its administrator, or use another kind \
             of credentials"
        ),
        Some(_) | None => format!("Allow {action} on {user_arn} in the policy of {caller}"),
    };
    Error::new(ErrorClass::Permission, Service::Iam, SIMULATE, format!("{action} is denied"), remedy)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::ExposeSecret;

    use super::super::sdk::replay::Replay;
    use super::*;

    const API_KEY: UserBasedKind = UserBasedKind::LongTermApiKey { credential_age_days: 90 };
    const FAILURE: (u16, &str) = (500, "<ErrorResponse><Error><Code>ServiceFailure</Code></Error></ErrorResponse>");

    fn user(kind: UserBasedKind) -> UserBased {
        UserBased {
            kind,
            user_name: "braintrust".to_owned().try_into().unwrap(),
            role: None,
            secret_id: "staged".to_owned().try_into().unwrap(),
            rotate_after: Duration::ZERO,
            overlap: Duration::ZERO,
        }
    }

    fn keys(replay: &Replay, kind: UserBasedKind) -> UserKeys {
        Iam::new(&replay.config()).user_keys(
            &user(kind),
            None,
            Deadline::after(Duration::from_secs(300)),
            &AwsRequests::default(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_creation_is_not_retried_and_the_caller_may_retry_it() {
        for kind in [UserBasedKind::AccessKey, API_KEY] {
            let aws = Replay::of(&[FAILURE]);
            let error = keys(&aws, kind).create(Timestamp::UNIX_EPOCH).await.err().unwrap();
            assert!(error.is_retryable(), "{error}");
            assert_eq!(aws.requests().len(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_sdk_alone_retries_every_other_call() {
        for kind in [UserBasedKind::AccessKey, API_KEY] {
            let aws = Replay::of(&[FAILURE]);
            let error = keys(&aws, kind).delete("KEY").await.unwrap_err();
            assert!(error.is_transient() && !error.is_retryable(), "{error}");
            assert_eq!(aws.requests().len(), 5);
        }
    }

    #[tokio::test]
    async fn a_new_access_key_never_expires() {
        let aws = Replay::of(&[(
            200,
            "<CreateAccessKeyResponse><CreateAccessKeyResult><AccessKey><UserName>braintrust</UserName>\
             <AccessKeyId>AKIANEW</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><Status>Active</Status>\
             <CreateDate>2026-01-15T12:00:00Z</CreateDate></AccessKey></CreateAccessKeyResult>\
             </CreateAccessKeyResponse>",
        )]);
        let created = keys(&aws, UserBasedKind::AccessKey).create(Timestamp::UNIX_EPOCH).await.ok().unwrap();
        assert_eq!((created.id.as_str(), created.expires_at), ("AKIANEW", None));
        assert_eq!(created.created_at, "2026-01-15T12:00:00Z".parse().unwrap());
        let Secret::AccessKey { secret_access_key } = created.secret else { panic!("it is of another kind") };
        assert_eq!(secret_access_key.expose_secret(), "secret");
    }

    #[tokio::test]
    async fn a_new_api_key_is_for_bedrock_and_expires() {
        let aws = Replay::of(&[(
            200,
            "<CreateServiceSpecificCredentialResponse><CreateServiceSpecificCredentialResult>\
             <ServiceSpecificCredential><CreateDate>2026-01-15T12:00:00Z</CreateDate>\
             <ExpirationDate>2026-04-15T12:00:00Z</ExpirationDate>\
             <ServiceName>bedrock.amazonaws.com</ServiceName><UserName>braintrust</UserName><Status>Active</Status>\
             <ServiceSpecificCredentialId>ACCANEW</ServiceSpecificCredentialId>\
             <ServiceCredentialSecret>secret</ServiceCredentialSecret></ServiceSpecificCredential>\
             </CreateServiceSpecificCredentialResult></CreateServiceSpecificCredentialResponse>",
        )]);
        let created = keys(&aws, API_KEY).create(Timestamp::UNIX_EPOCH).await.ok().unwrap();
        assert_eq!(created.expires_at, Some("2026-04-15T12:00:00Z".parse().unwrap()));
        assert!(matches!(created.secret, Secret::LongTermApiKey(key) if key.expose_secret() == "secret"));
        let request = &aws.requests()[0];
        assert!(request.contains("CredentialAgeDays=90") && request.contains("ServiceName=bedrock.amazonaws.com"));
    }

    #[tokio::test]
    async fn every_page_is_listed() {
        let page = |id: &str, rest: &str| {
            format!(
                "<ListAccessKeysResponse><ListAccessKeysResult><AccessKeyMetadata><member>\
                 <AccessKeyId>{id}</AccessKeyId><Status>Inactive</Status></member></AccessKeyMetadata>{rest}\
                 </ListAccessKeysResult></ListAccessKeysResponse>"
            )
        };
        let first = page("AKIA1", "<IsTruncated>true</IsTruncated><Marker>next</Marker>");
        let last = page("AKIA2", "<IsTruncated>false</IsTruncated>");
        let aws = Replay::of(&[(200, &first), (200, &last)]);
        let key = |id: &str| Key { id: id.to_owned(), active: false, created_at: None };
        assert_eq!(keys(&aws, UserBasedKind::AccessKey).list().await.unwrap(), [key("AKIA1"), key("AKIA2")]);
        assert!(aws.requests()[1].contains("Marker=next"));
    }

    #[tokio::test]
    async fn a_key_that_is_gone_is_retired_and_cannot_be_activated() {
        let gone = (404, "<ErrorResponse><Error><Code>NoSuchEntity</Code></Error></ErrorResponse>");
        for kind in [UserBasedKind::AccessKey, API_KEY] {
            let aws = Replay::of(&[gone]);
            let keys = keys(&aws, kind);
            assert!(keys.deactivate("KEY").await.is_ok() && keys.delete("KEY").await.is_ok());
            assert_eq!(keys.activate("KEY").await.unwrap_err().class, ErrorClass::NotFound);
        }
    }

    #[tokio::test]
    async fn an_error_says_what_to_do_about_this_user() {
        for (status, code, class, remedy) in [
            (409, "LimitExceeded", ErrorClass::Conflict, "braintrust has two keys"),
            (403, "AccessDenied", ErrorClass::Permission, "Allow iam:CreateServiceSpecificCredential on the IAM user"),
            (404, "NoSuchEntity", ErrorClass::NotFound, "Check that the IAM user braintrust exists"),
            (400, "NotSupportedService", ErrorClass::Configuration, "Use another kind"),
        ] {
            let body = format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>");
            let error =
                keys(&Replay::of(&[(status, &body)]), API_KEY).create(Timestamp::UNIX_EPOCH).await.err().unwrap();
            assert_eq!((error.class, error.problem), (class, format!("answered {code}")));
            assert!(error.remedy.contains(remedy), "{}", error.remedy);
        }
    }

    #[tokio::test]
    async fn a_denied_action_is_explained_and_the_conditions_of_a_rotation_are_simulated() {
        let result = |action: &str, decision: &str, detail: &str| {
            format!(
                "<member><EvalActionName>{action}</EvalActionName><EvalDecision>{decision}</EvalDecision>{detail}\
                 </member>"
            )
        };
        let by_organization = "<OrganizationsDecisionDetail><AllowedByOrganizations>false</AllowedByOrganizations>\
                               </OrganizationsDecisionDetail>";
        let results = [
            result("iam:ListServiceSpecificCredentials", "allowed", ""),
            result("iam:CreateServiceSpecificCredential", "implicitDeny", ""),
            result("iam:DeleteServiceSpecificCredential", "explicitDeny", by_organization),
        ];
        let body = format!(
            "<SimulatePrincipalPolicyResponse><SimulatePrincipalPolicyResult><EvaluationResults>{}</EvaluationResults>\
             </SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>",
            results.concat()
        );
        let aws = Replay::of(&[(200, &body)]);
        let caller = "arn:aws:iam::123456789012:role/rotator".to_owned().try_into().unwrap();
        let deadline = Deadline::after(Duration::from_secs(60));
        let denied = Iam::new(&aws.config()).denied_actions(&caller, &user(API_KEY), deadline).await.unwrap();
        let remedies: Vec<_> = denied.iter().map(|error| error.remedy.as_str()).collect();
        assert_eq!(remedies.len(), 2);
        assert!(remedies[0].contains("CreateServiceSpecificCredential on arn:aws:iam::123456789012:user/braintrust"));
        assert!(remedies[1].contains("A service control policy"), "{}", remedies[1]);
        let request = &aws.requests()[0];
        assert!(request.contains("ServiceSpecificCredentialAgeDays") && request.contains("member.1=90"), "{request}");
    }
}
