//! Mints STS temporary credentials by assuming the target's role; it must never ask for more than role chaining allows.

use aws_sdk_sts::Client;
use jiff::Timestamp;
use secrecy::SecretString;

use crate::config::AssumeRole;
use crate::credentials::{Credentials, KindName, Secret};
use crate::deadline::Deadline;
use crate::error::{Cause, Error, Service};

const CALL: &str = "AssumeRole";

/// Assumes `role`; the session is named after the target, so that CloudTrail shows who uses Bedrock.
///
/// The SDK repeats throttled and failed calls itself.
///
/// # Errors
/// `permission` with the trust policy's likely cause, `configuration` for a duration or policy that STS refuses.
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
pub async fn mint(
    sts: &Client,
    role: &AssumeRole,
    target: &str,
    now: Timestamp,
    deadline: Deadline,
) -> Result<Credentials, Error> {
    let request = sts
        .assume_role()
        .role_arn(&role.role_arn)
        .role_session_name(format!("braintrust-{target}"))
        .duration_seconds(role.duration_seconds.into())
        .set_external_id(role.external_id.clone())
        .set_policy(role.session_policy.clone());
    let answer = deadline
        .bound(Service::Sts, CALL, async {
            request.send().await.map_err(|error| explain(Error::aws(Service::Sts, CALL, &error), role))
        })
        .await?;
    let minted = answer.credentials.ok_or_else(|| unreadable("no credentials"))?;
    let expires_at =
        Timestamp::from_second(minted.expiration.secs()).map_err(|_| unreadable("an impossible expiry"))?;
    Ok(Credentials {
        kind: KindName::Temporary,
        id: minted.access_key_id,
        secret: Secret::AccessKey {
            secret_access_key: SecretString::from(minted.secret_access_key),
            session_token: Some(SecretString::from(minted.session_token)),
        },
        minted_at: now,
        expires_at: Some(expires_at),
    })
}

fn unreadable(what: &str) -> Error {
    Error::new(Cause::Unavailable, Service::Sts, CALL, format!("answered with {what}"), "The next tick tries again")
}

fn explain(error: Error, role: &AssumeRole) -> Error {
    let arn = &role.role_arn;
    match error.cause {
        Cause::Permission => error.with_remedy(format!(
            "Check that the role {arn} exists, that its trust policy names this function's role{}, and that the function's \
             policy allows sts:AssumeRole on it",
            match role.external_id {
                Some(_) => " and asks for the configured ExternalId",
                None => " and asks for no ExternalId (none is configured)",
            }
        )),
        Cause::Configuration if role.session_policy.is_some() => {
            error.with_remedy(format!("For {arn}, STS may find session_policy malformed, or too large once it is packed"))
        }
        _ => error,
    }
}
