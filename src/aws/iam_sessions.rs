//! Ends the sessions of a role that were issued before a cut-off, with an inline policy that denies them everything.
//! The IAM console revokes sessions with the same policy.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html>

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::iam_keys::Iam;
use super::requests::AwsRequests;
use super::sdk;
use crate::config::{AssumeRole, RoleArn};
use crate::credentials::Credentials;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorClass, Service};

/// The name that the IAM console uses. Its policy is replaced, not added to.
const POLICY_NAME: &str = "AWSRevokeOlderSessions";
const ISSUE_TIME: &str = "aws:TokenIssueTime";
/// Between the function's clock and STS's, with the time that the call takes.
const MAX_DIFFERENCE: SignedDuration = SignedDuration::from_mins(5);

/// The time before which sessions are ended: the time at which the successor's session was issued. It is made from the
/// successor only, so that a policy can't end the credentials that Braintrust has just received. It comes from STS's
/// own clock, in the whole seconds of `aws:TokenIssueTime`, so the function's clock doesn't matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutOff(Timestamp);

impl CutOff {
    /// The session of `successor` was issued exactly its duration before it expires. `None` if that isn't about when it
    /// was created: `duration_seconds` may have changed since, and whoever may write a staged secret may write any
    /// time. A policy with a date in the future would end every session until then.
    pub fn before(successor: &Credentials, role: &AssumeRole, now: Timestamp) -> Option<Self> {
        let issued_at = successor.expires_at?.checked_sub(Duration::from_secs(role.duration_seconds.into())).ok()?;
        let is_about = |time: Timestamp| issued_at.duration_since(time).abs() <= MAX_DIFFERENCE;
        let is_certain = is_about(successor.created_at) && (issued_at <= now || is_about(now));
        Timestamp::from_second(issued_at.as_second()).ok().filter(|_| is_certain).map(Self)
    }

    pub fn time(self) -> Timestamp {
        self.0
    }

    /// The cut-off of a policy as IAM returns it: JSON, encoded like a URL.
    fn of_policy(document: &str) -> Option<Self> {
        let text = percent_decode_str(document).decode_utf8().ok()?;
        let policy: Value = serde_json::from_str(&text).ok()?;
        let time = policy.pointer("/Statement/0/Condition/DateLessThan")?.get(ISSUE_TIME)?;
        time.as_str()?.parse().ok().map(Self)
    }
}

fn policy(before: Timestamp) -> String {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Deny",
            "Action": ["*"],
            "Resource": ["*"],
            "Condition": {"DateLessThan": {ISSUE_TIME: format!("{before:.0}")}},
        }],
    })
    .to_string()
}

/// The command with which an administrator of the role's account ends the sessions that were issued before this time.
pub fn command(role_name: &str, before: Timestamp) -> String {
    let policy = policy(before);
    format!("aws iam put-role-policy --role-name {role_name} --policy-name {POLICY_NAME} --policy-document '{policy}'")
}

impl Iam {
    /// The cut-off of the policy that the role has, if it has one. A role that doesn't exist has none.
    pub async fn cut_off(&self, role: &RoleArn, deadline: Deadline) -> Result<Option<CutOff>, Error> {
        const GET: &str = "GetRolePolicy";
        let request = self.client().get_role_policy().role_name(role.name()).policy_name(POLICY_NAME).send();
        match sdk::send(Service::Iam, GET, deadline, request).await {
            Ok(found) => Ok(CutOff::of_policy(&found.policy_document)),
            Err(error) if error.class == ErrorClass::NotFound => Ok(None),
            Err(error) => Err(explain(error, role)),
        }
    }

    /// Ends the role's sessions before the cut-off. The date only moves forward: if the role already has a policy with
    /// a later one, that policy stays. Returns the cut-off that applies.
    pub async fn end_sessions(
        &self,
        role: &RoleArn,
        cut_off: CutOff,
        deadline: Deadline,
        requests: &AwsRequests,
    ) -> Result<CutOff, Error> {
        const PUT: &str = "PutRolePolicy";
        let found = self.cut_off(role, deadline).await?;
        if let Some(later) = found.filter(|found| found.0 >= cut_off.0) {
            return Ok(later);
        }
        let request = self.client().put_role_policy().role_name(role.name()).policy_name(POLICY_NAME);
        let request = request.policy_document(policy(cut_off.0)).send();
        let put = requests.send(Service::Iam, PUT, deadline, request).await;
        put.map_err(|error| explain(error, role)).map(|_| cut_off)
    }
}

fn explain(error: Error, role: &RoleArn) -> Error {
    let call = error.call;
    let denied = format!(
        "Allow iam:{call} on {role} in the policy of the function's role, which must be in the same account (the \
         parameter AllowSessionRevocation does that), or run the command in this report as an administrator of the \
         role's account"
    );
    let missing =
        format!("The function's account has no role {role}. Run the command in this report in the role's account");
    error.with_remedy_for(ErrorClass::Permission, denied).with_remedy_for(ErrorClass::NotFound, missing)
}

#[cfg(test)]
mod tests {
    use super::super::sdk::replay::Replay;
    use super::*;
    use crate::config::{Source, for_test};
    use crate::credentials::{Kind, Secret};

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    /// Of a successor that was created at twelve.
    fn cut_off_at(expires_at: &str, now: &str) -> Option<CutOff> {
        let Source::RoleBased(source) = for_test::role_based("prod").source else { panic!("it has no role") };
        let (created_at, secret) = (at("2026-01-15T12:00:00Z"), Secret::for_test(Kind::Temporary));
        let successor = Credentials { id: "ASIANEW".to_owned(), created_at, expires_at: Some(at(expires_at)), secret };
        CutOff::before(&successor, &source.role, at(now))
    }

    fn cut_off(expires_at: &str) -> CutOff {
        cut_off_at(expires_at, "2026-01-15T12:00:06Z").unwrap()
    }

    #[test]
    fn there_is_no_cut_off_if_the_successor_was_created_at_another_time_or_in_the_future() {
        for (expires_at, now, is_certain) in [
            ("2026-01-15T13:05:00Z", "2026-01-15T12:06:00Z", true),
            ("2026-01-15T12:55:00Z", "2026-01-15T12:00:00Z", true),
            ("2026-01-15T13:05:01Z", "2026-01-15T12:06:00Z", false),
            ("2026-01-15T12:15:00Z", "2026-01-15T12:06:00Z", false),
            ("2026-01-15T13:00:05Z", "2026-01-15T11:50:00Z", false),
        ] {
            assert_eq!(cut_off_at(expires_at, now).is_some(), is_certain, "{expires_at} at {now}");
        }
    }

    fn role() -> RoleArn {
        "arn:aws:iam::123456789012:role/team/bedrock".to_owned().try_into().unwrap()
    }

    #[test]
    fn the_cut_off_is_when_sts_issued_the_successor_whatever_the_functions_clock_says() {
        let cut_off = cut_off("2026-01-15T13:00:05Z");
        assert_eq!(cut_off, CutOff(at("2026-01-15T12:00:05Z")));
        let policy: Value = serde_json::from_str(&policy(cut_off.0)).unwrap();
        let condition = &policy["Statement"][0]["Condition"];
        // Not earlier than itself, so the successor isn't denied.
        assert_eq!(condition, &json!({"DateLessThan": {"aws:TokenIssueTime": "2026-01-15T12:00:05Z"}}));
        assert_eq!(policy["Statement"][0]["Effect"], "Deny");
    }

    #[test]
    fn the_command_names_the_role_without_its_path_and_a_whole_second_that_is_not_later() {
        let command = command(role().name(), at("2026-01-15T12:00:05.9Z"));
        assert!(command.contains(r#""2026-01-15T12:00:05Z""#), "{command}");
        assert!(
            command.starts_with("aws iam put-role-policy --role-name bedrock --policy-name AWSRevokeOlderSessions ")
        );
    }

    async fn end(existing: Option<&str>) -> (CutOff, Vec<String>) {
        let missing = (404, "<ErrorResponse><Error><Code>NoSuchEntity</Code></Error></ErrorResponse>".to_owned());
        let first = existing.map_or(missing, |time| {
            let encoded = policy(at(time)).replace('"', "%22").replace('{', "%7B");
            let body = format!(
                "<GetRolePolicyResponse><GetRolePolicyResult><RoleName>bedrock</RoleName><PolicyName>x</PolicyName>\
                 <PolicyDocument>{encoded}</PolicyDocument></GetRolePolicyResult></GetRolePolicyResponse>"
            );
            (200, body)
        });
        let aws = Replay::of(&[(first.0, &first.1), (200, "<PutRolePolicyResponse></PutRolePolicyResponse>")]);
        let deadline = Deadline::after(Duration::from_secs(60));
        let iam = Iam::new(&aws.config());
        let (cut_off, requests) = (cut_off("2026-01-15T13:00:05Z"), AwsRequests::default());
        let ended = iam.end_sessions(&role(), cut_off, deadline, &requests).await.unwrap();
        (ended, aws.requests())
    }

    #[tokio::test]
    async fn the_date_of_the_policy_only_moves_forward() {
        for existing in [None, Some("2026-01-01T00:00:00Z")] {
            let (ended, requests) = end(existing).await;
            assert_eq!((ended, requests.len()), (CutOff(at("2026-01-15T12:00:05Z")), 2), "{existing:?}");
            assert!(requests[1].contains("RoleName=bedrock") && requests[1].contains("2026-01-15T12%3A00%3A05Z"));
        }
        let (ended, requests) = end(Some("2026-01-15T12:30:00Z")).await;
        assert_eq!((ended, requests.len()), (CutOff(at("2026-01-15T12:30:00Z")), 1));
    }
}
