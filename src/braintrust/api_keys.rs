//! Caches Braintrust API keys while the function is warm, and reads one again after Braintrust has refused it.

use std::collections::HashMap;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use tokio::sync::Mutex;

use crate::config::SecretId;
use crate::error::{Error, ErrorClass, Service};

/// A key as it was read at one time. A later reading is another `Arc`, even with the same value.
type ApiKey = Arc<SecretString>;

/// The API keys that have been read since the cold start, by the secret that holds each. Each secret has a lock, held
/// while the secret is read, so that many targets cost one call.
#[derive(Default)]
pub struct ApiKeys(Mutex<HashMap<SecretId, Arc<Mutex<Option<ApiKey>>>>>);

impl ApiKeys {
    /// Calls Braintrust with the key in the secret `id`, whose text `read` gets. If Braintrust refuses the key, it is
    /// read again once, because it may have been changed since it was cached.
    pub async fn call<T>(
        &self,
        id: &SecretId,
        read: impl AsyncFn() -> Result<SecretString, Error>,
        call: impl AsyncFn(&SecretString) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let key = self.get(id, None, &read).await?;
        let refusal = match call(&key).await {
            Err(error) if error.class == ErrorClass::InvalidCredentials => error,
            answer => return answer,
        };
        let changed = self.get(id, Some(&key), &read).await?;
        // Security: the keys are compared in memory.
        let refusal = if changed.expose_secret() == key.expose_secret() {
            refusal
        } else {
            match call(&changed).await {
                Err(error) => error,
                answer => return answer,
            }
        };
        Err(refusal.with_remedy_for(ErrorClass::InvalidCredentials, put_another(id)))
    }

    /// Whether the key is cached, so that the next call doesn't have to wait for its secret.
    pub async fn has(&self, id: &SecretId) -> bool {
        // A slot is locked while its secret is being read.
        self.0.lock().await.get(id).is_some_and(|slot| slot.try_lock().is_ok_and(|cached| cached.is_some()))
    }

    /// Forgets every key, so that each is read again. The secrets may have changed.
    pub async fn forget(&self) {
        self.0.lock().await.clear();
    }

    /// The cached key, unless it is the `refused` one: another caller may have read the secret again already.
    async fn get(
        &self,
        id: &SecretId,
        refused: Option<&ApiKey>,
        read: impl AsyncFn() -> Result<SecretString, Error>,
    ) -> Result<ApiKey, Error> {
        let slot = self.0.lock().await.entry(id.clone()).or_default().clone();
        let mut cached = slot.lock().await;
        match &*cached {
            Some(key) if refused.is_none_or(|refused| !Arc::ptr_eq(key, refused)) => Ok(key.clone()),
            Some(_) | None => Ok(cached.insert(Arc::new(parse(&read().await?, id)?)).clone()),
        }
    }
}

/// Security: the command reads the key from the terminal, so that it is not in the history of the shell.
fn put_another(id: &SecretId) -> String {
    format!(
        "Braintrust refuses the API key. Create another one as an admin of the organization, and enter it into its \
         secret (as JSON with the token's IDs, if Secrets Manager rotates the key). The function reads the secret again \
         after a refusal: `read -rs KEY && printf %s \"$KEY\" | aws secretsmanager put-secret-value --secret-id {} \
         --secret-string file:///dev/stdin`",
        id.as_str()
    )
}

/// Whether an HTTP header takes the key.
pub fn is_valid(key: &SecretString) -> bool {
    // Security: inspected in memory.
    let key = key.expose_secret();
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The text without surrounding white space, and without the byte order mark that some editors put at the start of a
/// file.
pub fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// Reads a key from JSON. A key that was copied or read from a file may end with a line break.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    // Security: exposed to be trimmed.
    SecretString::deserialize(deserializer).map(|key| trim(key.expose_secret()).into())
}

/// The secret holds the bare key, the key as a JSON string, or JSON with `api_key`.
fn parse(secret: &SecretString, id: &SecretId) -> Result<SecretString, Error> {
    #[derive(Deserialize)]
    struct Wrapped {
        #[serde(deserialize_with = "deserialize")]
        api_key: SecretString,
    }
    #[derive(Deserialize)]
    struct Quoted(#[serde(deserialize_with = "deserialize")] SecretString);
    // Security: parsed and inspected in memory. The error says where the key should be, and never what was there.
    let text = trim(secret.expose_secret());
    let key = match text.chars().next() {
        Some('{') => serde_json::from_str(text).ok().map(|Wrapped { api_key }| api_key),
        Some('"') => serde_json::from_str(text).ok().map(|Quoted(key)| key),
        Some(_) | None => Some(SecretString::from(text)),
    };
    key.filter(is_valid).ok_or_else(|| {
        let problem = format!("the secret {:?} holds no Braintrust API key", id.as_str());
        let remedy = "Store the bare key, or JSON such as {\"api_key\":\"sk-…\"}";
        Error::new(ErrorClass::Configuration, Service::SecretsManager, "GetSecretValue", problem, remedy)
    })
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures_util::future::join;

    use super::*;

    fn id() -> SecretId {
        serde_json::from_value("braintrust".into()).unwrap()
    }

    #[test]
    fn a_key_is_bare_or_in_json() {
        for text in [
            "sk-1",
            " sk-1\n",
            "\u{feff}sk-1\r\n",
            r#""sk-1""#,
            "\"sk-1\\n\"\n",
            r#"{"api_key":"sk-1"}"#,
            r#"{"api_key":" sk-1\n"}"#,
            r#"{"api_key":"\ufeffsk-1"}"#,
            "\u{feff} {\"api_key\":\"sk-1\"}\n",
            r#"{"api_key":"sk-1","service_token_id":"x"}"#,
        ] {
            assert_eq!(parse(&SecretString::from(text), &id()).unwrap().expose_secret(), "sk-1", "{text}");
        }
    }

    #[test]
    fn a_secret_that_holds_no_key_is_refused_without_showing_it() {
        for text in [
            "",
            "  ",
            "sk 1",
            r#"{"key":"sk-1"}"#,
            r#"{"api_key":"#,
            r#"{"api_key":5}"#,
            r#"{"api_key":""}"#,
            "\"sk-1",
            "\"\"",
            "\"sk-1\" x",
            "[\"sk-1\"]x y",
        ] {
            let error = parse(&SecretString::from(text), &id()).unwrap_err();
            assert!(error.to_string().contains("holds no Braintrust API key"), "{text}");
            assert!(!format!("{error:?}").contains("sk-1"));
        }
    }

    #[tokio::test]
    async fn many_targets_read_a_secret_once() {
        let (keys, id, reads) = (ApiKeys::default(), id(), Cell::new(0));
        let read = async || {
            reads.set(reads.get() + 1);
            tokio::task::yield_now().await;
            Ok(SecretString::from("sk-1"))
        };
        let (one, other) = join(keys.get(&id, None, read), keys.get(&id, None, read)).await;
        assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()));
        assert_eq!(reads.get(), 1);
    }

    #[tokio::test]
    async fn a_secret_that_could_not_be_read_is_read_by_the_next_call() {
        let (keys, id) = (ApiKeys::default(), id());
        let failing = async || Err(Error::deadline(Service::SecretsManager, "GetSecretValue"));
        assert!(keys.get(&id, None, failing).await.is_err());
        assert!(keys.get(&id, None, async || Ok("sk-1".into())).await.is_ok());
    }

    #[tokio::test]
    async fn a_refused_key_is_read_again_once_for_all_calls_that_used_it() {
        let (keys, id, reads) = (ApiKeys::default(), id(), Cell::new(0));
        let old = keys.get(&id, None, async || Ok("sk-old".into())).await.unwrap();
        let read = async || {
            reads.set(reads.get() + 1);
            Ok(SecretString::from("sk-new"))
        };
        for _ in 0..2 {
            let new = keys.get(&id, Some(&old), read).await.unwrap();
            assert_eq!(new.expose_secret(), "sk-new");
        }
        assert_eq!(reads.get(), 1);
    }

    #[tokio::test]
    async fn a_key_is_there_once_its_secret_was_read() {
        let (keys, id) = (ApiKeys::default(), id());
        assert!(!keys.has(&id).await);
        let read = async || {
            assert!(!keys.has(&id).await);
            Ok("sk-1".into())
        };
        keys.get(&id, None, read).await.unwrap();
        assert!(keys.has(&id).await);
    }

    #[tokio::test]
    async fn a_forgotten_key_is_read_again() {
        let (keys, id) = (ApiKeys::default(), id());
        keys.get(&id, None, async || Ok("sk-old".into())).await.unwrap();
        keys.forget().await;
        let key = keys.get(&id, None, async || Ok("sk-new".into())).await.unwrap();
        assert_eq!(key.expose_secret(), "sk-new");
    }

    async fn call(in_the_secret: &'static str) -> (Result<String, Error>, Vec<String>) {
        let (keys, id, tried) = (ApiKeys::default(), id(), RefCell::new(Vec::new()));
        keys.get(&id, None, async || Ok("sk-old".into())).await.unwrap();
        let read = async || Ok(SecretString::from(in_the_secret));
        let call = async |key: &SecretString| {
            let key = key.expose_secret().to_owned();
            tried.borrow_mut().push(key.clone());
            let refusal = Error::new(ErrorClass::InvalidCredentials, Service::Braintrust, "call", "answered 401", "");
            if key == "sk-old" { Err(refusal) } else { Ok(key) }
        };
        (keys.call(&id, read, call).await, tried.into_inner())
    }

    #[tokio::test]
    async fn a_call_whose_key_is_refused_is_repeated_with_the_changed_key() {
        let (answer, tried) = call("sk-new").await;
        assert_eq!((answer.unwrap().as_str(), tried), ("sk-new", vec!["sk-old".to_owned(), "sk-new".to_owned()]));
    }

    #[tokio::test]
    async fn a_call_is_not_repeated_while_the_secret_still_holds_the_refused_key() {
        let (answer, tried) = call("sk-old").await;
        let error = answer.unwrap_err();
        assert_eq!((error.class, tried.len()), (ErrorClass::InvalidCredentials, 1));
        assert!(error.remedy.contains("put-secret-value --secret-id braintrust "), "{}", error.remedy);
    }
}
