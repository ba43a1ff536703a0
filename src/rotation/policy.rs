//! Decides what a run does with a staged target. Pure: everything comes from one [`Snapshot`].

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::snapshot::{Snapshot, Version};
use crate::aws::iam_keys::{Key, MAX_KEYS};
use crate::aws::staged_value::VersionValue;
use crate::config::{Target, UserBased};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorClass, Service};

/// Credentials with less life left than this are not written, because they would expire almost on arrival.
const MIN_LIFE_TO_WRITE: SignedDuration = SignedDuration::from_mins(5);

/// The share of their life that pending role-based credentials need in order to be resumed. New ones cost nothing, and
/// these must still work at the next run.
const MIN_LIFE_TO_RESUME: f64 = 0.75;

/// IAM's lists are eventually consistent: a key that was created this recently may exist without being listed.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency>
const MAX_LIST_DELAY: SignedDuration = SignedDuration::from_mins(5);

/// Another run may be about to stage a key that was created this recently.
const TIME_TO_STAGE: SignedDuration = SignedDuration::from_mins(2);

/// Lambda ends every run after this time, so a run that set a label longer ago has ended.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-timeout.html>
pub const LONGEST_RUN: SignedDuration = SignedDuration::from_mins(15);

/// What a scheduled run does with a staged target. A plan that rotates nothing includes the reconciliation, and a plan
/// that succeeds ends with the retirement, unless Secrets Manager's rotation is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Secrets Manager rotates the secret, and no rotation is under way.
    LeaveToSecretsManager,
    /// Nothing, because Secrets Manager's rotation is under way.
    WaitForSecretsManager,
    NotDue,
    /// Continue with the pending version.
    Resume,
    /// Start a rotation.
    Start,
    /// Start a rotation that replaces pending credentials, which no longer work.
    ReplacePending,
    /// Restore the current credentials, and end the pending version, whose credentials no longer work.
    GiveUpPending,
    /// End the event's own version, whose credentials no longer work. A version's value can't be changed, so only
    /// another event can start a rotation.
    AbandonPending,
}

impl Plan {
    /// Whether the run may create credentials, or end some.
    pub fn may_create(self) -> bool {
        match self {
            Self::Resume | Self::Start | Self::ReplacePending | Self::GiveUpPending | Self::AbandonPending => true,
            Self::LeaveToSecretsManager | Self::WaitForSecretsManager | Self::NotDue => false,
        }
    }
}

/// Decides for one scheduled run. `token` is the event's version; `force` ignores the age.
pub fn plan(snapshot: &Snapshot, target: &Target, token: &str, force: bool) -> Plan {
    let versions = &snapshot.versions;
    match (versions.stages.rotation_enabled, &versions.pending) {
        (Some(true), Some(_)) => return Plan::WaitForSecretsManager,
        // An interrupted revocation can't wait until Secrets Manager rotates the secret.
        (Some(true), None) if !versions.is_current_revoked() => return Plan::LeaveToSecretsManager,
        (Some(_) | None, _) => {}
    }
    let is_due = || force || is_due(snapshot, target);
    match &versions.pending {
        Some(Version { value: VersionValue::Empty | VersionValue::Foreign, .. }) => Plan::Resume,
        Some(Version { value: VersionValue::Credentials(pending), .. }) if may_resume(snapshot, target, pending) => {
            Plan::Resume
        }
        Some(_) if !is_due() => Plan::GiveUpPending,
        Some(pending) if pending.id == token => Plan::AbandonPending,
        Some(_) => Plan::ReplacePending,
        None if versions.current_version() == Some(token) => Plan::NotDue,
        None if is_due() => Plan::Start,
        None => Plan::NotDue,
    }
}

fn is_due(snapshot: &Snapshot, target: &Target) -> bool {
    let (Some(current), Some(source)) = (snapshot.versions.current(), target.user_based()) else { return true };
    let now = snapshot.now;
    let expires_in_overlap = current.expires_at.is_some_and(|end| later(now, source.overlap) >= end);
    // The previous key may still be in use, and would have to make room.
    let has_room = match Overlap::of(snapshot, source) {
        Overlap::Running { .. } => snapshot.keys.len() < MAX_KEYS,
        Overlap::Over | Overlap::NothingCurrent => true,
    };
    let is_old_enough = has_room && now >= later(current.created_at, source.rotate_after);
    let is_revoked = snapshot.versions.is_current_revoked();
    let is_unusable = current.kind() != target.kind() || is_dead(snapshot, target, current) || is_revoked;
    is_unusable || expires_in_overlap || is_old_enough
}

fn may_resume(snapshot: &Snapshot, target: &Target, pending: &Credentials) -> bool {
    let has_enough_life = match (target.user_based(), pending.expires_at) {
        (None, Some(end)) => {
            let (left, life) = (end.duration_since(snapshot.now), end.duration_since(pending.created_at));
            left.as_secs_f64() > MIN_LIFE_TO_RESUME * life.as_secs_f64()
        }
        (None, None) | (Some(_), _) => true,
    };
    has_enough_life && is_usable(snapshot, target, pending)
}

/// Whether a rotation may continue with pending credentials: they are of the target's kind, not known to be dead, and
/// no revocation is ending them.
pub fn is_usable(snapshot: &Snapshot, target: &Target, pending: &Credentials) -> bool {
    let is_revoked = snapshot.versions.is_revoked(&pending.id);
    pending.kind() == target.kind() && !is_dead(snapshot, target, pending) && !is_revoked
}

/// Whether a run that began while the credentials were new may still write them to Braintrust. A run that begins to
/// write older ones announces that: see [`is_announced`].
pub fn may_be_written(now: Timestamp, created_at: Timestamp) -> bool {
    now.duration_since(created_at) <= LONGEST_RUN * 2
}

/// Whether pending credentials are so old that a run announces that it writes them.
pub fn is_announced(now: Timestamp, pending: &Credentials) -> bool {
    now.duration_since(pending.created_at) > LONGEST_RUN
}

/// Whether a revocation makes the pending credentials current instead of ending them, because another run may be
/// writing them at this moment.
pub fn is_successor(snapshot: &Snapshot, target: &Target, pending: &Credentials) -> bool {
    may_be_written(snapshot.now, pending.created_at) && is_usable(snapshot, target, pending)
}

/// Whether credentials are known not to work: they have expired, or IAM shows that their key is gone or not active.
fn is_dead(snapshot: &Snapshot, target: &Target, credentials: &Credentials) -> bool {
    // IAM's list has the keys of the target's own kind only.
    let is_listed = target.user_based().is_some() && credentials.kind() == target.kind();
    let key = snapshot.keys.iter().find(|key| key.id == credentials.id);
    let is_ended = match key {
        Some(key) => !key.active,
        None => {
            let age = snapshot.now.duration_since(credentials.created_at);
            age > MAX_LIST_DELAY || snapshot.versions.is_ending(&credentials.id)
        }
    };
    !is_worth_writing(snapshot.now, credentials) || (is_listed && is_ended)
}

pub fn is_current_dead(snapshot: &Snapshot, target: &Target) -> bool {
    snapshot.versions.current().is_some_and(|current| is_dead(snapshot, target, current))
}

/// Whether credentials live long enough to be written to Braintrust.
pub fn is_worth_writing(now: Timestamp, credentials: &Credentials) -> bool {
    credentials.expires_at.is_none_or(|end| end.duration_since(now) > MIN_LIFE_TO_WRITE)
}

/// How many probes in a row new credentials have to pass. A user's new key reaches one of IAM's hosts after another.
pub fn confirmations(target: &Target) -> u32 {
    if target.user_based().is_some() { 2 } else { 1 }
}

/// Where the target is in the overlap, during which the previous key stays valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    Running {
        until: Timestamp,
    },
    Over,
    /// `AWSCURRENT` holds no credentials, so there is no overlap to count.
    NothingCurrent,
}

impl Overlap {
    /// The overlap begins when the current credentials were created, or when they became current if that was later, as
    /// it is after an interrupted rotation.
    pub fn of(snapshot: &Snapshot, source: &UserBased) -> Self {
        let Some(current) = snapshot.versions.current() else { return Self::NothingCurrent };
        let since = snapshot.versions.promoted_at.map_or(current.created_at, |time| time.max(current.created_at));
        let until = later(since, source.overlap);
        if snapshot.now < until { Self::Running { until } } else { Self::Over }
    }
}

/// What a key of the IAM user is to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum KeyRole {
    /// A revocation is ending it, and it is not the current key.
    Revoked,
    /// This run's own attempt to create a key left it, and the response with its secret was lost.
    LostResponse,
    /// No stage names it, and it is not older than the staged secret: an interrupted rotation left it.
    Orphaned,
    /// `AWSPREVIOUS` names it.
    Previous,
    /// `AWSPENDING` names it.
    Pending,
    /// `AWSCURRENT` names it.
    Current,
    /// No stage names it, and another run may be about to stage it.
    Fresh,
    /// Somebody else created it.
    Foreign,
}

/// How a key may make room for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// Nothing can use it.
    Immediate,
    /// After a check that Braintrust does not need it and that no stage names it.
    AfterConfirmation,
}

/// What a run does with a key that is no longer needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retirement {
    /// Leaves the key, and makes sure that Braintrust holds the current credentials instead.
    ReplaceInBraintrust,
    /// A deactivated key can be activated again if it turns out to be needed.
    Deactivate,
    /// Deletes a key that an earlier run deactivated.
    Delete,
}

/// The table of key roles: what may become of a key, by its role, whether it is active in IAM, the overlap, and whether
/// the current credentials are dead. Eviction and retirement both read it. "Key roles" in ARCHITECTURE.md has the same
/// table in words.
fn fate(
    role: KeyRole,
    active: bool,
    overlap: Overlap,
    current_is_dead: bool,
) -> (Option<Eviction>, Option<Retirement>) {
    use KeyRole::{Current, Foreign, Fresh, LostResponse, Orphaned, Pending, Previous, Revoked};
    let eviction = match (role, active, overlap) {
        (Current | Foreign | Fresh, _, _) | (Pending, true, _) => None,
        (Pending | LostResponse | Orphaned | Previous | Revoked, false, _) | (LostResponse, true, _) => {
            Some(Eviction::Immediate)
        }
        (Revoked, true, _) => Some(Eviction::AfterConfirmation),
        (Orphaned, true, Overlap::Running { .. }) if !current_is_dead => None,
        (Orphaned, true, _) | (Previous, true, Overlap::Over) => Some(Eviction::AfterConfirmation),
        (Previous, true, Overlap::Running { .. } | Overlap::NothingCurrent) => None,
    };
    let retirement = match (role, active, overlap) {
        (Current | Foreign | Fresh | Pending, _, _) | (_, _, Overlap::NothingCurrent) => None,
        (LostResponse | Orphaned | Previous, false, Overlap::Over) | (Revoked, false, _) => Some(Retirement::Delete),
        (LostResponse | Orphaned | Previous, true, Overlap::Over) | (Revoked, true, _) => Some(Retirement::Deactivate),
        (LostResponse | Orphaned, true, Overlap::Running { .. }) => Some(Retirement::ReplaceInBraintrust),
        (LostResponse | Orphaned, false, Overlap::Running { .. }) | (Previous, _, Overlap::Running { .. }) => None,
    };
    (eviction, retirement)
}

/// The role of a key. `listed_before` has the keys that existed before this run tried to create one.
fn role(snapshot: &Snapshot, key: &Key, listed_before: &[String]) -> KeyRole {
    let versions = &snapshot.versions;
    let is = |named: Option<&Credentials>| named.is_some_and(|credentials| credentials.id == key.id);
    // IAM's times are whole seconds.
    let is_ours = match (key.created_at, versions.stages.created_at) {
        (Some(key), Some(secret)) => key.as_second() >= secret.as_second(),
        (None, _) | (_, None) => false,
    };
    if is(versions.current()) {
        KeyRole::Current
    } else if versions.is_revoked(&key.id) {
        KeyRole::Revoked
    } else if is(versions.pending()) {
        KeyRole::Pending
    } else if is(versions.previous()) {
        KeyRole::Previous
    } else if !is_ours {
        KeyRole::Foreign
    } else if key.active && staged_by(key).is_some_and(|time| snapshot.now < time) {
        KeyRole::Fresh
    } else if listed_before.contains(&key.id) {
        KeyRole::Orphaned
    } else {
        KeyRole::LostResponse
    }
}

/// When a key that no stage names is known to be orphaned.
fn staged_by(key: &Key) -> Option<Timestamp> {
    key.created_at?.checked_add(TIME_TO_STAGE).ok()
}

/// When the first of the keys that other runs may be about to stage can make room. `None` if there is no such key.
pub fn fresh_until(snapshot: &Snapshot, listed_before: &[String]) -> Option<Timestamp> {
    let fresh = snapshot.keys.iter().filter(|key| role(snapshot, key, listed_before) == KeyRole::Fresh);
    fresh.filter_map(staged_by).min()
}

/// The keys that a revocation ends, whatever the overlap: those of the credentials that it revokes, and those of
/// interrupted rotations. Nobody knows which of them leaked.
pub fn revoked_keys(snapshot: &Snapshot) -> Vec<&Key> {
    let is_ended = |key: &&Key| match role(snapshot, key, &listed(snapshot)) {
        KeyRole::Revoked => true,
        KeyRole::LostResponse | KeyRole::Orphaned => !may_be_in_a_run(snapshot, key),
        KeyRole::Previous | KeyRole::Pending | KeyRole::Current | KeyRole::Fresh | KeyRole::Foreign => false,
    };
    snapshot.keys.iter().filter(is_ended).collect()
}

/// The keys that no stage names and that another run may be writing to Braintrust at this moment.
pub fn keys_in_runs(snapshot: &Snapshot) -> Vec<&Key> {
    let is_in_run = |key: &&Key| match role(snapshot, key, &listed(snapshot)) {
        KeyRole::LostResponse | KeyRole::Orphaned | KeyRole::Fresh => may_be_in_a_run(snapshot, key),
        KeyRole::Revoked | KeyRole::Previous | KeyRole::Pending | KeyRole::Current | KeyRole::Foreign => false,
    };
    snapshot.keys.iter().filter(is_in_run).collect()
}

fn may_be_in_a_run(snapshot: &Snapshot, key: &Key) -> bool {
    key.active && key.created_at.is_some_and(|at| may_be_written(snapshot.now, at))
}

fn listed(snapshot: &Snapshot) -> Vec<String> {
    snapshot.keys.iter().map(|key| key.id.clone()).collect()
}

/// The IDs of the keys that somebody else created. Nothing here touches them.
pub fn foreign_keys(snapshot: &Snapshot) -> Vec<String> {
    let is_foreign = |key: &&Key| role(snapshot, key, &[]) == KeyRole::Foreign;
    snapshot.keys.iter().filter(is_foreign).map(|key| key.id.clone()).collect()
}

/// The keys to retire, and how. Nothing stops working before the overlap is over.
pub fn retirements<'s>(snapshot: &'s Snapshot, source: &UserBased) -> Vec<(Retirement, &'s Key)> {
    let overlap = Overlap::of(snapshot, source);
    let listed_before = listed(snapshot);
    let retirement = |key: &Key| fate(role(snapshot, key, &listed_before), key.active, overlap, false).1;
    snapshot.keys.iter().filter_map(|key| Some((retirement(key)?, key))).collect()
}

/// The keys that may make room for a new one, the first to go first. Empty if there is a free slot.
pub fn eviction_candidates<'s>(
    snapshot: &'s Snapshot,
    target: &Target,
    source: &UserBased,
    listed_before: &[String],
) -> Result<Vec<(Eviction, &'s Key)>, Error> {
    if snapshot.keys.len() < MAX_KEYS {
        return Ok(Vec::new());
    }
    // A revocation needs the slot at once, and ends the key anyway.
    let overlap = match Overlap::of(snapshot, source) {
        Overlap::Running { .. } if snapshot.versions.is_current_revoked() => Overlap::Over,
        overlap @ (Overlap::Running { .. } | Overlap::Over | Overlap::NothingCurrent) => overlap,
    };
    let current_is_dead = is_current_dead(snapshot, target);
    let mut candidates: Vec<_> = snapshot
        .keys
        .iter()
        .map(|key| (role(snapshot, key, listed_before), key))
        .filter_map(|(role, key)| Some((fate(role, key.active, overlap, current_is_dead).0?, role, key)))
        .collect();
    // Inactive keys go first, and then those whose role makes it least likely that they are in use.
    candidates.sort_by_key(|(_, role, key)| (key.active, *role));
    if candidates.is_empty() {
        return Err(no_room(snapshot, source, overlap, listed_before));
    }
    Ok(candidates.into_iter().map(|(eviction, _, key)| (eviction, key)).collect())
}

/// Says why no key may make room.
fn no_room(snapshot: &Snapshot, source: &UserBased, overlap: Overlap, listed_before: &[String]) -> Error {
    let roles = snapshot.keys.iter().map(|key| (role(snapshot, key, listed_before), key));
    let ours = roles.filter(|(role, _)| {
        matches!(role, KeyRole::Revoked | KeyRole::LostResponse | KeyRole::Orphaned | KeyRole::Previous)
    });
    let remedy = match (ours.min_by_key(|(role, _)| *role), overlap) {
        _ if let Some(until) = fresh_until(snapshot, listed_before) => {
            format!("Another run may be about to stage one of them. Rotate after {until:.0}")
        }
        (Some((_, key)), Overlap::Running { until }) => {
            format!("{} is in its overlap until {until:.0}: rotate after that", key.id)
        }
        (Some((_, key)), Overlap::Over | Overlap::NothingCurrent) => format!(
            "AWSCURRENT holds no credentials, so {} may be in use: delete it if nothing uses it, or restore the value \
             of AWSCURRENT",
            key.id
        ),
        (None, _) => {
            let foreign = snapshot.keys.iter().filter(|key| !snapshot.versions.references(&key.id));
            match &foreign.map(|key| key.id.as_str()).collect::<Vec<_>>()[..] {
                [] => "A rotation is under way: find out why it does not end".to_owned(),
                ids => format!("This function did not create {}: delete a key that nothing uses", ids.join(", ")),
            }
        }
    };
    let problem = format!("the IAM user {} has two keys, and neither may be deleted", source.user_name);
    Error::new(ErrorClass::Conflict, Service::Iam, "create", problem, remedy)
}

fn later(time: Timestamp, period: Duration) -> Timestamp {
    time.saturating_add(period).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Versions;
    use super::*;
    use crate::aws::secrets_manager::Stages;
    use crate::config::for_test;
    use crate::credentials::{Kind, Secret};

    const DAY: i64 = 24;
    const MONTH: i64 = 30 * DAY;

    /// Hours after a midnight.
    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + hours * 3_600).unwrap()
    }

    fn credentials(kind: Kind, id: &str, created: i64, expires: Option<i64>) -> Credentials {
        let secret = Secret::for_test(kind);
        Credentials { id: id.to_owned(), created_at: at(created), expires_at: expires.map(at), secret }
    }

    fn key(id: &str, active: bool, created: i64) -> Key {
        Key { id: id.to_owned(), active, created_at: Some(at(created)) }
    }

    /// A secret that is 100 hours old, in which nothing is current, at hour 0.
    fn empty() -> Snapshot {
        let mut stages = Stages::for_test(&[]);
        stages.created_at = Some(at(-100));
        let versions = Versions { stages, current: None, pending: None, previous: None, promoted_at: None };
        Snapshot { now: at(0), versions, keys: Vec::new() }
    }

    impl Snapshot {
        fn at(self, hours: i64) -> Self {
            Self { now: at(hours), ..self }
        }

        fn current(mut self, current: Credentials) -> Self {
            self.versions.promoted_at = Some(current.created_at);
            self.versions.current = Some(version("current", current));
            self
        }

        fn pending(mut self, pending: Credentials) -> Self {
            self.versions.pending = Some(version("pending", pending));
            self
        }

        fn previous(mut self, previous: Credentials) -> Self {
            self.versions.previous = Some(version("previous", previous));
            self
        }

        fn keys(self, keys: &[Key]) -> Self {
            Self { keys: keys.to_vec(), ..self }
        }
    }

    fn version(id: &str, credentials: Credentials) -> Version {
        Version { id: id.to_owned(), value: VersionValue::Credentials(credentials) }
    }

    #[test]
    fn a_scheduled_run_plans_by_what_the_secret_and_iam_hold() {
        use Kind::{AccessKey, Temporary};
        use Plan::{
            AbandonPending, GiveUpPending, LeaveToSecretsManager, NotDue, ReplacePending, Resume, Start,
            WaitForSecretsManager,
        };
        // An IAM user's access key: rotated after 30 days, with an overlap of one hour.
        let (role, user) = (for_test::role_based("role"), for_test::user_based("user"));
        let current =
            |kind, created| empty().current(credentials(kind, "KEY", created, None)).keys(&[key("KEY", true, 0)]);
        let expiring =
            |hours| empty().current(credentials(AccessKey, "KEY", 0, Some(hours))).keys(&[key("KEY", true, 0)]);
        let pending = |kind, created, expires| {
            empty().pending(credentials(kind, "KEY", created, expires)).keys(&[key("KEY", true, 0)])
        };
        let with_pending_value = |value| {
            let mut snapshot = empty();
            snapshot.versions.pending = Some(Version { id: "pending".to_owned(), value });
            snapshot
        };
        let rotated_by_secrets_manager = |mut snapshot: Snapshot| {
            snapshot.versions.stages.rotation_enabled = Some(true);
            snapshot
        };
        let in_overlap = |keys: &[Key]| {
            let mut snapshot = current(AccessKey, -MONTH).keys(keys);
            snapshot.versions.promoted_at = Some(at(0));
            snapshot
        };
        let (one, two) = ([key("KEY", true, 0)], [key("KEY", true, 0), key("OTHER", true, 0)]);
        for (case, target, force, snapshot, expected) in [
            (
                "Secrets Manager rotates it",
                &user,
                true,
                rotated_by_secrets_manager(current(AccessKey, 0)),
                LeaveToSecretsManager,
            ),
            (
                "Secrets Manager's rotation is under way",
                &user,
                true,
                rotated_by_secrets_manager(pending(AccessKey, 0, None)),
                WaitForSecretsManager,
            ),
            ("a new secret", &user, false, empty(), Start),
            ("role-based credentials are always due", &role, false, current(Temporary, 0), Start),
            ("an hour too early", &user, false, current(AccessKey, 1 - MONTH), NotDue),
            ("just due", &user, false, current(AccessKey, -MONTH), Start),
            ("forced", &user, true, current(AccessKey, 0), Start),
            ("gone from IAM", &user, false, current(AccessKey, 0).keys(&[]).at(1), Start),
            ("too young to be listed by IAM", &user, false, current(AccessKey, 0).keys(&[]), NotDue),
            ("deactivated", &user, false, current(AccessKey, 0).keys(&[key("KEY", false, 0)]), Start),
            ("expires before the overlap would end", &user, false, expiring(1), Start),
            ("expires later", &user, false, expiring(2), NotDue),
            ("due, but the previous key is in its overlap and holds the slot", &user, false, in_overlap(&two), NotDue),
            ("due in the overlap, with a free slot", &user, false, in_overlap(&one), Start),
            ("the kind was changed", &user, false, current(Temporary, 0), Start),
            ("a pending version without a value", &user, false, with_pending_value(VersionValue::Empty), Resume),
            (
                "a foreign pending value, which the step refuses",
                &user,
                false,
                with_pending_value(VersionValue::Foreign),
                Resume,
            ),
            ("a pending key", &user, false, pending(AccessKey, 0, None), Resume),
            (
                "a pending key that IAM no longer has",
                &user,
                false,
                pending(AccessKey, 0, None).keys(&[]).at(1),
                ReplacePending,
            ),
            ("a pending key too young to be listed", &user, false, pending(AccessKey, 0, None).keys(&[]), Resume),
            (
                "a dead pending key beside a current one that is not due",
                &user,
                false,
                current(AccessKey, 0).pending(credentials(AccessKey, "GONE", 0, None)).at(1),
                GiveUpPending,
            ),
            (
                "an inactive pending key",
                &user,
                false,
                pending(AccessKey, 0, None).keys(&[key("KEY", false, 0)]),
                ReplacePending,
            ),
            ("pending credentials of another kind", &user, false, pending(Temporary, 0, Some(1)), ReplacePending),
            ("fresh pending credentials", &role, false, pending(Temporary, 0, Some(1)), Resume),
            (
                "pending credentials that lost a quarter of their life",
                &role,
                false,
                pending(Temporary, -1, Some(3)),
                ReplacePending,
            ),
            ("expired pending credentials", &role, false, pending(Temporary, -1, Some(0)), ReplacePending),
        ] {
            assert_eq!(plan(&snapshot, target, "token", force), expected, "{case}");
        }
        for force in [false, true] {
            let repeated = plan(&current(Temporary, 0), &role, "current", force);
            assert_eq!(repeated, NotDue, "an event that was carried out comes again, force {force}");
        }
        let dead = pending(Temporary, -1, Some(0));
        assert_eq!(plan(&dead, &role, "pending", false), AbandonPending, "the event's own version is dead");
    }

    /// Every role, active or not, in every overlap, with living and with dead current credentials.
    #[test]
    fn the_table_of_key_roles_is_the_documented_one() {
        use Eviction::{AfterConfirmation, Immediate};
        use KeyRole::{Current, Foreign, Fresh, LostResponse, Orphaned, Pending, Previous};
        use Retirement::{Deactivate, Delete, ReplaceInBraintrust};
        let running = Overlap::Running { until: at(1) };
        // The columns: the overlap is running, it is over, and nothing is current. Dead current credentials change one
        // cell only.
        for (role, active, evictions, retirements) in [
            (Current, true, [None; 3], [None; 3]),
            (Current, false, [None; 3], [None; 3]),
            (Foreign, true, [None; 3], [None; 3]),
            (Foreign, false, [None; 3], [None; 3]),
            (Fresh, true, [None; 3], [None; 3]),
            (Fresh, false, [None; 3], [None; 3]),
            (Pending, true, [None; 3], [None; 3]),
            (Pending, false, [Some(Immediate); 3], [None; 3]),
            (LostResponse, true, [Some(Immediate); 3], [Some(ReplaceInBraintrust), Some(Deactivate), None]),
            (LostResponse, false, [Some(Immediate); 3], [None, Some(Delete), None]),
            (
                Orphaned,
                true,
                [None, Some(AfterConfirmation), Some(AfterConfirmation)],
                [Some(ReplaceInBraintrust), Some(Deactivate), None],
            ),
            (Orphaned, false, [Some(Immediate); 3], [None, Some(Delete), None]),
            (Previous, true, [None, Some(AfterConfirmation), None], [None, Some(Deactivate), None]),
            (Previous, false, [Some(Immediate); 3], [None, Some(Delete), None]),
        ] {
            for (column, overlap) in [running, Overlap::Over, Overlap::NothingCurrent].into_iter().enumerate() {
                for current_is_dead in [false, true] {
                    let eviction = match (role, active, overlap, current_is_dead) {
                        (Orphaned, true, Overlap::Running { .. }, true) => Some(AfterConfirmation),
                        _ => evictions[column],
                    };
                    let expected = (eviction, retirements[column]);
                    let case = format!("{role:?}, active {active}, {overlap:?}, current is dead {current_is_dead}");
                    assert_eq!(fate(role, active, overlap, current_is_dead), expected, "{case}");
                }
            }
        }
    }

    /// `CURRENT` since hour 0, `PENDING`, and `PREVIOUS`.
    fn in_use() -> Snapshot {
        let access_key = |id, created| credentials(Kind::AccessKey, id, created, None);
        let snapshot = empty().current(access_key("CURRENT", 0));
        snapshot.pending(access_key("PENDING", 0)).previous(access_key("PREVIOUS", -50))
    }

    #[test]
    fn only_keys_that_a_rotation_created_and_nothing_uses_are_retired() {
        use Retirement::{Deactivate, Delete, ReplaceInBraintrust};
        let source = for_test::user_based("user");
        let source = source.user_based().unwrap();
        for (case, found, hours, expected) in [
            ("the previous key", key("PREVIOUS", true, -50), 1, Some(Deactivate)),
            ("the previous key, older than the secret", key("PREVIOUS", true, -200), 1, Some(Deactivate)),
            ("the previous key, one run later", key("PREVIOUS", false, -50), 2, Some(Delete)),
            ("the previous key in its overlap", key("PREVIOUS", true, -50), 0, None),
            ("an orphaned key", key("ORPHANED", true, -1), 1, Some(Deactivate)),
            ("a key that another run may be about to stage", key("FRESH", true, 1), 1, None),
            ("an orphaned key, as old as the secret", key("ORPHANED", true, -100), 1, Some(Deactivate)),
            ("an orphaned key in the overlap", key("ORPHANED", true, -1), 0, Some(ReplaceInBraintrust)),
            ("an inactive orphaned key in the overlap", key("ORPHANED", false, -1), 0, None),
            ("somebody else's key", key("FOREIGN", true, -101), 1, None),
            ("somebody else's inactive key", key("FOREIGN", false, -101), 1, None),
            ("a key of unknown age", Key { created_at: None, ..key("UNKNOWN", true, 0) }, 1, None),
            ("the current key", key("CURRENT", true, 0), 9, None),
            ("the pending key", key("PENDING", true, 0), 9, None),
        ] {
            let snapshot = in_use().keys(std::slice::from_ref(&found)).at(hours);
            let expected: Vec<_> = expected.map(|retirement| (retirement, &found)).into_iter().collect();
            assert_eq!(retirements(&snapshot, source), expected, "{case}");
        }
        let mut promoted_late = in_use().keys(&[key("PREVIOUS", true, -50)]).at(8);
        promoted_late.versions.promoted_at = Some(at(8));
        assert_eq!(retirements(&promoted_late, source), [], "the overlap begins when the key becomes current");
        let mut nothing_current = in_use().keys(&[key("ORPHANED", true, 0)]).at(9);
        nothing_current.versions.current = None;
        assert_eq!(retirements(&nothing_current, source), [], "nothing is current");
    }

    #[test]
    fn a_key_makes_room_only_if_nothing_uses_it() {
        use Eviction::{AfterConfirmation, Immediate};
        let target = for_test::user_based("user");
        let evict = |snapshot: &Snapshot| {
            let listed_before: Vec<_> =
                snapshot.keys.iter().map(|key| key.id.clone()).filter(|id| id != "NEW").collect();
            let found = eviction_candidates(snapshot, &target, target.user_based().unwrap(), &listed_before)?;
            Ok::<_, Error>(found.into_iter().map(|(eviction, key)| (eviction, key.id.clone())).collect::<Vec<_>>())
        };
        let (current, foreign) = (|active| key("CURRENT", active, 0), || key("FOREIGN", true, -101));
        let (orphaned, previous) = (|active| key("ORPHANED", active, -9), |active| key("PREVIOUS", active, -9));
        let (new, pending) = (|created| key("NEW", true, created), |active| key("PENDING", active, 0));
        for (case, hours, keys, expected) in [
            ("an orphaned key goes", 1, [current(true), orphaned(true)], vec![(AfterConfirmation, "ORPHANED")]),
            ("the previous key goes", 1, [current(true), previous(true)], vec![(AfterConfirmation, "PREVIOUS")]),
            (
                "the previous key goes last",
                1,
                [previous(true), orphaned(true)],
                vec![(AfterConfirmation, "ORPHANED"), (AfterConfirmation, "PREVIOUS")],
            ),
            ("an inactive key goes", 0, [current(true), previous(false)], vec![(Immediate, "PREVIOUS")]),
            (
                "an inactive key goes first",
                1,
                [orphaned(true), previous(false)],
                vec![(Immediate, "PREVIOUS"), (AfterConfirmation, "ORPHANED")],
            ),
            ("never the current key", 1, [current(false), previous(true)], vec![(AfterConfirmation, "PREVIOUS")]),
            ("an inactive pending key goes", 0, [current(true), pending(false)], vec![(Immediate, "PENDING")]),
            ("the key of a lost response goes", 0, [current(true), new(-1)], vec![(Immediate, "NEW")]),
            (
                "it goes before an orphaned key",
                1,
                [orphaned(true), new(-1)],
                vec![(Immediate, "NEW"), (AfterConfirmation, "ORPHANED")],
            ),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(eviction, id)| (eviction, id.to_owned())).collect();
            assert_eq!(evict(&in_use().keys(&keys).at(hours)).unwrap(), expected, "{case}");
        }
        // IAM no longer lists the current key, which was promoted an hour after it was created.
        let mut current_is_dead = in_use().keys(&[orphaned(true), previous(true)]).at(1);
        current_is_dead.versions.promoted_at = Some(at(1));
        assert_eq!(evict(&current_is_dead).unwrap(), [(AfterConfirmation, "ORPHANED".to_owned())]);
        let without_current = |keys: &[Key]| {
            let mut snapshot = in_use().keys(keys).at(9);
            snapshot.versions.current = None;
            snapshot
        };
        let in_use_at = |hours, keys: &[Key]| in_use().keys(keys).at(hours);
        for (case, snapshot, names) in [
            ("not in the overlap", in_use_at(0, &[current(true), previous(true)]), "PREVIOUS is in its overlap until"),
            ("nor an orphaned key", in_use_at(0, &[current(true), orphaned(true)]), "ORPHANED is in its overlap until"),
            ("somebody else's key stays", in_use_at(1, &[current(true), foreign()]), "did not create FOREIGN"),
            (
                "even if it is inactive",
                in_use_at(1, &[current(true), key("FOREIGN", false, -101)]),
                "did not create FOREIGN",
            ),
            (
                "a key that another run may be about to stage",
                in_use_at(0, &[current(true), new(0)]),
                "after 2026-01-01T00:02:00Z",
            ),
            ("keys in use stay", in_use_at(1, &[current(true), pending(true)]), "A rotation is under way"),
            ("a dead current key stays", in_use_at(0, &[current(false), previous(true)]), "PREVIOUS is in its overlap"),
            ("nothing is current", without_current(&[foreign(), previous(true)]), "PREVIOUS may be in use"),
        ] {
            let error = evict(&snapshot).unwrap_err();
            assert!(error.class == ErrorClass::Conflict && error.remedy.contains(names), "{case}: {error}");
        }
        for found in [orphaned(true), orphaned(false), previous(false), new(-1)] {
            let candidates = evict(&without_current(&[foreign(), found.clone()])).unwrap();
            assert_eq!(candidates.len(), 1, "{found:?} makes room while nothing is current");
            assert_eq!(candidates[0].1, found.id);
        }
        assert!(evict(&in_use_at(9, &[current(true)])).unwrap().is_empty(), "a slot is free");
    }

    #[test]
    fn credentials_that_expire_within_five_minutes_are_not_written() {
        let end = at(0) + SignedDuration::from_mins(5);
        let expires_at = |time| Credentials { expires_at: time, ..credentials(Kind::Temporary, "KEY", -1, None) };
        assert!(!is_worth_writing(at(0), &expires_at(Some(end))));
        assert!(is_worth_writing(at(0) - SignedDuration::from_nanos(1), &expires_at(Some(end))));
        assert!(is_worth_writing(at(0), &expires_at(None)));
    }
}
