//! The action `check`: tries everything that a rotation would need, one line each. It only reads and assumes roles, as
//! every scheduled run does.

use futures_util::future::{join, join3};
use serde::Serialize;

use crate::aws::bedrock::Proof;
use crate::aws::iam_keys::{Key, MAX_KEYS};
use crate::braintrust::ai_provider::Place;
use crate::config::{RoleBased, Source, Target, UserBased};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorClass, Service};
use crate::inventory::Provider;
use crate::inventory::findings::{self, Severity};
use crate::inventory::reading::{Inventory, KeyReading, Unknown};
use crate::rotation::destinations::Reading;
use crate::rotation::snapshot::{Snapshot, Versions};
use crate::rotation::steps::TOO_SLOW_FOR_SECRETS_MANAGER;
use crate::rotation::target_run::TargetRun;
use crate::rotation::verdict::{self, State};
use crate::rotation::{assumed_by_braintrust, destinations, policy};

#[derive(Serialize)]
pub struct TargetCheck {
    name: String,
    /// Whether no line failed.
    pub ok: bool,
    lines: Vec<Line>,
}

impl TargetCheck {
    fn of(target: &Target, lines: Vec<Line>) -> Self {
        let ok = lines.iter().all(|line| line.result != LineResult::Failed);
        Self { name: target.name.to_string(), ok, lines }
    }

    /// Adds a line for everything else in Braintrust that concerns the target.
    pub fn add_others(&mut self, target: &Target, inventory: &Inventory<'_>) {
        let what = |provider: &Provider| match &provider.project {
            Some(project) => {
                format!("the provider {:?} ({}) of the project {:?}", provider.name, provider.id, project.name)
            }
            None => {
                let name = provider.organization.and_then(|id| inventory.organizations.get(&id));
                let of = name.map(|name| format!(" of the organization {name:?}")).unwrap_or_default();
                format!("the ai_secret {:?} ({}){of}", provider.name, provider.id)
            }
        };
        let concerning = findings::concerning(&self.name, &inventory.providers);
        let hidden = concerning.len().saturating_sub(MAX_OTHERS);
        let lines = concerning
            .into_iter()
            .take(MAX_OTHERS)
            .map(|(provider, finding)| Line::noted(what(provider), LineResult::Warning, finding.meaning()));
        self.lines.extend(lines);
        if hidden > 0 {
            let note = format!("{hidden} more lines like these: make inventory (the action inventory) shows all");
            self.lines.push(Line::noted("other providers", LineResult::Warning, note));
        }
        let has_own = |key: &KeyReading<'_>| {
            target.destinations.iter().map(|it| &it.data_plane).any(|data_plane| {
                (data_plane.url(), data_plane.api_key_secret_id.as_str()) == (key.api_url, key.api_key_secret_id)
            })
        };
        // A failed line already says what is wrong with the API key.
        let keys = inventory.keys.iter().filter(|key| self.ok && has_own(key));
        for Unknown { what, error } in keys.flat_map(|key| &key.unknown) {
            let note = error.as_ref().map_or("there are too many to read".to_owned(), ToString::to_string);
            self.lines.push(Line::noted(format!("look at {what}"), LineResult::Unknown, note));
        }
        let simpler = inventory.providers.iter().filter(|provider| provider.is_written_by(&self.name));
        let simpler = simpler.flat_map(|provider| &provider.findings);
        if let Some(finding) = simpler.copied().filter(|finding| finding.severity() == Severity::Simpler).min() {
            self.lines.push(Line::noted("whether this target is needed", LineResult::Ok, finding.meaning()));
        }
    }
}

/// The most lines about other providers that a target gets.
const MAX_OTHERS: usize = 10;

/// One thing that a rotation needs.
#[derive(Serialize)]
struct Line {
    what: String,
    result: LineResult,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum LineResult {
    Ok,
    /// It works, and the operator should do something.
    Warning,
    /// Only a rotation can tell.
    Unknown,
    /// A rotation would fail.
    Failed,
}

impl Line {
    /// A line that is `ok`, or `failed` with the error.
    fn tried(what: impl Into<String>, error: Option<&Error>) -> Self {
        let result = if error.is_some() { LineResult::Failed } else { LineResult::Ok };
        Self { what: what.into(), result, note: None, error: error.cloned() }
    }

    fn noted(what: impl Into<String>, result: LineResult, note: impl Into<String>) -> Self {
        Self { result, note: Some(note.into()), ..Self::tried(what, None) }
    }
}

pub async fn run(run: TargetRun<'_>, schedule: Option<&str>) -> TargetCheck {
    let target = run.target;
    let (versions, readings) = join(run.read_versions(), run.read_destinations()).await;
    let mut lines = check_destinations(&readings);
    if let Ok(versions) = &versions
        && readings.iter().any(|reading| reading.writable().is_some())
    {
        lines.push(check_verdict(&run, versions.as_ref(), &readings));
    }
    if destinations::all_use_assume_role(&readings) {
        lines.extend(check_remaining(&run, versions.ok().flatten()).await);
        return TargetCheck::of(target, lines);
    }
    lines.extend(check_secret(target, &versions));
    lines.extend(match &target.source {
        Source::RoleBased(source) => check_role(&run, source).await,
        Source::UserBased(source) => check_user(&run, source, versions.ok().flatten()).await,
    });
    lines.extend(check_end_to_end(&run, &readings).await);
    lines.extend(check_schedule(target, schedule));
    TargetCheck::of(target, lines)
}

/// What remains to be done by hand where Braintrust assumes a role itself. Nothing else is needed there.
async fn check_remaining(run: &TargetRun<'_>, versions: Option<Versions>) -> Vec<Line> {
    let rotation_enabled = versions.and_then(|versions| versions.stages.rotation_enabled);
    let what = "what is left to remove by hand";
    let keys = run.remaining_keys().await;
    let unknown = keys.as_ref().err().map(|error| Line::noted(what, LineResult::Unknown, error.to_string()));
    let keys = keys.unwrap_or_default();
    let remaining = assumed_by_braintrust::remaining(run.target, &keys, rotation_enabled).into_iter();
    remaining.map(|note| Line::noted(what, LineResult::Warning, note)).chain(unknown).collect()
}

/// The verdict, as in `status`. A rotation may have everything that it needs while Braintrust holds other credentials.
fn check_verdict(run: &TargetRun<'_>, versions: Option<&Versions>, readings: &[Reading<'_>]) -> Line {
    let what = "Braintrust holds current credentials";
    let late = "Read the error of the last run in the function's log (the stack's output TailCommand shows it)";
    let (problem, remedy) = match verdict::state(run.now(), run.target, versions, readings) {
        State::Ok => return Line::tried(what, None),
        State::UsesAssumeRole => return Line::tried(what, None),
        State::NeverRotated => return Line::noted(what, LineResult::Unknown, "there has been no rotation yet"),
        State::Unknown => {
            let note = "it isn't known when the provider last changed";
            return Line::noted(what, LineResult::Unknown, note);
        }
        State::Overdue => ("the rotation is overdue", late),
        State::Expired => ("the credentials have expired", late),
        State::OutOfStep if versions.is_none() => {
            let note = "Braintrust holds a permanent access key, which the next scheduled run replaces";
            return Line::noted(what, LineResult::Warning, note);
        }
        State::OutOfStep => (
            "Braintrust holds something other than the current credentials",
            "The next scheduled run repairs it, and so does make rotate (the stack's output InvokeCommand). If this \
             continues, look for another writer",
        ),
    };
    let call = run.target.destinations.first().map_or("", |destination| Place::of(&destination.lookup).list());
    let error = Error::new(ErrorClass::VerificationFailed, Service::Braintrust, call, problem, remedy);
    Line::tried(what, Some(&error))
}

/// Assumes the role and calls Bedrock with the session, as every scheduled run does.
async fn check_role(run: &TargetRun<'_>, source: &RoleBased) -> Vec<Line> {
    let issued = run.issue(source).await;
    let mut lines = vec![Line::tried(format!("assume the role {}", source.role.role_arn), issued.as_ref().err())];
    if let Ok(credentials) = &issued {
        let proof = run.probe(credentials, 1).await;
        lines.extend(probed(calls_bedrock(run.target, "new", credentials), proof));
    }
    if source.revoke_sessions {
        lines.push(check_revocation(run, source).await);
    }
    lines
}

/// What a revocation needs beside a rotation. Writing the policy can't be tried without ending sessions.
async fn check_revocation(run: &TargetRun<'_>, source: &RoleBased) -> Line {
    let role = &source.role.role_arn;
    let what = format!("end the sessions of the role {role} (make revoke)");
    match run.services.iam.cut_off(role, run.deadline).await {
        Ok(_) => {
            let note = "the function may read the policy that ends them. Only a revocation can tell whether it may \
                        also write this policy";
            Line::noted(what, LineResult::Unknown, note)
        }
        Err(error) => Line::noted(what, LineResult::Warning, format!("{}. {}", error.problem, error.remedy)),
    }
}

async fn check_user(run: &TargetRun<'_>, source: &UserBased, versions: Option<Versions>) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(role) = &source.role {
        let assumed = run.user_keys(source).await;
        lines.push(Line::tried(format!("assume the role {}", role.role_arn), assumed.as_ref().err()));
        if assumed.is_err() {
            return lines;
        }
    }
    let current = versions.as_ref().and_then(Versions::current);
    let (keys, bedrock, permissions) =
        join3(run.list_keys(), check_current(run, source, current), check_permissions(run, source)).await;
    lines.push(Line::tried(format!("list the keys of the IAM user {}", source.user_name), keys.as_ref().err()));
    if let (Ok(keys), Some(versions)) = (keys, versions) {
        lines.push(check_room(run, source, versions, keys));
    }
    lines.extend(bedrock);
    lines.extend(permissions);
    lines
}

async fn check_current(run: &TargetRun<'_>, source: &UserBased, current: Option<&Credentials>) -> Vec<Line> {
    let Some(current) = current else {
        let what = "the current credentials call Bedrock";
        return vec![Line::noted(what, LineResult::Unknown, "there are none before the first rotation")];
    };
    let remedy = format!(
        "Rotate now (the stack's output InvokeCommand). If Secrets Manager rotates the secret: `aws secretsmanager \
         rotate-secret --secret-id {}`",
        source.secret_id.as_str()
    );
    let proof = run.probe(current, 1).await;
    let proof = proof.map_err(|error| error.with_remedy_for(ErrorClass::InvalidCredentials, remedy));
    probed(calls_bedrock(run.target, "current", current), proof)
}

/// The result of the probe, or a line for each model that it didn't prove.
fn probed(what: String, proof: Result<Proof<'_>, Error>) -> Vec<Line> {
    match proof {
        Err(error) => vec![Line::tried(what, Some(&error))],
        Ok(proof) if proof.warnings.is_empty() => vec![Line::tried(what, None)],
        Ok(proof) => proof.warnings.into_iter().map(|note| Line::noted(&what, LineResult::Warning, note)).collect(),
    }
}

fn calls_bedrock(target: &Target, which: &str, credentials: &Credentials) -> String {
    format!("the {which} credentials ({}) call Bedrock in {}", credentials.id, target.region)
}

/// Whether the IAM user has room for another key.
fn check_room(run: &TargetRun<'_>, source: &UserBased, versions: Versions, keys: Vec<Key>) -> Line {
    let what = format!("room for another key ({} of {MAX_KEYS} exist)", keys.len());
    if versions.pending().is_some_and(|pending| keys.iter().any(|key| key.id == pending.id)) {
        return Line::tried("the rotation that is under way already has its key", None);
    }
    let listed: Vec<_> = keys.iter().map(|key| key.id.clone()).collect();
    let snapshot = Snapshot { now: run.now(), versions, keys };
    let room = policy::eviction_candidates(&snapshot, run.target, source, &listed);
    match (room, policy::Overlap::of(&snapshot, source)) {
        // The schedule waits until the overlap is over.
        (Err(error), policy::Overlap::Running { .. }) => Line::noted(what, LineResult::Warning, error.remedy),
        (Ok(room), _) => match room.first() {
            Some((_, key)) => Line::tried(
                format!("{what}: to make room, the next rotation deletes {}, if it still exists", key.id),
                None,
            ),
            None => Line::tried(what, None),
        },
        (Err(error), _) => Line::tried(what, Some(&error)),
    }
}

/// Asks IAM to simulate what can't be tried without doing it. The simulation includes service control policies.
async fn check_permissions(run: &TargetRun<'_>, source: &UserBased) -> Vec<Line> {
    let what = format!("create and retire keys of the IAM user {}", source.user_name);
    let unknown = |note: &str| vec![Line::noted(&what, LineResult::Unknown, note)];
    if source.role.is_some() {
        return unknown("only a rotation can tell whether the role in the target's role_arn may do this");
    }
    let services = run.services;
    let denied = async {
        let caller = services.sts.caller(run.deadline).await?;
        services.iam.denied_actions(&caller, source, run.deadline).await
    };
    match denied.await {
        Ok(denied) if denied.is_empty() => vec![Line::tried(what, None)],
        Ok(denied) => denied.iter().map(|error| Line::tried(&what, Some(error))).collect(),
        Err(error) if error.class == ErrorClass::Permission => {
            unknown("to check this before a rotation, allow iam:SimulatePrincipalPolicy on the function's own role")
        }
        Err(error) => unknown(&error.to_string()),
    }
}

/// Whether a request could name each destination. The request itself costs a token and uses the credentials that
/// Braintrust holds, so only a rotation sends it.
async fn check_end_to_end(run: &TargetRun<'_>, readings: &[Reading<'_>]) -> Vec<Line> {
    let Some(asked) = &run.target.end_to_end else { return Vec::new() };
    let mut lines = Vec::new();
    for reading in readings {
        let Some(found) = reading.writable() else { continue };
        let lookup = &reading.destination.lookup;
        let what = format!("call {} through Braintrust with the {} {lookup}", asked.model, lookup.noun());
        lines.push(match run.pin(reading.destination, &found.provider).await {
            Err(reason) => Line::noted(what, LineResult::Warning, format!("a rotation can't prove this: {reason}")),
            Ok(_) if run.target.secret_id().is_none() => Line::noted(
                what,
                LineResult::Unknown,
                "a rotation sends a request for one token, and only that can tell. If Bedrock refuses the credentials, \
                 nothing can be restored, because the target has no staged secret",
            ),
            Ok(_) => {
                let note = "a rotation sends a request for one token, and only that can tell";
                Line::noted(what, LineResult::Unknown, note)
            }
        });
    }
    lines
}

fn check_destinations(readings: &[Reading<'_>]) -> Vec<Line> {
    let mut lines = Vec::new();
    for reading in readings {
        let lookup = &reading.destination.lookup;
        let error = reading.result.as_ref().err();
        let named = format!("{} {lookup}", lookup.noun());
        lines.push(Line::tried(format!("find the {named} and its layout"), error));
        if error.is_some() {
            continue;
        }
        if reading.uses_assume_role() {
            let note = "Braintrust assumes a role itself, so there is nothing to rotate. Its AI proxy can't do that. \
                        docs/assume-role.md says how to move back";
            lines.push(Line::noted(format!("the {named}"), LineResult::Ok, note));
            continue;
        }
        let warnings = destinations::warnings(std::slice::from_ref(reading)).into_iter();
        lines.extend(warnings.map(|note| Line::noted(format!("the {named}"), LineResult::Warning, note)));
        let note = match Place::of(lookup) {
            Place::Organization => {
                "only an organization admin's API key can do this, and reading doesn't show whose key it is"
            }
            Place::Project => "only an API key that may update the project can do this, and reading doesn't show that",
        };
        lines.push(Line::noted(format!("update the {named}"), LineResult::Unknown, note));
    }
    lines
}

fn check_secret(target: &Target, versions: &Result<Option<Versions>, Error>) -> Vec<Line> {
    let Some(id) = target.secret_id() else { return Vec::new() };
    let mut lines = vec![Line::tried(format!("read the secret {id}"), versions.as_ref().err())];
    let Ok(Some(versions)) = versions else { return lines };
    let note = "this needs secretsmanager:PutSecretValue, secretsmanager:UpdateSecretVersionStage, and \
                kms:GenerateDataKey for a customer managed key, and only a rotation can tell whether the function has them";
    lines.push(Line::noted(format!("write the secret {id}"), LineResult::Unknown, note));
    let rotation = format!("the rotation of the secret {id}");
    if versions.stages.rotation_enabled == Some(true) && target.user_based().is_none() {
        let remedy = TOO_SLOW_FOR_SECRETS_MANAGER.replace("<secret>", id.as_str());
        let error = Error::rotation_conflict("rotation is turned on for the secret", remedy);
        lines.push(Line::tried(&rotation, Some(&error)));
    }
    if versions.pending.is_some() {
        let note = "a rotation isn't finished: the next scheduled run (or Secrets Manager) resumes it";
        lines.push(Line::noted(rotation, LineResult::Warning, note));
    }
    lines
}

const SECONDS_A_DAY: u64 = 86_400;
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>
const MAX_VERSIONS_A_DAY: u64 = 100;

/// Whether the schedule runs often enough for role-based credentials. A `cron()` expression is not checked.
fn check_schedule(target: &Target, expression: Option<&str>) -> Option<Line> {
    let Source::RoleBased(source) = &target.source else { return None };
    let (expression, life) = (expression?, u64::from(source.role.duration_seconds));
    let period = rate(expression)?;
    let what = format!("the schedule, {expression}, for credentials that live {life} s");
    let remedy = "run the schedule at least twice within that time (the parameters ScheduleExpression and \
                  DurationSeconds, or the target's duration_seconds)";
    let versions_a_day = SECONDS_A_DAY / period.max(1);
    if source.secret_id.is_some() && versions_a_day > MAX_VERSIONS_A_DAY {
        let problem = format!("the schedule creates {versions_a_day} versions of the staged secret a day");
        let remedy = "Secrets Manager keeps 100 versions and deletes none that is younger than a day, so it would \
                      refuse later ones. Run the schedule every 15 minutes or less often (the parameter \
                      ScheduleExpression), or keep no copy of the credentials (StageCredentials=false, or a target \
                      without secret_id)";
        return Some(Line::tried(what, Some(&Error::configuration("schedule", problem, remedy))));
    }
    Some(if period >= life {
        let problem = format!("the credentials live {life} s, and the schedule runs every {period} s");
        let remedy = format!("Braintrust has no valid credentials between runs: {remedy}");
        Line::tried(what, Some(&Error::configuration("schedule", problem, remedy)))
    } else if period.saturating_mul(2) > life {
        let note = format!("one failed run leaves Braintrust without valid credentials: {remedy}");
        Line::noted(what, LineResult::Warning, note)
    } else {
        Line::tried(what, None)
    })
}

/// The seconds of EventBridge's `rate(5 minutes)`.
/// <https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#rate-based>
fn rate(expression: &str) -> Option<u64> {
    let (number, unit) = expression.trim().strip_prefix("rate(")?.strip_suffix(')')?.trim().split_once(' ')?;
    let seconds = match unit.trim().trim_end_matches('s') {
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::for_test::role_based;

    #[test]
    fn a_schedule_that_is_slower_than_the_credentials_live_fails_and_a_tight_one_is_a_warning() {
        let target = role_based("prod");
        for (expression, expected) in [
            (Some("rate(30 minutes)"), Some(LineResult::Ok)),
            (Some("rate(31 minutes)"), Some(LineResult::Warning)),
            (Some("rate(1 hour)"), Some(LineResult::Failed)),
            (Some("rate(1 day)"), Some(LineResult::Failed)),
            (Some("cron(0 * * * ? *)"), None),
            (Some("rate(soon)"), None),
            (None, None),
        ] {
            assert_eq!(check_schedule(&target, expression).map(|line| line.result), expected, "{expression:?}");
        }
    }

    #[test]
    fn a_schedule_that_stages_more_versions_a_day_than_secrets_manager_keeps_fails() {
        let (in_memory, mut staged) = (role_based("prod"), role_based("prod"));
        if let Source::RoleBased(source) = &mut staged.source {
            source.secret_id = Some("staged".to_owned().try_into().unwrap());
        }
        for (target, expression, expected) in [
            (&in_memory, "rate(7 minutes)", LineResult::Ok),
            (&staged, "rate(7 minutes)", LineResult::Failed),
            (&staged, "rate(14 minutes)", LineResult::Failed),
            (&staged, "rate(15 minutes)", LineResult::Ok),
        ] {
            let found = check_schedule(target, Some(expression)).map(|line| line.result);
            assert_eq!(found, Some(expected), "{expression}");
        }
    }
}
