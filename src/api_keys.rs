//! Reads Braintrust API keys from Secrets Manager and keeps them while the function is warm; it must never write one anywhere.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_secretsmanager::Client;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::deadline::Deadline;
use crate::error::{Cause, Error, Service};

const CALL: &str = "GetSecretValue";

/// A key as it was read at one time: a later reading is another one, even with the same value.
pub type ApiKey = Arc<SecretString>;

/// The keys that were read since the cold start, by the id of their secret.
pub struct ApiKeys {
    secrets_manager: Client,
    /// One lock a secret, held while it is read, so that many targets cost one call.
    kept: Mutex<HashMap<String, Arc<Mutex<Option<ApiKey>>>>>,
}

impl ApiKeys {
    /// No key is read before it is needed.
    pub fn new(secrets_manager: Client) -> Self {
        Self { secrets_manager, kept: Mutex::default() }
    }

    /// The key in the secret `id`, read if it was not yet.
    ///
    /// # Errors
    /// Those of [`read`], and `configuration` if there is no key in the secret.
    pub async fn get(&self, id: &str, deadline: Deadline) -> Result<ApiKey, Error> {
        let slot = self.slot(id).await;
        let mut kept = slot.lock().await;
        match &*kept {
            Some(key) => Ok(key.clone()),
            None => Ok(kept.insert(self.read_key(id, deadline).await?).clone()),
        }
    }

    /// The key after Braintrust refused `refused`: read again, unless somebody else has just done so. `None` if the
    /// secret still holds what was refused.
    ///
    /// # Errors
    /// Those of [`ApiKeys::get`].
    pub async fn after_refusal(&self, id: &str, refused: &ApiKey, deadline: Deadline) -> Result<Option<ApiKey>, Error> {
        let slot = self.slot(id).await;
        let mut kept = slot.lock().await;
        let current = match &*kept {
            Some(key) if !Arc::ptr_eq(key, refused) => key.clone(),
            _ => kept.insert(self.read_key(id, deadline).await?).clone(),
        };
        // Security: compared in memory, never shown.
        Ok((current.expose_secret() != refused.expose_secret()).then_some(current))
    }

    async fn slot(&self, id: &str) -> Arc<Mutex<Option<ApiKey>>> {
        self.kept.lock().await.entry(id.to_owned()).or_default().clone()
    }

    async fn read_key(&self, id: &str, deadline: Deadline) -> Result<ApiKey, Error> {
        parse(read(&self.secrets_manager, id, deadline).await?, id).map(Arc::new)
    }
}

/// Reads the current text of the secret `id`. The SDK repeats throttled and failed calls itself.
///
/// # Errors
/// `permission`, `not_found` and the others of an AWS call; `configuration` for a binary secret.
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>
pub async fn read(secrets_manager: &Client, id: &str, deadline: Deadline) -> Result<SecretString, Error> {
    let request = secrets_manager.get_secret_value().secret_id(id);
    let answer = deadline
        .bound(Service::SecretsManager, CALL, async {
            request.send().await.map_err(|error| {
                let error = Error::aws(Service::SecretsManager, CALL, &error);
                let error = match error.cause {
                    Cause::Permission => error.with_remedy(
                        "Allow secretsmanager:GetSecretValue on it in the policy of the function's role, and kms:Decrypt if \
                         it has a KMS key of its own",
                    ),
                    _ => error,
                };
                Error { problem: format!("{} for the secret {id:?}", error.problem), ..error }
            })
        })
        .await?;
    answer.secret_string.map(SecretString::from).ok_or_else(|| {
        let problem = format!("the secret {id:?} holds bytes");
        Error::new(Cause::Configuration, Service::SecretsManager, CALL, problem, "Store it as text (SecretString)")
    })
}

/// The secret holds the bare key, or JSON with `api_key`.
fn parse(secret: SecretString, id: &str) -> Result<SecretString, Error> {
    #[derive(Deserialize)]
    struct Wrapped {
        api_key: SecretString,
    }
    // Security: looked at in memory; an error says where the key should be, never what was there.
    let text = secret.expose_secret().trim();
    let key = if text.starts_with('{') {
        serde_json::from_str::<Wrapped>(text).ok().map(|wrapped| wrapped.api_key)
    } else {
        Some(SecretString::from(text.to_owned()))
    };
    key.filter(|key| {
        let key = key.expose_secret();
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic())
    })
    .ok_or_else(|| {
        let problem = format!("the secret {id:?} holds no Braintrust API key");
        let remedy = "Store the bare key, or JSON such as {\"api_key\":\"sk-…\"}";
        Error::new(Cause::Configuration, Service::SecretsManager, CALL, problem, remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_bare_or_in_json() {
        for text in ["sk-1", " sk-1\n", r#"{"api_key":"sk-1"}"#, r#"{"api_key":"sk-1","service_token_id":"x"}"#] {
            assert_eq!(parse(SecretString::from(text), "id").unwrap().expose_secret(), "sk-1", "{text}");
        }
    }

    #[test]
    fn what_holds_no_key_is_refused_without_showing_it() {
        for text in ["", "  ", "sk 1", r#"{"key":"sk-1"}"#, r#"{"api_key":"#, r#"{"api_key":5}"#, r#"{"api_key":""}"#] {
            let error = parse(SecretString::from(text), "id").unwrap_err();
            assert!(error.to_string().contains("holds no Braintrust API key"), "{text}");
            assert!(!format!("{error:?}").contains("sk-1"));
        }
    }
}
