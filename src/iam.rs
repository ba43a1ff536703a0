//! What all IAM calls share: how their errors are explained, and that making a key is never repeated blindly.

use aws_sdk_iam::config;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::RetryConfig;

use crate::error::{Cause, Error, Service};

/// One attempt: the answer to a second one would hide the key that the first one made.
pub fn once() -> config::Builder {
    config::Config::builder().retry_config(RetryConfig::disabled())
}

/// An IAM error, with what it usually means for `user`.
pub fn explain<E: ProvideErrorMetadata>(call: &'static str, user: &str, error: &SdkError<E, HttpResponse>) -> Error {
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    let explained = Error::aws(Service::Iam, call, error);
    match (code, explained.cause) {
        (Some("LimitExceeded"), _) => Error { cause: Cause::Conflict, ..explained }
            .with_remedy(format!("The IAM user {user} has two credentials: delete the one that nothing uses")),
        (Some("NotSupportedService"), _) => {
            explained.with_remedy("IAM makes no Bedrock API keys in this partition: use another kind")
        }
        (_, Cause::Permission) => explained.with_remedy(format!(
            "Allow iam:{call} on the IAM user {user} in the policy of the function's role (or of the target's role_arn), \
             and look for a service control policy that denies it"
        )),
        (_, Cause::NotFound) => explained.with_remedy(format!("Check user_name: {user}, and its account")),
        _ => explained,
    }
}

/// What is to be retired and does not exist is retired.
///
/// # Errors
/// All others.
pub fn gone_is_done(done: Result<(), Error>) -> Result<(), Error> {
    done.or_else(|error| if error.cause == Cause::NotFound { Ok(()) } else { Err(error) })
}
