//! Makes a short-term Bedrock API key: a presigned request, byte for byte as AWS's official generators do; it must never outlive the session that signs it.
//!
//! <https://github.com/aws/aws-bedrock-token-generator-python>

use std::time::Duration;

use aws_credential_types::Credentials as SigningCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use crate::credentials::{Credentials, KindName, Secret};
use crate::error::Error;

const PREFIX: &str = "bedrock-api-key-";
const HOST: &str = "bedrock.amazonaws.com";
const LONGEST: Duration = Duration::from_secs(43_200);

/// What SigV4 leaves as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Signs a key with `session`'s credentials that works in `region` until the session ends, at most twelve hours.
///
/// # Errors
/// `configuration`, if the session has ended or lacks a part.
pub fn sign_with(session: &Credentials, region: &str, now: Timestamp) -> Result<Credentials, Error> {
    let refuse = |problem: &str| Error::configuration("short_term_api_key", problem, "The next tick tries again");
    let Secret::AccessKey { secret_access_key, session_token } = &session.secret else {
        return Err(refuse("an API key cannot sign another"));
    };
    let left = session.expires_at.map_or(LONGEST, |end| Duration::from_secs(seconds_between(now, end)));
    let expires = left.min(LONGEST);
    let key = presign(&session.id, secret_access_key, session_token.as_ref(), region, expires, now).map_err(refuse)?;
    Ok(Credentials {
        kind: KindName::ShortTermApiKey,
        id: session.id.clone(),
        secret: Secret::ApiKey(key),
        minted_at: now,
        expires_at: session.expires_at.map(|end| end.min(now + expires)).or(Some(now + expires)),
    })
}

fn seconds_between(now: Timestamp, end: Timestamp) -> u64 {
    u64::try_from(end.as_second() - now.as_second()).unwrap_or_default()
}

/// The key itself. `aws-sigv4` checks nothing of this, and puts the security token after the signature, where the
/// official generators have it before.
fn presign(
    access_key_id: &str,
    secret_access_key: &SecretString,
    session_token: Option<&SecretString>,
    region: &str,
    expires: Duration,
    now: Timestamp,
) -> Result<SecretString, &'static str> {
    if region.is_empty() {
        return Err("the region is empty");
    }
    if expires.subsec_nanos() != 0 || expires.is_zero() || expires > LONGEST {
        return Err("the lifetime is not a whole number of seconds from 1 to 43,200");
    }
    if session_token.is_some_and(|token| token.expose_secret().is_empty()) {
        return Err("the session token is empty");
    }
    // Security: exposed to the signer, which keeps them in zeroized memory.
    let identity = SigningCredentials::new(
        access_key_id,
        secret_access_key.expose_secret(),
        session_token.map(|token| token.expose_secret().to_owned()),
        None,
        "minted",
    )
    .into();
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(expires);
    let unsigned = |_| "the request cannot be signed";
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("bedrock")
        .time(now.into())
        .settings(settings)
        .build()
        .map_err(|_| "the request cannot be signed")?
        .into();
    let url = format!("https://{HOST}/?Action=CallWithBearerToken");
    let headers = [("host", HOST)];
    let request =
        SignableRequest::new("POST", &url, headers.into_iter(), SignableBody::Bytes(b"")).map_err(unsigned)?;
    let signed = sign(request, &parameters).map_err(unsigned)?;
    // Security: the query holds the session token. Its memory is zeroized.
    let mut query = Zeroizing::new(String::with_capacity(4 << 10));
    query.push_str(HOST);
    query.push_str("/?Action=CallWithBearerToken");
    let (late, early): (Vec<_>, Vec<_>) =
        signed.output().params().iter().partition(|(name, _)| *name == "X-Amz-Signature");
    for (name, value) in early.into_iter().chain(late) {
        query.extend(["&", name, "="]);
        query.extend(utf8_percent_encode(value, ENCODED));
    }
    query.push_str("&Version=1");
    let mut key = String::with_capacity(PREFIX.len() + query.len().div_ceil(3) * 4);
    key.push_str(PREFIX);
    STANDARD.encode_string(query.as_bytes(), &mut key);
    Ok(SecretString::from(key))
}

#[cfg(test)]
mod tests {
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

    fn vectors() -> Vec<Vector> {
        let json = include_str!("../../tests/vectors/short_term_api_key.json");
        serde_json::from_str::<Vectors>(json).unwrap().vectors
    }

    fn made(
        vector: &Vector,
        region: &str,
        expires: Duration,
        token: Option<&str>,
    ) -> Result<SecretString, &'static str> {
        let secret = SecretString::from(vector.secret_access_key.as_str());
        let token = token.map(SecretString::from);
        presign(&vector.access_key_id, &secret, token.as_ref(), region, expires, vector.timestamp)
    }

    #[test]
    fn a_key_is_the_official_generators_byte_for_byte() {
        for vector in vectors() {
            let expires = Duration::from_secs(vector.expires_seconds);
            let key = made(&vector, &vector.region, expires, vector.session_token.as_deref()).unwrap();
            assert_eq!(key.expose_secret(), vector.token);
        }
    }

    #[test]
    fn what_would_make_a_dead_key_is_refused() {
        let vector = &vectors()[0];
        let second = Duration::from_secs(1);
        for (region, expires, token) in [
            ("", second, None),
            ("us-east-1", Duration::ZERO, None),
            ("us-east-1", Duration::from_millis(1_500), None),
            ("us-east-1", Duration::from_secs(43_201), None),
            ("us-east-1", second, Some("")),
        ] {
            assert!(made(vector, region, expires, token).is_err(), "{region} {expires:?} {token:?}");
        }
        assert!(made(vector, "us-east-1", LONGEST, None).is_ok());
    }

    #[test]
    fn a_key_ends_with_the_session_that_signs_it() {
        let now: Timestamp = "2026-01-15T12:00:00.7Z".parse().unwrap();
        let session = |end: &str| Credentials {
            kind: KindName::Temporary,
            id: "ASIA".to_owned(),
            secret: Secret::AccessKey { secret_access_key: "key".into(), session_token: Some("token".into()) },
            minted_at: now,
            expires_at: Some(end.parse().unwrap()),
        };
        let key = sign_with(&session("2026-01-15T12:15:00Z"), "us-east-1", now).unwrap();
        assert!(
            key.expires_at.unwrap().as_second() <= "2026-01-15T12:15:00Z".parse::<Timestamp>().unwrap().as_second()
        );
        assert!(sign_with(&session("2026-01-15T12:00:00Z"), "us-east-1", now).is_err());
    }
}
