//! What all IAM calls share: how their errors are explained, and that making a key is never repeated blindly.

use aws_sdk_iam::config;
use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, EvaluationResult, PolicyEvaluationDecisionType};
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

/// The call that tells what a principal may do, without doing it.
pub const SIMULATE: &str = "SimulatePrincipalPolicy";

/// The function's own account and role.
pub struct Caller {
    account: String,
    partition: String,
    role_arn: String,
}

/// Who the function is: `arn:aws:sts::123456789012:assumed-role/NAME/SESSION`, whose role has no path unless somebody
/// gave it one.
///
/// # Errors
/// `configuration`, if it is no role; those of an AWS call.
pub async fn caller(sts: &aws_sdk_sts::Client) -> Result<Caller, Error> {
    const CALL: &str = "GetCallerIdentity";
    let answer = sts.get_caller_identity().send().await.map_err(|error| Error::aws(Service::Sts, CALL, &error))?;
    let arn = answer.arn.unwrap_or_default();
    parse_caller(&arn).ok_or_else(|| {
        Error::new(Cause::Configuration, Service::Sts, CALL, "the function runs as no role", "A rotation tells")
    })
}

fn parse_caller(arn: &str) -> Option<Caller> {
    let [_, partition, "sts", _, account, name] = arn.splitn(6, ':').collect::<Vec<_>>()[..] else { return None };
    let role = name.strip_prefix("assumed-role/")?.split('/').next()?;
    let role_arn = format!("arn:{partition}:iam::{account}:role/{role}");
    Some(Caller { account: account.to_owned(), partition: partition.to_owned(), role_arn })
}

/// What a rotation does to an IAM user, and under which conditions.
pub struct Simulation {
    actions: &'static [&'static str],
    context: Vec<ContextEntry>,
}

impl Simulation {
    /// Of the kind `access_key`.
    pub fn of_access_keys() -> Self {
        let actions = &["iam:CreateAccessKey", "iam:ListAccessKeys", "iam:UpdateAccessKey", "iam:DeleteAccessKey"];
        Self { actions, context: Vec::new() }
    }

    /// Of the kind `long_term_api_key`.
    pub fn of_api_keys(age_days: u16) -> Self {
        let entry = |name: &str, kind, value: String| {
            let entry = ContextEntry::builder().context_key_name(name).context_key_type(kind).context_key_values(value);
            entry.build()
        };
        Self {
            actions: &[
                "iam:CreateServiceSpecificCredential",
                "iam:ListServiceSpecificCredentials",
                "iam:UpdateServiceSpecificCredential",
                "iam:DeleteServiceSpecificCredential",
            ],
            context: vec![
                entry(
                    "iam:ServiceSpecificCredentialServiceName",
                    ContextKeyTypeEnum::String,
                    "bedrock.amazonaws.com".to_owned(),
                ),
                entry("iam:ServiceSpecificCredentialAgeDays", ContextKeyTypeEnum::Numeric, age_days.to_string()),
            ],
        }
    }

    /// The errors that a rotation would meet.
    ///
    /// # Errors
    /// Those of an AWS call.
    pub async fn run(self, iam: &aws_sdk_iam::Client, caller: &Caller, user: &str) -> Result<Vec<Error>, Error> {
        let user_arn = format!("arn:{}:iam::{}:user/{user}", caller.partition, caller.account);
        let request = iam
            .simulate_principal_policy()
            .policy_source_arn(&caller.role_arn)
            .set_action_names(Some(self.actions.iter().map(|&action| action.to_owned()).collect()))
            .resource_arns(&user_arn)
            .set_context_entries(Some(self.context));
        let answer = request.send().await.map_err(|error| Error::aws(Service::Iam, SIMULATE, &error))?;
        let denied = answer
            .evaluation_results
            .unwrap_or_default()
            .into_iter()
            .filter(|result| result.eval_decision != PolicyEvaluationDecisionType::Allowed);
        Ok(denied.map(|result| refused(&result, caller, &user_arn)).collect())
    }
}

fn refused(result: &EvaluationResult, caller: &Caller, user_arn: &str) -> Error {
    let action = &result.eval_action_name;
    let by_organization =
        result.organizations_decision_detail.as_ref().is_some_and(|detail| !detail.allowed_by_organizations);
    let remedy = if by_organization {
        format!("A service control policy of the organization denies {action}: ask who keeps it, or use another kind")
    } else {
        format!("Allow {action} on {user_arn} in the policy of {}", caller.role_arn)
    };
    Error::new(Cause::Permission, Service::Iam, SIMULATE, format!("{action} is denied"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_functions_role_is_read_from_its_session() {
        let caller = parse_caller("arn:aws-cn:sts::123456789012:assumed-role/rotator/function").unwrap();
        assert_eq!(caller.role_arn, "arn:aws-cn:iam::123456789012:role/rotator");
        assert!(parse_caller("arn:aws:iam::123456789012:user/somebody").is_none());
        assert!(parse_caller("").is_none());
    }
}
