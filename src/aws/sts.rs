//! Calls AWS Security Token Service (STS) to assume roles and to identify the function's own role.

use aws_sdk_sts::Client;
use aws_sdk_sts::config::Builder;
use aws_sdk_sts::types::Tag;
use aws_types::SdkConfig;
use jiff::Timestamp;

use super::requests::AwsRequests;
use super::retries::{CountAttempts, RepeatRefused};
use super::sdk;
use crate::config::{AssumeRole, RoleArn, SessionNames};
use crate::credentials::SessionCredentials;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorClass, Service};

pub struct Sts(Client);

impl Sts {
    pub fn new(config: &SdkConfig) -> Self {
        let config = Builder::from(config).interceptor(CountAttempts).retry_classifier(RepeatRefused);
        Self(Client::from_conf(config.build()))
    }

    /// Assumes `role` in a session that is named after the target, so that CloudTrail shows which target calls Bedrock.
    pub async fn assume_role(
        &self,
        role: &AssumeRole,
        names: SessionNames<'_>,
        now: Timestamp,
        deadline: Deadline,
        requests: &AwsRequests,
    ) -> Result<SessionCredentials, Error> {
        const CALL: &str = "AssumeRole";
        let request = self.0.assume_role().role_arn(role.role_arn.as_str()).set_policy(role.session_policy.clone());
        let request = request.role_session_name(format!("braintrust-{}", names.target));
        let request = request.duration_seconds(role.duration_seconds.into());
        let request = request.set_external_id(role.external_id.as_ref().map(ToString::to_string));
        let identity = role.source_identity.as_ref().map(|identity| names.expand(identity.as_str()));
        let request = request.set_source_identity(identity);
        let tag = |(key, value): (&String, &String)| Tag::builder().key(key).value(names.expand(value)).build().ok();
        let tags = role.session_tags.iter().filter_map(tag);
        // The SDK would send an empty list as an empty parameter.
        let tags = Some(tags.collect()).filter(|tags: &Vec<_>| !tags.is_empty());
        let request = request.set_tags(tags);
        let response = requests.send(Service::Sts, CALL, deadline, request.send()).await;
        let missing = || sdk::missing(Service::Sts, CALL, "credentials or their expiry");
        let session = response.map_err(|error| explain(error, role))?.credentials.ok_or_else(missing)?;
        Ok(SessionCredentials {
            expires_at: sdk::timestamp(&session.expiration).ok_or_else(missing)?,
            access_key_id: session.access_key_id,
            secret_access_key: session.secret_access_key.into(),
            session_token: session.session_token.into(),
            created_at: now,
        })
    }

    /// The role that the function runs as.
    pub async fn caller(&self, deadline: Deadline) -> Result<RoleArn, Error> {
        const CALL: &str = "GetCallerIdentity";
        let request = self.0.get_caller_identity().send();
        let identity = sdk::send(Service::Sts, CALL, deadline, request).await?;
        role_of_session(&identity.arn.unwrap_or_default()).ok_or_else(|| {
            let problem = "the function doesn't run as a role";
            let remedy = "A rotation shows whether its permissions are sufficient";
            Error::new(ErrorClass::Configuration, Service::Sts, CALL, problem, remedy)
        })
    }
}

/// Reads `arn:aws:sts::123456789012:assumed-role/NAME/SESSION`. The role's path is not part of that ARN, so the result
/// is right only for a role without a path.
fn role_of_session(arn: &str) -> Option<RoleArn> {
    let (account, session) = arn.split_once(":assumed-role/")?;
    let role = session.split('/').next()?;
    format!("{}:role/{role}", account.replacen(":sts:", ":iam:", 1)).try_into().ok()
}

fn explain(error: Error, role: &AssumeRole) -> Error {
    let arn = &role.role_arn;
    let message = error.aws.as_ref().and_then(|details| details.message.as_deref()).unwrap_or_default();
    let names = [("sts:TagSession", "session_tags"), ("sts:SetSourceIdentity", "source_identity")];
    if let Some((action, field)) = names.into_iter().find(|(action, _)| message.contains(action)) {
        let remedy = format!(
            "AWS denies {action}. Allow it to the function's role in the trust policy of the role {arn} (the parameter \
             AllowSessionTags of bedrock-role.yaml), or remove {field} from the target (the parameters SessionTags and \
             SourceIdentity)"
        );
        return error.with_remedy_for(ErrorClass::Permission, remedy);
    }
    let external_id = match role.external_id {
        Some(_) => "requires the configured external ID (the parameter ExternalId, or the target's external_id)",
        None => "requires no external ID, because none is configured (the parameter ExternalId, or external_id)",
    };
    let source_identity = role.source_identity.as_ref().map(|_| "sts:SetSourceIdentity");
    let session_tags = (!role.session_tags.is_empty()).then_some("sts:TagSession");
    let actions: Vec<_> = [Some("sts:AssumeRole"), source_identity, session_tags].into_iter().flatten().collect();
    let actions = actions.join(" and ");
    let name = arn.as_str().rsplit('/').next().unwrap_or_default();
    let trust = format!(
        "Check that the role {arn} exists, that its trust policy allows {actions} to the function's role (the stack's \
         output ExecutionRoleArn) and {external_id}, and that the policy of the function's role allows {actions} on it \
         (the parameter BedrockRoleArn, or RoleArns with Targets). To see the trust policy, with credentials of the \
         role's account: `aws iam get-role --role-name {name} --query Role.AssumeRolePolicyDocument`"
    );
    error.with_remedy_for(ErrorClass::Permission, trust)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;
    use crate::config::for_test::role_based;
    use crate::error::AwsDetails;

    #[test]
    fn a_denied_call_is_explained_for_this_role() {
        let Source::RoleBased(source) = role_based("prod").source else { unreachable!() };
        let denied = Error::new(ErrorClass::Permission, Service::Sts, "AssumeRole", "answered AccessDenied", "");
        let remedy = explain(denied, &source.role).remedy;
        assert!(remedy.contains("the role arn:aws:iam::123456789012:role/bedrock exists"), "{remedy}");
        assert!(
            remedy.contains("requires no external ID") && remedy.contains("get-role --role-name bedrock "),
            "{remedy}"
        );
    }

    #[test]
    fn a_denied_tag_or_source_identity_is_named_with_its_field() {
        let Source::RoleBased(source) = role_based("prod").source else { unreachable!() };
        for (action, field) in [("sts:TagSession", "session_tags"), ("sts:SetSourceIdentity", "source_identity")] {
            let message = Some(format!("User: x is not authorized to perform: {action} on resource: y"));
            let denied = Error::new(ErrorClass::Permission, Service::Sts, "AssumeRole", "answered AccessDenied", "");
            let denied = denied.with_aws(AwsDetails { message, request_id: None });
            let remedy = explain(denied, &source.role).remedy;
            assert!(remedy.starts_with(&format!("AWS denies {action}. ")), "{remedy}");
            assert!(remedy.contains(&format!("remove {field} ")), "{remedy}");
        }
    }

    #[test]
    fn the_functions_role_is_read_from_the_arn_of_its_session() {
        let role = role_of_session("arn:aws-cn:sts::123456789012:assumed-role/rotator/function").unwrap();
        assert_eq!(role.as_str(), "arn:aws-cn:iam::123456789012:role/rotator");
        assert_eq!(role_of_session("arn:aws:iam::123456789012:user/somebody"), None);
        assert_eq!(role_of_session(""), None);
    }
}
