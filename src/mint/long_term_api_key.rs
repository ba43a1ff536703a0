//! Mints and retires an IAM user's long-term Bedrock API keys; it must never make one that does not expire.
//!
//! <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateServiceSpecificCredential.html>

use aws_sdk_iam::Client;
use aws_sdk_iam::types::StatusType;
use jiff::Timestamp;
use secrecy::SecretString;

use super::{Standing, said};
use crate::credentials::{Credentials, KindName, Secret};
use crate::error::{Cause, Error, Service};
use crate::iam;

const BEDROCK: &str = "bedrock.amazonaws.com";

/// Makes an API key of `user`. Not repeated: a lost answer is a key that nobody knows.
///
/// # Errors
/// `conflict` at the limit of two keys, and those of an AWS call.
pub async fn mint(iam: &Client, user: &str, age_days: u16, now: Timestamp) -> Result<Credentials, Error> {
    const CALL: &str = "CreateServiceSpecificCredential";
    let request = iam
        .create_service_specific_credential()
        .user_name(user)
        .service_name(BEDROCK)
        .credential_age_days(age_days.into())
        .customize()
        .config_override(iam::once());
    let answer = request.send().await.map_err(|error| iam::explain(CALL, user, &error))?;
    let (key, secret) = answer
        .service_specific_credential
        .and_then(|mut key| key.service_credential_secret.take().map(|secret| (key, SecretString::from(secret))))
        .ok_or_else(|| {
            Error::new(Cause::Unavailable, Service::Iam, CALL, "answered without a key", "The next tick tries again")
        })?;
    Ok(Credentials {
        kind: KindName::LongTermApiKey,
        minted_at: said(Some(&key.create_date)).unwrap_or(now),
        expires_at: said(key.expiration_date.as_ref()),
        id: key.service_specific_credential_id,
        secret: Secret::ApiKey(secret),
    })
}

/// Lists all of `user`'s API keys. There is no generated paginator.
///
/// # Errors
/// Those of an AWS call.
pub async fn list(iam: &Client, user: &str) -> Result<Vec<Standing>, Error> {
    const CALL: &str = "ListServiceSpecificCredentials";
    let mut found = Vec::new();
    let mut marker = None;
    loop {
        let request = iam.list_service_specific_credentials().user_name(user).service_name(BEDROCK).set_marker(marker);
        let page = request.send().await.map_err(|error| iam::explain(CALL, user, &error))?;
        found.extend(page.service_specific_credentials.unwrap_or_default().into_iter().map(|key| Standing {
            active: !matches!(key.status, StatusType::Inactive | StatusType::Expired),
            created_at: said(Some(&key.create_date)),
            id: key.service_specific_credential_id,
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
    const CALL: &str = "UpdateServiceSpecificCredential";
    let request =
        iam.update_service_specific_credential().user_name(user).service_specific_credential_id(id).status(status);
    request.send().await.map(drop).map_err(|error| iam::explain(CALL, user, &error))
}

/// Deletes one, for good.
///
/// # Errors
/// Those of an AWS call; one that is gone already is none.
pub async fn delete(iam: &Client, user: &str, id: &str) -> Result<(), Error> {
    const CALL: &str = "DeleteServiceSpecificCredential";
    let request = iam.delete_service_specific_credential().user_name(user).service_specific_credential_id(id);
    iam::gone_is_done(request.send().await.map(drop).map_err(|error| iam::explain(CALL, user, &error)))
}
