//! A rollback: the previous credentials become current, and Braintrust gets them back.
//!
//! The stages move first. If the rollback is interrupted after that, the next scheduled run completes it.

use std::time::Duration;

use jiff::Timestamp;

use crate::aws::bedrock::Proven;
use crate::aws::secrets_manager::{Label, Stages, TimedLabel};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorClass};
use crate::report::{Outcome, TargetReport};
use crate::rotation::policy;
use crate::rotation::snapshot::Snapshot;
use crate::rotation::staged_run::{OTHER_RUN, StagedRun};
use crate::rotation::target_run::TargetRun;
use crate::rotation::writing::Fallback;

const ROTATE_INSTEAD: &str = "Rotate instead, with force (the stack's output ForceCommand, or FORCE=true with make \
                              rotate). If both keys are in use, that works after the overlap";
/// What the errors of a rollback name as the call, where no call of a service failed.
const ROLLBACK: &str = "rollback";
const MAX_LOOKS: usize = 5;
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);

pub async fn run(run: TargetRun<'_>, dry_run: bool, reactivate: bool) -> TargetReport {
    if !run.deadline.allows_a_start() {
        return TargetReport::of(run.target);
    }
    let Some(id) = run.target.secret_id() else {
        let problem = "the target has no secret_id, so its previous credentials are not kept";
        let remedy = "Rotate instead. To be able to roll back, keep a copy of the credentials in a secret (the parameter \
                      StageCredentials, or the target's secret_id)";
        return run.progress.finish(Err(Error::configuration("event", problem, remedy)));
    };
    let staged = StagedRun::new(run, id, None);
    let result = Box::pin(roll_back(&staged, dry_run, reactivate)).await;
    staged.run.progress.finish(result.map_err(titled))
}

async fn roll_back(staged: &StagedRun<'_>, dry_run: bool, reactivate: bool) -> Result<Outcome, Error> {
    let snapshot = staged.snapshot().await?;
    if snapshot.versions.pending.is_some() {
        return Err(rotation_under_way(staged, &snapshot));
    }
    let previous = Previous::of(staged, &snapshot, reactivate)?;
    if staged.run.uses_assume_role().await {
        let problem = "Braintrust assumes a role itself for every provider of the target, so nothing was changed";
        let remedy = "To move back to credentials, change the providers first: see docs/assume-role.md";
        return Err(staged.conflict(problem, remedy));
    }
    staged.run.progress.credentials(previous.credentials);
    if dry_run {
        staged.may_set().await?;
        return Ok(Outcome::WouldRollBack);
    }
    // From here on, no other run retires the previous credentials. One that already does is seen in the next snapshot.
    let announced_at = staged.run.now();
    staged.secret.add_label(TimedLabel::Restoring, announced_at, previous.version).await?;
    let result = match look_again(staged, previous.version).await {
        Ok(snapshot) => restore(staged, &snapshot, previous.version, reactivate).await,
        Err(error) => Err(NotRestored { error, is_settled: true }),
    };
    if result.as_ref().err().is_none_or(|failed| failed.is_settled) {
        staged.secret.remove_label(TimedLabel::Restoring, announced_at, previous.version).await?;
    }
    result.map(|()| Outcome::RolledBack).map_err(|failed| failed.error)
}

/// The state after this run's label was set. A run that was about to retire the previous key sees that label and gives way,
/// so this run waits for it.
async fn look_again(staged: &StagedRun<'_>, version: &str) -> Result<Snapshot, Error> {
    let mut snapshot = staged.snapshot().await?;
    for _ in 0..MAX_LOOKS {
        let previous = snapshot.versions.previous().map(|credentials| credentials.id.as_str());
        let is_active = snapshot.keys.iter().any(|key| Some(key.id.as_str()) == previous && key.active);
        if !is_active || !snapshot.versions.stages.is_ending(version) {
            break;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
        snapshot = staged.snapshot().await?;
    }
    Ok(snapshot)
}

/// Why the previous credentials were not restored.
struct NotRestored {
    error: Error,
    /// Whether Braintrust holds the current credentials. If that isn't known, the label `RESTORING` stays, so that a later
    /// run repairs Braintrust.
    is_settled: bool,
}

impl From<(Error, bool)> for NotRestored {
    fn from((error, is_settled): (Error, bool)) -> Self {
        Self { error, is_settled }
    }
}

async fn restore(
    staged: &StagedRun<'_>,
    snapshot: &Snapshot,
    version: &str,
    reactivate: bool,
) -> Result<(), NotRestored> {
    let (stages, promoted_at) = (&snapshot.versions.stages, staged.run.now());
    let proven = prepare(staged, snapshot, version, reactivate).await.map_err(|error| (error, true))?;
    swap(staged, version, promoted_at, stages).await?;
    let written = async {
        staged.set(proven, Fallback::Restore).await?;
        staged.verify(proven.credentials()).await
    };
    match written.await {
        Ok(()) => stay_current(staged, version, promoted_at, stages).await,
        Err(error) => Err(swap_back(staged, version, promoted_at, stages.current(), error).await),
    }
}

/// Checks again what may have changed before the label was set, and proves the previous credentials.
async fn prepare<'s>(
    staged: &StagedRun<'_>,
    snapshot: &'s Snapshot,
    version: &str,
    reactivate: bool,
) -> Result<Proven<'s>, Error> {
    let previous = Previous::of(staged, snapshot, reactivate)?;
    if previous.version != version {
        return Err(staged.conflict("another run has moved AWSPREVIOUS", OTHER_RUN));
    }
    if let (false, Some(source)) = (previous.is_active, staged.run.target.user_based()) {
        // The label goes first: beside an active key, it means that another run is about to deactivate that.
        if snapshot.versions.stages.labelled(Label::Deactivating) == Some(version) {
            staged.secret.move_label(Label::Deactivating, None, Some(version)).await?;
        }
        staged.run.user_keys(source).await?.activate(&previous.credentials.id).await?;
    }
    let confirmations = if previous.is_active { 1 } else { policy::confirmations(staged.run.target) };
    staged.run.prove(previous.credentials, confirmations).await
}

/// Makes the previous version current. After a lost response, the stages may have moved.
async fn swap(
    staged: &StagedRun<'_>,
    version: &str,
    promoted_at: Timestamp,
    stages: &Stages,
) -> Result<(), NotRestored> {
    let (secret, current) = (&staged.secret, stages.current());
    let moved = async {
        secret.move_label(Label::RolledBack, current, stages.labelled(Label::RolledBack)).await?;
        // Secrets Manager leaves AWSPENDING on the version that it made current, where it would look like a rotation.
        if let Some(ended) = stages.pending_on_ended() {
            secret.remove_pending(ended).await?;
        }
        secret.add_label(TimedLabel::Promoted, promoted_at, version).await?;
        secret.promote(version, current).await
    };
    match moved.await {
        Err(error) if !error.is_transient() => {
            let undone = remove_marks(staged, version, promoted_at, current).await;
            Err((error, undone.is_ok()).into())
        }
        moved => Ok(moved.map_err(|error| (error, false))?),
    }
}

/// Removes what a rollback that did not happen has set.
async fn remove_marks(
    staged: &StagedRun<'_>,
    version: &str,
    promoted_at: Timestamp,
    current: Option<&str>,
) -> Result<(), Error> {
    staged.secret.move_label(Label::RolledBack, None, current).await?;
    staged.secret.remove_label(TimedLabel::Promoted, promoted_at, version).await
}

/// Moves the stages back after a failed write, and restores the credentials that are then current.
async fn swap_back(
    staged: &StagedRun<'_>,
    version: &str,
    promoted_at: Timestamp,
    current: Option<&str>,
    error: Error,
) -> NotRestored {
    let moved = async {
        let Some(current) = current else { return Ok(()) };
        staged.secret.promote(current, Some(version)).await?;
        remove_marks(staged, version, promoted_at, Some(current)).await
    };
    match moved.await {
        // In the case of a conflict, another run has made other credentials current, and those are restored.
        Err(failed) if failed.class != ErrorClass::Conflict => {
            let remedy = format!("The stages could not be moved back: {}. {}", failed.problem, error.remedy);
            (error.with_remedy(remedy), false).into()
        }
        Ok(()) | Err(_) => staged.try_to_restore_after(error).await.into(),
    }
}

/// Checks after the write that no other run has made other credentials current. If one has, Braintrust gets those.
async fn stay_current(
    staged: &StagedRun<'_>,
    version: &str,
    promoted_at: Timestamp,
    before: &Stages,
) -> Result<(), NotRestored> {
    let stages = staged.secret.describe().await.map_err(|error| (error, false))?;
    if stages.current() == Some(version) {
        return Ok(staged.forget_promotions(before, version, promoted_at).await.map_err(|error| (error, true))?);
    }
    let lost = staged.conflict("another run moved AWSCURRENT during the rollback", OTHER_RUN);
    Err(staged.try_to_restore_after(lost).await.into())
}

/// A conflict that a rotation would have, too, belongs to the rollback here.
fn titled(error: Error) -> Error {
    if error.call == Error::ROTATION { Error { call: ROLLBACK, ..error } } else { error }
}

fn rotation_under_way(staged: &StagedRun<'_>, snapshot: &Snapshot) -> Error {
    let pending = snapshot.versions.pending.as_ref().map_or("<version>", |version| in_a_command(&version.id));
    let remedy = format!(
        "If the rotation fails, it restores the current credentials itself. To abandon it, remove its stage: `aws \
         secretsmanager update-secret-version-stage --secret-id {} --version-stage AWSPENDING \
         --remove-from-version-id {pending}`",
        staged.secret.id.as_str()
    );
    staged.conflict("a rotation isn't finished", &remedy)
}

/// Security: whoever may write the secret chooses a version's ID, which can be any text of 32 to 64 characters.
fn in_a_command(version: &str) -> &str {
    if version.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) { version } else { "<version>" }
}

/// The version and credentials to go back to.
struct Previous<'s> {
    version: &'s str,
    credentials: &'s Credentials,
    /// Credentials of another kind and role-based ones count as active, because the probe decides about them.
    is_active: bool,
}

impl<'s> Previous<'s> {
    fn of(staged: &StagedRun<'_>, snapshot: &'s Snapshot, reactivate: bool) -> Result<Self, Error> {
        let (versions, target) = (&snapshot.versions, staged.run.target);
        let previous =
            versions.previous.as_ref().and_then(|version| Some((version.id.as_str(), version.credentials()?)));
        let stages = &versions.stages;
        let refuse = |problem: String, remedy: &str| Err(staged.conflict(&problem, remedy));
        // A rotation that has begun since the first snapshot and has no credentials yet can't overtake this rollback.
        if versions.pending().is_some() {
            return Err(rotation_under_way(staged, snapshot));
        }
        let Some((version, credentials)) = previous else {
            return refuse("no version with the stage AWSPREVIOUS holds credentials".to_owned(), ROTATE_INSTEAD);
        };
        if stages.labelled(Label::RolledBack) == Some(version) {
            let remedy = format!(
                "Rotate instead, with force, after the overlap. If you do want them back, remove the label ROLLED_BACK \
                 from that version, and roll back again: `aws secretsmanager update-secret-version-stage --secret-id {} \
                 --version-stage ROLLED_BACK --remove-from-version-id {}`",
                staged.secret.id.as_str(),
                in_a_command(version)
            );
            return refuse("the previous credentials are those that an earlier rollback replaced".to_owned(), &remedy);
        }
        if stages.is_revoked(version) {
            let problem = format!("the previous credentials {} were revoked, because they leaked", credentials.id);
            return refuse(problem, ROTATE_INSTEAD);
        }
        if !policy::is_worth_writing(snapshot.now, credentials) {
            return refuse("the previous credentials have expired".to_owned(), ROTATE_INSTEAD);
        }
        let is_listed = target.user_based().is_some() && credentials.kind() == target.kind();
        let key = snapshot.keys.iter().find(|key| key.id == credentials.id);
        let is_active = match (is_listed, key) {
            (false, _) => true,
            (true, Some(key)) => key.active,
            (true, None) => return refuse("the previous credentials were deleted".to_owned(), ROTATE_INSTEAD),
        };
        if stages.labelled(Label::Deleting) == Some(version) || (is_active && stages.is_ending(version)) {
            return refuse(format!("another run has begun to retire {}", credentials.id), ROTATE_INSTEAD);
        }
        if !is_active && !reactivate {
            let remedy = "Rotate instead, with force. If you know why the key was deactivated and want it back, roll \
                          back with REACTIVATE=true (make rollback), or \"reactivate\":true in the event";
            return refuse(format!("the previous key {} was deactivated", credentials.id), remedy);
        }
        Ok(Self { version, credentials, is_active })
    }
}

#[cfg(test)]
mod tests;
