//! Makes new Bedrock credentials, a file for each kind, and retires standing ones; it must never keep or write them.

pub mod access_key;
pub mod long_term_api_key;
pub mod short_term_api_key;
pub mod temporary;

use aws_smithy_types::DateTime;
use jiff::Timestamp;

/// A standing credential of an IAM user, as IAM lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub id: String,
    /// Whether IAM says that it is active; one of unknown status counts as active, so that it is not deleted at once.
    pub active: bool,
    /// When it was made; unknown if IAM does not say.
    pub created_at: Option<Timestamp>,
}

/// IAM's time, where it says one: the SDK reads a missing time as 1970.
fn said(time: Option<&DateTime>) -> Option<Timestamp> {
    time.and_then(|time| Timestamp::from_second(time.secs()).ok()).filter(|time| *time > Timestamp::UNIX_EPOCH)
}
