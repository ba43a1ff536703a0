//! What `status` answers: a target's credentials as they are now, and what that means; pure, and it must never hold a secret.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use crate::braintrust::layout::Layout;
use crate::config::Target;
use crate::credentials::KindName;
use crate::error::Error;
use crate::report::iso8601;

/// The answer to the action `status`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// `status`.
    pub action: &'static str,
    /// Whether nothing is to be done.
    pub ok: bool,
    /// When it was asked, ISO 8601 in UTC.
    pub started_at: String,
    /// One a target, in the configured order.
    pub targets: Vec<TargetStatus>,
}

/// One target.
#[derive(Debug, Serialize)]
pub struct TargetStatus {
    /// The target.
    pub name: String,
    /// In one word.
    pub state: State,
    /// How its credentials are made.
    pub kind: KindName,
    /// The Bedrock region.
    pub region: String,
    /// The id of the current credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_id: Option<String>,
    /// Since they were made. Without a staged secret: since the `ai_secret` was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<i64>,
    /// When they end by themselves. Without a staged secret: at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Who rotates them.
    pub rotated_by: RotatedBy,
    /// A time, or `next_tick`; none if Secrets Manager rotates them and does not tell when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_rotation: Option<String>,
    /// Whether a rotation was begun and has not ended.
    pub rotation_under_way: bool,
    /// Where they should be.
    pub ai_secrets: Vec<AiSecretStatus>,
    /// What the operator should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why something could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// One `ai_secret`.
#[derive(Debug, Serialize)]
pub struct AiSecretStatus {
    /// As configured: its id, or its name.
    pub ai_secret: String,
    /// The id that was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Where the credentials are inside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// The access key id that it shows; API keys have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// When its secret last changed, where the data plane tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// Whether it holds what the staged secret holds; not known without one, nor of an API key that may be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds_current: Option<bool>,
    /// Why it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// A target's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The credentials are current, and where they should be.
    Ok,
    /// No rotation has come to its end yet.
    NeverRotated,
    /// Their rotation was due more than a day ago.
    Overdue,
    /// They have ended.
    Expired,
    /// Braintrust holds something else than the staged secret.
    OutOfStep,
    /// Something could not be read (see `error`), or the data plane tells too little.
    Unknown,
}

/// Who rotates a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RotatedBy {
    /// The function's schedule.
    Schedule,
    /// The staged secret's rotation.
    SecretsManager,
}

/// What was read of a target.
#[derive(Debug)]
pub struct Read {
    /// The current credentials' id.
    pub credential_id: Option<String>,
    /// When they were made.
    pub minted_at: Option<Timestamp>,
    /// When they end.
    pub expires_at: Option<Timestamp>,
    /// Who rotates them.
    pub rotated_by: RotatedBy,
    /// When Secrets Manager does, if it does.
    pub next_by_secrets_manager: Option<Timestamp>,
    /// Whether a rotation has not ended.
    pub rotation_under_way: bool,
}

/// Late by more than this is overdue: a tick or a day's window of Secrets Manager may be missed.
const LATE: SignedDuration = SignedDuration::from_hours(24);

impl TargetStatus {
    /// Judges what was read.
    pub fn new(
        now: Timestamp,
        target: &Target,
        read: Result<Read, Error>,
        ai_secrets: Vec<AiSecretStatus>,
        warnings: Vec<String>,
    ) -> Self {
        let (read, error) = match read {
            Ok(read) => (Some(read), None),
            Err(error) => (None, Some(error)),
        };
        let error = error.or_else(|| ai_secrets.iter().find_map(|entry| entry.error.clone()));
        let next = read.as_ref().and_then(|read| next_rotation(target, read));
        let state = match &read {
            // A data plane that does not tell when the ai_secret changed leaves nothing to judge by.
            Some(read) if target.secret_id.is_none() && read.minted_at.is_none() => State::Unknown,
            Some(read) if error.is_none() => judge(now, read, next, &ai_secrets),
            _ => State::Unknown,
        };
        let minted_at = read.as_ref().and_then(|read| read.minted_at);
        Self {
            name: target.name.clone(),
            state,
            kind: target.kind.name(),
            region: target.region.clone(),
            age_seconds: minted_at.map(|minted| now.duration_since(minted).as_secs()),
            expires_at: read.as_ref().and_then(|read| read.expires_at).map(iso8601),
            rotated_by: read.as_ref().map_or(RotatedBy::Schedule, |read| read.rotated_by),
            next_rotation: read.as_ref().and_then(|read| match (next, read.rotated_by) {
                (Some(time), _) if time > now => Some(iso8601(time)),
                (_, RotatedBy::Schedule) => Some("next_tick".to_owned()),
                (_, RotatedBy::SecretsManager) => None,
            }),
            rotation_under_way: read.as_ref().is_some_and(|read| read.rotation_under_way),
            credential_id: read.and_then(|read| read.credential_id),
            ai_secrets,
            warnings,
            error,
        }
    }
}

/// When the next rotation is due; none, if at the next tick.
fn next_rotation(target: &Target, read: &Read) -> Option<Timestamp> {
    match (read.rotated_by, target.kind.standing(), read.minted_at) {
        (RotatedBy::SecretsManager, ..) => read.next_by_secrets_manager,
        (RotatedBy::Schedule, Some(standing), Some(minted)) => minted.checked_add(standing.rotate_after).ok(),
        (RotatedBy::Schedule, ..) => None,
    }
}

fn judge(now: Timestamp, read: &Read, next: Option<Timestamp>, ai_secrets: &[AiSecretStatus]) -> State {
    if read.minted_at.is_none() {
        State::NeverRotated
    } else if ai_secrets.iter().any(|entry| entry.holds_current == Some(false)) {
        State::OutOfStep
    } else if read.expires_at.is_some_and(|end| end <= now) {
        State::Expired
    } else if next.is_some_and(|due| now.duration_since(due) > LATE) {
        State::Overdue
    } else {
        State::Ok
    }
}
