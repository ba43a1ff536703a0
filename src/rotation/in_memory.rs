//! The rotation of role-based credentials that no secret stages.

use std::cell::OnceCell;

use futures_util::future::join;

use super::destinations;
use super::target_run::TargetRun;
use super::writing::Fallback;
use crate::config::RoleBased;
use crate::credentials::Credentials;
use crate::error::Error;
use crate::report::Outcome;

/// How many credentials a run writes until Braintrust has some that no revocation has ended meanwhile.
const MAX_ISSUED: usize = 3;

impl TargetRun<'_> {
    /// [`Self::rotate_in_memory`]. If a revocation has ended the credentials while they were written, Braintrust gets
    /// others.
    pub async fn rotate_unrevoked(&self, source: &RoleBased, dry_run: bool) -> Result<Outcome, Error> {
        for _ in 0..MAX_ISSUED {
            let issued = OnceCell::new();
            let outcome = self.rotate_in_memory(source, dry_run, &issued).await?;
            let written = issued.get().filter(|_| source.revoke_sessions && outcome == Outcome::Rotated);
            match written {
                Some(written) if !self.still_works(written).await? => {}
                Some(_) | None => return Ok(outcome),
            }
        }
        let problem = "revocations kept ending the new credentials while they were written";
        Err(Error::rotation_conflict(problem, "The next scheduled run writes new ones"))
    }

    /// Creates and proves credentials while the destinations are read, then writes to all destinations. The caller gets
    /// the credentials in `issued`, even if they could not be written.
    pub async fn rotate_in_memory(
        &self,
        source: &RoleBased,
        dry_run: bool,
        issued: &OnceCell<Credentials>,
    ) -> Result<Outcome, Error> {
        let issue = async {
            if dry_run {
                return Ok(None);
            }
            let credentials = self.issue(source).await?;
            self.prove(issued.get_or_init(|| credentials), 1).await.map(Some)
        };
        let (proven, readings) = join(issue, self.read_destinations()).await;
        let are_writable = self.report_readings(&readings);
        if destinations::all_use_assume_role(&readings) {
            // Before the errors of AWS: whoever moved to Braintrust's own role may have deleted this one.
            return Ok(Outcome::UsesAssumeRole);
        }
        self.progress.held(destinations::held_lifetime(source, &readings));
        let Some(proven) = proven? else { return are_writable.map(|()| Outcome::WouldRotate) };
        let written = self.write_all(&readings, proven, Fallback::Complete).await;
        let to_write = written.iter().filter(|report| !report.uses_assume_role).count();
        if to_write == 0 {
            // The last destination has moved since it was read first.
            return self.report_destinations(written, &readings).map(|()| Outcome::UsesAssumeRole);
        }
        let superseded: Vec<_> = written.iter().filter(|report| report.is_superseded).collect();
        for report in &superseded {
            let warning = "holds newer credentials, which another run has written meanwhile. It was not touched";
            self.progress.warning(format!("the ai_secret {} {warning}", report.ai_secret));
        }
        let (are_all_superseded, is_any_superseded) = (superseded.len() == to_write, !superseded.is_empty());
        if !are_all_superseded {
            self.progress.credentials(proven.credentials());
        }
        if !is_any_superseded && destinations::all_succeeded(&written).is_ok() {
            self.progress.held(Some(proven.credentials().lifetime()));
        }
        // Nobody has the previous credentials, so these stay even if Braintrust can't use them.
        let written = Box::pin(self.prove_end_to_end(&readings, written, proven.credentials())).await;
        self.report_destinations(written, &readings)?;
        Ok(if are_all_superseded { Outcome::NotDue } else { Outcome::Rotated })
    }
}
