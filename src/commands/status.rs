//! The action `status`: a target's credentials as they are now, and what that means. It only reads.

use futures_util::future::join;
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::braintrust::arrival;
use crate::braintrust::layout::Layout;
use crate::config::Target;
use crate::credentials::Kind;
use crate::error::Error;
use crate::report::iso8601;
use crate::rotation::destinations::{self, Found, Reading};
use crate::rotation::snapshot::Versions;
use crate::rotation::target_run::TargetRun;
use crate::rotation::verdict::{self, Current, RotatedBy, State, judge};

#[derive(Debug, Serialize)]
pub struct TargetStatus {
    name: String,
    pub state: State,
    kind: Kind,
    region: String,
    /// The staged secret, as configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_id: Option<String>,
    /// Since the credentials were created. Without a staged secret: since the `ai_secret` last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<i64>,
    /// When this function made the credentials current, if its label on the staged secret says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_since: Option<String>,
    /// Without a staged secret: the latest time at which they expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    rotated_by: RotatedBy,
    /// A time, or `next_scheduled_run`. Absent if Secrets Manager rotates the target and doesn't say when.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_rotation: Option<String>,
    rotation_under_way: bool,
    #[serde(rename = "ai_secrets")]
    destinations: Vec<DestinationStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
}

#[derive(Debug, Default, Serialize)]
struct DestinationStatus {
    /// As configured: the ID or the name.
    ai_secret: String,
    /// As configured, for a project's own provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layout: Option<Layout>,
    /// Absent where it holds an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key_id: Option<String>,
    /// When its secret last changed, if the data plane says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<Timestamp>,
    /// Whether it holds what the staged secret holds. Unknown without a staged secret, and if it may hold the current
    /// API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    holds_current: Option<bool>,
    /// Whether Braintrust assumes a role itself for this provider.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    uses_assume_role: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
}

pub async fn run(run: TargetRun<'_>) -> TargetStatus {
    let target = run.target;
    let (versions, readings) = join(run.read_versions(), run.read_destinations()).await;
    let staged = versions.as_ref().ok().and_then(Option::as_ref);
    let destinations = readings.iter().map(|reading| destination_status(target, reading, staged)).collect();
    let current = versions.map(|versions| Current::of(target, versions.as_ref(), &readings));
    target_status(run.now(), target, current, destinations, destinations::warnings(&readings))
}

fn destination_status(target: &Target, reading: &Reading<'_>, versions: Option<&Versions>) -> DestinationStatus {
    let lookup = &reading.destination.lookup;
    let (ai_secret, project) = (lookup.to_string(), lookup.project().map(ToString::to_string));
    let status = DestinationStatus { ai_secret, project, ..DestinationStatus::default() };
    let found = match &reading.result {
        Ok(Found::Writable(found)) => found,
        Ok(Found::UsesAssumeRole(provider)) => {
            let (id, updated_at) = (Some(provider.id), arrival::changed_at(provider));
            return DestinationStatus { id, updated_at, uses_assume_role: true, ..status };
        }
        Err(error) => return DestinationStatus { error: Some(error.clone()), ..status },
    };
    // Without its staged secret's versions, a target must not be judged like a target that has no staged secret.
    let is_known = versions.is_some() || target.secret_id().is_none();
    DestinationStatus {
        id: Some(found.provider.id),
        layout: Some(found.layout),
        access_key_id: arrival::access_key_id(found.layout, &found.provider.metadata).map(str::to_owned),
        updated_at: arrival::changed_at(&found.provider),
        holds_current: if is_known { verdict::holds_current(target, versions, found) } else { None },
        ..status
    }
}

fn target_status(
    now: Timestamp,
    target: &Target,
    current: Result<Current, Error>,
    destinations: Vec<DestinationStatus>,
    warnings: Vec<String>,
) -> TargetStatus {
    let unreadable = current.as_ref().err().cloned();
    let current = current.unwrap_or_default();
    let have_moved = destinations.iter().all(|destination| destination.uses_assume_role);
    let next_rotation = match (current.due, current.rotated_by) {
        _ if unreadable.is_some() || have_moved => None,
        (Some(time), _) if time > now => Some(iso8601(time)),
        (_, RotatedBy::Schedule) => Some("next_scheduled_run".to_owned()),
        (_, RotatedBy::SecretsManager) => None,
    };
    let error = unreadable.or_else(|| destinations.iter().find_map(|destination| destination.error.clone()));
    TargetStatus {
        name: target.name.to_string(),
        state: if have_moved {
            State::UsesAssumeRole
        } else if error.is_some() {
            State::Unknown
        } else {
            judge(now, target, &current, destinations.iter().map(|it| it.holds_current))
        },
        kind: target.kind(),
        region: target.region.to_string(),
        secret_id: target.secret_id().map(|id| id.as_str().to_owned()),
        credential_id: current.credential_id,
        age_seconds: current.lifetime.map(|lifetime| now.duration_since(lifetime.created_at).as_secs()),
        current_since: current.since.map(iso8601),
        expires_at: current.lifetime.and_then(|lifetime| lifetime.expires_at).map(iso8601),
        rotated_by: current.rotated_by,
        next_rotation,
        rotation_under_way: current.rotation_under_way,
        destinations,
        warnings,
        error,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::for_test::{role_based, user_based};
    use crate::credentials::Lifetime;
    use crate::error::{ErrorClass, Service};

    const NOW: &str = "2026-01-10T00:00:00Z";

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn current(created_at: &str, expires_at: Option<&str>, due: Option<&str>) -> Current {
        let lifetime = Some(Lifetime { created_at: at(created_at), expires_at: expires_at.map(at) });
        Current { credential_id: Some("AKIA".to_owned()), lifetime, due: due.map(at), ..Current::default() }
    }

    fn holds(holds_current: Option<bool>) -> DestinationStatus {
        DestinationStatus { ai_secret: "\"Bedrock\"".to_owned(), holds_current, ..DestinationStatus::default() }
    }

    fn error() -> Error {
        Error::new(ErrorClass::Unavailable, Service::SecretsManager, "DescribeSecret", "answered 500", "Try again")
    }

    fn of_user(current: Result<Current, Error>, destination: DestinationStatus) -> TargetStatus {
        target_status(at(NOW), &user_based("prod"), current, vec![destination], Vec::new())
    }

    #[test]
    fn a_target_is_judged_by_what_is_current_and_what_braintrust_holds() {
        let (old, end) = ("2026-01-01T00:00:00Z", "2026-01-10T00:00:01Z");
        let ended = Some(NOW);
        let (yesterday, before) = ("2026-01-09T00:00:00Z", "2026-01-08T23:59:59Z");
        for (current, destination, expected) in [
            (Current::default(), holds(None), State::NeverRotated),
            (Current::default(), holds(Some(false)), State::NeverRotated),
            (current(old, None, None), holds(Some(true)), State::Ok),
            (Current { is_revoked: true, ..current(old, None, None) }, holds(Some(true)), State::Overdue),
            (current(old, Some(end), Some(yesterday)), holds(None), State::Ok),
            (current(old, None, None), holds(Some(false)), State::OutOfStep),
            (current(old, ended, Some(before)), holds(Some(false)), State::OutOfStep),
            (current(old, ended, Some(before)), holds(Some(true)), State::Expired),
            (current(old, Some(end), Some(before)), holds(Some(true)), State::Overdue),
        ] {
            let status = of_user(Ok(current), destination);
            assert_eq!(status.state, expected, "{status:?}");
        }
    }

    #[test]
    fn a_target_uses_assume_role_if_all_its_destinations_do_even_if_its_secret_is_gone() {
        let moved = || DestinationStatus { uses_assume_role: true, ..holds(None) };
        let of = |destinations| target_status(at(NOW), &user_based("prod"), Err(error()), destinations, Vec::new());
        let status = of(vec![moved(), moved()]);
        assert_eq!((status.state, status.next_rotation), (State::UsesAssumeRole, None));
        assert_eq!(of(vec![moved(), holds(None)]).state, State::Unknown);
    }

    #[test]
    fn one_destination_out_of_step_is_enough() {
        let destinations = vec![holds(Some(true)), holds(Some(false)), holds(None)];
        let current = Ok(current(NOW, None, None));
        assert_eq!(
            target_status(at(NOW), &user_based("prod"), current, destinations, Vec::new()).state,
            State::OutOfStep
        );
    }

    #[test]
    fn a_target_without_a_staged_secret_is_unknown_while_the_data_plane_does_not_say_when_it_changed() {
        let target = role_based("prod");
        let state = |current| target_status(at(NOW), &target, Ok(current), vec![holds(None)], Vec::new()).state;
        assert_eq!(state(Current::default()), State::Unknown);
        assert_eq!(state(current(NOW, None, None)), State::Ok);
    }

    #[test]
    fn a_secret_that_cannot_be_read_leaves_everything_unknown() {
        let status = of_user(Err(error()), holds(None));
        let mut json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["error"].take(), serde_json::to_value(error()).unwrap());
        let expected = json!({
            "name": "prod", "state": "unknown", "kind": "access_key", "region": "us-east-1", "secret_id": "staged",
            "rotated_by": "schedule",
            "rotation_under_way": false, "ai_secrets": [{"ai_secret": "\"Bedrock\""}], "error": null,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_destination_that_cannot_be_read_leaves_the_state_unknown_and_the_rest_known() {
        let unreadable = DestinationStatus { error: Some(error()), ..holds(None) };
        let status = of_user(Ok(current(NOW, None, None)), unreadable);
        assert_eq!((status.state, status.credential_id.as_deref()), (State::Unknown, Some("AKIA")));
        assert_eq!(status.error.unwrap().problem, "answered 500");
    }

    #[test]
    fn the_next_rotation_is_a_time_or_the_next_scheduled_run() {
        let tomorrow = "2026-01-11T00:00:00Z";
        for (rotated_by, due, expected) in [
            (RotatedBy::Schedule, Some(tomorrow), json!(tomorrow)),
            (RotatedBy::Schedule, Some(NOW), json!("next_scheduled_run")),
            (RotatedBy::Schedule, None, json!("next_scheduled_run")),
            (RotatedBy::SecretsManager, Some(tomorrow), json!(tomorrow)),
            (RotatedBy::SecretsManager, Some(NOW), Value::Null),
            (RotatedBy::SecretsManager, None, Value::Null),
        ] {
            let current = Current { rotated_by, ..current(NOW, None, due) };
            let json = serde_json::to_value(of_user(Ok(current), holds(None))).unwrap();
            assert_eq!(json["next_rotation"], expected, "{rotated_by:?} {due:?}");
        }
    }

    #[test]
    fn the_age_the_end_and_the_promotion_are_those_of_the_current_credentials() {
        let since = Some(at("2026-01-09T23:00:01.5Z"));
        let current = Current { since, ..current("2026-01-09T23:00:00Z", Some("2026-01-11T00:00:00.5Z"), None) };
        let json = serde_json::to_value(of_user(Ok(current), holds(Some(true)))).unwrap();
        assert_eq!((&json["age_seconds"], &json["expires_at"]), (&json!(3_600), &json!("2026-01-11T00:00:00Z")));
        assert_eq!(
            (&json["current_since"], &json["ai_secrets"][0]["holds_current"]),
            (&json!("2026-01-09T23:00:01Z"), &json!(true))
        );
    }
}
