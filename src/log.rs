//! The log lines: one with the report, and those with the metrics.

use std::io::Write;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::Error;
use crate::report::{Report, iso8601};

/// The fields that Lambda's log level filter reads. A JSON line without them counts as INFO.
/// <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>
#[derive(Serialize)]
struct Line<'a> {
    timestamp: &'a str,
    level: &'static str,
    #[serde(flatten)]
    report: Option<&'a Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Error>,
}

pub fn report(report: &Report) {
    let level = if report.has_failed() { "ERROR" } else { "INFO" };
    write(&Line { timestamp: &report.started_at, level, report: Some(report), error: None });
}

/// Logs a refused event or a failed start.
pub fn error(error: &Error, now: Timestamp) {
    write(&Line { timestamp: &iso8601(now), level: "ERROR", report: None, error: Some(error) });
}

pub fn write(line: &impl Serialize) {
    // A log that can't be written must not fail a rotation that succeeded.
    let _ = writeln!(std::io::stdout().lock(), "{}", json(line));
}

/// JSON can't express a map whose keys aren't strings, but nothing that is logged contains one.
pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
