//! CloudWatch's embedded metric format, a log line a target; pure, and it must never say that a rotation succeeded which did not.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::report::{Outcome, Report, TargetReport};

/// Under which metrics are kept.
#[derive(Debug)]
pub struct Metrics {
    /// `METRICS_NAMESPACE`.
    pub namespace: String,
}

/// A metric's name, unit and value.
type Metric = (&'static str, &'static str, Value);

impl Metrics {
    /// The lines of a tick or a rotation step; none of a dry run. Every metric is there by target, and for the whole
    /// function, which is what one alarm can watch. A line takes some 6 KB until it is written: they are made one by one.
    pub fn lines(&self, now: Timestamp, function_name: &str, report: &Report) -> impl Iterator<Item = Value> {
        let targets = report.targets.iter().filter(|_| !report.dry_run);
        targets.filter_map(move |target| self.line(now, function_name, target, of(now, report, target)))
    }

    fn line(&self, now: Timestamp, function: &str, target: &TargetReport, metrics: Vec<Metric>) -> Option<Value> {
        let declared: Vec<_> = metrics.iter().map(|(name, unit, _)| json!({"Name": name, "Unit": unit})).collect();
        let mut line = Map::new();
        line.insert(
            "_aws".to_owned(),
            json!({
                "Timestamp": now.as_millisecond(),
                "CloudWatchMetrics": [{
                    "Namespace": self.namespace,
                    "Dimensions": [["FunctionName", "Target"], ["FunctionName"]],
                    "Metrics": declared,
                }],
            }),
        );
        line.insert("FunctionName".to_owned(), function.into());
        line.insert("Target".to_owned(), target.name.clone().into());
        line.extend(metrics.iter().map(|(name, _, value)| ((*name).to_owned(), value.clone())));
        (!metrics.is_empty()).then_some(Value::Object(line))
    }
}

fn of(now: Timestamp, report: &Report, target: &TargetReport) -> Vec<Metric> {
    let succeeded = match target.outcome {
        Outcome::Rotated | Outcome::Resumed => Some(true),
        Outcome::StepDone => (report.step.as_deref() == Some("finishSecret")).then_some(true),
        Outcome::Failed | Outcome::Deferred => Some(false),
        Outcome::NotDue
        | Outcome::LeftToSecretsManager
        | Outcome::RolledBack
        | Outcome::WouldRotate
        | Outcome::WouldRollBack => None,
    };
    let mut metrics: Vec<Metric> = Vec::new();
    if let Some(succeeded) = succeeded {
        metrics.push(("RotationSucceeded", "Count", u8::from(succeeded).into()));
        metrics.push(("RotationFailed", "Count", u8::from(!succeeded).into()));
        metrics.push(("RotationDuration", "Milliseconds", target.duration_ms.into()));
    }
    // Never negative: what ended has no time left, however long ago.
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs().max(0).into();
    if let Some(held) = &target.held {
        metrics.push(("CredentialAgeSeconds", "Seconds", seconds(held.minted_at, now)));
        metrics.extend(held.expires_at.map(|end| ("SecondsUntilExpiry", "Seconds", seconds(now, end))));
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Lifetime;
    use crate::trigger::Origin;

    fn report(outcome: Outcome, step: Option<&str>, held: Option<Lifetime>) -> Report {
        let target = TargetReport { outcome, held, duration_ms: 5, ..TargetReport::named("prod") };
        Report {
            trigger: Origin::Schedule,
            token: "token".to_owned(),
            step: step.map(str::to_owned),
            dry_run: false,
            started_at: String::new(),
            duration_ms: 0,
            targets: vec![target],
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    fn lines(report: &Report) -> Vec<Value> {
        Metrics { namespace: "N".to_owned() }.lines(at(100), "rotator", report).collect()
    }

    #[test]
    fn a_rotation_is_one_line_with_every_metric_by_target_and_for_the_function() {
        let held = Lifetime { minted_at: at(90), expires_at: Some(at(3_690)) };
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
    fn only_what_came_to_its_end_succeeded_and_only_what_did_not_failed() {
        for (outcome, step, succeeded) in [
            (Outcome::Rotated, None, Some(1)),
            (Outcome::Resumed, None, Some(1)),
            (Outcome::Failed, None, Some(0)),
            (Outcome::Deferred, None, Some(0)),
            (Outcome::Failed, Some("setSecret"), Some(0)),
            (Outcome::StepDone, Some("setSecret"), None),
            (Outcome::StepDone, Some("finishSecret"), Some(1)),
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
    fn what_has_ended_has_no_seconds_left_and_a_dry_run_no_metrics() {
        let held = Lifetime { minted_at: at(-9_000), expires_at: Some(at(-5_400)) };
        let mut report = report(Outcome::NotDue, None, Some(held));
        assert_eq!(lines(&report)[0]["SecondsUntilExpiry"], json!(0));
        report.dry_run = true;
        assert!(lines(&report).is_empty());
    }
}
