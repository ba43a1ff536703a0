//! A scheduled run of one target, or one that was asked for. A dry run takes the same path and stops before it acts.

use crate::aws::iam_keys::Key;
use crate::aws::staged_value::VersionValue;
use crate::config::{RoleBased, Source, UserBased};
use crate::error::{Error, ErrorClass};
use crate::event::Rotate;
use crate::report::{Outcome, TargetReport};
use crate::rotation::assumed_by_braintrust;
use crate::rotation::policy::{self, Plan};
use crate::rotation::restore::Comparison;
use crate::rotation::snapshot::{Snapshot, Version};
use crate::rotation::staged_run::StagedRun;
use crate::rotation::steps::TOO_SLOW_FOR_SECRETS_MANAGER;
use crate::rotation::target_run::TargetRun;

pub async fn run(run: TargetRun<'_>, command: &Rotate) -> TargetReport {
    if !run.deadline.allows_a_start() {
        return TargetReport::of(run.target);
    }
    match &run.target.source {
        Source::RoleBased(source @ RoleBased { secret_id: None, .. }) => {
            let result = run.rotate_unrevoked(source, command.dry_run).await;
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

/// Rotates the credentials in the four steps if they are due, and otherwise makes Braintrust hold the current ones.
/// Then retires the keys that are no longer needed.
async fn rotate_staged(staged: &StagedRun<'_>, command: &Rotate) -> Result<Outcome, Error> {
    let mut snapshot = match staged.snapshot().await {
        Ok(snapshot) => snapshot,
        // Whoever moved may have deleted the IAM user, the role that may list its keys, or the secret.
        Err(_) if staged.run.uses_assume_role().await => return Ok(uses_assume_role_without_snapshot(staged).await),
        Err(error) => return Err(error),
    };
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
                snapshot = staged.all_steps(pending, false, snapshot).await?;
                Outcome::Resumed
            }
            None => Outcome::NotDue,
        },
        Plan::Start | Plan::ReplacePending => match staged.secret.read(&command.token).await? {
            VersionValue::Empty => {
                let new = Version { id: command.token.clone(), value: VersionValue::Empty };
                snapshot = staged.all_steps(new, plan == Plan::ReplacePending, snapshot).await?;
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
    warn_of_remaining(staged, &snapshot.keys, snapshot.versions.stages.rotation_enabled);
    Outcome::UsesAssumeRole
}

/// The same, as far as it can be read.
async fn uses_assume_role_without_snapshot(staged: &StagedRun<'_>) -> Outcome {
    let rotation_enabled = staged.secret.describe().await.ok().and_then(|stages| stages.rotation_enabled);
    let keys = staged.run.remaining_keys().await.unwrap_or_else(|error| {
        let warning = "Braintrust assumes a role itself, but it isn't known which keys still exist";
        staged.run.progress.warning(format!("{warning}: {error}"));
        Vec::new()
    });
    warn_of_remaining(staged, &keys, rotation_enabled);
    Outcome::UsesAssumeRole
}

fn warn_of_remaining(staged: &StagedRun<'_>, keys: &[Key], rotation_enabled: Option<bool>) {
    let remaining = assumed_by_braintrust::remaining(staged.run.target, keys, rotation_enabled);
    remaining.into_iter().for_each(|warning| staged.run.progress.warning(warning));
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

#[cfg(test)]
mod tests;
