//! A scheduled run of one target, or one that was asked for. A dry run takes the same path and stops before it acts.

use std::cell::OnceCell;

use futures_util::future::join;

use crate::aws::staged_value::VersionValue;
use crate::config::{RoleBased, Source, UserBased};
use crate::error::Error;
use crate::event::Rotate;
use crate::report::{Outcome, TargetReport};
use crate::rotation::destinations;
use crate::rotation::policy::{self, Plan};
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
    run.progress.held(destinations::held_lifetime(source, &readings));
    let Some(proven) = proven? else { return are_writable.map(|()| Outcome::WouldRotate) };
    run.progress.credentials(proven.credentials());
    let written = run.write_all(&readings, proven).await;
    run.report_destinations(written, &readings)?;
    run.progress.held(Some(proven.credentials().lifetime()));
    Ok(Outcome::Rotated)
}

/// Rotates the credentials by the four steps in order if they are due, and retires the keys that are no longer needed.
async fn rotate_staged(staged: &StagedRun<'_>, command: &Rotate) -> Result<Outcome, Error> {
    let mut snapshot = staged.snapshot().await?;
    if let Some(current) = snapshot.versions.current() {
        staged.run.progress.credentials(current);
        staged.run.progress.held(Some(current.lifetime()));
    }
    let plan = policy::plan(&snapshot, staged.run.target, &command.token, command.force);
    if command.dry_run {
        staged.may_set().await?;
        return would(staged, plan, &snapshot);
    }
    if let Some(stale) = snapshot.versions.stages.stale_pending() {
        staged.secret.remove_pending(stale).await?;
    }
    let (outcome, version) = match plan {
        Plan::LeaveToSecretsManager => {
            if staged.run.target.user_based().is_none() {
                staged.run.progress.warning(TOO_SLOW_FOR_SECRETS_MANAGER.to_owned());
            }
            (Outcome::LeftToSecretsManager, None)
        }
        Plan::NotDue => (Outcome::NotDue, None),
        Plan::AbandonPending => {
            let remedy = "The next scheduled run starts a new version";
            return Err(staged.abandon_pending(&command.token, &snapshot.versions, remedy).await);
        }
        Plan::Resume => (Outcome::Resumed, snapshot.versions.pending.take()),
        Plan::Start | Plan::ReplacePending => match staged.secret.read(&command.token).await? {
            VersionValue::Empty => {
                let new = Version { id: command.token.clone(), value: VersionValue::Empty };
                (Outcome::Rotated, Some(new))
            }
            // The event is late: its rotation has ended, and others have followed.
            VersionValue::Foreign | VersionValue::Credentials(_) => (Outcome::NotDue, None),
        },
    };
    if let Some(version) = version {
        snapshot = all_steps(staged, version, plan, snapshot).await?;
    }
    staged.retire(&snapshot).await?;
    Ok(outcome)
}

fn would(staged: &StagedRun<'_>, plan: Plan, snapshot: &Snapshot) -> Result<Outcome, Error> {
    match plan {
        Plan::LeaveToSecretsManager => Ok(Outcome::LeftToSecretsManager),
        Plan::NotDue => Ok(Outcome::NotDue),
        Plan::Resume if snapshot.versions.pending_is_foreign() => Err(staged.foreign_pending()),
        Plan::Resume | Plan::Start | Plan::ReplacePending | Plan::AbandonPending => Ok(Outcome::WouldRotate),
    }
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
        Ok(credentials) => staged.run.prove(credentials, policy::confirmations(staged.run.target)).await,
        Err(error) => Err(error.clone()),
    };
    if proven.is_err() && plan == Plan::ReplacePending {
        // Braintrust may hold the dead credentials, so the current ones are restored if they work. The dead ones stay
        // pending until others are staged, so that the next run replaces them.
        if let Err(error) = staged.restore_current(&snapshot.versions).await {
            staged.run.progress.warning(format!("The current credentials could not be restored: {}", error.problem));
        }
    }
    staged.set(proven?).await?;
    let credentials = created?;
    staged.test(&credentials, &snapshot).await?;
    staged.finish(&version.id, &snapshot.versions).await?;
    staged.run.progress.held(Some(credentials.lifetime()));
    staged.secret.remove_pending(&version.id).await?;
    let keys = staged.run.list_keys().await?;
    Ok(snapshot.after_promotion(&version.id, credentials, staged.run.now(), keys))
}

#[cfg(test)]
mod tests;
