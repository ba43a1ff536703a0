//! The IAM user's keys: a free slot, retirement, and `restore_current`, which both need. The [`policy`] chooses the
//! keys.

use std::cell::Cell;

use super::destinations;
use super::policy::{self, Eviction, Retirement};
use super::snapshot::{Snapshot, Versions};
use super::staged_run::StagedRun;
use crate::aws::iam_keys::Key;
use crate::braintrust::arrival::Presence;
use crate::config::UserBased;
use crate::credentials::Credentials;
use crate::error::{Error, Service};
use crate::report;

impl StagedRun<'_> {
    /// Creates a key. If there is no free slot, an unneeded key is deleted first. A lost response leaves a key whose
    /// secret nobody has, so the attempt is repeated and that key makes room.
    pub(super) async fn create_key(&self, source: &UserBased, snapshot: &Snapshot) -> Result<Credentials, Error> {
        let keys = self.run.user_keys(source).await?;
        let listed_before: Vec<_> = snapshot.keys.iter().map(|key| key.id.clone()).collect();
        let attempts = Cell::new(0);
        let attempt = async || {
            let is_first = attempts.replace(attempts.get() + 1) == 0;
            let read_again = if is_first { None } else { Some(self.snapshot().await.map_err(Error::into_final)?) };
            let snapshot = read_again.as_ref().unwrap_or(snapshot);
            let evicted = self.evictable(source, snapshot, &listed_before).await.map_err(Error::into_final)?;
            if let Some(key) = evicted {
                keys.delete(&key.id).await.map_err(Error::into_final)?;
                self.run.progress.retired(key.id.clone(), report::KeyChange::Deleted);
            }
            keys.create(self.run.now()).await
        };
        self.run.deadline.retry(Service::Iam, "create", attempt).await
    }

    /// The key to delete if there is no free slot: one that Braintrust doesn't hold, before one that it may hold.
    async fn evictable<'s>(
        &self,
        source: &UserBased,
        snapshot: &'s Snapshot,
        listed_before: &[String],
    ) -> Result<Option<&'s Key>, Error> {
        let mut perhaps_held = None;
        for (eviction, key) in policy::eviction_candidates(snapshot, self.run.target, source, listed_before)? {
            match eviction {
                // The key of a lost response works, and another run may just have staged it.
                Eviction::Immediate if key.active => {
                    return self.confirm_unreferenced(key, &snapshot.versions).await.map(|()| Some(key));
                }
                Eviction::Immediate => return Ok(Some(key)),
                Eviction::AfterConfirmation => match self.run.presence(key).await? {
                    Presence::Absent => {
                        return self.confirm_unreferenced(key, &snapshot.versions).await.map(|()| Some(key));
                    }
                    presence @ (Presence::Unknown | Presence::Present) => {
                        perhaps_held = perhaps_held.or(Some((presence, key)));
                    }
                },
            }
        }
        let Some((presence, key)) = perhaps_held else { return Ok(None) };
        self.take_from_braintrust(key, presence, snapshot).await.map(|()| Some(key))
    }

    /// Makes sure that Braintrust doesn't need a working key before it makes room. An interrupted rotation or rollback
    /// may have left it there. If the current credentials are dead, there is nothing better to write.
    async fn take_from_braintrust(&self, key: &Key, presence: Presence, snapshot: &Snapshot) -> Result<(), Error> {
        let (id, is_held) = (&key.id, presence == Presence::Present);
        if policy::is_current_dead(snapshot, self.run.target) {
            if is_held {
                let problem = format!("Braintrust holds {id}, and the current credentials no longer work");
                return Err(self.conflict(&problem, "Delete the IAM user's other key, if nothing uses it"));
            }
            return self.confirm_unreferenced(key, &snapshot.versions).await;
        }
        self.write_current(&snapshot.versions).await?;
        self.confirm_unreferenced(key, &snapshot.versions).await?;
        if is_held {
            let problem = format!("Braintrust held {id} until this run restored the current credentials");
            let remedy = "Gateways cache the key for some time, so a later run deletes it. Try again later";
            return Err(self.conflict(&problem, remedy));
        }
        Ok(())
    }

    /// Reads the stages again, because another run may have staged the key or made it current meanwhile. If another run
    /// made other credentials current, Braintrust gets those, because this run may just have written the earlier ones.
    async fn confirm_unreferenced(&self, key: &Key, before: &Versions) -> Result<(), Error> {
        let now = Versions::read(&self.secret).await?;
        let is_unchanged = now.current().map(|current| &current.id) == before.current().map(|current| &current.id);
        if is_unchanged && !now.references(&key.id) {
            return Ok(());
        }
        if !is_unchanged {
            self.write_current(&now).await?;
        }
        Err(self.conflict("another run has moved AWSCURRENT or uses the key to retire", "See the report of that run"))
    }

    /// Retires the keys that are no longer needed.
    pub async fn retire(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let Some(source) = self.run.target.user_based() else { return Ok(()) };
        for (retirement, key) in policy::retirements(snapshot, source) {
            let keys = self.run.user_keys(source).await?;
            match retirement {
                Retirement::Delete => {
                    self.confirm_unreferenced(key, &snapshot.versions).await?;
                    keys.delete(&key.id).await?;
                    self.run.progress.retired(key.id.clone(), report::KeyChange::Deleted);
                }
                Retirement::ReplaceInBraintrust => {
                    self.replace_in_braintrust(key, snapshot).await?;
                }
                Retirement::Deactivate => {
                    // Gateways may cache what Braintrust held until now, so a later run deactivates it.
                    if self.replace_in_braintrust(key, snapshot).await? != Presence::Present {
                        keys.deactivate(&key.id).await?;
                        self.run.progress.retired(key.id.clone(), report::KeyChange::Deactivated);
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes sure that Braintrust holds the current credentials and not a key that is to be retired, which an
    /// interrupted rotation or rollback may have left there. Returns whether Braintrust held the key.
    async fn replace_in_braintrust(&self, key: &Key, snapshot: &Snapshot) -> Result<Presence, Error> {
        let presence = self.run.presence(key).await?;
        if presence != Presence::Absent {
            self.write_current(&snapshot.versions).await?;
        }
        self.confirm_unreferenced(key, &snapshot.versions).await?;
        if presence == Presence::Present {
            self.run.progress.warning(format!("Braintrust held {}. This run restored the current credentials", key.id));
        }
        Ok(presence)
    }

    /// Writes the current credentials to all destinations again, if they work and no other run has moved `AWSCURRENT`
    /// since `versions` was read.
    pub async fn restore_current(&self, versions: &Versions) -> Result<(), Error> {
        if self.secret.describe().await?.current() != versions.current_version() {
            return Err(self.conflict("another run has moved AWSCURRENT", "See the report of that run"));
        }
        self.write_current(versions).await
    }

    async fn write_current(&self, versions: &Versions) -> Result<(), Error> {
        let Some(current) = versions.current() else {
            let remedy = "Rotate now, or restore the value that AWSCURRENT should have";
            return Err(self.conflict("AWSCURRENT holds no credentials to write to Braintrust", remedy));
        };
        if !policy::is_worth_writing(self.run.now(), current) {
            return Err(self.conflict("the current credentials have expired", "The next rotation replaces them"));
        }
        let proven = self.run.prove(current, 1).await?;
        let readings = self.run.read_destinations().await;
        destinations::all_succeeded(&self.run.write_all(&readings, proven).await)
    }

    /// Ends a pending version whose credentials are dead. Braintrust may hold them already, so the current credentials
    /// are restored first, if they work. If Braintrust fails or the error is transient, the version stays, and the next
    /// run tries again. Returns the error with which the run or step ends.
    pub async fn abandon_pending(&self, version: &str, versions: &Versions, remedy: &str) -> Error {
        let restored = match self.restore_current(versions).await {
            Ok(()) => ", and the current credentials were restored",
            Err(error) if error.is_transient() || error.service == Service::Braintrust => return error,
            Err(_) => "",
        };
        match self.secret.remove_pending(version).await {
            Ok(()) => {
                let problem = "the pending credentials have expired or no longer exist. Their version was abandoned";
                self.conflict(&format!("{problem}{restored}"), remedy)
            }
            Err(error) => error,
        }
    }

    /// Deletes a key that could not be staged. If that fails too, the key is orphaned, and a later run retires it.
    pub(super) async fn delete_unstaged(&self, credentials: &Credentials) {
        let Some(source) = self.run.target.user_based() else { return };
        let delete = async { self.run.user_keys(source).await?.delete(&credentials.id).await };
        if delete.await.is_err() {
            let id = &credentials.id;
            self.run.progress.warning(format!("{id} could be neither staged nor deleted. A later run retires it"));
        }
    }
}

#[cfg(test)]
mod tests;
