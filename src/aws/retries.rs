//! Changes which refused calls the SDK repeats.

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, InterceptorContext,
};
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction, RetryClassifierPriority};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

use super::refusals;

/// IAM's codes for a user that something else is changing. The SDK doesn't know them.
const TRANSIENT: [&str; 2] = ["ConcurrentModification", "EntityTemporarilyUnmodifiable"];
/// Secrets Manager's code for a reached quota. The SDK treats it as throttling, but it lasts for hours.
const QUOTA: &str = "LimitExceededException";

/// Records on each response the number of its attempt, which the classifiers below need.
#[derive(Debug)]
pub(super) struct CountAttempts;

impl Intercept for CountAttempts {
    fn name(&self) -> &'static str {
        "CountAttempts"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(attempts) = config.load::<RequestAttempts>() {
            context.response_mut().add_extension(*attempts);
        }
        Ok(())
    }
}

/// The classifier for calls that may be repeated.
#[derive(Debug)]
pub(super) struct RepeatRefused;

impl ClassifyRetry for RepeatRefused {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        match Answer::of(context) {
            Some(Answer::Stale { is_first: true }) => RetryAction::client_error(),
            Some(Answer::Stale { is_first: false } | Answer::Quota) => RetryAction::RetryForbidden,
            Some(Answer::Transient) => RetryAction::transient_error(),
            Some(Answer::Other) | None => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "RepeatRefused"
    }

    fn priority(&self) -> RetryClassifierPriority {
        last()
    }
}

/// The classifier for the creation of a key. AWS has certainly not created one if it refused the request's signature.
#[derive(Debug)]
pub(super) struct RepeatStaleOnly;

impl ClassifyRetry for RepeatStaleOnly {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        match Answer::of(context) {
            Some(Answer::Stale { is_first: true }) => RetryAction::client_error(),
            Some(Answer::Stale { is_first: false } | Answer::Quota | Answer::Transient | Answer::Other) | None => {
                RetryAction::RetryForbidden
            }
        }
    }

    fn name(&self) -> &'static str {
        "RepeatStaleOnly"
    }

    fn priority(&self) -> RetryClassifierPriority {
        last()
    }
}

/// Runs after the SDK's own classifiers, to replace their decisions.
fn last() -> RetryClassifierPriority {
    RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
}

/// The kinds of error responses that the classifiers distinguish.
enum Answer {
    /// AWS refused the time of the signature. Lambda may have frozen the function after it signed the request.
    Stale {
        is_first: bool,
    },
    Transient,
    Quota,
    Other,
}

impl Answer {
    /// `None` if there is no response. The SDK has an error type for each call, so the body is searched instead.
    fn of(context: &InterceptorContext) -> Option<Self> {
        let response = context.response()?;
        if !(400..500).contains(&response.status().as_u16()) {
            return Some(Self::Other);
        }
        let body = String::from_utf8_lossy(response.body().bytes().unwrap_or_default());
        let code = response.headers().get("x-amzn-errortype").unwrap_or_default();
        let names = |text: &str| code.contains(text) || body.contains(text);
        let is_first = response.extension::<RequestAttempts>().is_some_and(|attempt| attempt.attempts() == 1);
        Some(if refusals::is_stale_signature(code, &body) || names("RequestExpired") {
            Self::Stale { is_first }
        } else if TRANSIENT.into_iter().any(names) {
            Self::Transient
        } else if names(QUOTA) {
            Self::Quota
        } else {
            Self::Other
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::iam_keys::Iam;
    use super::super::refusals::codes;
    use super::super::requests::AwsRequests;
    use super::super::sdk::replay::Replay;
    use super::super::secrets_manager::SecretsManager;
    use super::super::sts::Sts;
    use crate::config::{UserBased, UserBasedKind};
    use crate::deadline::Deadline;
    use crate::error::{ErrorClass, Service};

    fn deadline() -> Deadline {
        Deadline::after(Duration::from_secs(300))
    }

    fn user() -> UserBased {
        UserBased {
            kind: UserBasedKind::AccessKey,
            user_name: "braintrust".to_owned().try_into().unwrap(),
            role: None,
            secret_id: "staged".to_owned().try_into().unwrap(),
            rotate_after: Duration::ZERO,
            overlap: Duration::ZERO,
        }
    }

    fn xml(code: &str, message: &str) -> String {
        format!("<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>")
    }

    fn json(code: &str, message: &str) -> String {
        serde_json::json!({"__type": code, "message": message}).to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn each_refused_call_is_repeated_as_often_as_its_error_code_allows() {
        for row in codes::all() {
            let (Some(service), Some(attempts)) = (row.service(), row.attempts) else { continue };
            let query = xml(&row.code, &row.message);
            let error = match service {
                Service::Sts => {
                    let aws = Replay::of(&[(row.status, &query)]);
                    let http = crate::http::client(None, None).unwrap();
                    let sts = Sts::new(http, aws.config(), || jiff::Timestamp::UNIX_EPOCH);
                    (sts.caller(deadline()).await.map(drop), aws)
                }
                Service::Iam => {
                    let aws = Replay::of(&[(row.status, &query)]);
                    (
                        Iam::new(&aws.config())
                            .user_keys(&user(), None, deadline(), &AwsRequests::default())
                            .list()
                            .await
                            .map(drop),
                        aws,
                    )
                }
                Service::SecretsManager => {
                    let aws = Replay::of(&[(row.status, &json(&row.code, &row.message))]);
                    let (id, client) = ("x".to_owned().try_into().unwrap(), SecretsManager::new(&aws.config()));
                    (client.staged(&id, deadline(), &AwsRequests::default()).describe().await.map(drop), aws)
                }
                Service::Function | Service::S3 | Service::Bedrock | Service::Braintrust => continue,
            };
            let (error, aws) = (error.0.unwrap_err(), error.1);
            assert_eq!(aws.requests().len(), attempts, "{} {} {}: {error}", row.service, row.code, row.message);
            assert!(!error.is_retryable(), "two layers retry {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_created_although_its_first_signature_was_refused_for_its_time() {
        let stale = xml("SignatureDoesNotMatch", "Signature expired: 1 is now earlier than 2");
        let created = "<CreateAccessKeyResponse><CreateAccessKeyResult><AccessKey><UserName>u</UserName>\
                       <AccessKeyId>AKIANEW</AccessKeyId><Status>Active</Status><SecretAccessKey>s</SecretAccessKey>\
                       </AccessKey></CreateAccessKeyResult></CreateAccessKeyResponse>";
        let create = async |responses: &[(u16, &str)]| {
            let aws = Replay::of(responses);
            let keys = Iam::new(&aws.config()).user_keys(&user(), None, deadline(), &AwsRequests::default());
            let created = keys.create(jiff::Timestamp::UNIX_EPOCH).await;
            (created.map(|key| key.id).map_err(|error| error.class), aws.requests().len())
        };
        assert_eq!(create(&[(403, &stale), (200, created)]).await, (Ok("AKIANEW".to_owned()), 2));
        assert_eq!(create(&[(403, &stale)]).await, (Err(ErrorClass::InvalidCredentials), 2));
        let busy = xml("ConcurrentModification", "");
        assert_eq!(create(&[(409, &busy)]).await, (Err(ErrorClass::Unavailable), 1));
        assert_eq!(create(&[(403, &stale), (500, "")]).await, (Err(ErrorClass::Unavailable), 2));
    }
}
