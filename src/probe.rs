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
            return Ok(());
        }
        let code = error_code(response).await;
        let (cause, remedy) = self.judge(status, &code, question, region);
        Err(error(cause, format!("answered {} {code}", status.as_u16()).trim_end().to_owned(), remedy))
    }

    fn judge(&self, status: StatusCode, code: &str, question: &Question, region: &str) -> (Cause, String) {
        match (code, status.as_u16()) {
            ("UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidSignatureException", _)
            | ("ExpiredTokenException", _)
            | (_, 401) => (
                Cause::InvalidCredentials,
                "Bedrock does not know the new credentials; the next tick mints others. If it goes on, check that the \
                 role's account may use this region"
                    .to_owned(),
            ),
            ("AccessDeniedException", _) | (_, 403) => (
                Cause::Permission,
                format!(
                    "The credentials are known; allow {} in the role's policy, and look for a session policy, a \
                     permissions boundary or a service control policy that denies it",
                    question.needs
                ),
            ),
            ("ThrottlingException", _) | (_, 429) => {
                (Cause::Throttled, "It was retried; the next tick tries again".to_owned())
            }
            ("ModelTimeoutException" | "ModelErrorException", _) | (_, 500..) => {
                (Cause::Unavailable, "It was retried; the next tick tries again".to_owned())
            }
            _ => (Cause::Configuration, format!("Check the target's region ({region}) and probe")),
        }
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

/// Bedrock's name for the error: in a header, or in the body's `__type`.
async fn error_code(response: reqwest::Response) -> String {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "__type")]
        name: String,
    }
    let header = response.headers().get("x-amzn-errortype").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let name = match header {
        Some(name) => name,
        None => {
            let body = transport::read(response).await.unwrap_or_default();
            serde_json::from_slice::<Typed>(&body).map(|typed| typed.name).unwrap_or_default()
        }
    };
    // "AccessDeniedException:http://…" and "com.amazon.coral.service#AccessDeniedException" are both seen.
    let name = name.split(':').next().unwrap_or_default();
    name.rsplit('#').next().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).take(64).collect()
}
