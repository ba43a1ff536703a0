//! What `check` answers: all that a rotation would need, a line each; pure, and it must never hold a secret.

use std::time::Duration;

use serde::Serialize;

use crate::config::{Kind, Target};
use crate::error::Error;

/// The answer to the action `check`.
#[derive(Debug, Serialize)]
pub struct Check {
    /// `check`.
    pub action: &'static str,
    /// Whether no line failed.
    pub ok: bool,
    /// When it was asked, ISO 8601 in UTC.
    pub started_at: String,
    /// One a target, in the configured order.
    pub targets: Vec<TargetCheck>,
}

/// One target.
#[derive(Debug, Serialize)]
pub struct TargetCheck {
    /// The target.
    pub name: String,
    /// Whether no line failed.
    pub ok: bool,
    /// What was tried.
    pub lines: Vec<Line>,
}

impl TargetCheck {
    /// Sums the lines up.
    pub fn new(target: &Target, lines: Vec<Line>) -> Self {
        Self { name: target.name.clone(), ok: lines.iter().all(|line| line.result != Verdict::Failed), lines }
    }
}

/// One thing that a rotation needs.
#[derive(Debug, Serialize)]
pub struct Line {
    /// What was tried.
    pub what: String,
    /// What came of it.
    pub result: Verdict,
    /// What the operator should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Why it failed, and how to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It works.
    Ok,
    /// It works, and something is to be done.
    Warning,
    /// Only a rotation can tell.
    Untold,
    /// A rotation would fail.
    Failed,
}

impl Line {
    /// One that works.
    pub fn ok(what: impl Into<String>) -> Self {
        Self { what: what.into(), result: Verdict::Ok, note: None, error: None }
    }

    /// One that works, or not, by a call's answer.
    pub fn of<T>(what: impl Into<String>, answer: &Result<T, Error>) -> Self {
        match answer {
            Ok(_) => Self::ok(what),
            Err(error) => Self { result: Verdict::Failed, error: Some(error.clone()), ..Self::ok(what) },
        }
    }

    /// One with something to be done.
    pub fn warning(what: impl Into<String>, note: impl Into<String>) -> Self {
        Self { result: Verdict::Warning, note: Some(note.into()), ..Self::ok(what) }
    }

    /// One that only a rotation can tell.
    pub fn untold(what: impl Into<String>, note: impl Into<String>) -> Self {
        Self { result: Verdict::Untold, note: Some(note.into()), ..Self::ok(what) }
    }
}

/// Whether the schedule comes often enough for credentials that expire; nothing to say of a `cron()`, or without one.
pub fn schedule(target: &Target, expression: Option<&str>) -> Option<Line> {
    let (Kind::Temporary(role) | Kind::ShortTermApiKey(role)) = &target.kind else { return None };
    let every = rate(expression?)?;
    let life = Duration::from_secs(role.duration_seconds.into());
    let what = format!("the schedule, {}, against {} s of life", expression?, life.as_secs());
    Some(if every >= life {
        let problem = format!("the credentials live {} s, and ticks come every {} s", life.as_secs(), every.as_secs());
        let remedy = "Braintrust is without credentials in between: make the schedule at most half of duration_seconds";
        Line::of(what, &Err::<(), _>(Error::configuration("schedule", problem, remedy)))
    } else if every * 2 > life {
        Line::warning(what, "one failed tick leaves Braintrust without credentials: make it at most half of that")
    } else {
        Line::ok(what)
    })
}

/// The period of EventBridge's `rate(5 minutes)`.
/// <https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#rate-based>
fn rate(expression: &str) -> Option<Duration> {
    let (number, unit) = expression.trim().strip_prefix("rate(")?.strip_suffix(')')?.trim().split_once(' ')?;
    let seconds = match unit.trim().trim_end_matches('s') {
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AssumeRole, Probe};

    #[test]
    fn a_schedule_slower_than_the_credentials_live_fails_and_a_tight_one_is_warned_of() {
        let role_arn = "arn:aws:iam::123456789012:role/x".to_owned();
        let role = AssumeRole { role_arn, external_id: None, duration_seconds: 3_600, session_policy: None };
        let target = Target {
            name: "prod".to_owned(),
            kind: Kind::Temporary(role),
            region: "us-east-1".to_owned(),
            secret_id: None,
            probe: Probe::Models,
            ai_secrets: Vec::new(),
        };
        for (expression, verdict) in [
            (Some("rate(30 minutes)"), Some(Verdict::Ok)),
            (Some("rate(31 minutes)"), Some(Verdict::Warning)),
            (Some("rate(1 hour)"), Some(Verdict::Failed)),
            (Some("rate(1 day)"), Some(Verdict::Failed)),
            (Some("cron(0 * * * ? *)"), None),
            (Some("rate(soon)"), None),
            (None, None),
        ] {
            assert_eq!(schedule(&target, expression).map(|line| line.result), verdict, "{expression:?}");
        }
    }
}
