//! Proves against Bedrock that credentials work, with a signed request of their own; it must never report a body.

use std::time::Duration;

use aws_credential_types::Credentials as SigningCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use backon::ExponentialBuilder;
use jiff::Timestamp;
use reqwest::{Client, StatusCode, Url};
use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use crate::config::Probe;
use crate::credentials::{Credentials, Secret};
use crate::deadline::Deadline;
use crate::error::{Cause, Error, Service};
use crate::transport;

/// In MB; a refusal is a line.
const LARGEST_REFUSAL: usize = 1;

/// New IAM credentials are usually known after 5–15 s; a minute of silence is a fault.
const PATIENCE: Duration = Duration::from_secs(60);

/// Frequent at first, since most credentials are known at once, and until [`PATIENCE`] ends.
const UNTIL_KNOWN: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(250))
    .with_max_delay(Duration::from_secs(4))
    .without_max_times()
    .with_jitter();

/// Between two successes that are to count as two.
const BETWEEN: Duration = Duration::from_millis(500);

/// The least that a model can be asked for.
const ONE_TOKEN: &str = r#"{"messages":[{"role":"user","content":[{"text":"."}]}],"inferenceConfig":{"maxTokens":1}}"#;

/// Bedrock, as the minted credentials see it.
pub struct Bedrock {
    /// The one HTTP client.
    pub http: Client,
    /// Replaces `https://bedrock.<region>.amazonaws.com`.
    pub endpoint: Option<Url>,
    /// Replaces `https://bedrock-runtime.<region>.amazonaws.com`.
    pub runtime_endpoint: Option<Url>,
    /// The time that a signature states.
    pub clock: fn() -> Timestamp,
}

/// One request of the probe, before it is signed.
struct Question {
    call: &'static str,
    method: http::Method,
    url: Url,
    body: &'static str,
    needs: String,
}

impl Bedrock {
    /// Asks until the credentials work `in_a_row` times, for at most a minute. IAM spreads new credentials to one host
    /// after another, so that one success may be followed by a failure.
    ///
    /// # Errors
    /// `invalid_credentials` if they are still unknown at the end; `permission` if they are known and may not do this,
    /// at once.
    pub async fn prove(
        &self,
        credentials: &Credentials,
        region: &str,
        probe: &Probe,
        in_a_row: u32,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let question = self.question(region, probe)?;
        let may_change = |error: &Error| error.is_transient() || error.cause == Cause::InvalidCredentials;
        deadline
            .at_most(PATIENCE)
            .repeat(Service::Bedrock, question.call, UNTIL_KNOWN, may_change, || async {
                self.ask(&question, credentials, region).await?;
                for _ in 1..in_a_row {
                    tokio::time::sleep(BETWEEN).await;
                    self.ask(&question, credentials, region).await?;
                }
                Ok(())
            })
            .await
    }

    fn question(&self, region: &str, probe: &Probe) -> Result<Question, Error> {
        let (call, host, endpoint) = match probe {
            Probe::Models => ("ListFoundationModels", "bedrock", &self.endpoint),
            Probe::Converse(_) => ("Converse", "bedrock-runtime", &self.runtime_endpoint),
        };
        let refuse = || Error::configuration("region", format!("{region:?} makes no URL"), "Give a region's name");
        let mut url = match endpoint {
            Some(url) => url.clone(),
            None => Url::parse(&format!("https://{host}.{region}.amazonaws.com")).map_err(|_| refuse())?,
        };
        let mut path = url.path_segments_mut().map_err(|()| refuse())?;
        path.pop_if_empty();
        let (method, body, needs) = match probe {
            Probe::Models => {
                path.push("foundation-models");
                (http::Method::GET, "", "bedrock:ListFoundationModels".to_owned())
            }
            Probe::Converse(model) => {
                path.extend(["model", model, "converse"]);
                (http::Method::POST, ONE_TOKEN, format!("bedrock:InvokeModel on {model}"))
            }
        };
        drop(path);
        Ok(Question { call, method, url, body, needs })
    }

    async fn ask(&self, question: &Question, credentials: &Credentials, region: &str) -> Result<(), Error> {
        let error = |cause, problem: String, remedy: String| {
            Error::new(cause, Service::Bedrock, question.call, problem, remedy)
        };
        let request = self.signed(question, credentials, region).map_err(|problem| {
            error(
                Cause::Configuration,
                format!("the request cannot be signed: {problem}"),
                "Report this as a bug".into(),
            )
        })?;
        let response = self.http.execute(request).await.map_err(|failed| {
            let remedy = format!("Check that Bedrock is offered in {region} and can be reached from the function");
            let cause = if failed.is_timeout() { Cause::Timeout } else { Cause::Unavailable };
            error(cause, transport::unreachable_because(&failed), remedy)
        })?;
        let status = response.status();
        if status.is_success() {
            let kind = transport::content_type(response.headers());
            let remedy =
                || "Something else answers in Bedrock's place: check the network path and the endpoint".to_owned();
            return match kind.as_str() {
                "application/json" => Ok(()),
                _ => Err(error(Cause::Unavailable, format!("answered {kind} where JSON was expected"), remedy())),
            };
        }
        let is_api_key = matches!(credentials.secret, Secret::ApiKey(_));
        let refusal = Refusal::read(response).await;
        let (cause, remedy) = judge(status, &refusal, is_api_key, &question.needs, region);
        Err(error(cause, format!("answered {} {}", status.as_u16(), refusal.code).trim_end().to_owned(), remedy))
    }

    fn signed(
        &self,
        question: &Question,
        credentials: &Credentials,
        region: &str,
    ) -> Result<reqwest::Request, Box<dyn std::error::Error>> {
        let mut request =
            http::Request::builder().method(question.method.clone()).uri(question.url.as_str()).body(question.body)?;
        if !question.body.is_empty() {
            let json = http::HeaderValue::from_static("application/json");
            request.headers_mut().insert(http::header::CONTENT_TYPE, json);
        }
        match &credentials.secret {
            Secret::ApiKey(key) => {
                // Security: exposed into the header, which is marked sensitive.
                let text = Zeroizing::new(format!("Bearer {}", key.expose_secret()));
                let mut value = http::HeaderValue::from_str(&text)?;
                value.set_sensitive(true);
                request.headers_mut().insert(http::header::AUTHORIZATION, value);
            }
            Secret::AccessKey { secret_access_key, session_token } => {
                // Security: the parts are exposed to the signer, which keeps them in zeroized memory.
                let identity = SigningCredentials::new(
                    &credentials.id,
                    secret_access_key.expose_secret(),
                    session_token.as_ref().map(|token| token.expose_secret().to_owned()),
                    None,
                    "minted",
                )
                .into();
                self.sign(&mut request, &identity, question, region)?;
            }
        }
        Ok(reqwest::Request::try_from(request)?)
    }

    fn sign(
        &self,
        request: &mut http::Request<&'static str>,
        identity: &Identity,
        question: &Question,
        region: &str,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let parameters = v4::SigningParams::builder()
            .identity(identity)
            .region(region)
            .name("bedrock")
            .time((self.clock)().into())
            .settings(SigningSettings::default())
            .build()?
            .into();
        let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let body = SignableBody::Bytes(question.body.as_bytes());
        let signable = SignableRequest::new(question.method.as_str(), question.url.as_str(), headers, body)?;
        // Security: the signer marks the session token's header as sensitive.
        sign(signable, &parameters)?.into_parts().0.apply_to_request_http1x(request);
        Ok(())
    }
}

/// What Bedrock says of a request that it refused.
struct Refusal {
    /// Its name for the error: in a header, or in the body's `__type`.
    code: String,
    /// It knows who asks, and an action is not allowed.
    names_an_action: bool,
}

impl Refusal {
    async fn read(response: reqwest::Response) -> Self {
        let header =
            response.headers().get("x-amzn-errortype").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = transport::read(response, LARGEST_REFUSAL).await.unwrap_or_default();
        Self::from_parts(header, &body)
    }

    fn from_parts(header: Option<String>, body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        struct Body {
            #[serde(default, rename = "__type")]
            name: String,
            #[serde(default)]
            message: String,
            // Some services' spelling.
            #[serde(default, rename = "Message")]
            message_too: String,
        }
        let body = serde_json::from_slice::<Body>(body).unwrap_or_default();
        let name = header.unwrap_or(body.name);
        // "AccessDeniedException:http://…" and "com.amazon.coral.service#AccessDeniedException" are both seen.
        let name = name.split(':').next().unwrap_or_default();
        let name = name.rsplit('#').next().unwrap_or_default();
        Self {
            code: name.chars().filter(char::is_ascii_alphanumeric).take(64).collect(),
            names_an_action: [body.message, body.message_too]
                .iter()
                .any(|text| text.contains("not authorized to perform")),
        }
    }
}

/// What a refusal means. Bedrock says `AccessDeniedException` of an API key that it does not know, too: "Authentication
/// failed: Please make sure your API Key is valid."
fn judge(status: StatusCode, refusal: &Refusal, is_api_key: bool, needs: &str, region: &str) -> (Cause, String) {
    let unknown = || {
        let remedy = "Bedrock does not know the new credentials; the next tick goes on or mints others. If it does not \
                      end, check that their account may use this region";
        (Cause::InvalidCredentials, remedy.to_owned())
    };
    match (refusal.code.as_str(), status.as_u16()) {
        ("UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidSignatureException", _)
        | ("ExpiredTokenException", _)
        | (_, 401) => unknown(),
        ("AccessDeniedException", _) | (_, 403) if is_api_key && !refusal.names_an_action => unknown(),
        ("AccessDeniedException", _) | (_, 403) => {
            let also = if is_api_key { "bedrock:CallWithBearerToken and " } else { "" };
            let remedy = format!(
                "The credentials are known; allow {also}{needs} in the policy of their role or user, and look for a \
                 session policy, a permissions boundary or a service control policy that denies it"
            );
            (Cause::Permission, remedy)
        }
        ("ThrottlingException", _) | (_, 429) => {
            (Cause::Throttled, "It was retried; the next tick tries again".to_owned())
        }
        ("ModelTimeoutException" | "ModelErrorException", _) | (_, 500..) => {
            (Cause::Unavailable, "It was retried; the next tick tries again".to_owned())
        }
        _ => (Cause::Configuration, format!("Check the target's region ({region}) and probe")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_api_key_that_bedrock_does_not_know_yet_is_not_taken_for_a_forbidden_one() {
        const DENIED: &str = "AccessDeniedException";
        let unknown = r#"{"Message":"Authentication failed: Please make sure your API Key is valid."}"#;
        let forbidden = r#"{"message":"User: arn:… is not authorized to perform: bedrock:CallWithBearerToken on …"}"#;
        for (is_api_key, code, body, cause) in [
            (true, DENIED, unknown, Cause::InvalidCredentials),
            (true, DENIED, "<html>", Cause::InvalidCredentials),
            (true, DENIED, forbidden, Cause::Permission),
            (false, DENIED, unknown, Cause::Permission),
            (false, "UnrecognizedClientException", forbidden, Cause::InvalidCredentials),
        ] {
            let refusal = Refusal::from_parts(Some(format!("{code}:http://internal.amazon.com/")), body.as_bytes());
            let (judged, _) = judge(StatusCode::FORBIDDEN, &refusal, is_api_key, "bedrock:ListFoundationModels", "x");
            assert_eq!((refusal.code.as_str(), judged), (code, cause), "{body}");
        }
    }

    #[test]
    fn an_error_is_named_by_the_header_or_by_the_body() {
        let body = br#"{"__type":"com.amazon.coral.service#AccessDeniedException"}"#;
        assert_eq!(Refusal::from_parts(None, body).code, "AccessDeniedException");
        assert_eq!(Refusal::from_parts(None, b"not JSON").code, "");
    }
}
