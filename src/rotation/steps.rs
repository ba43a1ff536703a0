//! The four steps of a rotation through a staged secret, which scheduled runs and Secrets Manager share.

use futures_util::future::join;

use super::snapshot::{Snapshot, Versions};
use super::staged_run::StagedRun;
use super::{contract, destinations, policy};
use crate::aws::bedrock::Proven;
use crate::aws::secrets_manager::NotStaged;
use crate::aws::staged_value::{self, VersionValue};
use crate::config::Source;
use crate::credentials::Credentials;
use crate::error::Error;

/// The warning for role-based credentials whose staged secret has rotation turned on.
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_schedule.html>
pub const TOO_SLOW_FOR_SECRETS_MANAGER: &str = "Secrets Manager rotates at most every four hours, and these credentials live an hour. Cancel the secret's rotation \
     so that the schedule rotates it";

impl StagedRun<'_> {
    /// createSecret: keeps the credentials that the version holds, or creates some and stages them at once, before they
    /// are proven. Credentials that are known not to be staged are deleted.
    pub async fn create(&self, version: &str, value: VersionValue, snapshot: &Snapshot) -> Result<Credentials, Error> {
        match value {
            VersionValue::Credentials(credentials) => {
                self.run.progress.credentials(&credentials);
                return Ok(credentials);
            }
            VersionValue::Foreign => return Err(self.foreign_pending()),
            VersionValue::Empty => {}
        }
        let target = self.run.target;
        let credentials = match &target.source {
            Source::RoleBased(source) => self.run.issue(source).await?,
            Source::UserBased(source) => Box::pin(self.create_key(source, snapshot)).await?,
        };
        self.run.progress.credentials(&credentials);
        let staged = match staged_value::write(&credentials, &target.name, &target.region) {
            Ok(text) => self.secret.put_pending(version, self.rotation_token, &text).await,
            Err(error) => Err(NotStaged { error, may_be_staged: false }),
        };
        let Err(not_staged) = staged else { return Ok(credentials) };
        if not_staged.may_be_staged {
            // If it isn't staged, it is orphaned, and a later run retires it.
            let id = &credentials.id;
            self.run.progress.warning(format!(
                "it is unknown whether {id} is staged. A later run resumes with it or \
                                               retires it"
            ));
        } else {
            self.delete_unstaged(&credentials).await;
        }
        Err(not_staged.error)
    }

    /// setSecret: writes to all destinations, side by side.
    pub async fn set(&self, proven: Proven<'_>) -> Result<(), Error> {
        let readings = self.run.read_destinations().await;
        let written = self.run.write_all(&readings, proven).await;
        self.run.report_destinations(written, &readings)
    }

    /// testSecret: checks that the credentials work and that all destinations show them. If not, the current
    /// credentials are restored, and the pending version stays for the retry. A lost response proves nothing, so
    /// nothing is restored.
    pub async fn test(&self, credentials: &Credentials, snapshot: &Snapshot) -> Result<(), Error> {
        let Err(error) = self.verify(credentials).await else { return Ok(()) };
        let Some(current) = snapshot.versions.current().filter(|_| !error.is_transient()) else { return Err(error) };
        let restored = match self.restore_current(&snapshot.versions).await {
            Ok(()) => format!("The current credentials ({}) were restored", current.id),
            Err(_) => format!("The current credentials ({}) could not be restored", current.id),
        };
        let remedy = format!("{restored}. {}", error.remedy);
        Err(error.with_remedy(remedy))
    }

    /// Checks that credentials work and that all destinations show them.
    pub async fn verify(&self, credentials: &Credentials) -> Result<(), Error> {
        let (proven, readings) = join(self.run.prove(credentials, 1), self.run.read_destinations()).await;
        let verified = destinations::verify_all(&readings, credentials);
        let result = self.run.report_destinations(verified, &readings);
        proven.and(result)
    }

    /// Checks that all destinations exist and may be written.
    pub async fn may_set(&self) -> Result<(), Error> {
        self.run.report_readings(&self.run.read_destinations().await)
    }

    /// finishSecret: moves `AWSCURRENT`.
    pub async fn finish(&self, version: &str, versions: &Versions) -> Result<(), Error> {
        self.secret.promote(version, versions.current_version()).await
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
                Err(self.abandon_pending(&pending.id, &snapshot.versions, remedy).await)
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
