//! The metrics in CloudWatch's embedded metric format: one log line for each target, or one for all together.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::config::MetricsSettings;
use crate::event::Step;
use crate::report::{Outcome, Report, TargetReport};

struct Metric {
    name: &'static str,
    unit: &'static str,
    total: Total,
    value: u64,
}

/// How the values of all targets are combined into one. It is chosen so that each alarm sees the same as with one value
/// for each target.
#[derive(Clone, Copy, PartialEq)]
enum Total {
    Sum,
    Largest,
    Smallest,
}

impl Total {
    fn is_worse(self, value: u64, than: u64) -> bool {
        match self {
            Self::Sum => false,
            Self::Largest => value > than,
            Self::Smallest => value < than,
        }
    }
}

/// The lines of a run, scheduled or manual, or of a rotation step. A dry run has none. Every metric has the dimension
/// of the whole function, which one alarm can watch, and, if each target has metrics of its own, that of its target.
/// The lines are created one at a time, because each takes about 6 KB until it is written.
pub fn lines(
    settings: &MetricsSettings,
    function: &str,
    now: Timestamp,
    report: &Report,
) -> impl Iterator<Item = Value> {
    let is_written = !report.dry_run;
    let targets = report.targets.iter().filter(move |_| is_written && settings.per_target);
    let of_targets = targets.map(move |target| (of(now, report, target), ("Target", target.name.clone().into())));
    let together = (is_written && !settings.per_target).then(|| together(now, report));
    let all = of_targets.chain(together).filter(|(metrics, _)| !metrics.is_empty());
    all.map(move |(metrics, targets)| line(settings, function, now, metrics, targets))
}

/// `targets` is the field that names the target, or the targets with the worst values.
fn line(
    settings: &MetricsSettings,
    function: &str,
    now: Timestamp,
    metrics: Vec<Metric>,
    targets: (&'static str, Value),
) -> Value {
    let dimensions = match settings.per_target {
        true => json!([["FunctionName", "Target"], ["FunctionName"]]),
        false => json!([["FunctionName"]]),
    };
    let declared: Vec<_> = metrics.iter().map(|it| json!({"Name": it.name, "Unit": it.unit})).collect();
    let mut line = json!({
        "_aws": {
            "Timestamp": now.as_millisecond(),
            "CloudWatchMetrics": [{"Namespace": settings.namespace, "Dimensions": dimensions, "Metrics": declared}],
        },
        "FunctionName": function,
    });
    if let Value::Object(line) = &mut line {
        let values = metrics.into_iter().map(|it| (it.name, it.value.into()));
        line.extend([targets].into_iter().chain(values).map(|(name, value)| (name.to_owned(), value)));
    }
    line
}

/// The metrics of all targets together, and the names of the targets with the worst values.
fn together(now: Timestamp, report: &Report) -> (Vec<Metric>, (&'static str, Value)) {
    let (mut totals, mut worst): (Vec<Metric>, Map<String, Value>) = Default::default();
    for target in &report.targets {
        for metric in of(now, report, target) {
            let known = totals.iter_mut().find(|total| total.name == metric.name);
            let is_worst = known.as_ref().is_none_or(|total| metric.total.is_worse(metric.value, total.value));
            if is_worst && metric.total != Total::Sum {
                worst.insert(metric.name.to_owned(), target.name.clone().into());
            }
            match known {
                Some(total) if metric.total == Total::Sum => total.value += metric.value,
                Some(total) if is_worst => total.value = metric.value,
                Some(_) => {}
                None => totals.push(metric),
            }
        }
    }
    (totals, ("WorstTargets", worst.into()))
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
        metrics.push(metric("RotationSucceeded", "Count", Total::Sum, succeeded.into()));
        metrics.push(metric("RotationFailed", "Count", Total::Sum, (!succeeded).into()));
        metrics.push(metric("RotationDuration", "Milliseconds", Total::Largest, target.duration_ms));
    }
    // Never negative: expired credentials have no time left, however long ago they expired.
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs().max(0).unsigned_abs();
    let age = |seconds| metric("CredentialAgeSeconds", "Seconds", Total::Largest, seconds);
    if target.outcome == Outcome::UsesAssumeRole {
        // Braintrust makes them when it needs them. Alarms on user-based kinds expect the metric from every run.
        metrics.push(age(0));
    } else if let Some(held) = &target.held {
        metrics.push(age(seconds(held.created_at, now)));
        let until = |end| metric("SecondsUntilExpiry", "Seconds", Total::Smallest, seconds(now, end));
        metrics.extend(held.expires_at.map(until));
    }
    metrics
}

fn metric(name: &'static str, unit: &'static str, total: Total, value: u64) -> Metric {
    Metric { name, unit, total, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Lifetime;
    use crate::event::Origin;

    fn report(outcome: Outcome, step: Option<Step>, held: Option<Lifetime>) -> Report {
        let target = TargetReport { name: "prod".to_owned(), outcome, held, duration_ms: 5, ..TargetReport::default() };
        report_on(vec![target], step)
    }

    fn report_on(targets: Vec<TargetReport>, step: Option<Step>) -> Report {
        Report { step, ..Report::for_test(Origin::Schedule, targets) }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    fn lines(report: &Report) -> Vec<Value> {
        lines_if(true, report)
    }

    fn lines_together(report: &Report) -> Vec<Value> {
        lines_if(false, report)
    }

    fn lines_if(per_target: bool, report: &Report) -> Vec<Value> {
        let settings = MetricsSettings { namespace: "N".to_owned(), per_target };
        super::lines(&settings, "rotator", at(100), report).collect()
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

    fn target(name: &str, outcome: Outcome, age: i64, left: Option<i64>, duration_ms: u64) -> TargetReport {
        let lifetime = Lifetime { created_at: at(100 - age), expires_at: left.map(|left| at(100 + left)) };
        TargetReport { name: name.to_owned(), outcome, held: Some(lifetime), duration_ms, ..TargetReport::default() }
    }

    #[test]
    fn together_the_targets_have_one_line_with_sums_the_worst_values_and_whose_they_are() {
        let targets = vec![
            target("new", Outcome::Rotated, 1, Some(3_599), 70),
            target("old", Outcome::Failed, 3_000, Some(600), 20),
            target("slow", Outcome::Rotated, 2, Some(3_598), 90),
            target("user", Outcome::NotDue, 9_000, None, 5),
            target("other", Outcome::Deferred, 2_000, Some(1_600), 0),
        ];
        let mut report = report_on(targets, None);
        let [line] = &lines_together(&report)[..] else { panic!("not one line") };
        let declared = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(declared["Dimensions"], json!([["FunctionName"]]));
        assert_eq!(declared["Metrics"].as_array().unwrap().len(), 5);
        for (name, value) in [
            ("RotationSucceeded", 2),
            ("RotationFailed", 2),
            ("RotationDuration", 90),
            ("CredentialAgeSeconds", 9_000),
            ("SecondsUntilExpiry", 600),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
        let worst = json!({"RotationDuration": "slow", "CredentialAgeSeconds": "user", "SecondsUntilExpiry": "old"});
        assert_eq!((&line["WorstTargets"], line.get("Target")), (&worst, None));
        report.dry_run = true;
        assert!(lines_together(&report).is_empty());
    }

    #[test]
    fn together_targets_without_metrics_have_no_line() {
        assert!(lines_together(&report(Outcome::LeftToSecretsManager, None, None)).is_empty());
        assert!(lines_together(&report_on(Vec::new(), None)).is_empty());
    }

    #[test]
    fn together_the_targets_set_off_the_alarms_that_their_own_values_set_off() {
        let reports = [Outcome::Rotated, Outcome::Failed, Outcome::NotDue].map(|outcome| {
            let targets = (0..20).map(|n| target("x", outcome, 100 * n, Some(5_000 - 100 * n), 7 * n as u64 % 11));
            report_on(targets.collect(), None)
        });
        for report in reports {
            let (each, together) = (lines(&report), lines_together(&report));
            let values =
                |lines: &[Value], name: &str| lines.iter().filter_map(|line| line[name].as_u64()).collect::<Vec<_>>();
            for name in ["RotationSucceeded", "RotationFailed"] {
                let sum = |lines| values(lines, name).iter().sum::<u64>();
                assert_eq!(sum(&each), sum(&together));
            }
            for name in ["RotationDuration", "CredentialAgeSeconds"] {
                assert_eq!(values(&each, name).iter().max(), values(&together, name).iter().max());
            }
            let name = "SecondsUntilExpiry";
            assert_eq!(values(&each, name).iter().min(), values(&together, name).iter().min());
        }
    }
}
