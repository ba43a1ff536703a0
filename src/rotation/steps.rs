//! The four steps of a rotation through a staged secret, which scheduled runs and Secrets Manager share.

use futures_util::future::join;
use jiff::Timestamp;

use super::destinations::all_succeeded;
use super::snapshot::{Snapshot, Version, Versions};
use super::staged_run::{OTHER_RUN, StagedRun};
use super::writing::{self, Fallback};
use super::{contract, end_to_end, policy};
use crate::aws::bedrock::Proven;
use crate::aws::secrets_manager::{Label, NotStaged, Stages, TimedLabel};
use crate::aws::staged_value::{self, VersionValue};
use crate::config::Source;
use crate::credentials::Credentials;
use crate::error::{Error, ErrorClass};

/// The warning for role-based credentials whose staged secret has rotation turned on.
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_schedule.html>
pub const TOO_SLOW_FOR_SECRETS_MANAGER: &str = "Secrets Manager rotates at most every four hours, and these \
                                                credentials expire within one. Cancel the secret's rotation so that \
                                                the schedule rotates it: `aws secretsmanager cancel-rotate-secret \
                                                --secret-id <secret>`";

/// Credentials that createSecret created, or found in the version.
pub enum Created {
    Staged(Credentials),
    /// Secrets Manager refused to stage them, with this error. Role-based credentials are used nevertheless, because
    /// the next run creates others.
    NotStaged(Credentials, Error),
}

impl StagedRun<'_> {
    /// The four steps in order. `replaces_dead` says that pending credentials no longer work, and that these replace
    /// them. Returns the snapshot after the steps.
    pub async fn all_steps(
        &self,
        version: Version,
        replaces_dead: bool,
        snapshot: Snapshot,
    ) -> Result<Snapshot, Error> {
        let created = self.create(&version.id, version.value, &snapshot).await;
        let proven = match &created {
            Ok(Created::Staged(credentials) | Created::NotStaged(credentials, _)) => {
                self.run.prove(credentials, policy::confirmations(self.run.target)).await
            }
            Err(error) => Err(error.clone()),
        };
        if proven.is_err() && replaces_dead {
            // Braintrust may hold the dead credentials, so the current ones are restored if they work. The dead ones
            // stay pending until others are staged, so that the next run replaces them.
            if let Err(error) = self.restore_current().await {
                let warning = format!("the current credentials could not be restored: {}", error.problem);
                self.run.progress.warning(warning);
            }
        }
        self.set_pending(&version.id, proven?, &snapshot.versions).await?;
        let credentials = match created? {
            Created::Staged(credentials) => credentials,
            Created::NotStaged(credentials, error) => {
                let warning = format!("Braintrust holds {}, which could not be staged: {error}", credentials.id);
                self.run.progress.warning(warning);
                let is_asked = self.run.target.end_to_end.is_some();
                let allowed = if is_asked { self.test(&credentials).await? } else { Ok(()) };
                self.run.progress.held(Some(credentials.lifetime()));
                return allowed.map(|()| snapshot);
            }
        };
        let allowed = self.test(&credentials).await?;
        self.finish(&version.id, &snapshot.versions).await?;
        self.run.progress.held(Some(credentials.lifetime()));
        self.secret.remove_pending(&version.id).await?;
        allowed?;
        let keys = self.run.list_keys().await?;
        Ok(snapshot.after_promotion(&version.id, credentials, self.run.now(), keys))
    }

    /// createSecret: keeps the credentials that the version holds, or creates some and stages them at once, before they
    /// are proven. Credentials that are known not to be staged are deleted.
    pub async fn create(&self, version: &str, value: VersionValue, snapshot: &Snapshot) -> Result<Created, Error> {
        match value {
            VersionValue::Credentials(credentials) => {
                self.run.progress.credentials(&credentials);
                return Ok(Created::Staged(credentials));
            }
            VersionValue::Foreign => return Err(self.foreign_pending()),
            VersionValue::Empty => {}
        }
        let target = self.run.target;
        let credentials = match &target.source {
            Source::RoleBased(source) => self.run.issue(source).await?,
            Source::UserBased(source) => Box::pin(self.create_key(source, version, snapshot)).await?,
        };
        self.run.progress.credentials(&credentials);
        let staged = match staged_value::write(&credentials, &target.name, &target.region) {
            Ok(text) => self.secret.put_pending(version, self.rotation_token, &text).await,
            Err(error) => Err(NotStaged { error, may_be_staged: false }),
        };
        let Err(NotStaged { error, may_be_staged }) = staged else { return Ok(Created::Staged(credentials)) };
        if may_be_staged {
            // If it isn't staged, it is orphaned, and a later run retires it.
            let id = &credentials.id;
            self.run
                .progress
                .warning(format!("it is unknown whether {id} is staged. A later run resumes with it or retires it"));
        } else if target.user_based().is_some() {
            self.delete_unstaged(&credentials).await;
        } else if !error.is_transient() && error.class != ErrorClass::Conflict {
            return Ok(Created::NotStaged(credentials, error));
        }
        Err(error)
    }

    /// setSecret: writes the credentials of `version` to all destinations. If they are older than any run, a revocation
    /// may be ending them, so this run announces the write, and looks for that revocation before the write and after
    /// it.
    pub async fn set_pending(&self, version: &str, proven: Proven<'_>, versions: &Versions) -> Result<(), Error> {
        let fallback = Fallback::of(versions);
        if !policy::is_announced(self.run.now(), proven.credentials()) {
            return self.set(proven, fallback).await;
        }
        let announced_at = self.announce_restoring(&versions.stages, version).await?;
        let is_revoked = async || Ok::<_, Error>(self.secret.describe().await?.is_revoked(version));
        let written = async {
            let result = if is_revoked().await? { Ok(()) } else { self.set(proven, fallback).await };
            if is_revoked().await? {
                let lost = self.conflict("a revocation is ending the pending credentials", OTHER_RUN);
                return Err(self.restore_after(lost).await);
            }
            result
        };
        let result = written.await;
        self.secret.remove_label(TimedLabel::Restoring, announced_at, version).await?;
        result
    }

    /// Writes to all destinations, side by side. If a destination doesn't show the new credentials, it may
    /// hold a mixture of old and new ones, which doesn't work, so the current credentials are restored.
    pub async fn set(&self, proven: Proven<'_>, fallback: Fallback) -> Result<(), Error> {
        let readings = self.run.read_destinations().await;
        let written = self.run.write_all(&readings, proven, fallback).await;
        let result = self.run.report_destinations(written, &readings);
        match result {
            Err(error) if error.class == ErrorClass::VerificationFailed && fallback == Fallback::Restore => {
                Err(self.restore_after(error).await)
            }
            Ok(()) | Err(_) => result,
        }
    }

    /// testSecret: checks that the credentials work and that all destinations show them and can use them. If not, the
    /// current credentials are restored, and the pending version stays for the retry. A lost response proves nothing,
    /// so nothing is restored.
    ///
    /// The inner error is a policy's denial of role-based credentials when Braintrust used them. The current ones come
    /// from the same role and expire sooner, so restoring them would only leave less time to fix the policy.
    pub async fn test(&self, credentials: &Credentials) -> Result<Result<(), Error>, Error> {
        match self.verify(credentials).await {
            Err(denied) if self.run.target.user_based().is_none() && end_to_end::is_denial(&denied) => {
                let stay = "Braintrust holds these credentials nevertheless, because older ones of the same role \
                            expire sooner";
                let remedy = format!("{stay}. {}", denied.remedy);
                Ok(Err(denied.with_remedy(remedy)))
            }
            Err(error) if !error.is_transient() => Err(self.restore_after(error).await),
            result @ (Ok(()) | Err(_)) => result.map(Ok),
        }
    }

    /// Checks that credentials work, that all destinations show them, and, if the target asks for that, that Braintrust
    /// can use them.
    pub async fn verify(&self, credentials: &Credentials) -> Result<(), Error> {
        let (proven, readings) = join(self.run.prove(credentials, 1), self.run.read_destinations()).await;
        let mut verified = writing::verify_all(&readings, credentials);
        if proven.is_ok() && all_succeeded(&verified).is_ok() {
            verified = Box::pin(self.run.prove_end_to_end(&readings, verified, credentials)).await;
        }
        let result = self.run.report_destinations(verified, &readings);
        proven.and(result)
    }

    /// Checks that all destinations exist and may be written.
    pub async fn may_set(&self) -> Result<(), Error> {
        self.run.report_readings(&self.run.read_destinations().await)
    }

    /// finishSecret: moves `AWSCURRENT`. If another run moved it first, this run gives way.
    pub async fn finish(&self, version: &str, versions: &Versions) -> Result<(), Error> {
        let stages = &versions.stages;
        let promoted_at = self.run.now();
        if self.run.target.user_based().is_some() {
            self.secret.add_label(TimedLabel::Promoted, promoted_at, version).await?;
        }
        if stages.is_first_rotation() && stages.pending() == Some(version) {
            // Secrets Manager has already made the version current. Removing AWSPENDING ends its rotation.
            return self.secret.remove_pending(version).await;
        }
        match self.secret.promote(version, stages.current()).await {
            Err(lost) if lost.class == ErrorClass::Conflict => return Err(self.give_way(version, lost).await),
            result => result?,
        }
        self.forget_promotions(stages, version, promoted_at).await?;
        let rolled_back = stages.labelled(Label::RolledBack).filter(|labelled| stages.current() == Some(labelled));
        self.secret.move_label(Label::RolledBack, None, rolled_back).await
    }

    /// Removes the labels of earlier promotions, which keep the versions of earlier rotations alive.
    pub async fn forget_promotions(&self, before: &Stages, version: &str, at: Timestamp) -> Result<(), Error> {
        for (labelled, earlier) in before.times(TimedLabel::Promoted) {
            if (labelled, earlier.as_microsecond()) != (version, at.as_microsecond()) {
                self.secret.remove_label(TimedLabel::Promoted, earlier, labelled).await?;
            }
        }
        Ok(())
    }

    /// The pending credentials, if a step may continue with them. Dead ones are abandoned.
    pub async fn pending<'s>(&self, snapshot: &'s Snapshot) -> Result<&'s Credentials, Error> {
        let Some(pending) = &snapshot.versions.pending else {
            return Err(contract::no_pending_value(&self.secret));
        };
        match &pending.value {
            VersionValue::Credentials(credentials) => {
                if policy::is_usable(snapshot, self.run.target, credentials) {
                    return Ok(credentials);
                }
                let remedy = "The next rotation starts a new version";
                Err(self.abandon_pending(&pending.id, snapshot, remedy).await)
            }
            VersionValue::Foreign => Err(self.foreign_pending()),
            VersionValue::Empty => Err(contract::no_pending_value(&self.secret)),
        }
    }

    pub fn foreign_pending(&self) -> Error {
        self.conflict(
            "the pending version holds a value that this function did not write",
            "Remove the AWSPENDING stage from that version, or give this target a secret of its own",
        )
    }
}

#[cfg(test)]
mod tests;
