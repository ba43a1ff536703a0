//! What an invocation answers and logs; it must never hold a secret.

use std::io::Write;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::braintrust::layout::Layout;
use crate::credentials::{KindName, Lifetime};
use crate::error::Error;
use crate::trigger::Origin;

/// The answer of an invocation, and its one log line.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Who asked for it.
    pub trigger: Origin,
    /// What makes a repeated event recognizable.
    pub token: String,
    /// The step that Secrets Manager asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// When it began, ISO 8601 in UTC.
    pub started_at: String,
    /// From the first call to the last, in milliseconds.
    pub duration_ms: u64,
    /// One a target, in the configured order.
    pub targets: Vec<TargetReport>,
}

/// What happened to a target.
#[derive(Debug, Serialize)]
pub struct TargetReport {
    /// The target.
    pub name: String,
    /// In one word.
    pub outcome: Outcome,
    /// How its credentials are made; none for the Braintrust API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<KindName>,
    /// The Bedrock region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The id of the credentials: an identifier, no secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_id: Option<String>,
    /// When the new credentials stop working, ISO 8601 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// From when to when those work that Braintrust holds, as far as it is known: for the metrics.
    #[serde(skip)]
    pub held: Option<Lifetime>,
    /// Where they went.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ai_secrets: Vec<AiSecretReport>,
    /// The credentials that were retired.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<Retired>,
    /// What the operator should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// In milliseconds.
    pub duration_ms: u64,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// A target's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All its `ai_secret`s hold new credentials.
    Rotated,
    /// A rotation that was begun before was carried to its end.
    Resumed,
    /// The credentials are young enough, or this event was carried out before.
    NotDue,
    /// The staged secret has rotation turned on, and Secrets Manager does it.
    LeftToSecretsManager,
    /// One step of Secrets Manager's rotation is done.
    StepDone,
    /// A dry run: nothing was changed, and the `ai_secret`s may be written. The role and Bedrock were not tried.
    WouldRotate,
    /// The previous credentials are current again, and Braintrust holds them.
    RolledBack,
    /// A dry run of a rollback.
    WouldRollBack,
    /// There was no time left to start it.
    Deferred,
    /// See `error`.
    Failed,
}

/// A credential that was retired.
#[derive(Clone, Debug, Serialize)]
pub struct Retired {
    /// Its id.
    pub credential_id: String,
    /// Deactivated first, deleted a tick later.
    pub how: Retirement,
}

/// How a credential was retired.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retirement {
    /// It can be activated again.
    Deactivated,
    /// It is gone.
    Deleted,
}

/// What happened to one `ai_secret`.
#[derive(Debug, Serialize)]
pub struct AiSecretReport {
    /// As configured: its id, or its name.
    pub ai_secret: String,
    /// The id that was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Where the credentials go inside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Whether it holds the new credentials, proven by reading back.
    pub updated: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// An invocation that fails: Lambda's retries, alarms and failure destination see it.
#[derive(Debug)]
pub enum Failure {
    /// The event was refused; nothing was done.
    Refused(Error),
    /// At least one target failed or was deferred; the others are done.
    Targets(Report),
}

impl TargetReport {
    /// One that was not started.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            outcome: Outcome::Deferred,
            kind: None,
            region: None,
            credential_id: None,
            expires_at: None,
            held: None,
            ai_secrets: Vec::new(),
            retired: Vec::new(),
            warnings: Vec::new(),
            duration_ms: 0,
            error: None,
        }
    }
}

impl Report {
    /// Whether any target failed or was deferred.
    pub fn has_failed(&self) -> bool {
        self.targets.iter().any(|target| matches!(target.outcome, Outcome::Failed | Outcome::Deferred))
    }
}

impl From<Failure> for lambda_runtime::Diagnostic {
    fn from(failure: Failure) -> Self {
        let (error_type, message) = match &failure {
            Failure::Refused(error) => ("EventRefused", error.to_string()),
            Failure::Targets(report) => ("RotationFailed", json(report)),
        };
        Self { error_type: error_type.to_owned(), error_message: message }
    }
}

/// A time as it stands in reports: ISO 8601 in UTC, to the second.
pub fn iso8601(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// Writes metrics, a line each.
pub fn log_metrics(lines: impl Iterator<Item = serde_json::Value>) {
    lines.for_each(|line| write(&line));
}

/// Writes the report as the one log line.
pub fn log(report: &Report) {
    let level = if report.has_failed() { Level::Error } else { Level::Info };
    write(&Line { timestamp: &report.started_at, level, content: report });
}

/// Writes the log line of an event or a configuration that was refused.
pub fn log_error(error: &Error, now: Timestamp) {
    #[derive(Serialize)]
    struct Refused<'a> {
        error: &'a Error,
    }
    write(&Line { timestamp: &iso8601(now), level: Level::Error, content: &Refused { error } });
}

/// What Lambda's log level filter reads of a JSON line; it takes one without these for INFO.
/// <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>
#[derive(Serialize)]
struct Line<'a, T> {
    timestamp: &'a str,
    level: Level,
    #[serde(flatten)]
    content: &'a T,
}

#[derive(Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Level {
    Info,
    Error,
}

/// A log that cannot be written must not fail a rotation that succeeded.
fn write(line: &impl Serialize) {
    let _ = writeln!(std::io::stdout().lock(), "{}", json(line));
}

/// Nothing here has a key that is no string, the one thing that JSON cannot hold.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
