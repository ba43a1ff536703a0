//! Makes Braintrust hold the credentials that `AWSCURRENT` names, whatever an interrupted run, a simultaneous run, or
//! somebody else left there.
//!
//! The label `RESTORING` marks the version whose credentials a run is writing again. A run sets it before the write, so
//! that no simultaneous run retires the credentials meanwhile, and removes it after the write, so that an interrupted
//! run leaves it for the next one to find.

use jiff::Timestamp;

use super::destinations::{self, Reading};
use super::snapshot::{Snapshot, Versions};
use super::staged_run::StagedRun;
use super::writing::Fallback;
use super::{end_to_end, policy};
use crate::aws::secrets_manager::{Stages, TimedLabel};
use crate::credentials::Credentials;
use crate::error::Error;
use crate::report::DestinationReport;

/// How many times `AWSCURRENT` may move while its credentials are restored.
const MAX_MOVES: usize = 3;

/// How the destinations compare with the current credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The destinations hold them, or the current credentials no longer work.
    InStep,
    /// The current credentials work and a destination doesn't hold them, or may not: a run that was writing was
    /// interrupted.
    OutOfStep,
    /// Braintrust assumes a role itself for every destination.
    UsesAssumeRole,
}

impl StagedRun<'_> {
    /// Makes the destinations hold the current credentials, and returns how they compared before.
    pub async fn reconcile(&self, snapshot: &Snapshot) -> Result<Comparison, Error> {
        let comparison = self.compare(snapshot).await?;
        let proven = match comparison {
            Comparison::UsesAssumeRole => return Ok(comparison),
            Comparison::OutOfStep => Box::pin(self.restore_and_prove()).await?,
            Comparison::InStep => Ok(()),
        };
        if self.run.target.user_based().is_some() {
            self.label_current(&snapshot.versions).await?;
        }
        proven.map(|()| comparison)
    }

    /// Labels the current version if somebody else made it current, so that the overlap counts from now on, and forgets
    /// promotions that interrupted runs left on other versions.
    async fn label_current(&self, versions: &Versions) -> Result<(), Error> {
        let (stages, current) = (&versions.stages, versions.current_version());
        for (labelled, at) in stages.times(TimedLabel::Promoted).filter(|(_, at)| self.has_ended(*at)) {
            if ![current, stages.pending()].contains(&Some(labelled)) {
                self.secret.remove_label(TimedLabel::Promoted, at, labelled).await?;
            }
        }
        match current.filter(|version| stages.time_of(TimedLabel::Promoted, version).is_none()) {
            Some(version) => self.secret.add_label(TimedLabel::Promoted, self.run.now(), version).await,
            None => Ok(()),
        }
    }

    /// Compares the destinations with the current credentials.
    pub async fn compare(&self, snapshot: &Snapshot) -> Result<Comparison, Error> {
        let readings = self.run.read_destinations().await;
        self.run.report_readings(&readings)?;
        if destinations::all_use_assume_role(&readings) {
            return Ok(Comparison::UsesAssumeRole);
        }
        let (versions, is_dead) = (&snapshot.versions, policy::is_current_dead(snapshot, self.run.target));
        let Some(version) = versions.current_version().filter(|_| !is_dead) else { return Ok(Comparison::InStep) };
        let differences = self.differences(versions, &readings);
        let mut restoring = versions.stages.times(TimedLabel::Restoring);
        let was_interrupted = restoring.any(|(labelled, at)| labelled == version || self.has_ended(at));
        let is_out_of_step = was_interrupted || !differences.is_empty();
        differences.into_iter().for_each(|difference| self.run.progress.warning(difference));
        Ok(if is_out_of_step { Comparison::OutOfStep } else { Comparison::InStep })
    }

    /// How the destinations differ from the current credentials, as warnings.
    fn differences(&self, versions: &Versions, readings: &[Reading<'_>]) -> Vec<String> {
        let Some(current) = versions.current() else { return Vec::new() };
        destinations::differences(readings, current, &self.run.target.region, versions.written_at())
    }

    /// Writes the credentials that are current now to all destinations, if they work. If `AWSCURRENT` moves meanwhile,
    /// the credentials that it then names are written as well.
    pub async fn restore_current(&self) -> Result<(), Error> {
        if let Err(refused) = Box::pin(self.restore_and_prove()).await? {
            self.run.progress.warning(format!("the current credentials were restored, but {}", refused.problem));
        }
        Ok(())
    }

    /// [`Self::restore_current`]. The inner result says whether Braintrust can use them, if the target asks for that:
    /// the request also makes Braintrust forget the credentials that it has cached since the write.
    async fn restore_and_prove(&self) -> Result<Result<(), Error>, Error> {
        let mut announced = Vec::new();
        for _ in 0..MAX_MOVES {
            let versions = Versions::read(&self.secret).await?;
            let (Some(version), Some(current)) = (versions.current_version(), versions.current()) else {
                let remedy = "Rotate now, or restore the value that AWSCURRENT should have";
                return Err(self.conflict("AWSCURRENT holds no credentials to write to Braintrust", remedy));
            };
            if !policy::is_worth_writing(self.run.now(), current) {
                let problem = "the current credentials have expired or are about to";
                return Err(self.conflict(problem, "The next rotation replaces them"));
            }
            let proven = self.run.prove(current, 1).await?;
            announced.push((version.to_owned(), self.announce_restoring(&versions.stages, version).await?));
            let is_current = async || Ok::<_, Error>(self.secret.describe().await?.current() == Some(version));
            if is_current().await? {
                let readings = self.run.read_destinations().await;
                let fallback = versions.last_written().map_or(Fallback::Restore, Fallback::Rewrite);
                let written = self.run.write_all(&readings, proven, fallback).await;
                destinations::all_succeeded(&written)?;
                if is_current().await? {
                    self.remember_restored(&versions.stages, version).await?;
                    for (labelled, at) in announced {
                        self.secret.remove_label(TimedLabel::Restoring, at, &labelled).await?;
                    }
                    return Ok(self.prove_restored(&readings, written, current).await);
                }
            }
        }
        Err(self.conflict("AWSCURRENT kept moving", "Find out what keeps rotating the secret"))
    }

    async fn prove_restored(
        &self,
        readings: &[Reading<'_>],
        written: Vec<DestinationReport>,
        current: &Credentials,
    ) -> Result<(), Error> {
        let proven = self.run.prove_end_to_end(readings, written, current).await;
        end_to_end::warnings(&proven).into_iter().for_each(|warning| self.run.progress.warning(warning));
        destinations::all_succeeded(&proven)
    }

    /// Sets the label `RESTORING`, and removes those of ended runs, whose work this run repeats. A secret has room for 20
    /// labels, so all but one are removed before.
    pub(super) async fn announce_restoring(&self, stages: &Stages, version: &str) -> Result<Timestamp, Error> {
        let mut ended: Vec<_> = stages.times(TimedLabel::Restoring).filter(|(_, at)| self.has_ended(*at)).collect();
        let last = ended.pop();
        for (labelled, at) in ended {
            self.secret.remove_label(TimedLabel::Restoring, at, labelled).await?;
        }
        let now = self.run.now();
        self.secret.add_label(TimedLabel::Restoring, now, version).await?;
        if let Some((labelled, at)) = last {
            self.secret.remove_label(TimedLabel::Restoring, at, labelled).await?;
        }
        Ok(now)
    }

    /// Remembers when the current credentials were restored, instead of when they were before.
    async fn remember_restored(&self, stages: &Stages, version: &str) -> Result<(), Error> {
        let now = self.run.now();
        self.secret.add_label(TimedLabel::Restored, now, version).await?;
        for (labelled, at) in stages.times(TimedLabel::Restored) {
            if (labelled, at.as_microsecond()) != (version, now.as_microsecond()) {
                self.secret.remove_label(TimedLabel::Restored, at, labelled).await?;
            }
        }
        Ok(())
    }

    /// Whether a run that set a label at this time has ended by now.
    pub fn has_ended(&self, at: Timestamp) -> bool {
        self.run.now().duration_since(at) > policy::LONGEST_RUN
    }

    /// Restores the current credentials after an error, and says in the remedy whether that worked.
    pub async fn restore_after(&self, error: Error) -> Error {
        self.try_to_restore_after(error).await.0
    }

    /// [`Self::restore_after`], and whether it worked.
    pub async fn try_to_restore_after(&self, error: Error) -> (Error, bool) {
        let (restored, is_restored) = match Box::pin(self.restore_and_prove()).await {
            Ok(Ok(())) => ("Braintrust holds the current credentials again".to_owned(), true),
            Ok(Err(refused)) => {
                let restored = "Braintrust holds the current credentials again, but they don't work there either";
                (format!("{restored}: {}", refused.problem), true)
            }
            Err(error) => (format!("The current credentials could not be restored: {}", error.problem), false),
        };
        let remedy = format!("{restored}. {}", error.remedy);
        (error.with_remedy(remedy), is_restored)
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
    /// first, if there are any that work. If that fails, the version stays, and the next run tries again. Returns whether
    /// the current credentials were restored.
    pub async fn give_up_pending(&self, version: &str, snapshot: &Snapshot) -> Result<bool, Error> {
        let is_restorable =
            snapshot.versions.current().is_some() && !policy::is_current_dead(snapshot, self.run.target);
        if is_restorable {
            self.restore_current().await?;
        }
        self.secret.remove_pending(version).await?;
        Ok(is_restorable)
    }

    /// [`Self::give_up_pending`] for a run or step that can't continue. Returns the error with which it ends.
    pub async fn abandon_pending(&self, version: &str, snapshot: &Snapshot, remedy: &str) -> Error {
        let restored = match self.give_up_pending(version, snapshot).await {
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
