//! The metrics in CloudWatch's embedded metric format: one log line for each target.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::event::Step;
use crate::report::{Outcome, Report, TargetReport};

/// A metric's name, unit and value.
type Metric = (&'static str, &'static str, Value);

/// The lines of a run, scheduled or manual, or of a rotation step. A dry run has none. Every metric has the dimension of
/// its target, and that of the whole function, which one alarm can watch. The lines are created one at a time, because
/// each takes about 6 KB until it is written.
pub fn lines(namespace: &str, function: &str, now: Timestamp, report: &Report) -> impl Iterator<Item = Value> {
    let targets = report.targets.iter().filter(|_| !report.dry_run);
    targets.filter_map(move |target| {
        let metrics = Some(of(now, report, target)).filter(|metrics| !metrics.is_empty())?;
        let declared: Vec<_> = metrics.iter().map(|(name, unit, _)| json!({"Name": name, "Unit": unit})).collect();
        let mut line = json!({
            "_aws": {
                "Timestamp": now.as_millisecond(),
                "CloudWatchMetrics": [{
                    "Namespace": namespace,
                    "Dimensions": [["FunctionName", "Target"], ["FunctionName"]],
                    "Metrics": declared,
                }],
            },
            "FunctionName": function,
            "Target": target.name,
        });
        line.as_object_mut()?.extend(metrics.into_iter().map(|(name, _, value)| (name.to_owned(), value)));
        Some(line)
    })
}

fn of(now: Timestamp, report: &Report, target: &TargetReport) -> Vec<Metric> {
    let succeeded = match target.outcome {
        // Braintrust has credentials that work, so no alarm may go off because of a missing rotation.
        Outcome::Rotated | Outcome::Resumed | Outcome::Revoked | Outcome::Replaced | Outcome::UsesAssumeRole => {
            Some(true)
        }
        Outcome::StepDone => (report.step == Some(Step::Finish)).then_some(true),
        Outcome::Failed | Outcome::Deferred => Some(false),
        Outcome::NotDue
        | Outcome::LeftToSecretsManager
        | Outcome::Repaired
        | Outcome::RolledBack
        | Outcome::WouldRotate
        | Outcome::WouldRepair
        | Outcome::WouldRollBack
        | Outcome::WouldRevoke => None,
    };
    let mut metrics: Vec<Metric> = Vec::new();
    if let Some(succeeded) = succeeded {
        metrics.push(("RotationSucceeded", "Count", u8::from(succeeded).into()));
        metrics.push(("RotationFailed", "Count", u8::from(!succeeded).into()));
        metrics.push(("RotationDuration", "Milliseconds", target.duration_ms.into()));
    }
    // Never negative: expired credentials have no time left, however long ago they expired.
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs().max(0).into();
    if target.outcome == Outcome::UsesAssumeRole {
        // Braintrust makes them when it needs them. Alarms on user-based kinds expect the metric from every run.
        metrics.push(("CredentialAgeSeconds", "Seconds", 0.into()));
    } else if let Some(held) = &target.held {
        metrics.push(("CredentialAgeSeconds", "Seconds", seconds(held.created_at, now)));
        metrics.extend(held.expires_at.map(|end| ("SecondsUntilExpiry", "Seconds", seconds(now, end))));
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Lifetime;
    use crate::event::Origin;

    fn report(outcome: Outcome, step: Option<Step>, held: Option<Lifetime>) -> Report {
        let target = TargetReport { name: "prod".to_owned(), outcome, held, duration_ms: 5, ..TargetReport::default() };
        Report {
            trigger: Origin::Schedule,
            token: "token".to_owned(),
            step,
            dry_run: false,
            started_at: String::new(),
            duration_ms: 0,
            targets_error: None,
            targets: vec![target],
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    fn lines(report: &Report) -> Vec<Value> {
        super::lines("N", "rotator", at(100), report).collect()
    }

    #[test]
    fn a_rotation_writes_one_line_with_every_metric_by_target_and_for_the_function() {
        let held = Lifetime { created_at: at(90), expires_at: Some(at(3_690)) };
        let line = &lines(&report(Outcome::Rotated, None, Some(held)))[0];
        let declared = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!((&line["FunctionName"], &line["Target"]), (&json!("rotator"), &json!("prod")));
        assert_eq!(declared["Dimensions"], json!([["FunctionName", "Target"], ["FunctionName"]]));
        let values: Vec<_> = declared["Metrics"].as_array().unwrap().iter().map(|metric| &metric["Name"]).collect();
        let values: Vec<_> =
            values.iter().map(|name| (name.as_str().unwrap(), &line[name.as_str().unwrap()])).collect();
        assert_eq!(
            values,
            [
                ("RotationSucceeded", &json!(1)),
                ("RotationFailed", &json!(0)),
                ("RotationDuration", &json!(5)),
                ("CredentialAgeSeconds", &json!(10)),
                ("SecondsUntilExpiry", &json!(3_590)),
            ]
        );
    }

    #[test]
    fn only_a_completed_rotation_counts_as_succeeded_and_only_a_failed_one_as_failed() {
        for (outcome, step, succeeded) in [
            (Outcome::Rotated, None, Some(1)),
            (Outcome::Resumed, None, Some(1)),
            (Outcome::UsesAssumeRole, None, Some(1)),
            (Outcome::Failed, None, Some(0)),
            (Outcome::Deferred, None, Some(0)),
            (Outcome::Failed, Some(Step::Set), Some(0)),
            (Outcome::StepDone, Some(Step::Set), None),
            (Outcome::StepDone, Some(Step::Finish), Some(1)),
            (Outcome::NotDue, None, None),
            (Outcome::LeftToSecretsManager, None, None),
        ] {
            let lines = lines(&report(outcome, step, None));
            assert_eq!(lines.len(), usize::from(succeeded.is_some()), "{outcome:?}");
            let counted = lines.first().map(|line| (&line["RotationSucceeded"], &line["RotationFailed"]));
            assert_eq!(counted, succeeded.map(|n| (json!(n), json!(1 - n))).as_ref().map(|(s, f)| (s, f)));
        }
    }

    #[test]
    fn where_braintrust_assumes_the_role_the_credentials_are_new_and_do_not_expire() {
        let held = Lifetime { created_at: at(-9_000), expires_at: Some(at(-5_400)) };
        let lines = lines(&report(Outcome::UsesAssumeRole, None, Some(held)));
        assert_eq!((&lines[0]["CredentialAgeSeconds"], lines[0].get("SecondsUntilExpiry")), (&json!(0), None));
    }

    #[test]
    fn expired_credentials_have_no_seconds_left_and_a_dry_run_writes_no_metrics() {
        let held = Lifetime { created_at: at(-9_000), expires_at: Some(at(-5_400)) };
        let mut report = report(Outcome::NotDue, None, Some(held));
        assert_eq!(lines(&report)[0]["SecondsUntilExpiry"], json!(0));
        report.dry_run = true;
        assert!(lines(&report).is_empty());
    }
}
