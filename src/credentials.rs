//! The minted credentials as plain data; the secret parts must never be printed, nor live longer than a rotation.

use jiff::Timestamp;
use secrecy::SecretString;

/// STS temporary credentials, as `AssumeRole` answers them.
pub struct Credentials {
    /// The access key id: an identifier that may be shown.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: SecretString,
    /// The session token, without which the pair is not valid.
    pub session_token: SecretString,
    /// When they stop working.
    pub expires_at: Timestamp,
}
