//! Signs short-term Bedrock API keys, byte for byte as AWS's official generators do. No service is called.
//!
//! <https://github.com/aws/aws-bedrock-token-generator-python>

use std::error::Error as StdError;
use std::time::Duration;

use aws_credential_types::Credentials as SigningCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use percent_encoding::utf8_percent_encode;
use secrecy::SecretString;

use super::{sdk, signature};
use crate::config::Region;
use crate::credentials::{Credentials, Secret, SessionCredentials};
use crate::error::Error;

const HOST: &str = "bedrock.amazonaws.com";
const REQUEST: &str = "/?Action=CallWithBearerToken";
const MAX_LIFETIME: Duration = Duration::from_secs(43_200);

/// Signs a key that works in `region` until the session ends, for at most twelve hours.
pub fn sign(session: &SessionCredentials, region: &Region, now: Timestamp) -> Result<Credentials, Error> {
    // The signature states the time in whole seconds.
    let remaining = session.expires_at.as_second() - now.as_second();
    let lifetime = Duration::from_secs(u64::try_from(remaining).unwrap_or_default()).min(MAX_LIFETIME);
    let key = presign(sdk::session(session), region.as_str(), lifetime, now).map_err(|problem| {
        let remedy = "The next scheduled run tries again";
        Error::configuration("short_term_api_key", problem.to_string(), remedy)
    })?;
    Ok(Credentials {
        id: session.access_key_id.clone(),
        created_at: now,
        expires_at: Some(session.expires_at.min(now + lifetime)),
        secret: Secret::ShortTermApiKey(key),
    })
}

/// `aws-sigv4` accepts parameters that make a key that never works, so they are checked first. It also puts the session
/// token after the signature, but the official generators put it before.
fn presign(
    signer: SigningCredentials,
    region: &str,
    lifetime: Duration,
    now: Timestamp,
) -> Result<SecretString, Box<dyn StdError>> {
    let can_last = lifetime.subsec_nanos() == 0 && !lifetime.is_zero() && lifetime <= MAX_LIFETIME;
    if !can_last || region.is_empty() || signer.session_token() == Some("") {
        return Err("a key needs a region, a session token and a lifetime of 1 to 43,200 whole seconds".into());
    }
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(lifetime);
    let url = format!("https://{HOST}{REQUEST}");
    let request = SignableRequest::new("POST", &url, [("host", HOST)].into_iter(), SignableBody::Bytes(b""))?;
    let (_, mut parameters) = signature::sign(request, signer, "bedrock", region, now, settings)?.into_parts();
    parameters.sort_by_key(|(name, _)| *name == "X-Amz-Signature");
    // Security: the query holds the session token. The allocator zeroizes its buffers.
    let mut query = String::with_capacity(4 << 10);
    query.extend([HOST, REQUEST]);
    for (name, value) in &parameters {
        query.extend(["&", name, "="]);
        query.extend(utf8_percent_encode(value, signature::ENCODED));
    }
    query.push_str("&Version=1");
    Ok(["bedrock-api-key-", &STANDARD.encode(query)].concat().into())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Vectors {
        vectors: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        region: String,
        access_key_id: String,
        secret_access_key: String,
        session_token: Option<String>,
        expires_seconds: u64,
        timestamp: Timestamp,
        token: String,
    }

    impl Vector {
        fn presign(
            &self,
            region: &str,
            lifetime: Duration,
            session_token: Option<&str>,
        ) -> Result<SecretString, Box<dyn StdError>> {
            let token = session_token.map(str::to_owned);
            let signer = SigningCredentials::new(&self.access_key_id, &self.secret_access_key, token, None, "test");
            presign(signer, region, lifetime, self.timestamp)
        }
    }

    fn vectors() -> Vec<Vector> {
        let json = include_str!("../../tests/vectors/short_term_api_key.json");
        serde_json::from_str::<Vectors>(json).unwrap().vectors
    }

    #[test]
    fn a_key_is_the_official_generators_byte_for_byte() {
        for vector in vectors() {
            let lifetime = Duration::from_secs(vector.expires_seconds);
            let key = vector.presign(&vector.region, lifetime, vector.session_token.as_deref()).unwrap();
            assert_eq!(key.expose_secret(), vector.token);
        }
    }

    #[test]
    fn parameters_that_would_make_a_dead_key_are_refused() {
        let vector = &vectors()[0];
        let second = Duration::from_secs(1);
        for (region, lifetime, token) in [
            ("", second, None),
            ("us-east-1", Duration::ZERO, None),
            ("us-east-1", Duration::from_millis(1_500), None),
            ("us-east-1", Duration::from_secs(43_201), None),
            ("us-east-1", second, Some("")),
        ] {
            assert!(vector.presign(region, lifetime, token).is_err(), "{region} {lifetime:?} {token:?}");
        }
        assert!(vector.presign("us-east-1", MAX_LIFETIME, None).is_ok());
    }

    #[test]
    fn a_key_ends_with_the_session_that_signs_it() {
        let now: Timestamp = "2026-01-15T12:00:00.7Z".parse().unwrap();
        let region = "us-east-1".to_owned().try_into().unwrap();
        let session = |end: &str| SessionCredentials {
            access_key_id: "ASIA".to_owned(),
            secret_access_key: "key".into(),
            session_token: "token".into(),
            created_at: now,
            expires_at: end.parse().unwrap(),
        };
        let expires_at = |end: &str| sign(&session(end), &region, now).map(|key| key.expires_at.unwrap().to_string());
        assert_eq!(expires_at("2026-01-15T12:15:00Z").unwrap(), "2026-01-15T12:15:00Z");
        assert_eq!(expires_at("2026-01-16T12:15:00Z").unwrap(), "2026-01-16T00:00:00.7Z");
        assert!(expires_at("2026-01-15T12:00:00Z").is_err());
    }
}
