//! A scheduled run of one target, or one that was asked for. A dry run takes the same path and stops before it acts.

use std::cell::OnceCell;

use futures_util::future::join;

use crate::aws::staged_value::VersionValue;
use crate::config::{RoleBased, Source, UserBased};
use crate::error::{Error, ErrorClass};
use crate::event::Rotate;
use crate::report::{Outcome, TargetReport};
use crate::rotation::policy::{self, Plan};
use crate::rotation::restore::Comparison;
use crate::rotation::snapshot::{Snapshot, Version};
use crate::rotation::staged_run::StagedRun;
use crate::rotation::steps::{Created, TOO_SLOW_FOR_SECRETS_MANAGER};
use crate::rotation::target_run::TargetRun;
use crate::rotation::writing::Fallback;
use crate::rotation::{assumed_by_braintrust, destinations};

pub async fn run(run: TargetRun<'_>, command: &Rotate) -> TargetReport {
    if !run.deadline.allows_a_start() {
        return TargetReport::of(run.target);
    }
    match &run.target.source {
        Source::RoleBased(source @ RoleBased { secret_id: None, .. }) => {
            let result = rotate_in_memory(&run, source, command.dry_run).await;
            run.progress.finish(result)
        }
        Source::RoleBased(RoleBased { secret_id: Some(id), .. })
        | Source::UserBased(UserBased { secret_id: id, .. }) => {
            let staged = StagedRun::new(run, id, None);
            // Boxed, so that a target without a staged secret needs less memory while it runs.
            let result = Box::pin(rotate_staged(&staged, command)).await;
            staged.run.progress.finish(result)
        }
    }
}

/// Creates and proves credentials while the destinations are read, then writes to all destinations.
async fn rotate_in_memory(run: &TargetRun<'_>, source: &RoleBased, dry_run: bool) -> Result<Outcome, Error> {
    let issued = OnceCell::new();
    let issue = async {
        if dry_run {
            return Ok(None);
        }
        let credentials = run.issue(source).await?;
        run.prove(issued.get_or_init(|| credentials), 1).await.map(Some)
    };
    let (proven, readings) = join(issue, run.read_destinations()).await;
    let are_writable = run.report_readings(&readings);
    if destinations::all_use_assume_role(&readings) {
        // Before the errors of AWS: whoever moved to Braintrust's own role may have deleted this one.
        return Ok(Outcome::UsesAssumeRole);
    }
    run.progress.held(destinations::held_lifetime(source, &readings));
    let Some(proven) = proven? else { return are_writable.map(|()| Outcome::WouldRotate) };
    let written = run.write_all(&readings, proven, Fallback::Complete).await;
    let to_write = written.iter().filter(|report| !report.uses_assume_role).count();
    if to_write == 0 {
        // The last destination has moved since it was read first.
        return run.report_destinations(written, &readings).map(|()| Outcome::UsesAssumeRole);
    }
    let superseded: Vec<_> = written.iter().filter(|report| report.is_superseded).collect();
    for report in &superseded {
        let warning = "holds newer credentials, which another run has written meanwhile. It was not touched";
        run.progress.warning(format!("the ai_secret {} {warning}", report.ai_secret));
    }
    let (are_all_superseded, is_any_superseded) = (superseded.len() == to_write, !superseded.is_empty());
    if !are_all_superseded {
        run.progress.credentials(proven.credentials());
    }
    if !is_any_superseded && destinations::all_succeeded(&written).is_ok() {
        run.progress.held(Some(proven.credentials().lifetime()));
    }
    // Nobody has the previous credentials, so these stay even if Braintrust can't use them.
    let written = Box::pin(run.prove_end_to_end(&readings, written, proven.credentials())).await;
    run.report_destinations(written, &readings)?;
    Ok(if are_all_superseded { Outcome::NotDue } else { Outcome::Rotated })
}

/// Rotates the credentials in the four steps if they are due, and otherwise makes Braintrust hold the current ones.
/// Then retires the keys that are no longer needed.
async fn rotate_staged(staged: &StagedRun<'_>, command: &Rotate) -> Result<Outcome, Error> {
    let mut snapshot = staged.snapshot().await?;
    if let Some(current) = snapshot.versions.current() {
        staged.run.progress.credentials(current);
        staged.run.progress.held(Some(current.lifetime()));
    }
    let plan = policy::plan(&snapshot, staged.run.target, &command.token, command.force);
    if plan.may_create() && staged.run.uses_assume_role().await {
        return Ok(uses_assume_role(staged, &snapshot));
    }
    if command.dry_run {
        return would(staged, plan, &snapshot).await;
    }
    if let Some(stale) = snapshot.versions.stages.stale_pending() {
        staged.secret.remove_pending(stale).await?;
    }
    let outcome = match plan {
        Plan::WaitForSecretsManager | Plan::LeaveToSecretsManager => {
            if staged.run.target.user_based().is_none() {
                let warning = TOO_SLOW_FOR_SECRETS_MANAGER.replace("<secret>", staged.secret.id.as_str());
                staged.run.progress.warning(warning);
            }
            if plan == Plan::WaitForSecretsManager {
                return Ok(Outcome::LeftToSecretsManager);
            }
            reconcile(staged, &snapshot, Outcome::LeftToSecretsManager).await?
        }
        Plan::NotDue => {
            let outcome = reconcile(staged, &snapshot, Outcome::NotDue).await?;
            if outcome == Outcome::NotDue {
                prove_again(staged, &snapshot).await?;
            }
            outcome
        }
        Plan::GiveUpPending => give_up_pending(staged, &mut snapshot).await?,
        Plan::AbandonPending => {
            let remedy = "The next scheduled run starts a new version";
            return Err(staged.abandon_pending(&command.token, &snapshot, remedy).await);
        }
        Plan::Resume => match snapshot.versions.pending.take() {
            Some(pending) => {
                snapshot = all_steps(staged, pending, plan, snapshot).await?;
                Outcome::Resumed
            }
            None => Outcome::NotDue,
        },
        Plan::Start | Plan::ReplacePending => match staged.secret.read(&command.token).await? {
            VersionValue::Empty => {
                let new = Version { id: command.token.clone(), value: VersionValue::Empty };
                snapshot = all_steps(staged, new, plan, snapshot).await?;
                Outcome::Rotated
            }
            // The event is late: its rotation has ended, and others have followed.
            VersionValue::Foreign | VersionValue::Credentials(_) => {
                reconcile(staged, &snapshot, Outcome::NotDue).await?
            }
        },
    };
    if outcome == Outcome::UsesAssumeRole {
        return Ok(uses_assume_role(staged, &snapshot));
    }
    match staged.retire(&snapshot).await {
        // Another run is changing the same keys or stages. Braintrust already holds the current credentials.
        Err(error) if error.class == ErrorClass::Conflict => {
            staged.run.progress.warning(format!("the retirement was left to a later run: {}", error.problem));
        }
        result => result?,
    }
    Ok(outcome)
}

/// Makes Braintrust hold the current credentials. `in_step` is the outcome if it already holds them.
async fn reconcile(staged: &StagedRun<'_>, snapshot: &Snapshot, in_step: Outcome) -> Result<Outcome, Error> {
    Ok(match staged.reconcile(snapshot).await? {
        Comparison::InStep => in_step,
        Comparison::OutOfStep => Outcome::Repaired,
        Comparison::UsesAssumeRole => Outcome::UsesAssumeRole,
    })
}

/// Role-based credentials are always due, unless this event has already made them current. If Braintrust was denied the
/// model with them, that must not end with a retry that succeeds.
async fn prove_again(staged: &StagedRun<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let target = staged.run.target;
    let is_asked = target.end_to_end.is_some() && target.user_based().is_none();
    match snapshot.versions.current().filter(|_| is_asked && !policy::is_current_dead(snapshot, target)) {
        Some(current) => staged.verify(current).await,
        None => Ok(()),
    }
}

/// Nothing is rotated or retired. Says what remains to be done by hand.
fn uses_assume_role(staged: &StagedRun<'_>, snapshot: &Snapshot) -> Outcome {
    let rotation_enabled = snapshot.versions.stages.rotation_enabled;
    let remaining = assumed_by_braintrust::remaining(staged.run.target, &snapshot.keys, rotation_enabled);
    remaining.into_iter().for_each(|warning| staged.run.progress.warning(warning));
    Outcome::UsesAssumeRole
}

/// Ends a pending version whose credentials no longer work, and restores the current credentials, which are not due.
async fn give_up_pending(staged: &StagedRun<'_>, snapshot: &mut Snapshot) -> Result<Outcome, Error> {
    let Some(pending) = snapshot.versions.pending.take() else { return Ok(Outcome::NotDue) };
    let is_restored = staged.give_up_pending(&pending.id, snapshot).await?;
    staged.run.progress.warning("the pending credentials no longer worked and were abandoned".to_owned());
    Ok(if is_restored { Outcome::Repaired } else { Outcome::NotDue })
}

async fn would(staged: &StagedRun<'_>, plan: Plan, snapshot: &Snapshot) -> Result<Outcome, Error> {
    let in_step = match plan {
        Plan::WaitForSecretsManager => return Ok(Outcome::LeftToSecretsManager),
        Plan::LeaveToSecretsManager => Outcome::LeftToSecretsManager,
        Plan::NotDue => Outcome::NotDue,
        Plan::Resume if snapshot.versions.pending_is_foreign() => return Err(staged.foreign_pending()),
        Plan::GiveUpPending | Plan::AbandonPending => {
            staged.may_set().await?;
            return Ok(Outcome::WouldRepair);
        }
        Plan::Resume | Plan::Start | Plan::ReplacePending => {
            staged.may_set().await?;
            return Ok(Outcome::WouldRotate);
        }
    };
    Ok(match staged.compare(snapshot).await? {
        Comparison::InStep => in_step,
        Comparison::OutOfStep => Outcome::WouldRepair,
        Comparison::UsesAssumeRole => uses_assume_role(staged, snapshot),
    })
}

/// The four steps in order. Returns the snapshot after them.
async fn all_steps(
    staged: &StagedRun<'_>,
    version: Version,
    plan: Plan,
    snapshot: Snapshot,
) -> Result<Snapshot, Error> {
    let created = staged.create(&version.id, version.value, &snapshot).await;
    let proven = match &created {
        Ok(Created::Staged(credentials) | Created::NotStaged(credentials, _)) => {
            staged.run.prove(credentials, policy::confirmations(staged.run.target)).await
        }
        Err(error) => Err(error.clone()),
    };
    if proven.is_err() && plan == Plan::ReplacePending {
        // Braintrust may hold the dead credentials, so the current ones are restored if they work. The dead ones stay
        // pending until others are staged, so that the next run replaces them.
        if let Err(error) = staged.restore_current().await {
            staged.run.progress.warning(format!("the current credentials could not be restored: {}", error.problem));
        }
    }
    staged.set(proven?, Fallback::of(&snapshot.versions)).await?;
    let credentials = match created? {
        Created::Staged(credentials) => credentials,
        Created::NotStaged(credentials, error) => {
            let warning = format!("Braintrust holds {}, which could not be staged: {error}", credentials.id);
            staged.run.progress.warning(warning);
            let is_asked = staged.run.target.end_to_end.is_some();
            let allowed = if is_asked { staged.test(&credentials).await? } else { Ok(()) };
            staged.run.progress.held(Some(credentials.lifetime()));
            return allowed.map(|()| snapshot);
        }
    };
    let allowed = staged.test(&credentials).await?;
    staged.finish(&version.id, &snapshot.versions).await?;
    staged.run.progress.held(Some(credentials.lifetime()));
    staged.secret.remove_pending(&version.id).await?;
    allowed?;
    let keys = staged.run.list_keys().await?;
    Ok(snapshot.after_promotion(&version.id, credentials, staged.run.now(), keys))
}

#[cfg(test)]
mod tests;
