//! What an event asks for. An event may name targets, but can't define them.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, shortened};
use crate::json::Payload;

const ACCEPTED: &str = "Accepted: an EventBridge \"Scheduled Event\" of a rule or of EventBridge Scheduler, a Secrets \
     Manager rotation step (createSecret, setSecret, testSecret or finishSecret), \
     {\"action\":\"rotate\",\"targets\":[\"name\", …],\"force\":true|false,\"dry_run\":true|false}, where only action \
     is required, {\"action\":\"status\"} and {\"action\":\"check\"}, with or without targets, \
     {\"action\":\"inventory\"}, \
     {\"action\":\"rollback\",\"targets\":[\"name\", …],\"dry_run\":true|false,\"reactivate\":true|false}, and \
     {\"action\":\"revoke\",\"targets\":[\"name\", …],\"dry_run\":true|false,\"force\":true|false,\"api_key\":true|false}";

#[derive(Debug)]
pub enum Command {
    Rotate(Rotate),
    RotationStep(RotationStep),
    /// The names of the targets. All targets, if there are none.
    Status(Vec<String>),
    /// As for `Status`.
    Check(Vec<String>),
    Inventory,
    /// At least one target.
    Rollback {
        token: String,
        targets: Vec<String>,
        dry_run: bool,
        /// Whether a deactivated key may be activated again.
        reactivate: bool,
    },
    Revoke(Revoke),
}

/// Replaces credentials that have leaked, and ends them.
#[derive(Debug)]
pub struct Revoke {
    /// As for [`Rotate`].
    pub token: String,
    /// At least one target, unless the API keys alone are revoked.
    pub targets: Vec<String>,
    pub dry_run: bool,
    /// Ends the credentials even if their successor can't be written to Braintrust.
    pub force: bool,
    /// Revokes the Braintrust API keys of the targets, too, or of all targets if none are named.
    pub api_key: bool,
}

/// A scheduled run, or one that somebody asked for.
#[derive(Debug)]
pub struct Rotate {
    pub origin: Origin,
    /// The event's ID, or Lambda's request ID, which stays the same when Lambda retries. It names the version of a
    /// staged secret, so a repeated event resumes its own rotation.
    pub token: String,
    /// All targets, if there are none.
    pub targets: Vec<String>,
    pub dry_run: bool,
    /// Ignores the credentials' age.
    pub force: bool,
}

/// Secrets Manager's call of its rotation function.
///
/// Not the type of the crate `aws_lambda_events`, which drops `RotationToken` and would print it.
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html>
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RotationStep {
    pub step: Step,
    pub secret_id: String,
    /// The ID of the new version.
    pub client_request_token: String,
    /// `PutSecretValue` needs it across accounts.
    pub rotation_token: Option<SecretString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Step {
    #[serde(rename = "createSecret")]
    Create,
    #[serde(rename = "setSecret")]
    Set,
    #[serde(rename = "testSecret")]
    Test,
    #[serde(rename = "finishSecret")]
    Finish,
}

/// What sent the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Schedule,
    Action,
    Rotation,
}

impl Origin {
    /// As in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Action => "action",
            Self::Rotation => "rotation",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    action: String,
    targets: Option<Vec<String>>,
    dry_run: Option<bool>,
    force: Option<bool>,
    reactivate: Option<bool>,
    api_key: Option<bool>,
}

impl Command {
    /// Parses an event. The error lists what is accepted and does not repeat the event's content.
    pub fn parse(event: Payload, request_id: &str) -> Result<Self, Error> {
        if let Some(field) = event.duplicate_field {
            return refuse(&format!("the field {field:?} is given twice"));
        }
        let Value::Object(event) = event.value else { return refuse("it is not an object") };
        if event.contains_key("action") {
            return Self::of_action(parse(&event)?, request_id.to_owned());
        }
        if event.contains_key("Step") {
            return parse(&event).map(Self::RotationStep);
        }
        let text = |field| event.get(field).and_then(Value::as_str);
        match (text("source"), text("detail-type")) {
            (Some("aws.events" | "aws.scheduler"), Some("Scheduled Event")) => Ok(Self::Rotate(Rotate {
                origin: Origin::Schedule,
                // Secrets Manager takes 32 to 64 characters as the name of a version.
                token: text("id").filter(|id| (32..=64).contains(&id.len())).unwrap_or(request_id).to_owned(),
                targets: Vec::new(),
                dry_run: false,
                force: false,
            })),
            (Some(_), Some(_)) => refuse("the EventBridge event doesn't come from a schedule"),
            _ => refuse("the function doesn't know this kind of event"),
        }
    }

    fn of_action(request: Request, token: String) -> Result<Self, Error> {
        let Request { action, targets, dry_run, force, reactivate, api_key } = request;
        // A name in the list of targets may have white space around it, too.
        let targets: Vec<_> = targets.unwrap_or_default().iter().map(|name| name.trim().to_owned()).collect();
        let is_dry_run = dry_run == Some(true);
        if api_key.is_some() && action != "revoke" {
            return refuse("only the action revoke takes the field \"api_key\"");
        }
        match (action.as_str(), dry_run, force, reactivate) {
            ("rotate", _, _, None) => {
                let force = force == Some(true);
                Ok(Self::Rotate(Rotate { origin: Origin::Action, token, targets, dry_run: is_dry_run, force }))
            }
            ("rollback", _, None, _) if targets.is_empty() => refuse("a rollback must name its targets"),
            ("rollback", _, None, _) => {
                let reactivate = reactivate == Some(true);
                Ok(Self::Rollback { token, targets, dry_run: is_dry_run, reactivate })
            }
            ("revoke", _, _, None) => {
                let (force, api_key) = (force == Some(true), api_key == Some(true));
                if targets.is_empty() && (force || !api_key) {
                    return refuse("a revocation must name its targets, unless it has \"api_key\" and not \"force\"");
                }
                Ok(Self::Revoke(Revoke { token, targets, dry_run: is_dry_run, force, api_key }))
            }
            ("status", None, None, None) => Ok(Self::Status(targets)),
            ("check", None, None, None) => Ok(Self::Check(targets)),
            ("inventory", None, None, None) if targets.is_empty() => Ok(Self::Inventory),
            ("inventory", ..) => refuse("the action inventory takes no other fields"),
            ("rollback" | "status" | "check", _, Some(_), _) => {
                refuse("only the actions rotate and revoke take the field \"force\"")
            }
            ("rotate" | "revoke" | "status" | "check", _, _, Some(_)) => {
                refuse("only the action rollback takes the field \"reactivate\"")
            }
            ("status" | "check", Some(_), _, _) => {
                refuse("only rotate, rollback and revoke take the field \"dry_run\"")
            }
            _ => refuse("the action is unknown"),
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(event: &'a Map<String, Value>) -> Result<T, Error> {
    serde_path_to_error::deserialize(event).or_else(|error| {
        let (path, problem) = (shortened(&error.path().to_string()), error.inner().to_string());
        // Security: only the message about a missing field is repeated, because others show what a field holds.
        refuse(&match problem.split_once(" `") {
            Some(("missing field", _)) => problem,
            Some(("unknown field", _)) => format!("the field {path:?} is unknown"),
            _ => format!("the field {path:?} has a wrong value"),
        })
    })
}

fn refuse<T>(problem: &str) -> Result<T, Error> {
    Err(Error::configuration("event", problem, ACCEPTED))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(event: Value, request_id: &str) -> Result<Command, Error> {
        Command::parse(event.into(), request_id)
    }

    fn file(json: &str) -> Rotate {
        let Command::Rotate(rotate) = parse(serde_json::from_str(json).unwrap(), "request").unwrap() else { panic!() };
        rotate
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
            let command = parse(event.clone(), "request").unwrap();
            assert!(!format!("{command:?}").contains(event["RotationToken"].as_str().unwrap()));
            let Command::RotationStep(step) = command else { panic!() };
            assert_eq!((json!(step.step), json!(step.secret_id)), (event["Step"].clone(), event["SecretId"].clone()));
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
    fn the_name_of_an_origin_is_that_in_the_report() {
        for origin in [Origin::Schedule, Origin::Action, Origin::Rotation] {
            assert_eq!(json!(origin), json!(origin.name()));
        }
    }

    #[test]
    fn the_fields_of_an_action_are_parsed() {
        let read = |event| parse(event, "request").unwrap();
        for (field, dry_run, force) in
            [("dry_run", true, false), ("dry_run", false, false), ("force", false, true), ("force", false, false)]
        {
            let Command::Rotate(rotate) = read(json!({"action": "rotate", field: dry_run || force})) else { panic!() };
            assert_eq!((rotate.dry_run, rotate.force), (dry_run, force));
        }
        for dry_run in [true, false] {
            let event = json!({"action": "rollback", "targets": [" a\n"], "dry_run": dry_run});
            let Command::Rollback { targets, dry_run: is_dry_run, .. } = read(event) else { panic!() };
            assert_eq!((is_dry_run, targets.as_slice()), (dry_run, ["a".to_owned()].as_slice()));
        }
        for field in ["dry_run", "force", "api_key"] {
            let Command::Revoke(revoke) = read(json!({"action": "revoke", "targets": ["a"], field: true})) else {
                panic!()
            };
            let found = [("dry_run", revoke.dry_run), ("force", revoke.force), ("api_key", revoke.api_key)];
            assert_eq!(found.map(|(name, is_set)| is_set == (name == field)), [true; 3], "{field}");
        }
        let file = serde_json::from_str(include_str!("../events/revoke.json")).unwrap();
        assert!(matches!(read(file), Command::Revoke(Revoke { dry_run: false, force: false, api_key: false, .. })));
        for event in [
            json!({"action": "rollback"}),
            json!({"action": "rollback", "targets": []}),
            json!({"action": "rollback", "targets": ["a"], "force": true}),
            json!({"action": "status", "dry_run": true}),
            json!({"action": "revoke"}),
            json!({"action": "revoke", "targets": []}),
            json!({"action": "revoke", "targets": ["a"], "reactivate": true}),
            json!({"action": "revoke", "targets": [], "force": true, "api_key": true}),
            json!({"action": "rotate", "api_key": true}),
        ] {
            assert!(parse(event.clone(), "request").is_err(), "{event}");
        }
    }

    #[test]
    fn an_inventory_is_of_everything() {
        let read = |event| parse(event, "request");
        assert!(matches!(read(json!({"action": "inventory"})), Ok(Command::Inventory)));
        for (field, value) in [("targets", json!(["a"])), ("dry_run", json!(true)), ("force", json!(false))] {
            let error = read(json!({"action": "inventory", field: value})).unwrap_err();
            assert!(error.problem.contains("takes no other fields"), "{error}");
        }
    }

    #[test]
    fn a_scheduled_events_token_is_its_id_and_an_actions_is_the_request_id() {
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
            let error = parse(event.clone(), "request").unwrap_err();
            assert!(error.to_string().contains("Accepted: an EventBridge"), "{event}: {error}");
        }
    }

    #[test]
    fn the_wrong_field_of_an_action_is_named() {
        for (event, problem) in [
            (json!({"action": "destroy"}), "the action is unknown"),
            (json!({"action": "rotate", "dry_run": "yes"}), "the field \"dry_run\" has a wrong value"),
            (json!({"action": "rotate", "targets": ["a", 5]}), "the field \"targets[1]\" has a wrong value"),
            (json!({"action": "rotate", "verbose": true}), "the field \"verbose\" is unknown"),
            (json!({"action": "rotate", "unknown field `x`": 1}), "is unknown"),
            (
                json!({"Step": "begin", "SecretId": "x", "ClientRequestToken": "x"}),
                "the field \"Step\" has a wrong value",
            ),
            (json!({"Step": "createSecret", "SecretId": "x"}), "missing field `ClientRequestToken`"),
        ] {
            let error = parse(event, "request").unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
