//! A revocation: replaces leaked credentials, ends them without an overlap, and proves that they are dead. The report
//! is the evidence.
//!
//! Nothing is ended before its successor is proven and has arrived in every destination, unless the event says `force`.
//! Each step can be repeated: see [`crate::rotation::revocation`].

use std::cell::OnceCell;
use std::time::Duration;

use crate::aws::bedrock::Ended;
use crate::aws::staged_value::VersionValue;
use crate::config::{RoleBased, Source, UserBased};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorClass, Service};
use crate::event::Revoke;
use crate::report::{Outcome, TargetReport};
use crate::revocation::RevokedState;
use crate::rotation::end_to_end::is_denial;
use crate::rotation::policy;
use crate::rotation::restore::Comparison;
use crate::rotation::revocation::Phase;
use crate::rotation::snapshot::{Snapshot, Version};
use crate::rotation::staged_run::StagedRun;
use crate::rotation::target_run::TargetRun;
use crate::rotation::writing;
use crate::rotation::{assumed_by_braintrust, destinations};

/// `aws:TokenIssueTime` has whole seconds, so sessions that are to be told apart are issued this far apart.
const BETWEEN_SESSIONS: Duration = Duration::from_millis(1_100);
/// How many successors are written until Braintrust holds one that the policy doesn't end. Another run may write a
/// session that is older than the cut-off.
const MAX_SUCCESSORS: usize = 3;

const SESSIONS_STAY: &str = "the credentials would be replaced, but the function isn't allowed to end the sessions of the \
                             role (the parameter AllowSessionRevocation, or the target's revoke_sessions), so they \
                             would work until they expire. The report of the revocation has the command that ends them \
                             at once";

pub async fn run(run: TargetRun<'_>, command: &Revoke) -> TargetReport {
    if !run.deadline.allows_a_start() {
        return TargetReport::of(run.target);
    }
    if run.uses_assume_role().await {
        let refused = nothing_to_write(&run).await;
        return run.progress.finish(Err(refused));
    }
    match &run.target.source {
        Source::RoleBased(source @ RoleBased { secret_id: None, .. }) => {
            let result = Box::pin(revoke_in_memory(&run, source, command)).await;
            run.progress.finish(result)
        }
        Source::RoleBased(RoleBased { secret_id: Some(id), .. })
        | Source::UserBased(UserBased { secret_id: id, .. }) => {
            let staged = StagedRun::new(run, id, None);
            let result = Box::pin(revoke_staged(&staged, command)).await;
            staged.run.progress.finish(result)
        }
    }
}

/// The error of a target that has no destination to which a successor could be written.
async fn nothing_to_write(run: &TargetRun<'_>) -> Error {
    let keys = run.list_keys().await.unwrap_or_default();
    let remaining = assumed_by_braintrust::remaining(run.target, &keys, None);
    remaining.into_iter().for_each(|warning| run.progress.warning(warning));
    let problem = "Braintrust assumes a role itself for every provider of the target, so nothing was replaced or ended";
    let remedy = "End the remaining keys by hand: the warnings contain the commands. Sessions of a role expire within \
                  the hour";
    Error::rotation_conflict(problem, remedy)
}

/// Replaces credentials that no secret stages. Braintrust doesn't return their secret parts, so a session that is
/// issued just before the successor stands for them: what ends it ends all earlier ones.
async fn revoke_in_memory(run: &TargetRun<'_>, source: &RoleBased, command: &Revoke) -> Result<Outcome, Error> {
    let readings = run.read_destinations().await;
    let shown = readings.iter().filter_map(|reading| reading.writable()?.provider.metadata.access_key.clone());
    shown.for_each(|id| run.list_shown(&id));
    if command.dry_run {
        run.report_readings(&readings).map_err(|error| still_works(error, command))?;
        return Ok(would_revoke(run));
    }
    let mut witness = None;
    if source.revoke_sessions {
        witness = Some(run.issue(source).await.map_err(|error| no_session(run, error, command))?);
        tokio::time::sleep(BETWEEN_SESSIONS).await;
    }
    for number in 0..MAX_SUCCESSORS {
        let issued = OnceCell::new();
        let written = match run.rotate_in_memory(source, false, &issued).await {
            Err(error) => arrived_nevertheless(run, issued.get(), error).await,
            written => written,
        };
        let unwritten = |error| match (number, issued.get()) {
            (0, None) => no_session(run, error, command),
            (0, Some(_)) => still_works(error, command),
            (1.., _) => without_successor(error),
        };
        let failed = written.as_ref().err().cloned();
        if let Some(error) = failed.as_ref().filter(|_| !command.force) {
            return Err(unwritten(error.clone()));
        }
        let Some(successor) = issued.get() else { return written.map_err(unwritten) };
        if !run.end_sessions(source, successor).await? {
            return failed.map_or(Ok(Outcome::Replaced), |error| Err(still_works(error, command)));
        }
        if let Some(witness) = &witness {
            run.prove_dead(witness, Ended::Session).await?;
        }
        if let Some(error) = failed {
            return Err(without_successor(error));
        }
        if written? == Outcome::Rotated && run.still_works(successor).await? && shows(run, successor).await {
            return Ok(run.replaced_or_revoked());
        }
        // The next policy ends this successor, too, and its refusal shows that the policy has arrived.
        witness = issued.into_inner();
        tokio::time::sleep(BETWEEN_SESSIONS).await;
    }
    let problem = "other runs kept writing older credentials, which the policy has ended";
    let remedy = "The next scheduled run writes new ones";
    Err(Error::rotation_conflict(problem, remedy))
}

/// A policy that denies the successor the model of the proof through Braintrust doesn't keep the leaked credentials
/// alive, if all destinations hold the successor.
async fn arrived_nevertheless(
    run: &TargetRun<'_>,
    successor: Option<&Credentials>,
    error: Error,
) -> Result<Outcome, Error> {
    match successor {
        Some(successor) if is_denial(&error) && shows(run, successor).await => {
            run.progress.warning(error.to_string());
            Ok(Outcome::Rotated)
        }
        Some(_) | None => Err(error),
    }
}

/// Whether all destinations show the credentials.
async fn shows(run: &TargetRun<'_>, credentials: &Credentials) -> bool {
    let readings = run.read_destinations().await;
    destinations::all_succeeded(&writing::verify_all(&readings, credentials)).is_ok()
}

async fn revoke_staged(staged: &StagedRun<'_>, command: &Revoke) -> Result<Outcome, Error> {
    let snapshot = staged.snapshot().await?;
    let phase = staged.revocation_phase(&snapshot, &command.token);
    let Some(current) = snapshot.versions.current() else {
        let problem = "AWSCURRENT holds no credentials that could be revoked";
        let remedy = "Rotate first (make rotate). If a rotation is under way, wait until it has ended";
        return Err(staged.conflict(problem, remedy));
    };
    staged.run.progress.credentials(current);
    report_revoked(staged, &snapshot, phase);
    if command.dry_run {
        staged.may_set().await.map_err(|error| match phase {
            Phase::Begin | Phase::Replace => still_works(error, command),
            Phase::End => error,
        })?;
        return Ok(would_revoke(&staged.run));
    }
    if phase != Phase::End {
        staged.mark_revoked(&snapshot).await?;
        if matches!(&staged.run.target.source, Source::RoleBased(source) if source.revoke_sessions) {
            tokio::time::sleep(BETWEEN_SESSIONS).await;
        }
    }
    drop(snapshot);
    if phase != Phase::End
        && let Err(error) = replace(staged, command).await
    {
        if !command.force {
            return Err(match error.service {
                Service::Sts => no_session(&staged.run, error, command),
                Service::Function
                | Service::S3
                | Service::Iam
                | Service::SecretsManager
                | Service::Bedrock
                | Service::Braintrust => still_works(error, command),
            });
        }
        end_by_force(staged, command, error).await?;
    }
    end(staged, command).await
}

/// Lists what is revoked, before anything happens to it.
fn report_revoked(staged: &StagedRun<'_>, snapshot: &Snapshot, phase: Phase) {
    let versions = &snapshot.versions;
    let is_revoked = |version: &&Version| phase == Phase::Begin || versions.stages.is_revoked(&version.id);
    let pending = staged.revoked_pending(snapshot);
    let named =
        [versions.current.as_ref(), pending, versions.previous.as_ref()].into_iter().flatten().filter(is_revoked);
    named.filter_map(Version::credentials).for_each(|credentials| staged.run.list_revoked(credentials));
    staged.run.progress.revocation(|revocation| {
        revocation.foreign_keys = policy::foreign_keys(snapshot);
        policy::revoked_keys(snapshot).iter().for_each(|key| revocation.list(&key.id));
    });
}

fn would_revoke(run: &TargetRun<'_>) -> Outcome {
    if matches!(&run.target.source, Source::RoleBased(source) if !source.revoke_sessions) {
        run.progress.warning(SESSIONS_STAY.to_owned());
        return Outcome::WouldRevoke;
    }
    let mark = |revoked: &mut crate::revocation::Revoked| revoked.state = RevokedState::WouldEnd;
    run.progress.revocation(|revocation| revocation.own().for_each(mark));
    Outcome::WouldRevoke
}

/// Makes a successor current, in the four steps of a rotation.
async fn replace(staged: &StagedRun<'_>, command: &Revoke) -> Result<(), Error> {
    let mut snapshot = staged.snapshot().await?;
    if !snapshot.versions.is_current_revoked() {
        return Ok(()); // another run has made the successor current
    }
    if let Some(stale) = snapshot.versions.stages.stale_pending() {
        staged.secret.remove_pending(stale).await?;
    }
    if snapshot.versions.pending_is_foreign() {
        return Err(staged.foreign_pending());
    }
    let is_usable = |pending: &Credentials| policy::is_usable(&snapshot, staged.run.target, pending);
    let (version, replaces_dead) = match snapshot.versions.pending() {
        Some(pending) if is_usable(pending) => (snapshot.versions.pending.take(), false),
        Some(_) if snapshot.versions.pending.as_ref().is_some_and(|pending| pending.id == command.token) => {
            return Err(staged.abandon_pending(&command.token, &snapshot, "Repeat the command").await);
        }
        pending => {
            let replaces_dead = pending.is_some();
            let new = Version { id: command.token.clone(), value: staged.secret.read(&command.token).await? };
            (Some(new).filter(|new| matches!(new.value, VersionValue::Empty)), replaces_dead)
        }
    };
    let Some(version) = version else {
        return Err(staged.conflict("this event has already created credentials", "Repeat the command"));
    };
    let after = match staged.all_steps(version, replaces_dead, snapshot).await {
        // The successor works and has become current, although a policy denies it the model that proves credentials
        // through Braintrust.
        Err(error) if error.class == ErrorClass::Permission && has_successor(staged).await? => {
            staged.run.progress.warning(error.to_string());
            return Ok(());
        }
        after => after?,
    };
    if after.versions.is_current_revoked() {
        return Err(staged.conflict("the successor could not be staged", "Repeat the command"));
    }
    Ok(())
}

async fn has_successor(staged: &StagedRun<'_>) -> Result<bool, Error> {
    Ok(!staged.snapshot().await?.versions.is_current_revoked())
}

/// Ends the credentials although their successor could not be written. For user-based credentials, this frees their
/// slots, so it then tries once more to create the successor.
async fn end_by_force(staged: &StagedRun<'_>, command: &Revoke, error: Error) -> Result<(), Error> {
    match &staged.run.target.source {
        Source::UserBased(source) => {
            staged.force_end_current(source).await?;
            staged.end_revoked_keys(source, true).await?;
            let replaced = replace(staged, command).await;
            if replaced.is_err() {
                let revoked = staged.read_revoked(&staged.secret.describe().await?).await?;
                staged.prove_keys_dead(&revoked).await?;
            }
            replaced.map_err(without_successor)
        }
        Source::RoleBased(source) => {
            let snapshot = staged.snapshot().await?;
            let pending = snapshot.versions.pending();
            let pending = pending.filter(|pending| policy::is_usable(&snapshot, staged.run.target, pending));
            let issued;
            let successor = match pending {
                Some(pending) => pending,
                None => {
                    let result = staged.run.issue(source).await;
                    issued = result.map_err(|error| no_session(&staged.run, error, command))?;
                    &issued
                }
            };
            if !staged.run.end_sessions(source, successor).await? {
                return Err(still_works(error, command));
            }
            let revoked = staged.read_revoked(&snapshot.versions.stages).await?;
            for (_, credentials) in revoked.iter().filter(|(_, credentials)| staged.run.ends(credentials)) {
                staged.run.prove_dead(credentials, Ended::Session).await?;
            }
            Err(without_successor(error))
        }
    }
}

/// Ends the revoked credentials, whose successor is current, and proves that they are dead.
async fn end(staged: &StagedRun<'_>, command: &Revoke) -> Result<Outcome, Error> {
    let snapshot = staged.snapshot().await?;
    let versions = &snapshot.versions;
    let mut revoked = staged.read_revoked(&versions.stages).await?;
    revoked.retain(|(version, _)| versions.current_version() != Some(version));
    for (_, credentials) in &revoked {
        staged.run.list_revoked(credentials);
        if !staged.run.ends(credentials) {
            staged.run.look_at_left(credentials).await;
        }
    }
    if let Some(successor) = versions.current() {
        staged.run.progress.credentials(successor);
    }
    match (&staged.run.target.source, versions.current()) {
        (Source::UserBased(source), _) => {
            staged.end_revoked_keys(source, command.force).await?;
            staged.prove_keys_dead(&revoked).await?;
            mend(staged).await?;
        }
        (Source::RoleBased(source), Some(successor)) => {
            let are_ended = staged.run.end_sessions(source, successor).await?;
            let is_over = |credentials: &Credentials| {
                (are_ended && staged.run.ends(credentials)) || staged.run.has_expired(credentials)
            };
            for (_, credentials) in revoked.iter().filter(|(_, credentials)| is_over(credentials)) {
                staged.run.prove_dead(credentials, Ended::Session).await?;
            }
            if are_ended {
                keep_successor(staged, successor).await?;
            }
        }
        (Source::RoleBased(_), None) => {}
    }
    staged.finish_revocation().await?;
    Ok(staged.run.replaced_or_revoked())
}

/// Checks that the policy has not ended the successor, too, which another command may have caused with a later date,
/// and that Braintrust holds it.
async fn keep_successor(staged: &StagedRun<'_>, successor: &Credentials) -> Result<(), Error> {
    if !staged.run.still_works(successor).await? {
        let problem = "the policy on the role has ended the new credentials, too";
        return Err(staged.conflict(problem, "Rotate now (make rotate), and repeat the command"));
    }
    mend(staged).await
}

/// Makes Braintrust hold the current credentials, if another run has written ended ones since this run compared them.
async fn mend(staged: &StagedRun<'_>) -> Result<(), Error> {
    match staged.compare(&staged.snapshot().await?).await? {
        Comparison::OutOfStep => staged.restore_current().await,
        Comparison::InStep | Comparison::UsesAssumeRole => Ok(()),
    }
}

/// The error of a revocation that has ended nothing, because it got no new session. For a role, the report also gets the
/// command with which an administrator ends all its sessions.
fn no_session(run: &TargetRun<'_>, error: Error, command: &Revoke) -> Error {
    match &run.target.source {
        Source::RoleBased(source) => run.leave_all_sessions(source),
        Source::UserBased(_) => {}
    }
    still_works(error, command)
}

/// The error of a revocation that has ended nothing.
fn still_works(error: Error, command: &Revoke) -> Error {
    let how = if command.force {
        "To end them, run the command in \"remaining\""
    } else {
        "Repeat the command. To end them even if Braintrust then has none that work, add FORCE=true (make revoke) or \
         \"force\":true (the event)"
    };
    let still = "The leaked credentials still work, unless an earlier command has ended them";
    let remedy = format!("{still}. {how}. {}", error.remedy);
    error.with_remedy(remedy)
}

/// The error of a forced revocation that has ended the credentials.
fn without_successor(error: Error) -> Error {
    let remedy = format!(
        "The leaked credentials were ended, and Braintrust has no others that work until a scheduled run succeeds. {}",
        error.remedy
    );
    error.with_remedy(remedy)
}

#[cfg(test)]
mod tests;
