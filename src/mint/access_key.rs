//! Mints and retires an IAM user's access keys; it must never choose which one to retire.
//!
//! <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateAccessKey.html>

use aws_sdk_iam::Client;
use aws_sdk_iam::types::StatusType;
use jiff::Timestamp;
use secrecy::SecretString;

use super::{Standing, said};
use crate::credentials::{Credentials, KindName, Secret};
use crate::error::{Cause, Error, Service};
use crate::iam;

/// Makes an access key of `user`. Not repeated: a lost answer is a key that nobody knows.
///
/// # Errors
/// `conflict` at the limit of two keys, inactive ones included, and those of an AWS call.
pub async fn mint(iam: &Client, user: &str, now: Timestamp) -> Result<Credentials, Error> {
    const CALL: &str = "CreateAccessKey";
    let request = iam.create_access_key().user_name(user).customize().config_override(iam::once());
    let answer = request.send().await.map_err(|error| iam::explain(CALL, user, &error))?;
    let key = answer.access_key.ok_or_else(|| {
        Error::new(Cause::Unavailable, Service::Iam, CALL, "answered without a key", "The next tick tries again")
    })?;
    Ok(Credentials {
        kind: KindName::AccessKey,
        minted_at: said(key.create_date.as_ref()).unwrap_or(now),
        id: key.access_key_id,
        secret: Secret::AccessKey { secret_access_key: SecretString::from(key.secret_access_key), session_token: None },
        expires_at: None,
    })
}

/// Lists all access keys of `user`.
///
/// # Errors
/// Those of an AWS call.
pub async fn list(iam: &Client, user: &str) -> Result<Vec<Standing>, Error> {
    const CALL: &str = "ListAccessKeys";
    let mut found = Vec::new();
    let mut marker = None;
    loop {
        let request = iam.list_access_keys().user_name(user).set_marker(marker);
        let page = request.send().await.map_err(|error| iam::explain(CALL, user, &error))?;
        found.extend(page.access_key_metadata.into_iter().filter_map(|key| {
            Some(Standing {
                active: key.status != Some(StatusType::Inactive),
                created_at: said(key.create_date.as_ref()),
                id: key.access_key_id?,
            })
        }));
        marker = page.marker.filter(|_| page.is_truncated);
        if marker.is_none() {
            return Ok(found);
        }
    }
}

/// Deactivates one. It can be activated again.
///
/// # Errors
/// Those of an AWS call; one that is gone already is none.
pub async fn deactivate(iam: &Client, user: &str, id: &str) -> Result<(), Error> {
    iam::gone_is_done(update(iam, user, id, StatusType::Inactive).await)
}

/// Activates one again.
///
/// # Errors
/// Those of an AWS call.
pub async fn activate(iam: &Client, user: &str, id: &str) -> Result<(), Error> {
    update(iam, user, id, StatusType::Active).await
}

async fn update(iam: &Client, user: &str, id: &str, status: StatusType) -> Result<(), Error> {
    let request = iam.update_access_key().user_name(user).access_key_id(id).status(status);
    request.send().await.map(drop).map_err(|error| iam::explain("UpdateAccessKey", user, &error))
}

/// Deletes one, for good.
///
/// # Errors
/// Those of an AWS call; one that is gone already is none.
pub async fn delete(iam: &Client, user: &str, id: &str) -> Result<(), Error> {
    const CALL: &str = "DeleteAccessKey";
    let request = iam.delete_access_key().user_name(user).access_key_id(id);
    iam::gone_is_done(request.send().await.map(drop).map_err(|error| iam::explain(CALL, user, &error)))
}
