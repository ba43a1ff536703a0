//! A rollback: the previous credentials go back to Braintrust and become current; it must never bring back what a rollback left.

use tokio::time::Instant;

use super::staged::{Contents, Staged, TWICE};
use super::{ONCE, Rotation};
use crate::config::Target;
use crate::credentials::Credentials;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::plan;
use crate::report::{Outcome, TargetReport};

impl Rotation {
    /// One target back to what its staged secret names `AWSPREVIOUS`.
    pub async fn roll_back(&self, target: &Target, dry_run: bool, deadline: Deadline) -> TargetReport {
        let started = Instant::now();
        let mut report = TargetReport::new(target);
        let done = match &target.secret_id {
            Some(id) => self.staged(target, id, None, deadline).roll_back(dry_run, &mut report).await,
            None => Err(Error::configuration(
                "event",
                "the target has no secret_id, so its previous credentials are not kept",
                "Rotate it instead; give it a secret_id if you want to be able to go back",
            )),
        };
        report.conclude(done, started)
    }
}

impl Staged<'_> {
    async fn roll_back(&self, dry_run: bool, report: &mut TargetReport) -> Result<Outcome, Error> {
        let contents = self.read().await?;
        let (version, credentials) = self.previous(&contents)?;
        report.name(credentials);
        let active = self.is_active(credentials).await?;
        if dry_run {
            self.may_set(report).await?;
            return Ok(Outcome::WouldRollBack);
        }
        if !active {
            self.rotation.activate(self.target, &credentials.id, self.deadline).await?;
        }
        let in_a_row = if active { ONCE } else { TWICE };
        self.rotation.prove(self.target, credentials, in_a_row, self.deadline).await?;
        let done = async {
            self.set(credentials, report).await?;
            self.holds(credentials, report).await?;
            self.swap(version, &contents).await
        };
        if let Err(error) = done.await {
            let put_back = self.put_back(&contents).await.is_ok();
            let whether = if put_back { "were put back" } else { "could not be put back: roll back again" };
            let remedy = format!("The current credentials {whether}. {}", error.remedy);
            return Err(error.with_remedy(remedy));
        }
        Ok(Outcome::RolledBack)
    }

    /// What there is to go back to.
    fn previous<'c>(&self, contents: &'c Contents) -> Result<(&'c str, &'c Credentials), Error> {
        let description = &contents.description;
        if description.pending().is_some() {
            return Err(self.conflict(
                "a rotation is under way",
                "If it fails, it puts the current credentials back by itself. To end it, take AWSPENDING from its version",
            ));
        }
        let (Some(version), Some(credentials)) = (description.previous(), &contents.previous) else {
            return Err(self.conflict("no version AWSPREVIOUS holds credentials", "Rotate instead, with force"));
        };
        if description.rolled_back() == Some(version) {
            return Err(self.conflict(
                "the previous credentials are those that a rollback left",
                "Rotate instead, with force; or, if you do want them back, take the stage ROLLED_BACK from that version",
            ));
        }
        if !plan::lasts(self.now(), credentials.expires_at) {
            return Err(self.conflict("the previous credentials have ended", "Rotate instead, with force"));
        }
        Ok((version, credentials))
    }

    /// Whether IAM has the credentials as active; those of another kind or that expire are left to the proof.
    async fn is_active(&self, credentials: &Credentials) -> Result<bool, Error> {
        if self.target.kind.standing().is_none() || credentials.kind != self.target.kind.name() {
            return Ok(true);
        }
        let listed = self.rotation.list(self.target, self.deadline).await?;
        match listed.iter().find(|found| found.id == credentials.id) {
            Some(found) => Ok(found.active),
            None => Err(self.conflict("the previous credentials were deleted", "Rotate instead, with force")),
        }
    }

    /// Swaps `AWSCURRENT` and `AWSPREVIOUS`. `AWSPENDING`, which Secrets Manager leaves on what it made current, would
    /// look like a rotation that has not ended.
    async fn swap(&self, version: &str, contents: &Contents) -> Result<(), Error> {
        let current = contents.description.current();
        if let Some(current) = current {
            self.staging.mark_rolled_back(&contents.description, current).await?;
        }
        if let Some(leftover) = contents.description.leftover_pending() {
            self.staging.end_pending(leftover).await?;
        }
        self.staging.promote(version, current).await
    }
}
