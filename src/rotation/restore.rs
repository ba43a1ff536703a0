//! Makes Braintrust hold the credentials that `AWSCURRENT` names, whatever an interrupted run, a simultaneous run, or
//! somebody else left there.
//!
//! The label `RESTORING` marks the version whose credentials a run is writing again. A run sets it before the write, so
//! that no simultaneous run retires the credentials meanwhile, and removes it after the write, so that an interrupted
//! run leaves it for the next one to find.

use jiff::SignedDuration;

use super::destinations::{self, Fallback, Reading};
use super::policy;
use super::snapshot::{Snapshot, Versions};
use super::staged_run::StagedRun;
use crate::aws::secrets_manager::{Label, Stages};
use crate::error::{Error, Service};

/// Lambda ends every run after this time, so a run that changed the secret longer ago has ended.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-timeout.html>
pub const LONGEST_RUN: SignedDuration = SignedDuration::from_mins(15);
/// How many times `AWSCURRENT` may move while its credentials are restored.
const MAX_MOVES: usize = 3;

impl StagedRun<'_> {
    /// Makes the destinations hold the current credentials. Returns whether any had to be repaired.
    pub async fn reconcile(&self, snapshot: &Snapshot) -> Result<bool, Error> {
        if self.is_out_of_step(snapshot).await? {
            return self.restore_current().await.map(|()| true);
        }
        let stages = &snapshot.versions.stages;
        let restoring = stages.labelled(Label::Restoring);
        if restoring.is_some() && self.has_ended(stages) {
            self.secret.move_label(Label::Restoring, None, restoring).await?;
        }
        Ok(false)
    }

    /// Whether the current credentials work and a destination doesn't hold them, or may not: an interrupted run was
    /// writing them.
    pub async fn is_out_of_step(&self, snapshot: &Snapshot) -> Result<bool, Error> {
        let readings = self.run.read_destinations().await;
        self.run.report_readings(&readings)?;
        let (versions, is_dead) = (&snapshot.versions, policy::is_current_dead(snapshot, self.run.target));
        let Some(version) = versions.current_version().filter(|_| !is_dead) else { return Ok(false) };
        let differences = self.differences(versions, &readings);
        let was_interrupted = versions.stages.labelled(Label::Restoring) == Some(version);
        let is_out_of_step = was_interrupted || !differences.is_empty();
        differences.into_iter().for_each(|difference| self.run.progress.warning(difference));
        Ok(is_out_of_step)
    }

    /// How the destinations differ from the current credentials, as warnings.
    fn differences(&self, versions: &Versions, readings: &[Reading<'_>]) -> Vec<String> {
        let Some(current) = versions.current() else { return Vec::new() };
        destinations::differences(readings, current, &self.run.target.region, versions.stages.changed_at)
    }

    /// Writes the credentials that are current now to all destinations, if they work. If `AWSCURRENT` moves meanwhile,
    /// the credentials that it then names are written as well.
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
        Err(self.conflict("AWSCURRENT kept moving", "Find out what keeps rotating the secret"))
    }

    /// Sets the label `RESTORING`, which shows other runs that this version's credentials must stay valid. Returns
    /// whether this run has set it. If another run has set it on the same version, that run removes it.
    pub async fn announce_restoring(&self, stages: &Stages, version: &str) -> Result<bool, Error> {
        let found = stages.labelled(Label::Restoring);
        if found.is_some() && !self.has_ended(stages) {
            if found == Some(version) {
                return Ok(false);
            }
            let problem = "another run is writing other credentials of the secret to Braintrust";
            return Err(self.conflict(problem, "See the report of that run. The next scheduled run tries again"));
        }
        self.secret.move_label(Label::Restoring, Some(version), found).await?;
        Ok(true)
    }

    /// Whether every run that changed the secret has ended by now.
    pub fn has_ended(&self, stages: &Stages) -> bool {
        stages.changed_at.is_some_and(|changed| self.run.now().duration_since(changed) > LONGEST_RUN)
    }

    /// Restores the current credentials after an error, and says in the remedy whether that worked.
    pub async fn restore_after(&self, error: Error) -> Error {
        let restored = match self.restore_current().await {
            Ok(()) => "Braintrust holds the current credentials again".to_owned(),
            Err(error) => format!("The current credentials could not be restored: {}", error.problem),
        };
        let remedy = format!("{restored}. {}", error.remedy);
        error.with_remedy(remedy)
    }

    /// Ends a run that another run has overtaken. This run has written the credentials of `version` to Braintrust,
    /// which now gets the current ones, and `version` is abandoned. A gateway may have cached its key, so a later run
    /// retires the key.
    pub async fn give_way(&self, version: &str, lost: Error) -> Error {
        let lost = self.restore_after(lost).await;
        if let Err(error) = self.secret.remove_pending(version).await {
            self.run.progress.warning(format!("the version {version} could not be abandoned: {}", error.problem));
        }
        lost
    }

    /// Ends a pending version whose credentials no longer work. Braintrust may hold those, so it gets the current ones
    /// first. If Braintrust fails or the error is transient, the version stays, and the next run tries again. Returns
    /// whether the current credentials were restored.
    pub async fn give_up_pending(&self, version: &str) -> Result<bool, Error> {
        let is_restored = match self.restore_current().await {
            Ok(()) => true,
            Err(error) if error.is_transient() || error.service == Service::Braintrust => return Err(error),
            Err(_) => false,
        };
        self.secret.remove_pending(version).await?;
        Ok(is_restored)
    }

    /// [`Self::give_up_pending`] for a run or step that can't continue. Returns the error with which it ends.
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
