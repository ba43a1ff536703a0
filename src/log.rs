//! The log lines: those with the report, those with errors, and those with the metrics.

use std::io::Write;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::Error;
use crate::limits::{self, json};
use crate::report::{Report, TargetReport, iso8601};

/// A report, or a part of one. Lambda's log level filter reads the first two fields. A JSON line without them counts as
/// INFO.
/// <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>
#[derive(Serialize)]
struct ReportLine<'a> {
    timestamp: &'a str,
    level: &'static str,
    /// The number of this part.
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<usize>,
    /// The number of parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<usize>,
    #[serde(flatten)]
    report: Report<&'a [TargetReport]>,
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    timestamp: &'a str,
    level: &'static str,
    error: &'a Error,
}

/// Logs a report. If it is too long for one line, it becomes several lines, each a report on some of the targets.
pub fn report(report: &Report) {
    report_lines(report).for_each(|line| write(&line));
}

fn report_lines(report: &Report) -> impl Iterator<Item = ReportLine<'_>> {
    let parts = limits::parts(&report.targets, limits::LOG_LINE);
    let number = Some(parts.len()).filter(|number| *number > 1);
    parts.into_iter().zip(1..).map(move |(targets, part)| {
        let report_of_part = report.with(targets);
        let level = if report_of_part.has_failed() { "ERROR" } else { "INFO" };
        let part = number.map(|_| part);
        ReportLine { timestamp: &report.started_at, level, part, parts: number, report: report_of_part }
    })
}

/// Logs a refused event or a failed start.
pub fn error(error: &Error, now: Timestamp) {
    write(&ErrorLine { timestamp: &iso8601(now), level: "ERROR", error });
}

pub fn write(line: &impl Serialize) {
    // In one call, so that Lambda doesn't read a part of the line.
    let line = json(line) + "\n";
    // A log that can't be written must not fail a rotation that succeeded.
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::event::Origin;
    use crate::report::Outcome;

    fn lines(targets: Vec<TargetReport>) -> Vec<String> {
        report_lines(&Report::for_test(Origin::Schedule, targets)).map(|line| json(&line)).collect()
    }

    fn target(number: usize) -> TargetReport {
        let warnings = vec!["\"x\"".repeat(number % 100)];
        TargetReport { name: number.to_string(), outcome: Outcome::Rotated, warnings, ..TargetReport::default() }
    }

    #[test]
    fn the_report_of_ten_thousand_targets_is_several_reports_in_lines_of_less_than_64_kb() {
        let lines = lines((0..10_000).map(target).collect());
        assert!(lines.iter().all(|line| line.len() < 64 * 1024));
        let mut names = Vec::new();
        for (line, part) in lines.iter().zip(1..) {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!((line["part"].as_u64(), line["parts"].as_u64()), (Some(part), Some(lines.len() as u64)));
            for (field, value) in [("trigger", "schedule"), ("token", "token"), ("started_at", "2026-01-01T00:00:00Z")]
            {
                assert_eq!(line[field], value);
            }
            names.extend(line["targets"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()));
        }
        assert_eq!(names, (0..10_000).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_report_that_fits_into_a_line_has_no_parts() {
        for number in [0, 1, 50] {
            let lines = lines((0..number).map(target).collect());
            let [line] = &lines[..] else { panic!("{} lines", lines.len()) };
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!((line.get("part"), line.get("parts")), (None, None));
            assert_eq!(line["targets"].as_array().unwrap().len(), number);
        }
    }

    #[test]
    fn only_the_parts_with_failed_targets_are_errors() {
        let failed = TargetReport { outcome: Outcome::Failed, ..target(0) };
        let lines = lines((0..5_000).map(target).chain([failed]).collect());
        let levels: Vec<_> = lines.iter().map(|line| line.contains(r#""level":"ERROR""#)).collect();
        assert_eq!(levels.iter().filter(|is_error| **is_error).count(), 1);
        assert_eq!(levels.last(), Some(&true));
    }
}
