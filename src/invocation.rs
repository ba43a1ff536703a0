//! One invocation: dispatches the event to its command, runs the targets side by side within the deadline, and answers.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{LocalBoxFuture, join, join_all};
use futures_util::stream;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::commands::check::TargetCheck;
use crate::commands::status::TargetStatus;
use crate::commands::{
    check, inventory, revoke, revoke_api_key, rollback, rotate, rotate_api_key, rotation_step, status,
};
use crate::config::{DataPlane, MetricsSettings, SecretId, Target};
use crate::deadline::Deadline;
use crate::error::{Error, shortened};
use crate::event::{Command, Origin, Revoke, RotationStep};
use crate::inventory::reading::Inventory;
use crate::json::Payload;
use crate::limits::{self, LeftOut};
use crate::report::{Report, TargetReport, iso8601};
use crate::rotation::target_run::TargetRun;
use crate::services::Services;
use crate::spread::Spread;
use crate::target_list::TargetList;
use crate::{log, metrics};

/// Concurrent targets in one queue: enough that the services' latencies overlap, and few enough for a data plane's rate
/// limit and for the function's memory.
const MAX_CONCURRENT_PER_QUEUE: usize = 32;
/// Concurrent targets in all queues, unless there are more queues than this. Each target has a few connections, and
/// Lambda allows 1,024.
const MAX_CONCURRENT: usize = 256;

/// The error about an unknown target lists at most this many names.
const MAX_NAMES_SHOWN: usize = 50;

/// A check looks at other providers, too, but must not fail because there are many.
const LONGEST_INVENTORY_OF_A_CHECK: Duration = Duration::from_secs(20);

/// One event, and what Lambda says about its invocation.
pub struct Invocation {
    pub request_id: String,
    /// In milliseconds since 1970.
    pub deadline_ms: u64,
    pub event: Payload,
}

/// What lives as long as the execution environment.
pub struct Function {
    pub name: String,
    pub targets: Vec<Target>,
    pub target_list: TargetList,
    /// The schedule's expression, if the template passed it on. For `check`.
    pub schedule: Option<String>,
    pub metrics: MetricsSettings,
    /// The time over which a run of all targets is spread.
    pub spread: Duration,
    pub services: Services,
}

impl Function {
    /// Answers one event, and logs the result. A failed or deferred target fails the invocation, so that Lambda's
    /// retries, alarms and failure destination see it. By then, the other targets are done.
    pub async fn handle(&mut self, invocation: Invocation) -> Result<Answer<'_>, Failure> {
        let began = Began { at: self.services.now(), instant: Instant::now() };
        let deadline = Deadline::after(remaining(began.at, invocation.deadline_ms));
        let targets_error = Box::pin(self.refresh_targets(deadline)).await.err();
        let this = &*self;
        let answer = this.answer(invocation, began, deadline, targets_error.as_ref()).await;
        let now = this.services.now();
        if let Some(error) = &targets_error {
            log::error(error, now);
        }
        match answer {
            Ok(Answer::Report(report)) => {
                log::report(&report);
                metrics::lines(&this.metrics, &this.name, now, &report).for_each(|line| log::write(&line));
                if report.has_failed() {
                    return Err(failure("RotationFailed", limits::json(&report.into_answer())));
                }
                Ok(Answer::Report(report.into_answer()))
            }
            Ok(answer @ (Answer::Status(_) | Answer::Check(_) | Answer::Inventory(_))) => Ok(answer),
            Err(error) => {
                log::error(&error, now);
                // The event may name a target of the newest list, which can't be used.
                let cause = targets_error.map(|error| format!(". {error}")).unwrap_or_default();
                Err(failure("EventRefused", format!("{error}{cause}")))
            }
        }
    }

    /// Reads a list in S3 again if it has changed. After an error, the targets are those of the last good list.
    async fn refresh_targets(&mut self, deadline: Deadline) -> Result<(), Error> {
        if let Some(targets) = self.target_list.read_if_changed(&self.services.s3, deadline).await? {
            self.targets = targets;
        }
        Ok(())
    }

    /// Refuses an event that isn't JSON.
    pub fn refuse_malformed(&self, error: &serde_json::Error) -> Failure {
        // Security: the parser's own message could repeat part of the event.
        let problem = format!("it is not JSON (line {}, column {})", error.line(), error.column());
        let error = Error::configuration("event", problem, "Send one of the events that docs/events.md describes");
        log::error(&error, self.services.now());
        failure("EventRefused", error.to_string())
    }

    async fn answer(
        &self,
        invocation: Invocation,
        began: Began,
        deadline: Deadline,
        targets_error: Option<&Error>,
    ) -> Result<Answer<'_>, Error> {
        let (started_at, targets_error) = (iso8601(began.at), targets_error.cloned());
        let mut is_batch = false;
        let (trigger, token, step, dry_run, targets) = match Command::parse(invocation.event, &invocation.request_id)? {
            Command::Rotate(command) => {
                let run = async |run| rotate::run(run, &command).await;
                is_batch = !command.targets.is_empty();
                let spread = Spread::of(&command, self.spread);
                let targets = self.run_each(&command.targets, command.origin, deadline, spread, run).await?;
                (command.origin, command.token, None, command.dry_run, targets)
            }
            Command::Rollback { token, targets, dry_run, reactivate } => {
                let run = async |run| rollback::run(run, dry_run, reactivate).await;
                let targets = self.run_each(&targets, Origin::Action, deadline, Spread::NONE, run).await?;
                (Origin::Action, token, None, dry_run, targets)
            }
            Command::Revoke(command) => {
                // The API keys first: whoever has an old one could otherwise read the credentials that come next.
                let mut targets = Vec::new();
                if command.api_key {
                    targets = Box::pin(self.revoke_api_keys(&command, deadline)).await?;
                }
                if !command.targets.is_empty() {
                    let run = async |run| revoke::run(run, &command).await;
                    let names = &command.targets;
                    targets.extend(self.run_each(names, Origin::Action, deadline, Spread::NONE, run).await?);
                }
                (Origin::Action, command.token, None, command.dry_run, targets)
            }
            Command::RotationStep(command) => {
                let targets = vec![self.rotation_step(&command, deadline).await?];
                (Origin::Rotation, shortened(&command.client_request_token), Some(command.step), false, targets)
            }
            Command::Status(names) => {
                let targets = self.run_each(&names, Origin::Action, deadline, Spread::NONE, status::run).await?;
                let (is_ok, state) = (|it: &TargetStatus| it.state.is_ok(), |it: &TargetStatus| it.state);
                let overview = Overview::of("status", started_at, targets_error, targets, is_ok, state);
                return Ok(Answer::Status(overview));
            }
            Command::Inventory => {
                let (services, targets) = (&self.services, &self.targets);
                let inventory = inventory::run(services, targets, started_at, targets_error, deadline).await;
                return Ok(Answer::Inventory(inventory));
            }
            Command::Check(names) => {
                // The check must show what the next cold start will find.
                self.services.api_keys.forget().await;
                let run = async |run| check::run(run, self.schedule.as_deref()).await;
                let selected = select(&self.targets, &names)?;
                let deadline_of_inventory = deadline.at_most(LONGEST_INVENTORY_OF_A_CHECK);
                let inventory = Inventory::read(&self.services, &selected, &self.targets, deadline_of_inventory);
                let checks = self.run_each(&names, Origin::Action, deadline, Spread::NONE, run);
                let (targets, inventory) = join(checks, inventory).await;
                let mut targets = targets?;
                targets.iter_mut().zip(selected).for_each(|(check, target)| check.add_others(target, &inventory));
                let result = |it: &TargetCheck| if it.ok { "ok" } else { "failed" };
                let overview = Overview::of("check", started_at, targets_error, targets, |it| it.ok, result);
                return Ok(Answer::Check(overview));
            }
        };
        let duration_ms = began.instant.elapsed().as_millis() as u64;
        let left_out = LeftOut::new();
        let report = Report {
            trigger,
            token,
            step,
            dry_run,
            started_at,
            duration_ms,
            is_batch,
            targets_error,
            left_out,
            targets,
        };
        Ok(Answer::Report(report))
    }

    /// Revokes the API keys with which the destinations of the named targets are written, or of all, each once.
    async fn revoke_api_keys(&self, command: &Revoke, deadline: Deadline) -> Result<Vec<TargetReport>, Error> {
        let mut reports = Vec::new();
        let mut revoked: Vec<&SecretId> = Vec::new();
        for destination in select(&self.targets, &command.targets)?.iter().flat_map(|target| &target.destinations) {
            let id = &destination.data_plane.api_key_secret_id;
            if revoked.iter().all(|revoked| !revoked.is_same_secret(id.as_str())) {
                revoked.push(id);
                reports.push(Box::pin(revoke_api_key::run(&self.services, destination, command, deadline)).await);
            }
        }
        Ok(reports)
    }

    /// Runs one step, for the target or for the Braintrust API key whose secret the step names.
    async fn rotation_step(&self, command: &RotationStep, deadline: Deadline) -> Result<TargetReport, Error> {
        let is_meant = |id: &&SecretId| id.is_same_secret(&command.secret_id);
        let staged = self.targets.iter().find_map(|target| Some((target, target.secret_id().filter(is_meant)?)));
        if let Some((target, secret_id)) = staged {
            let run = TargetRun::new(&self.services, target, Origin::Rotation, deadline);
            return Ok(rotation_step::run(run, secret_id, command).await);
        }
        let mut destinations = self.targets.iter().flat_map(|target| &target.destinations);
        let Some(destination) = destinations.find(|it| is_meant(&&it.data_plane.api_key_secret_id)) else {
            let problem = "the SecretId is neither a target's secret_id nor the secret of a Braintrust API key";
            let remedy = "Configure that secret for a target (the parameter StagedSecretArn, or the target's secret_id), or \
                          cancel the secret's rotation: `aws secretsmanager cancel-rotate-secret --secret-id <secret>`";
            return Err(Error::configuration("event", problem, remedy));
        };
        Ok(rotate_api_key::run(&self.services, destination, command, deadline).await)
    }

    /// Runs each named target, or all. Returns the results in the configured order.
    async fn run_each<'a, T>(
        &'a self,
        names: &[String],
        origin: Origin,
        deadline: Deadline,
        spread: Spread<'_>,
        run: impl AsyncFn(TargetRun<'a>) -> T,
    ) -> Result<Vec<T>, Error> {
        let (run, done) = (&run, &RefCell::new(Vec::new()));
        let run_one = move |(position, target)| -> LocalBoxFuture<'_, ()> {
            Box::pin(async move {
                let result = run(TargetRun::new(&self.services, target, origin, deadline)).await;
                done.borrow_mut().push((position, result));
            })
        };
        let targets = select(&self.targets, names)?;
        let spread = spread.among(targets.len(), self.targets.len(), deadline.time_left());
        run_in_queues(targets, spread, &run_one).await;
        let mut done = done.take();
        done.sort_unstable_by_key(|(position, _)| *position);
        Ok(done.into_iter().map(|(_, result)| result).collect())
    }
}

/// Runs the targets side by side, each starting at its time. Takes boxed futures, so that the compiled code of the
/// queues exists once and not once per command.
async fn run_in_queues<'a, 'f>(
    targets: Vec<&'a Target>,
    spread: Spread<'_>,
    run: &dyn Fn((usize, &'a Target)) -> LocalBoxFuture<'f, ()>,
) {
    // One queue for each set of data planes and API keys, so that other targets don't wait for a data plane that
    // throttles or is down.
    let mut queues: HashMap<Vec<&DataPlane>, Vec<_>> = HashMap::new();
    for (position, target) in targets.into_iter().enumerate() {
        let data_planes = target.destinations.iter().map(|destination| &destination.data_plane).collect();
        let delay = spread.delay(target.name.as_str());
        queues.entry(data_planes).or_default().push((delay, position, target));
    }
    let concurrent = MAX_CONCURRENT_PER_QUEUE.min(MAX_CONCURRENT / queues.len().max(1)).max(1);
    let begin = Instant::now();
    let run_in_time = |(delay, position, target): (Duration, _, _)| async move {
        if !delay.is_zero() {
            sleep_until(begin + delay).await;
        }
        run((position, target)).await;
    };
    join_all(queues.into_values().map(|mut queue| {
        // Sorted by their times, so that no target waits for one that starts later.
        queue.sort_by_key(|(delay, ..)| *delay);
        stream::iter(queue).for_each_concurrent(concurrent, run_in_time)
    }))
    .await;
}

/// When an invocation began: for the report, and for measuring durations.
#[derive(Clone, Copy)]
struct Began {
    at: Timestamp,
    instant: Instant,
}

/// The named targets in the configured order, or all.
fn select<'a>(targets: &'a [Target], names: &[String]) -> Result<Vec<&'a Target>, Error> {
    let mut configured = targets.iter().map(|target| target.name.as_str());
    let (named, all): (HashSet<_>, HashSet<_>) =
        (names.iter().map(String::as_str).collect(), configured.clone().collect());
    if let Some(unknown) = names.iter().find(|name| !all.contains(name.as_str())) {
        let problem = format!("no target has the name {:?}", shortened(unknown));
        let shown: Vec<_> = configured.by_ref().take(MAX_NAMES_SHOWN).collect();
        let more = match configured.count() {
            0 => String::new(),
            hidden => format!(", and {hidden} more"),
        };
        let remedy = format!("The configured targets are: {}{more}", shown.join(", "));
        return Err(Error::configuration("event", problem, remedy));
    }
    Ok(targets.iter().filter(|target| named.is_empty() || named.contains(target.name.as_str())).collect())
}

#[derive(Serialize)]
#[serde(untagged)]
pub enum Answer<'a> {
    Inventory(Box<inventory::Answer<'a>>),
    Report(Report),
    Status(Overview<TargetStatus>),
    Check(Overview<TargetCheck>),
}

/// The answer of an action that only reads.
#[derive(Serialize)]
pub struct Overview<T> {
    action: &'static str,
    /// Whether all targets are ok.
    ok: bool,
    started_at: String,
    /// Why the newest list of targets could not be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    targets_error: Option<Error>,
    /// How many targets are missing from an answer that would be too long, by their state or result. Those that are ok
    /// are left out first.
    #[serde(skip_serializing_if = "LeftOut::is_empty")]
    left_out: LeftOut,
    /// In the configured order.
    targets: Vec<T>,
}

impl<T: Serialize> Overview<T> {
    fn of<L: Serialize>(
        action: &'static str,
        started_at: String,
        targets_error: Option<Error>,
        mut targets: Vec<T>,
        is_ok: impl Fn(&T) -> bool,
        label: impl Fn(&T) -> L,
    ) -> Self {
        let ok = targets_error.is_none() && targets.iter().all(&is_ok);
        let left_out = limits::shorten(&mut targets, limits::ANSWER, |target| is_ok(target).into(), label);
        Self { action, ok, started_at, targets_error, left_out, targets }
    }
}

/// What Lambda answers for an invocation that failed.
/// <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html#runtimes-api-invokeerror>
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    error_type: &'static str,
    error_message: String,
}

fn failure(error_type: &'static str, error_message: String) -> Failure {
    Failure { error_type, error_message }
}

/// Lambda gives the deadline in milliseconds since 1970.
fn remaining(now: Timestamp, deadline_ms: u64) -> Duration {
    let now_ms = u64::try_from(now.as_millisecond()).unwrap_or_default();
    Duration::from_millis(deadline_ms.saturating_sub(now_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::for_test::role_based;
    use crate::event::Rotate;

    #[test]
    fn a_command_runs_the_targets_that_it_names_or_all() {
        let targets = ["a", "b", "c"].map(role_based);
        for (names, expected) in [(vec![], "abc"), (vec!["c", "a"], "ac"), (vec!["b", "b"], "b")] {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let selected: String =
                select(&targets, &names).unwrap().iter().map(|target| target.name.as_str()).collect();
            assert_eq!(selected, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_target_of_a_spread_run_starts_at_its_time() {
        let targets: Vec<_> = (0..500).map(|number| role_based(&number.to_string())).collect();
        let token = "token".to_owned();
        let command = Rotate { origin: Origin::Schedule, token, targets: Vec::new(), dry_run: false, force: false };
        let minute = Duration::from_secs(60);
        let spread = Spread::of(&command, minute).among(targets.len(), targets.len(), minute * 10);
        let (begin, starts) = (Instant::now(), RefCell::new(Vec::new()));
        let (begin, starts) = (&begin, &starts);
        let run = |(_, target): (usize, &Target)| -> LocalBoxFuture<'_, ()> {
            let name = target.name.to_string();
            Box::pin(async move { starts.borrow_mut().push((name, begin.elapsed())) })
        };
        run_in_queues(targets.iter().collect(), spread, &run).await;
        assert_eq!(starts.borrow().len(), targets.len());
        for (name, at) in starts.borrow().iter() {
            assert!(*at - spread.delay(name) < Duration::from_millis(10), "{name} at {at:?}");
        }
        assert!(begin.elapsed() > minute * 9 / 10);
    }

    #[test]
    fn an_unknown_target_is_refused_with_the_names_of_the_configured_ones() {
        let error = select(&["a", "b"].map(role_based), &["c".to_owned()]).unwrap_err();
        assert!(error.problem.contains("\"c\"") && error.remedy.ends_with("a, b"), "{error}");
    }

    #[test]
    fn the_error_about_an_unknown_target_is_short_however_many_there_are() {
        let targets: Vec<_> = (0..10_000).map(|number| role_based(&format!("target-{number}"))).collect();
        let error = select(&targets, &["c".to_owned()]).unwrap_err();
        assert!(error.remedy.ends_with("target-49, and 9950 more"), "{error}");
    }
}
