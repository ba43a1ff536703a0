//! What revocations do in addition to a rotation: they mark the credentials that they revoke, end them, and prove that
//! they are dead.
//!
//! The label `REVOKING` on a version says that its credentials are to be replaced and ended. It is set before anything
//! else happens, and it stays until a service has refused the credentials. So the next command continues an interrupted
//! one, and so do scheduled runs: see [`policy`]. After that, `REVOKED` on the previous version keeps a rollback from
//! restoring it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::policy;
use super::snapshot::{Snapshot, Version};
use super::staged_run::{OTHER_RUN, StagedRun};
use super::target_run::TargetRun;
use crate::aws::bedrock::Ended;
use crate::aws::iam_keys::Key;
use crate::aws::iam_sessions::{self, CutOff};
use crate::aws::secrets_manager::{Label, MOVE_STAGE, Stages, TimedLabel};
use crate::aws::staged_value::VersionValue;
use crate::config::{RoleBased, Source, UserBased};
use crate::credentials::{Credentials, Kind};
use crate::error::{Error, ErrorClass};
use crate::report::{KeyChange, Outcome, iso8601};
use crate::revocation::{Remaining, Revoked, RevokedState};

/// A command continues an earlier one that was interrupted or failed less than this ago. After that, it starts anew,
/// because the credentials that are current by then may be the ones that leaked.
const CONTINUES_WITHIN: SignedDuration = SignedDuration::from_hours(1);
/// What AWS allows if a role assumes a role.
const MAX_SESSION: SignedDuration = SignedDuration::from_hours(1);
/// How long Bedrock is asked whether somebody else has ended what the function can't.
const MAX_LOOK: Duration = Duration::from_secs(5);
const UNCERTAIN_CUT_OFF: &str = "the new session's expiry does not agree with duration_seconds and with the time at \
                                 which the session was created, so no policy was written, which could have ended \
                                 later sessions, too. Repeat the command: it makes another session";
const MAX_TRIES: usize = 5;
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

/// What an interrupted revocation has left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No revocation has begun.
    Begin,
    /// The current credentials are marked, and have no successor yet.
    Replace,
    /// The successor is current, and those before it may not be dead.
    End,
}

impl StagedRun<'_> {
    pub fn revocation_phase(&self, snapshot: &Snapshot, token: &str) -> Phase {
        let (versions, now) = (&snapshot.versions, snapshot.now);
        // The successor is current if the version before it is marked. An interrupted command may have marked the
        // pending version alone.
        let previous = versions.stages.previous();
        let marked_at = previous.and_then(|version| versions.stages.time_of(TimedLabel::Revoking, version));
        let is_under_way = marked_at.is_some_and(|at| now.duration_since(at) < CONTINUES_WITHIN);
        if versions.is_current_revoked() {
            Phase::Replace
        } else if is_under_way || versions.current_version() == Some(token) {
            Phase::End
        } else {
            Phase::Begin
        }
    }

    /// The pending version, if its credentials are revoked, too. They are the successor once the current ones are
    /// marked, and if another run may be writing them.
    pub fn revoked_pending<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s Version> {
        let is_successor = |pending| policy::is_successor(snapshot, self.run.target, pending);
        let pending = snapshot.versions.pending.as_ref().filter(|_| !snapshot.versions.is_current_revoked());
        pending.filter(|pending| !pending.credentials().is_some_and(is_successor))
    }

    /// Marks the versions whose credentials are revoked, because nobody knows which leaked: the pending one first,
    /// because it is the successor once the current one is marked, and the previous one last, because its mark alone
    /// says that the successor is current.
    pub async fn mark_revoked(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let (versions, now) = (&snapshot.versions, self.run.now());
        let pending = self.revoked_pending(snapshot);
        for version in [pending, versions.current.as_ref(), versions.previous.as_ref()].into_iter().flatten() {
            let is_marked = versions.stages.time_of(TimedLabel::Revoking, &version.id).is_some();
            if version.credentials().is_some() && !is_marked {
                self.secret.add_label(TimedLabel::Revoking, now, &version.id).await?;
            }
        }
        Ok(())
    }

    /// The revoked credentials with their versions. The label keeps a version that no longer has a stage.
    pub async fn read_revoked(&self, stages: &Stages) -> Result<Vec<(String, Credentials)>, Error> {
        let mut ids: Vec<_> = stages.times(TimedLabel::Revoking).map(|(version, _)| version.to_owned()).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            // An earlier delivery of this event has done everything.
            ids.extend(stages.labelled(Label::Revoked).map(str::to_owned));
        }
        let mut revoked = Vec::new();
        for id in ids {
            if let VersionValue::Credentials(credentials) = self.secret.read(&id).await? {
                revoked.push((id, credentials));
            }
        }
        Ok(revoked)
    }

    /// Deactivates and deletes the IAM user's revoked keys, all but the current one. The successor must be current.
    pub async fn end_revoked_keys(&self, source: &UserBased, force: bool) -> Result<(), Error> {
        let snapshot = self.snapshot().await?;
        for key in policy::revoked_keys(&snapshot) {
            // If Braintrust still holds it, it gets the successor first.
            let presence = self.run.presence(key).await;
            match presence {
                Ok(presence) => self.replace_in_braintrust(key, presence).await?,
                Err(error) if !force => return Err(error),
                Err(error) => self.run.progress.warning(format!(
                    "{} was ended, although it isn't known whether Braintrust still holds it: {error}",
                    key.id
                )),
            }
            self.end_key(key, source, force).await?;
        }
        for key in policy::keys_in_runs(&snapshot) {
            let warning = "was created less than half an hour ago by another run, which may be writing it, so it was \
                           not ended. To end it, repeat this command after half an hour. Otherwise, a scheduled run \
                           retires it after the overlap";
            self.run.progress.warning(format!("{} {warning}", key.id));
        }
        Ok(())
    }

    /// Whether another run is writing the key to Braintrust, in a version that may have lost its stage since.
    async fn is_being_written(&self, key: &Key) -> Result<bool, Error> {
        let stages = self.secret.describe().await?;
        let mut holding = self.read_revoked(&stages).await?.into_iter().filter(|(_, held)| held.id == key.id);
        Ok(holding.any(|(version, _)| {
            let mut restoring = stages.times(TimedLabel::Restoring);
            restoring.any(|(labelled, at)| labelled == version && !self.has_ended(at))
        }))
    }

    /// Whether the label for the key's end is set, and no other run restores the key. Another run may have moved the label
    /// at the same time.
    async fn announces_end(&self, key: &Key, snapshot: &Snapshot) -> Result<bool, Error> {
        match self.announce(Label::Deleting, key, &snapshot.versions).await {
            Err(error) if error.class == ErrorClass::Conflict && error.call == MOVE_STAGE => Ok(false),
            announced => announced,
        }
    }

    /// Ends one key. If another run is restoring it, waits for that run to notice that it is revoked.
    async fn end_key(&self, key: &Key, source: &UserBased, force: bool) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            let snapshot = self.snapshot().await?;
            if force || (self.announces_end(key, &snapshot).await? && !self.is_being_written(key).await?) {
                break;
            }
            tries += 1;
            if tries == MAX_TRIES || !self.run.deadline.allows(BETWEEN_TRIES) {
                let problem = format!("another run is restoring or ending {}, so it was not ended", key.id);
                let remedy = "Repeat the command. With \"force\":true, it ends the key anyway";
                return Err(self.conflict(&problem, remedy));
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        let keys = self.run.user_keys(source).await?;
        if key.active {
            keys.deactivate(&key.id).await?;
        }
        keys.delete(&key.id).await?;
        let now = self.run.now();
        self.run.progress.retired(key.id.clone(), KeyChange::Deleted);
        self.run.progress.revocation(|revocation| revocation.entry(&key.id).ended(now));
        Ok(())
    }

    /// Ends the current key, although it has no successor in Braintrust.
    pub async fn force_end_current(&self, source: &UserBased) -> Result<(), Error> {
        let snapshot = self.snapshot().await?;
        if !snapshot.versions.is_current_revoked() {
            return Ok(());
        }
        let Some((current, version)) = snapshot.versions.current().zip(snapshot.versions.current_version()) else {
            return Ok(());
        };
        // So that other runs know that the key is dead before IAM's lists show it.
        let before = snapshot.versions.stages.labelled(Label::Deleting);
        self.secret.move_label(Label::Deleting, Some(version), before).await?;
        if let Some(key) = snapshot.keys.iter().find(|key| key.id == current.id) {
            self.end_key(key, source, true).await?;
        }
        Ok(())
    }

    /// Proves that revoked keys are dead. All of them must be gone from IAM.
    pub async fn prove_keys_dead(&self, revoked: &[(String, Credentials)]) -> Result<(), Error> {
        let listed = self.run.list_keys().await?;
        for (_, credentials) in revoked.iter().filter(|(_, credentials)| self.run.ends(credentials)) {
            let id = &credentials.id;
            if listed.iter().any(|key| key.id == *id && key.active) {
                self.run.progress.revocation(|revocation| revocation.entry(id).state = RevokedState::Alive);
                let problem = format!("{id} was revoked, but is still active");
                return Err(self.conflict(&problem, "Repeat the command: it continues"));
            }
            let is_key = credentials.kind() == self.run.target.kind();
            self.run.prove_dead(credentials, if is_key { Ended::Key } else { Ended::Session }).await?;
        }
        Ok(())
    }

    /// Marks the revocation as done: a rollback refuses the previous version, and the next command starts anew.
    pub async fn finish_revocation(&self) -> Result<(), Error> {
        let stages = self.secret.describe().await?;
        let is_marked = |version: &&str| stages.time_of(TimedLabel::Revoking, version).is_some();
        if let Some(previous) = stages.previous().filter(is_marked) {
            self.secret.move_label(Label::Revoked, Some(previous), stages.labelled(Label::Revoked)).await?;
        }
        for (version, at) in stages.times(TimedLabel::Revoking) {
            if stages.current() == Some(version) {
                return Err(self.conflict("another run made revoked credentials current again", OTHER_RUN));
            }
            self.secret.remove_label(TimedLabel::Revoking, at, version).await?;
        }
        Ok(())
    }
}

impl TargetRun<'_> {
    /// Lists revoked credentials. What the function can't end gets the command that does it.
    pub fn list_revoked(&self, credentials: &Credentials) {
        if self.ends(credentials) {
            self.progress.revocation(|revocation| revocation.list(&credentials.id));
        } else {
            self.leave(&credentials.id, credentials.kind());
        }
    }

    /// The same for the access key IDs that Braintrust shows. No policy on a role ends the key of an IAM user.
    pub fn list_shown(&self, id: &str) {
        if id.starts_with("ASIA") {
            self.progress.revocation(|revocation| revocation.list(id));
        } else {
            self.leave(id, Kind::AccessKey);
        }
    }

    /// Whether a revocation of the target ends the credentials, or they have expired. Others are of a kind that the
    /// target had before, and the function may not be allowed to manage them.
    pub fn ends(&self, credentials: &Credentials) -> bool {
        let is_own = match (&self.target.source, credentials.kind()) {
            (Source::RoleBased(_), kind) => matches!(kind, Kind::Temporary | Kind::ShortTermApiKey),
            (Source::UserBased(_), kind) => kind == self.target.kind(),
        };
        is_own || self.has_expired(credentials)
    }

    fn leave(&self, id: &str, kind: Kind) {
        let user = self.target.user_based().map_or("USER", |source| source.user_name.as_str());
        // The ID may come from Braintrust, and the command will be copied.
        let is_id = id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let in_command = if is_id { id } else { "ACCESS_KEY_ID" };
        let (owner, command) = match kind {
            Kind::AccessKey => {
                ("IAM user", format!("aws iam delete-access-key --user-name {user} --access-key-id {in_command}"))
            }
            Kind::LongTermApiKey => (
                "IAM user",
                format!(
                    "aws iam delete-service-specific-credential --user-name {user} \
                     --service-specific-credential-id {in_command}"
                ),
            ),
            Kind::Temporary | Kind::ShortTermApiKey => ("role", iam_sessions::command("ROLE", self.now())),
        };
        let what = format!(
            "{id} is not of this target's kind, so the function can't end it. Run this as an administrator of its \
             account, with the name of its own {owner}"
        );
        self.progress.revocation(|revocation| revocation.leave(id, Remaining { what, command }));
    }

    /// Takes back what the report says of credentials that the function can't end, if somebody else has ended them.
    pub async fn look_at_left(&self, credentials: &Credentials) {
        let (deadline, id) = (self.deadline.at_most(MAX_LOOK), &credentials.id);
        let proof = self.services.bedrock.prove_dead(credentials, self.target, Ended::Key, deadline).await;
        if let Ok(evidence) = proof {
            self.progress.revocation(|revocation| {
                revocation.entry(id).proven(evidence);
                revocation.remaining.retain(|remaining| !remaining.what.starts_with(id));
            });
        }
    }

    /// The outcome if the successor has arrived, and what the function could end was ended.
    pub fn replaced_or_revoked(&self) -> Outcome {
        let is_alive = |revoked: &Revoked| revoked.state == RevokedState::Alive;
        let is_any_alive = self.progress.revocation(|revocation| revocation.revoked.iter().any(is_alive));
        if is_any_alive { Outcome::Replaced } else { Outcome::Revoked }
    }

    /// Ends the sessions before the one of `successor` with a policy, if the target is configured so. Returns whether
    /// they were ended. If not, the report has the command that does it.
    pub async fn end_sessions(&self, source: &RoleBased, successor: &Credentials) -> Result<bool, Error> {
        let (role, now) = (&source.role.role_arn, self.now());
        let cut_off = CutOff::before(successor, &source.role, now);
        let before = cut_off.map_or(successor.created_at.min(now), CutOff::time);
        let result = match cut_off {
            Some(cut_off) if source.revoke_sessions => self
                .services
                .iam
                .end_sessions(role, cut_off, self.deadline, &self.progress.requests)
                .await
                .map(|_| true),
            None if source.revoke_sessions => {
                self.progress.warning(UNCERTAIN_CUT_OFF.to_owned());
                Ok(false)
            }
            Some(_) | None => Ok(false),
        };
        if matches!(result, Ok(true)) {
            self.progress.revocation(|revocation| revocation.own().for_each(|revoked| revoked.ended(now)));
        } else {
            self.leave_earlier_sessions(source, before);
        }
        result
    }

    /// Lists the command that ends every session of the role, for a revocation that failed before it had a successor.
    pub fn leave_all_sessions(&self, source: &RoleBased) {
        let (role, now) = (&source.role.role_arn, self.now());
        let what = format!(
            "To end every session of the role {role} now, including the one in Braintrust and those of other targets \
             with this role, run this as an administrator of the account {}. Braintrust then has no credentials that \
             work until the next rotation. Otherwise, the sessions work until they expire, the last one at {}",
            role.account(),
            last_end(now)
        );
        self.leave_sessions(source, now, what);
    }

    fn leave_earlier_sessions(&self, source: &RoleBased, before: Timestamp) {
        let role = &source.role.role_arn;
        let what = format!(
            "The earlier sessions of the role {role} work until they expire, the last one at {}. To end all of them \
             now, also those of other targets with this role, run this as an administrator of the account {}",
            last_end(before),
            role.account()
        );
        self.leave_sessions(source, before, what);
    }

    fn leave_sessions(&self, source: &RoleBased, before: Timestamp, what: String) {
        let command = iam_sessions::command(source.role.role_arn.name(), before);
        self.progress.revocation(|revocation| revocation.remaining.push(Remaining { what, command }));
    }

    /// Proves that Bedrock refuses credentials that were ended, and adds that to the evidence.
    pub async fn prove_dead(&self, credentials: &Credentials, ended: Ended) -> Result<(), Error> {
        let evidence = self.services.bedrock.prove_dead(credentials, self.target, ended, self.deadline).await?;
        self.progress.revocation(|revocation| revocation.entry(&credentials.id).proven(evidence));
        Ok(())
    }

    /// Whether credentials that nobody ended are dead anyway, because they have expired.
    pub fn has_expired(&self, credentials: &Credentials) -> bool {
        credentials.expires_at.is_some_and(|end| end <= self.now())
    }

    /// Whether a session that the policy must not end still works.
    pub async fn still_works(&self, credentials: &Credentials) -> Result<bool, Error> {
        match self.prove(credentials, 1).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.class, ErrorClass::Permission | ErrorClass::InvalidCredentials) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// When the last session that was issued before this time expires.
fn last_end(before: Timestamp) -> String {
    iso8601(before.saturating_add(MAX_SESSION).unwrap_or(Timestamp::MAX))
}
