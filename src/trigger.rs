//! What an event asks for; an event may name targets, and must never define them.

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;

const ACCEPTED: &str = "Accepted: an EventBridge \"Scheduled Event\" of a rule or of EventBridge Scheduler, \
     a Secrets Manager rotation step, \
     or {\"action\":\"rotate\",\"targets\":[\"name\", …],\"force\":true|false,\"dry_run\":true|false}, where all but action \
     may be left out; {\"action\":\"status\"} and {\"action\":\"check\"}, with or without targets; \
     {\"action\":\"rollback\",\"targets\":[\"name\", …],\"dry_run\":true|false}";

/// What an event asks for.
#[derive(Debug)]
pub enum Trigger {
    /// All due targets, or those that are named.
    Tick(Tick),
    /// One step of one secret's rotation.
    Step(RotationStep),
    /// What there is; reads only. The targets' names; all, if there is none.
    Status(Vec<String>),
    /// What a rotation would need; reads only. The targets' names; all, if there is none.
    Check(Vec<String>),
    /// The previous credentials back.
    Rollback(Rollback),
}

/// Back to the previous credentials.
#[derive(Debug, PartialEq, Eq)]
pub struct Rollback {
    /// Lambda's request id.
    pub token: String,
    /// The targets' names, at least one.
    pub targets: Vec<String>,
    /// Read and report, and change nothing anywhere.
    pub dry_run: bool,
}

/// One tick over the targets.
#[derive(Debug, PartialEq, Eq)]
pub struct Tick {
    /// Who asked for it.
    pub origin: Origin,
    /// What makes a repeated event recognizable: the event's id, or Lambda's request id, which stays the same when
    /// Lambda retries.
    pub token: String,
    /// The targets' names; all, if there is none.
    pub targets: Vec<String>,
    /// Read and report, and change nothing anywhere.
    pub dry_run: bool,
    /// Rotate what is not due, too.
    pub force: bool,
}

/// What Secrets Manager asks of a rotation function.
///
/// An own type: `aws_lambda_events` drops `RotationToken`, and would print it.
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html>
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RotationStep {
    /// `createSecret`, `setSecret`, `testSecret` or `finishSecret`.
    pub step: String,
    /// The secret's ARN.
    pub secret_id: String,
    /// The version that is rotated in.
    pub client_request_token: String,
    /// Needed by `PutSecretValue` across accounts.
    pub rotation_token: Option<SecretString>,
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// An EventBridge rule or schedule.
    Schedule,
    /// A person or a script, by an action.
    Action,
    /// Secrets Manager.
    Rotation,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    action: Action,
    #[serde(default)]
    targets: Vec<String>,
    dry_run: Option<bool>,
    force: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Rotate,
    Status,
    Check,
    Rollback,
}

impl Trigger {
    /// Reads an event.
    ///
    /// # Errors
    /// `configuration`, listing what is accepted; the event's content is not repeated.
    pub fn from_event(event: Value, request_id: &str) -> Result<Self, Error> {
        if event.get("action").is_some() {
            return Self::from_action(event, request_id.to_owned());
        }
        if event.get("Step").is_some() {
            let step = serde_json::from_value(event).map_err(|_| refuse("a rotation step that lacks a field"))?;
            return Ok(Self::Step(step));
        }
        // The `detail` of a rule is an object, that of EventBridge Scheduler a string: nothing in it is read.
        let event: EventBridgeEvent =
            serde_json::from_value(event).map_err(|_| refuse("this is no event that the function knows"))?;
        match (event.source.as_str(), event.detail_type.as_str()) {
            ("aws.events" | "aws.scheduler", "Scheduled Event") => Ok(Self::Tick(Tick {
                origin: Origin::Schedule,
                // It names a version in Secrets Manager, which takes 32 to 64 characters.
                token: event.id.filter(|id| (32..=64).contains(&id.len())).unwrap_or_else(|| request_id.to_owned()),
                targets: Vec::new(),
                dry_run: false,
                force: false,
            })),
            _ => Err(refuse("an EventBridge event that is no schedule")),
        }
    }

    fn from_action(event: Value, token: String) -> Result<Self, Error> {
        let Request { action, targets, dry_run, force } = serde_path_to_error::deserialize(event).map_err(|error| {
            refuse(&format!("the field {:?} is unknown or has a wrong value", error.path().to_string()))
        })?;
        let is_dry_run = dry_run == Some(true);
        match (action, dry_run, force) {
            (Action::Rotate, ..) => {
                let force = force == Some(true);
                Ok(Self::Tick(Tick { origin: Origin::Action, token, targets, dry_run: is_dry_run, force }))
            }
            (Action::Rollback, _, None) if targets.is_empty() => Err(refuse("a rollback has to name its targets")),
            (Action::Rollback, _, None) => Ok(Self::Rollback(Rollback { token, targets, dry_run: is_dry_run })),
            (Action::Status, None, None) => Ok(Self::Status(targets)),
            (Action::Check, None, None) => Ok(Self::Check(targets)),
            (_, _, Some(_)) => Err(refuse("the field \"force\" is for the action rotate")),
            (_, Some(_), _) => Err(refuse("the field \"dry_run\" is for the actions rotate and rollback")),
        }
    }
}

fn refuse(problem: &str) -> Error {
    Error::configuration("event", problem, ACCEPTED)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(json: &str) -> Tick {
        match Trigger::from_event(serde_json::from_str(json).unwrap(), "request").unwrap() {
            Trigger::Tick(tick) => tick,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_rotation_step_is_understood_and_its_token_not_shown() {
        for json in [
            include_str!("../events/create_secret.json"),
            include_str!("../events/set_secret.json"),
            include_str!("../events/test_secret.json"),
            include_str!("../events/finish_secret.json"),
        ] {
            let event: Value = serde_json::from_str(json).unwrap();
            let trigger = Trigger::from_event(event.clone(), "request").unwrap();
            assert!(!format!("{trigger:?}").contains(event["RotationToken"].as_str().unwrap()));
            let Trigger::Step(step) = trigger else { panic!() };
            assert_eq!(
                (step.step, step.secret_id),
                (event["Step"].as_str().unwrap().into(), event["SecretId"].as_str().unwrap().into())
            );
        }
    }

    #[test]
    fn every_file_in_events_is_understood() {
        for (json, origin) in [
            (include_str!("../events/schedule.json"), Origin::Schedule),
            (include_str!("../events/scheduler.json"), Origin::Schedule),
            (include_str!("../events/rotate.json"), Origin::Action),
            (include_str!("../events/rotate_dry_run.json"), Origin::Action),
        ] {
            assert_eq!(file(json).origin, origin);
        }
    }

    #[test]
    fn an_action_says_how() {
        let read = |event| Trigger::from_event(event, "request").unwrap();
        for (field, dry_run, force) in
            [("dry_run", true, false), ("dry_run", false, false), ("force", false, true), ("force", false, false)]
        {
            let Trigger::Tick(tick) = read(json!({"action": "rotate", field: dry_run || force})) else { panic!() };
            assert_eq!((tick.dry_run, tick.force), (dry_run, force));
        }
        for dry_run in [true, false] {
            let event = json!({"action": "rollback", "targets": ["a"], "dry_run": dry_run});
            let Trigger::Rollback(rollback) = read(event) else { panic!() };
            assert_eq!((rollback.dry_run, rollback.targets.as_slice()), (dry_run, ["a".to_owned()].as_slice()));
        }
        for event in [
            json!({"action": "rollback"}),
            json!({"action": "rollback", "targets": []}),
            json!({"action": "rollback", "targets": ["a"], "force": true}),
            json!({"action": "status", "dry_run": true}),
        ] {
            assert!(Trigger::from_event(event.clone(), "request").is_err(), "{event}");
        }
    }

    #[test]
    fn a_schedules_token_is_its_id_and_an_actions_the_request() {
        let schedule: Value = serde_json::from_str(include_str!("../events/schedule.json")).unwrap();
        assert_eq!(file(&schedule.to_string()).token, schedule["id"]);
        assert_eq!(file(include_str!("../events/rotate.json")).token, "request");
    }

    #[test]
    fn anything_else_is_refused_with_what_is_accepted() {
        for event in [
            json!(null),
            json!([]),
            json!("rotate"),
            json!({}),
            json!({"action": "destroy"}),
            json!({"Step": "createSecret", "SecretId": "arn:aws:secretsmanager:us-east-1:123456789012:secret:x"}),
            json!({"Step": 1, "SecretId": "x", "ClientRequestToken": "x"}),
            json!({"action": 1}),
            json!({"action": "rotate", "force_it": true}),
            json!({"action": "rotate", "targets": "prod"}),
            json!({"action": "rotate", "targets": [{"name": "mine", "role_arn": "arn:aws:iam::123456789012:role/x"}]}),
            json!({"source": "aws.ec2", "detail-type": "Scheduled Event", "detail": {}}),
            json!({"source": "aws.events", "detail-type": "EC2 Instance State-change Notification", "detail": {}}),
        ] {
            let error = Trigger::from_event(event.clone(), "request").unwrap_err();
            assert!(error.to_string().contains("Accepted: an EventBridge"), "{event}: {error}");
        }
    }

    #[test]
    fn the_wrong_field_of_an_action_is_named() {
        for (event, field) in [
            (json!({"action": "destroy"}), "action"),
            (json!({"action": "rotate", "dry_run": "yes"}), "dry_run"),
            (json!({"action": "rotate", "targets": ["a", 5]}), "targets[1]"),
            (json!({"action": "rotate", "verbose": true}), "verbose"),
        ] {
            let error = Trigger::from_event(event, "request").unwrap_err().to_string();
            assert!(error.contains(&format!("the field {field:?} is unknown or has a wrong value")), "{error}");
        }
    }
}
