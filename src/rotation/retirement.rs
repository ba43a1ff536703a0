//! The IAM user's keys: a free slot for a new one, and retirement. The [`policy`] chooses the keys.

use std::cell::Cell;

use super::policy::{self, Eviction, LONGEST_RUN, Retirement};
use super::snapshot::{Snapshot, Versions};
use super::staged_run::{OTHER_RUN, StagedRun};
use crate::aws::iam_keys::Key;
use crate::aws::secrets_manager::{Label, TimedLabel};
use crate::braintrust::arrival::Presence;
use crate::config::UserBased;
use crate::credentials::Credentials;
use crate::error::{Error, Service};
use crate::report;

impl StagedRun<'_> {
    /// Creates a key for `version`. If there is no free slot, an unneeded key is deleted first. A lost response leaves
    /// a key whose secret nobody has, so the attempt is repeated and that key makes room.
    pub(super) async fn create_key(
        &self,
        source: &UserBased,
        version: &str,
        snapshot: &Snapshot,
    ) -> Result<Credentials, Error> {
        let keys = self.run.user_keys(source).await?;
        let listed_before: Vec<_> = snapshot.keys.iter().map(|key| key.id.clone()).collect();
        let attempts = Cell::new(0);
        let attempt = async || {
            let is_first = attempts.replace(attempts.get() + 1) == 0;
            self.make_room(source, version, snapshot, is_first, &listed_before).await.map_err(Error::into_final)?;
            keys.create(self.run.now()).await
        };
        self.run.deadline.retry(Service::Iam, "create", attempt).await
    }

    /// Deletes a key if there is no free slot. If another run may be about to stage a key, waits until that is clear.
    async fn make_room(
        &self,
        source: &UserBased,
        version: &str,
        first: &Snapshot,
        is_first: bool,
        listed_before: &[String],
    ) -> Result<(), Error> {
        let mut read_again = if is_first { None } else { Some(self.read_again(version, first).await?) };
        loop {
            let snapshot = read_again.as_ref().unwrap_or(first);
            let no_room = match policy::eviction_candidates(snapshot, self.run.target, source, listed_before) {
                Ok(candidates) => return self.evict_one_of(candidates, source, snapshot).await,
                Err(error) => error,
            };
            let Some(until) = policy::fresh_until(snapshot, listed_before) else { return Err(no_room) };
            let wait = until.duration_since(snapshot.now).unsigned_abs();
            if !self.run.deadline.allows(wait) {
                return Err(no_room);
            }
            tokio::time::sleep(wait).await;
            read_again = Some(self.read_again(version, first).await?);
        }
    }

    /// Reads everything again before `version` gets its key. Fails if another run has begun or ended a rotation since.
    async fn read_again(&self, version: &str, before: &Snapshot) -> Result<Snapshot, Error> {
        let now = self.snapshot().await?;
        let (stages, stages_before) = (&now.versions.stages, &before.versions.stages);
        let is_other = stages.pending() != stages_before.pending() && stages.pending() != Some(version);
        if is_other || stages.current() != stages_before.current() {
            return Err(self.conflict("another run is rotating the secret", OTHER_RUN));
        }
        Ok(now)
    }

    /// Deletes one of the candidates, if there are any. One that Braintrust doesn't hold goes before one that it may
    /// hold.
    async fn evict_one_of(
        &self,
        candidates: Vec<(Eviction, &Key)>,
        source: &UserBased,
        snapshot: &Snapshot,
    ) -> Result<(), Error> {
        let mut perhaps_held = None;
        for (eviction, key) in candidates {
            match eviction {
                Eviction::Immediate => return self.evict(key, source, &snapshot.versions).await,
                Eviction::AfterConfirmation => match self.run.presence(key).await? {
                    Presence::Absent => return self.evict(key, source, &snapshot.versions).await,
                    presence @ (Presence::Unknown | Presence::Present) => {
                        perhaps_held = perhaps_held.or(Some((presence, key)));
                    }
                },
            }
        }
        let Some((presence, key)) = perhaps_held else { return Ok(()) };
        self.take_from_braintrust(key, presence, snapshot).await?;
        self.evict(key, source, &snapshot.versions).await
    }

    async fn evict(&self, key: &Key, source: &UserBased, before: &Versions) -> Result<(), Error> {
        if !self.announce(Label::Deleting, key, before).await? {
            let problem = format!("{} was to make room for a new key, but another run is restoring it", key.id);
            return Err(self.conflict(&problem, OTHER_RUN));
        }
        self.delete(key, source).await
    }

    async fn delete(&self, key: &Key, source: &UserBased) -> Result<(), Error> {
        self.run.user_keys(source).await?.delete(&key.id).await?;
        self.run.progress.retired(key.id.clone(), report::KeyChange::Deleted);
        Ok(())
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
            return Ok(());
        }
        self.restore_current().await?;
        // A revoked key has no overlap.
        if is_held && !snapshot.versions.is_revoked(id) {
            let problem = format!("Braintrust held {id} until this run restored the current credentials");
            let remedy = "Gateways cache the key for some time, so a later run deletes it. Try again later";
            return Err(self.conflict(&problem, remedy));
        }
        Ok(())
    }

    /// Announces to other runs that a key is about to be deactivated or deleted: sets a label on the version that holds
    /// the key, and reads the secret again after that. Returns `false` if another run is restoring the key, which must
    /// then stay. The error is a `conflict` if another run has staged the key or made other credentials current.
    ///
    /// A rollback does the reverse: it sets `RESTORING` first, and looks for these labels after that. So the run that
    /// comes second sees the label of the first.
    pub(super) async fn announce(&self, label: Label, key: &Key, before: &Versions) -> Result<bool, Error> {
        let version = before.version_of(&key.id);
        if let Some(version) = version {
            // The label moves from where it was read, so this is a conflict if another run has moved it since.
            self.secret.move_label(label, Some(version), before.stages.labelled(label)).await?;
        }
        let now = Versions::read(&self.secret).await?;
        let is_unchanged = now.current_version() == before.current_version();
        let is_pending = now.pending().is_some_and(|pending| pending.id == key.id);
        let was_pending = before.pending().is_some_and(|pending| pending.id == key.id);
        let mut restoring = now.stages.times(TimedLabel::Restoring);
        let is_restored = restoring.any(|(labelled, at)| Some(labelled) == version && !self.has_ended(at));
        let is_used = !is_unchanged || (is_pending && !was_pending);
        if let Some(version) = version.filter(|_| (is_used || is_restored) && before.stages.labelled(label) != version)
        {
            // The run that gives way takes its own label with it, so that the other one can go on.
            self.secret.move_label(label, None, Some(version)).await?;
        }
        if is_used {
            let problem = "another run has moved AWSCURRENT or uses the key to retire";
            let lost = self.conflict(problem, OTHER_RUN);
            // This run may just have written to Braintrust what was current before.
            return Err(if is_unchanged { lost } else { self.restore_after(lost).await });
        }
        Ok(!is_restored)
    }

    /// Retires the keys that are no longer needed.
    pub async fn retire(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let Some(source) = self.run.target.user_based() else { return Ok(()) };
        for (retirement, key) in policy::retirements(snapshot, source) {
            match retirement {
                Retirement::Delete => {
                    if self.may_end(Label::Deleting, key, snapshot).await? {
                        self.delete(key, source).await?;
                    }
                }
                Retirement::ReplaceInBraintrust => {
                    if !self.was_restored_since(key, &snapshot.versions) {
                        let presence = self.run.presence(key).await?;
                        self.replace_in_braintrust(key, presence).await?;
                    }
                }
                Retirement::Deactivate => {
                    // Gateways may cache what Braintrust held until now, so a later run deactivates it.
                    let presence = self.run.presence(key).await?;
                    self.replace_in_braintrust(key, presence).await?;
                    let may_be_cached = presence == Presence::Present && !snapshot.versions.is_revoked(&key.id);
                    if !may_be_cached && self.may_end(Label::Deactivating, key, snapshot).await? {
                        self.run.user_keys(source).await?.deactivate(&key.id).await?;
                        self.run.progress.retired(key.id.clone(), report::KeyChange::Deactivated);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the current credentials were restored after the run that created the key had ended. Nobody writes an
    /// orphaned key later, and one that doesn't read back would otherwise be replaced by every run.
    fn was_restored_since(&self, key: &Key, versions: &Versions) -> bool {
        let restored = versions.current_version().and_then(|id| versions.stages.time_of(TimedLabel::Restored, id));
        let since = |created| restored.is_some_and(|at| at.duration_since(created) > LONGEST_RUN * 2);
        key.created_at.is_some_and(since)
    }

    async fn may_end(&self, label: Label, key: &Key, snapshot: &Snapshot) -> Result<bool, Error> {
        let may_end = self.announce(label, key, &snapshot.versions).await?;
        if !may_end {
            let id = &key.id;
            self.run.progress.warning(format!("another run is restoring {id}, so this run did not retire it"));
        }
        Ok(may_end)
    }

    /// Makes sure that Braintrust holds the current credentials and not a key that is to be retired, which an
    /// interrupted rotation or rollback may have left there.
    pub(super) async fn replace_in_braintrust(&self, key: &Key, presence: Presence) -> Result<(), Error> {
        if presence != Presence::Absent {
            self.restore_current().await?;
        }
        if presence == Presence::Present {
            self.run.progress.warning(format!("Braintrust held {}. This run restored the current credentials", key.id));
        }
        Ok(())
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
