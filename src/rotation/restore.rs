//! Makes Braintrust hold the credentials that `AWSCURRENT` names, whatever an interrupted run, a simultaneous run or
//! somebody else left there.
//!
//! The label `RESTORING` marks the version whose credentials a run writes again. It is set before the write, so that no
//! simultaneous run retires them meanwhile, and removed after it, so that a run that was interrupted in between leaves
//! a trace for the next one.

use jiff::SignedDuration;

use super::destinations::{self, Fallback, Reading};
use super::policy;
use super::snapshot::{Snapshot, Versions};
use super::staged_run::StagedRun;
use crate::aws::secrets_manager::{Label, Stages};
use crate::error::{Error, Service};

/// Lambda ends every run after this time, so what a run left longer ago belongs to a run that has ended.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-timeout.html>
pub const LONGEST_RUN: SignedDuration = SignedDuration::from_mins(15);
/// How often `AWSCURRENT` may move while its credentials are restored.
const MAX_MOVES: usize = 3;

/// What the comparison of Braintrust with the current credentials led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconciliation {
    InStep,
    Repaired,
    /// Braintrust differs, and this is a dry run.
    OutOfStep,
}

impl StagedRun<'_> {
    /// Compares what the destinations hold with the current credentials, and writes those if something differs.
    pub async fn reconcile(&self, snapshot: &Snapshot, dry_run: bool) -> Result<Reconciliation, Error> {
        let readings = self.run.read_destinations().await;
        self.run.report_readings(&readings)?;
        let versions = &snapshot.versions;
        let restoring = versions.stages.labelled(Label::Restoring);
        let (Some(version), false) = (versions.current_version(), policy::is_current_dead(snapshot, self.run.target))
        else {
            return Ok(Reconciliation::InStep);
        };
        let differences = self.differences(versions, &readings);
        let was_interrupted = restoring == Some(version);
        if differences.is_empty() && !was_interrupted {
            if !dry_run && restoring.is_some() && self.has_ended(&versions.stages) {
                self.secret.move_label(Label::Restoring, None, restoring).await?;
            }
            return Ok(Reconciliation::InStep);
        }
        differences.into_iter().for_each(|difference| self.run.progress.warning(difference));
        if dry_run {
            return Ok(Reconciliation::OutOfStep);
        }
        self.restore_current().await?;
        Ok(Reconciliation::Repaired)
    }

    /// How the destinations differ from the current credentials, in sentences.
    pub fn differences(&self, versions: &Versions, readings: &[Reading<'_>]) -> Vec<String> {
        let Some(current) = versions.current() else { return Vec::new() };
        destinations::differences(readings, current, &self.run.target.region, versions.stages.changed_at)
    }

    /// Writes the credentials that are current now to all destinations, if they work. If `AWSCURRENT` moves meanwhile,
    /// the ones that it names then are written as well.
    pub async fn restore_current(&self) -> Result<(), Error> {
        for _ in 0..MAX_MOVES {
            let versions = Versions::read(&self.secret).await?;
            let (Some(version), Some(current)) = (versions.current_version(), versions.current()) else {
                let remedy = "Rotate now, or restore the value that AWSCURRENT should have";
                return Err(self.conflict("AWSCURRENT holds no credentials to write to Braintrust", remedy));
            };
            if !policy::is_worth_writing(self.run.now(), current) {
                return Err(self.conflict("the current credentials have expired", "The next rotation replaces them"));
            }
            let proven = self.run.prove(current, 1).await?;
            let is_announced_by_this_run = self.announce_restoring(&versions.stages, version).await?;
            let is_current = async || Ok::<_, Error>(self.secret.describe().await?.current() == Some(version));
            let mut is_done = is_current().await?;
            if is_done {
                let readings = self.run.read_destinations().await;
                destinations::all_succeeded(&self.run.write_all(&readings, proven, Fallback::Restore).await)?;
                is_done = is_current().await?;
            }
            if is_announced_by_this_run {
                self.secret.move_label(Label::Restoring, None, Some(version)).await?;
            }
            if is_done {
                return Ok(());
            }
        }
        Err(self.conflict("AWSCURRENT kept moving", "Look for what rotates the secret again and again"))
    }

    /// Sets the label `RESTORING`, which shows other runs that this version's credentials must stay valid. Returns
    /// whether it is this run's. If another run has set it on the same version, it is that run's to remove.
    pub async fn announce_restoring(&self, stages: &Stages, version: &str) -> Result<bool, Error> {
        let found = stages.labelled(Label::Restoring);
        if found.is_some() && !self.has_ended(stages) {
            if found == Some(version) {
                return Ok(false);
            }
            let problem = "another run writes other credentials of the secret to Braintrust";
            return Err(self.conflict(problem, "See the report of that run. The next scheduled run tries again"));
        }
        self.secret.move_label(Label::Restoring, Some(version), found).await?;
        Ok(true)
    }

    /// Whether every run that changed the secret has ended by now.
    pub fn has_ended(&self, stages: &Stages) -> bool {
        stages.changed_at.is_some_and(|changed| self.run.now().duration_since(changed) > LONGEST_RUN)
    }

    /// Restores the current credentials after an error, whose remedy then says so.
    pub async fn restore_after(&self, error: Error) -> Error {
        let restored = match self.restore_current().await {
            Ok(()) => "Braintrust holds the current credentials again".to_owned(),
            Err(error) => format!("The current credentials could not be restored: {}", error.problem),
        };
        let remedy = format!("{restored}. {}", error.remedy);
        error.with_remedy(remedy)
    }

    /// Ends a run that lost `version` to another run: Braintrust, which this run has written, gets the current
    /// credentials, and the version is given up. Its key, which a gateway may have cached, is left to a later run.
    pub async fn give_way(&self, version: &str, lost: Error) -> Error {
        let lost = self.restore_after(lost).await;
        if let Err(error) = self.secret.remove_pending(version).await {
            self.run.progress.warning(format!("the version {version} could not be given up: {}", error.problem));
        }
        lost
    }

    /// Writes the current credentials to Braintrust, which may hold those of a pending version that no longer work, and
    /// ends that version. If Braintrust fails or the error is transient, the version stays, and the next run tries
    /// again. Returns whether the current credentials were restored.
    pub async fn give_up_pending(&self, version: &str) -> Result<bool, Error> {
        let is_restored = match self.restore_current().await {
            Ok(()) => true,
            Err(error) if error.is_transient() || error.service == Service::Braintrust => return Err(error),
            Err(_) => false,
        };
        self.secret.remove_pending(version).await?;
        Ok(is_restored)
    }

    /// [`Self::give_up_pending`] for a run or step that can't go on. Returns the error with which it ends.
    pub async fn abandon_pending(&self, version: &str, remedy: &str) -> Error {
        let restored = match self.give_up_pending(version).await {
            Ok(true) => ", and the current credentials were restored",
            Ok(false) => "",
            Err(error) => return error,
        };
        let problem = "the pending credentials have expired or no longer exist. Their version was abandoned";
        self.conflict(&format!("{problem}{restored}"), remedy)
    }
}

#[cfg(test)]
mod tests;
