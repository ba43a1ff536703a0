//! The calls on service tokens, by which a Braintrust API key is rotated; it must never show a key.
//!
//! <https://www.braintrust.dev/docs/reference/api/ServiceTokens>

use bytes::Bytes;
use reqwest::Method;
use secrecy::SecretString;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::client::Braintrust;
use crate::error::{Cause, Error};

/// A service token as it is listed.
#[derive(Deserialize)]
pub struct ServiceToken {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// A service token as it is made: the only time that its key is shown.
#[derive(Deserialize)]
pub struct NewServiceToken {
    /// Its id.
    pub id: Uuid,
    /// The key.
    pub key: SecretString,
}

impl Braintrust<'_> {
    /// Makes a service token. Not repeated: a lost answer is a token whose key nobody knows.
    ///
    /// # Errors
    /// Those of a call; `permission`, if the key has no owner permission.
    pub async fn create_service_token(
        &self,
        name: &str,
        service_account_id: &str,
        org_name: Option<&str>,
    ) -> Result<NewServiceToken, Error> {
        const CALL: &str = "POST /v1/service_token";
        #[derive(Serialize)]
        struct Body<'a> {
            name: &'a str,
            service_account_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            org_name: Option<&'a str>,
        }
        let body = serde_json::to_vec(&Body { name, service_account_id, org_name }).unwrap_or_default();
        self.send_once(CALL, Method::POST, self.at(&["v1", "service_token"]), Some(Bytes::from(body))).await
    }

    /// Lists the service tokens that the key sees.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn list_service_tokens(&self) -> Result<Vec<ServiceToken>, Error> {
        const CALL: &str = "GET /v1/service_token";
        let url = self.at(&["v1", "service_token"]);
        self.pages(CALL, &url, |token: &ServiceToken| token.id, |_| true, usize::MAX).await
    }

    /// Deletes a service token; its key is refused from then on.
    ///
    /// # Errors
    /// Those of a call. A lost answer is repeated, and then one that is gone is none.
    pub async fn delete_service_token(&self, id: Uuid) -> Result<(), Error> {
        const CALL: &str = "DELETE /v1/service_token/{id}";
        let url = self.at(&["v1", "service_token", &id.to_string()]);
        match self.send::<IgnoredAny>(CALL, Method::DELETE, url, None).await {
            Err(error) if error.cause != Cause::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
