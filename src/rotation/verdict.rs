//! The verdict on a target: whether Braintrust holds credentials that are current and will be replaced in time. The
//! answers to `status` and `check` both contain it.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::destinations::{self, Reading, Writable};
use super::snapshot::Versions;
use crate::aws::secrets_manager::TimedLabel;
use crate::braintrust::arrival;
use crate::config::{Source, Target};
use crate::credentials::{Credentials, Kind, Lifetime};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The credentials are current, and Braintrust holds them.
    Ok,
    NeverRotated,
    /// The rotation was due more than a day ago, role-based credentials have used most of their lifetime, or revoked
    /// credentials have no successor yet.
    Overdue,
    Expired,
    /// Braintrust holds something other than the staged secret.
    OutOfStep,
    /// Braintrust assumes a role itself for every destination, so there is nothing to rotate.
    UsesAssumeRole,
    /// Something could not be read, or the data plane says too little.
    Unknown,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RotatedBy {
    #[default]
    Schedule,
    SecretsManager,
}

impl State {
    /// Whether nobody has to do anything.
    pub fn is_ok(self) -> bool {
        match self {
            Self::Ok | Self::UsesAssumeRole => true,
            Self::NeverRotated | Self::Overdue | Self::Expired | Self::OutOfStep | Self::Unknown => false,
        }
    }
}

/// What is known about the current credentials.
#[derive(Default)]
pub struct Current {
    pub credential_id: Option<String>,
    pub lifetime: Option<Lifetime>,
    /// When this function made them current, according to the staged secret's labels.
    pub since: Option<Timestamp>,
    pub rotated_by: RotatedBy,
    /// When the next rotation is due. `None` if that is at the next scheduled run, or if Secrets Manager doesn't say.
    pub due: Option<Timestamp>,
    pub rotation_under_way: bool,
    /// Whether a revocation is to replace and end them, or has ended them.
    pub is_revoked: bool,
}

/// A rotation that is later than this is overdue. Less than that may be a single scheduled run that failed, or Secrets
/// Manager's rotation window, which lasts up to a day.
const OVERDUE_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// Role-based credentials older than this share of their lifetime are overdue: at least one scheduled run has failed.
const OVERDUE_SHARE: f64 = 0.75;
/// The access key IDs of temporary credentials begin with this.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids>
const TEMPORARY_KEY_PREFIX: &str = "ASIA";

impl Current {
    pub fn of(target: &Target, versions: Option<&Versions>, readings: &[Reading<'_>]) -> Self {
        match versions {
            Some(versions) => Self::from_secret(target, versions),
            None => Self::from_braintrust(target, readings),
        }
    }

    fn from_secret(target: &Target, versions: &Versions) -> Self {
        let (current, stages) = (versions.current(), &versions.stages);
        let age_is_due = || current?.created_at.checked_add(target.user_based()?.rotate_after).ok();
        let (rotated_by, due) = match stages.rotation_enabled {
            Some(true) => (RotatedBy::SecretsManager, stages.next_rotation),
            Some(false) | None => (RotatedBy::Schedule, age_is_due()),
        };
        let credential_id = current.map(|current| current.id.clone());
        let (lifetime, rotation_under_way) = (current.map(Credentials::lifetime), versions.pending.is_some());
        let since = versions.current_version().and_then(|version| stages.time_of(TimedLabel::Promoted, version));
        let is_revoked = versions.is_current_revoked();
        let due = due.filter(|_| !is_revoked);
        Self { credential_id, lifetime, since, rotated_by, due, rotation_under_way, is_revoked }
    }

    /// Without a staged secret, only what Braintrust shows is known. Of several destinations, the one that changed
    /// longest ago counts.
    fn from_braintrust(target: &Target, readings: &[Reading<'_>]) -> Self {
        let shown =
            |found: &Writable| arrival::access_key_id(found.layout, &found.provider.metadata).map(str::to_owned);
        let lifetime = match &target.source {
            Source::RoleBased(source) => destinations::held_lifetime(source, readings),
            Source::UserBased(_) => None,
        };
        Self { credential_id: destinations::oldest(readings).and_then(shown), lifetime, ..Self::default() }
    }
}

/// Whether a destination holds the current credentials. `None` if that can't be known, as it is without a staged
/// secret, and if the destination may hold the current API key, which doesn't read back.
pub fn holds_current(target: &Target, versions: Option<&Versions>, found: &Writable) -> Option<bool> {
    let Some(versions) = versions else {
        let access_key_id = arrival::access_key_id(found.layout, &found.provider.metadata);
        let is_permanent_key = access_key_id.is_some_and(|id| !id.starts_with(TEMPORARY_KEY_PREFIX));
        // It isn't known whose key this is, but this function didn't write it.
        return (target.kind() == Kind::Temporary && is_permanent_key).then_some(false);
    };
    let current = versions.current()?;
    let holds = destinations::difference(found, current, &target.region, versions.stages.changed_at).is_none();
    (!holds || !current.kind().is_api_key()).then_some(holds)
}

/// The verdict, from what can be read.
pub fn state(now: Timestamp, target: &Target, versions: Option<&Versions>, readings: &[Reading<'_>]) -> State {
    if destinations::all_use_assume_role(readings) {
        return State::UsesAssumeRole;
    }
    let held = readings.iter().filter_map(Reading::writable).map(|found| holds_current(target, versions, found));
    judge(now, target, &Current::of(target, versions, readings), held)
}

/// `held` says for each destination whether it holds the current credentials.
pub fn judge(
    now: Timestamp,
    target: &Target,
    current: &Current,
    mut held: impl Iterator<Item = Option<bool>>,
) -> State {
    let Some(lifetime) = current.lifetime else {
        // Without a staged secret, there is nothing to judge by if it isn't known when the ai_secret last changed.
        return if target.secret_id().is_some() { State::NeverRotated } else { State::Unknown };
    };
    if current.is_revoked {
        return State::Overdue;
    }
    if held.any(|holds_current| holds_current == Some(false)) {
        State::OutOfStep
    } else if lifetime.expires_at.is_some_and(|end| end <= now) {
        State::Expired
    } else if is_overdue(now, target, current, lifetime) {
        State::Overdue
    } else {
        State::Ok
    }
}

fn is_overdue(now: Timestamp, target: &Target, current: &Current, lifetime: Lifetime) -> bool {
    let age = now.duration_since(lifetime.created_at).as_secs_f64();
    let is_old = |end: Timestamp| age > OVERDUE_SHARE * end.duration_since(lifetime.created_at).as_secs_f64();
    match target.source {
        Source::RoleBased(_) => lifetime.expires_at.is_some_and(is_old),
        Source::UserBased(_) => current.due.is_some_and(|due| now.duration_since(due) > OVERDUE_AFTER),
    }
}
