//! A rollback: Braintrust gets the previous credentials back, and they become current.

use crate::credentials::Credentials;
use crate::error::Error;
use crate::report::{Outcome, TargetReport};
use crate::rotation::policy;
use crate::rotation::snapshot::Snapshot;
use crate::rotation::staged_run::StagedRun;
use crate::rotation::target_run::TargetRun;

const ROTATE_INSTEAD: &str = "Rotate instead, with force";

pub async fn run(run: TargetRun<'_>, dry_run: bool) -> TargetReport {
    if !run.deadline.allows_a_start() {
        return TargetReport::of(run.target);
    }
    let Some(id) = run.target.secret_id() else {
        let problem = "the target has no secret_id, so its previous credentials are not kept";
        let remedy = "Rotate instead. To be able to roll back, give the target a secret_id";
        return run.progress.finish(Err(Error::configuration("event", problem, remedy)));
    };
    let staged = StagedRun::new(run, id, None);
    let result = Box::pin(roll_back(&staged, dry_run)).await;
    staged.run.progress.finish(result)
}

async fn roll_back(staged: &StagedRun<'_>, dry_run: bool) -> Result<Outcome, Error> {
    let snapshot = staged.snapshot().await?;
    let (version, credentials) = previous(staged, &snapshot)?;
    staged.run.progress.credentials(credentials);
    let is_active = is_active(staged, &snapshot, credentials)?;
    if dry_run {
        staged.may_set().await?;
        return Ok(Outcome::WouldRollBack);
    }
    if let (false, Some(source)) = (is_active, staged.run.target.user_based()) {
        staged.run.user_keys(source).await?.activate(&credentials.id).await?;
    }
    let confirmations = if is_active { 1 } else { policy::confirmations(staged.run.target) };
    let proven = staged.run.prove(credentials, confirmations).await?;
    let write_and_swap = async {
        staged.set(proven).await?;
        staged.verify(credentials).await?;
        swap(staged, version, &snapshot).await
    };
    let Err(error) = write_and_swap.await else { return Ok(Outcome::RolledBack) };
    let restored = match staged.restore_current(&snapshot.versions).await {
        Ok(()) => "The current credentials were restored",
        Err(_) => "The current credentials could not be restored: roll back again",
    };
    let remedy = format!("{restored}. {}", error.remedy);
    Err(error.with_remedy(remedy))
}

/// The version and credentials to go back to.
fn previous<'s>(staged: &StagedRun<'_>, snapshot: &'s Snapshot) -> Result<(&'s str, &'s Credentials), Error> {
    let versions = &snapshot.versions;
    let previous = versions.previous.as_ref().and_then(|version| Some((version.id.as_str(), version.credentials()?)));
    let (problem, remedy) = match previous {
        _ if versions.pending.is_some() => (
            "a rotation is under way",
            "If the rotation fails, it restores the current credentials itself. To abandon it, remove the AWSPENDING \
             stage from its version",
        ),
        None => ("no version with the stage AWSPREVIOUS holds credentials", ROTATE_INSTEAD),
        Some((version, _)) if versions.stages.rolled_back() == Some(version) => (
            "the previous credentials are those that an earlier rollback replaced",
            "Rotate instead, with force. If you do want them back, remove the stage ROLLED_BACK from that version",
        ),
        Some((_, credentials)) if !policy::is_worth_writing(snapshot.now, credentials) => {
            ("the previous credentials have expired", ROTATE_INSTEAD)
        }
        Some(found) => return Ok(found),
    };
    Err(staged.conflict(problem, remedy))
}

/// Whether the previous key is active in IAM. Credentials of another kind and role-based ones count as active, because
/// the probe decides about them.
fn is_active(staged: &StagedRun<'_>, snapshot: &Snapshot, previous: &Credentials) -> Result<bool, Error> {
    let target = staged.run.target;
    if target.user_based().is_none() || previous.kind() != target.kind() {
        return Ok(true);
    }
    let key = snapshot.keys.iter().find(|key| key.id == previous.id);
    let deleted = || staged.conflict("the previous credentials were deleted", ROTATE_INSTEAD);
    key.map(|key| key.active).ok_or_else(deleted)
}

/// Swaps `AWSCURRENT` and `AWSPREVIOUS`. Secrets Manager leaves `AWSPENDING` on the version that it made current, where
/// it would then look like a rotation under way.
async fn swap(staged: &StagedRun<'_>, version: &str, snapshot: &Snapshot) -> Result<(), Error> {
    let versions = &snapshot.versions;
    if let Some(current) = versions.current_version() {
        staged.secret.mark_rolled_back(&versions.stages, current).await?;
    }
    if let Some(ended) = versions.stages.pending_on_ended() {
        staged.secret.remove_pending(ended).await?;
    }
    staged.secret.promote(version, versions.current_version()).await
}
