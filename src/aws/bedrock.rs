//! Proves that credentials work, with a request to Amazon Bedrock that is signed with them.

use std::error::Error as StdError;
use std::time::Duration;

use aws_credential_types::Credentials as SigningCredentials;
use aws_sigv4::http_request::{self, SignableBody, SignableRequest, SigningInstructions, SigningSettings};
use aws_sigv4::sign::v4::SigningParams;
use backon::ExponentialBuilder;
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, Url};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::sdk;
use crate::config::{Probe, Region, Target};
use crate::credentials::{Authentication, Credentials};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorClass, Service};
use crate::http;

/// Bedrock usually recognizes new IAM credentials after 5–15 seconds. After a minute, something is wrong.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Frequent at first, because Bedrock recognizes most credentials at once. [`MAX_WAIT`] ends it.
const UNTIL_RECOGNIZED: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(250))
    .with_max_delay(Duration::from_secs(4))
    .without_max_times()
    .with_jitter();
const BETWEEN_CONFIRMATIONS: Duration = Duration::from_millis(500);
/// The smallest request that a model answers.
const ONE_TOKEN: &str = r#"{"messages":[{"role":"user","content":[{"text":"."}]}],"inferenceConfig":{"maxTokens":1}}"#;
/// A refusal is a line of text.
const MAX_REFUSAL_MEGABYTES: usize = 1;
const RETRIED: &str = "The call was retried. The next scheduled run tries again";
const NOT_RECOGNIZED: &str = "Bedrock doesn't recognize the credentials. The next scheduled run tries again or creates \
                              others. If this continues, check that their account may use this region";

/// Credentials that Bedrock has accepted. Every write to Braintrust takes this type, so that nothing else is written.
#[derive(Clone, Copy)]
pub struct Proven<'a>(&'a Credentials);

impl<'a> Proven<'a> {
    pub fn credentials(self) -> &'a Credentials {
        self.0
    }

    #[cfg(any(test, fuzzing))]
    pub fn assume(credentials: &'a Credentials) -> Self {
        Self(credentials)
    }
}

pub struct Bedrock {
    pub http: Client,
    /// The endpoints replace `https://bedrock.<region>.amazonaws.com` and `https://bedrock-runtime.…`.
    pub endpoint: Option<Url>,
    pub runtime_endpoint: Option<Url>,
    pub clock: fn() -> Timestamp,
}

/// `ListFoundationModels`, or `Converse` for one token.
struct Call<'a> {
    name: &'static str,
    /// What a policy has to allow.
    permission: String,
    region: &'a Region,
    url: Url,
    body: &'static str,
}

impl Bedrock {
    /// Calls Bedrock in the target's region until as many calls in a row have succeeded as `confirmations` says. New
    /// IAM credentials reach one host after another, so a failure may follow a success. A refusal of credentials that
    /// Bedrock recognizes (`permission`) is not retried.
    pub async fn prove<'a>(
        &self,
        credentials: &'a Credentials,
        target: &Target,
        confirmations: u32,
        deadline: Deadline,
    ) -> Result<Proven<'a>, Error> {
        let call = self.call(target)?;
        let may_succeed = |error: &Error| error.is_retryable() || error.class == ErrorClass::InvalidCredentials;
        let attempt = || async {
            self.send(&call, credentials).await?;
            for _ in 1..confirmations {
                tokio::time::sleep(BETWEEN_CONFIRMATIONS).await;
                self.send(&call, credentials).await?;
            }
            Ok(Proven(credentials))
        };
        let deadline = deadline.at_most(MAX_WAIT);
        deadline.retry_while(Service::Bedrock, call.name, UNTIL_RECOGNIZED, may_succeed, attempt).await
    }

    fn call<'a>(&self, target: &'a Target) -> Result<Call<'a>, Error> {
        let region = &target.region;
        let (name, permission, endpoint, host, path, body) = match &target.probe {
            Probe::Models => {
                let permission = "bedrock:ListFoundationModels".to_owned();
                ("ListFoundationModels", permission, &self.endpoint, "bedrock", vec!["foundation-models"], "")
            }
            Probe::Converse(model) => {
                let permission = format!("bedrock:InvokeModel on {model}");
                let path = vec!["model", model.as_str(), "converse"];
                ("Converse", permission, &self.runtime_endpoint, "bedrock-runtime", path, ONE_TOKEN)
            }
        };
        let refuse = || {
            let problem = format!("{:?} can't be part of a URL", region.as_str());
            Error::configuration("region", problem, "Use the name of a region")
        };
        let public = || Url::parse(&format!("https://{host}.{region}.amazonaws.com")).ok();
        let mut url = endpoint.clone().or_else(public).ok_or_else(refuse)?;
        url.path_segments_mut().map_err(|()| refuse())?.pop_if_empty().extend(path);
        Ok(Call { name, permission, region, url, body })
    }

    async fn send(&self, call: &Call<'_>, credentials: &Credentials) -> Result<(), Error> {
        let request = self.request(call, credentials).map_err(|problem| {
            let problem = format!("the request can't be signed: {problem}");
            call.error(ErrorClass::Configuration, problem, "Report this as a bug")
        })?;
        let mut response = self.http.execute(request).await.map_err(|error| {
            let class = if error.is_timeout() { ErrorClass::Timeout } else { ErrorClass::Unavailable };
            let remedy =
                format!("Check that Bedrock is available in {} and that the function can reach it", call.region);
            let failed = call.error(class, http::describe_failure(&error), remedy);
            if http::is_lasting(&error) { failed.with_remedy(http::CHECK_THE_PATH).into_final() } else { failed }
        })?;
        if !response.status().is_success() {
            let body = http::read_body(&mut response, MAX_REFUSAL_MEGABYTES).await.unwrap_or_default();
            let (status, name) = (response.status().as_u16(), response.headers().get("x-amzn-errortype"));
            return Err(call.refusal(status, name, &body, credentials.kind().is_api_key()));
        }
        match http::media_type(response.headers()).as_str() {
            "application/json" => Ok(()),
            other => Err(call.error(
                ErrorClass::Unavailable,
                format!("answered {other} where JSON was expected"),
                "Something else answers in Bedrock's place. Check the network path and the endpoint",
            )),
        }
    }

    fn request(&self, call: &Call<'_>, credentials: &Credentials) -> Result<reqwest::Request, Box<dyn StdError>> {
        let mut request = ::http::Request::builder().uri(call.url.as_str()).body(call.body)?;
        if !call.body.is_empty() {
            *request.method_mut() = Method::POST;
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        match credentials.authentication() {
            Authentication::ApiKey(key) => {
                // Security: exposed into a header, which is marked as sensitive.
                let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()))?;
                bearer.set_sensitive(true);
                request.headers_mut().insert(AUTHORIZATION, bearer);
            }
            Authentication::AccessKey { access_key_id, secret_access_key, session_token } => {
                let signer = sdk::credentials(access_key_id, secret_access_key, session_token);
                let headers =
                    request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
                let body = SignableBody::Bytes(call.body.as_bytes());
                let signable = SignableRequest::new(request.method().as_str(), call.url.as_str(), headers, body)?;
                let settings = SigningSettings::default();
                let signature = sign(signable, signer, call.region.as_str(), (self.clock)(), settings)?;
                // Security: the signer marks the header with the session token as sensitive.
                signature.apply_to_request_http1x(&mut request);
            }
        }
        Ok(request.try_into()?)
    }
}

/// Signs a request to Bedrock with Signature Version 4.
pub(super) fn sign(
    request: SignableRequest<'_>,
    signer: SigningCredentials,
    region: &str,
    now: Timestamp,
    settings: SigningSettings,
) -> Result<SigningInstructions, Box<dyn StdError>> {
    let identity = signer.into();
    let parameters = SigningParams::builder().identity(&identity).region(region).name("bedrock").time(now.into());
    let parameters = parameters.settings(settings).build()?.into();
    Ok(http_request::sign(request, &parameters)?.into_parts().0)
}

impl Call<'_> {
    fn error(&self, class: ErrorClass, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::new(class, Service::Bedrock, self.name, problem, remedy)
    }

    /// What Bedrock means when it refuses the call with this status, error name and body.
    fn refusal(&self, status: u16, name: Option<&HeaderValue>, body: &[u8], is_api_key: bool) -> Error {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
        let name = name.and_then(|name| name.to_str().ok()).unwrap_or_else(|| text("__type"));
        // Seen: "AccessDeniedException:http://…" and "com.amazon.coral.service#AccessDeniedException".
        let name = name.split(':').next().unwrap_or_default();
        let name = name.rsplit('#').next().unwrap_or_default();
        let code: String = name.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        // A message that names the denied action shows that Bedrock knows the caller. Some services capitalize the
        // field.
        let names_an_action = [text("message"), text("Message")].concat().contains("not authorized to perform");
        let (class, remedy) = match (code.as_str(), status) {
            ("UnrecognizedClientException" | "InvalidClientTokenId", _)
            | ("InvalidSignatureException" | "ExpiredTokenException", _)
            | (_, 401) => (ErrorClass::InvalidCredentials, NOT_RECOGNIZED.to_owned()),
            // Bedrock answers AccessDeniedException for an API key that it doesn't know, too: "Authentication failed:
            // Please make sure your API Key is valid."
            ("AccessDeniedException", _) | (_, 403) if is_api_key && !names_an_action => {
                (ErrorClass::InvalidCredentials, NOT_RECOGNIZED.to_owned())
            }
            ("AccessDeniedException", _) | (_, 403) => {
                let also = if is_api_key { "bedrock:CallWithBearerToken and " } else { "" };
                let remedy = format!(
                    "Bedrock recognizes the credentials; allow {also}{} in the policy of their role or user, and look \
                     for a session policy, a permissions boundary or a service control policy that denies it",
                    self.permission
                );
                (ErrorClass::Permission, remedy)
            }
            ("ThrottlingException", _) | (_, 429) => (ErrorClass::Throttled, RETRIED.to_owned()),
            ("ModelTimeoutException" | "ModelErrorException", _) | (_, 500..) => {
                (ErrorClass::Unavailable, RETRIED.to_owned())
            }
            _ => (ErrorClass::Configuration, format!("Check the target's region ({}) and probe", self.region)),
        };
        self.error(class, format!("answered {status} {code}").trim_end(), remedy)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;
    use crate::config::{AssumeRole, RoleBased, RoleBasedKind, Source};
    use crate::credentials::Secret;

    const ACCEPTED: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    const NOT_RECOGNIZED: &str =
        "HTTP/1.1 403 Forbidden\r\nx-amzn-errortype: UnrecognizedClientException\r\ncontent-length: 0\r\n\r\n";
    const DENIED: &str =
        "HTTP/1.1 403 Forbidden\r\nx-amzn-errortype: AccessDeniedException\r\ncontent-length: 0\r\n\r\n";
    const PORTAL: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi";

    /// A local server that answers one request after another, and returns their heads.
    fn serve(responses: &'static [&'static str]) -> (Url, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = std::thread::spawn(move || {
            let mut heads = Vec::new();
            for response in responses {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = BufReader::new(&stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
                heads.push(lines.collect::<Vec<_>>().join("\n"));
                stream.write_all(response.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
            }
            heads
        });
        (url, server)
    }

    async fn prove(responses: &'static [&'static str], confirmations: u32) -> (Result<(), Error>, Vec<String>) {
        let (url, server) = serve(responses);
        let proven = bedrock(Some(url))
            .prove(&credentials(), &target(), confirmations, Deadline::after(MAX_WAIT))
            .await
            .map(drop);
        (proven, server.join().unwrap())
    }

    fn bedrock(endpoint: Option<Url>) -> Bedrock {
        let (http, clock) = (http::client(None, None).unwrap(), || Timestamp::UNIX_EPOCH);
        Bedrock { http, endpoint, runtime_endpoint: None, clock }
    }

    fn credentials() -> Credentials {
        Credentials {
            id: "ASIANEW".to_owned(),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            secret: Secret::Temporary { secret_access_key: "key".into(), session_token: "token".into() },
        }
    }

    fn target() -> Target {
        let role = AssumeRole {
            role_arn: "arn:aws:iam::123456789012:role/bedrock".to_owned().try_into().unwrap(),
            external_id: None,
            duration_seconds: 3_600,
            session_policy: None,
        };
        Target {
            name: "prod".to_owned().try_into().unwrap(),
            region: "eu-west-1".to_owned().try_into().unwrap(),
            source: Source::RoleBased(RoleBased { kind: RoleBasedKind::Temporary, role, secret_id: None }),
            probe: Probe::Models,
            destinations: Vec::new(),
        }
    }

    #[tokio::test]
    async fn credentials_are_tried_until_bedrock_recognizes_them_as_often_as_asked() {
        let (proven, heads) = prove(&[NOT_RECOGNIZED, ACCEPTED, NOT_RECOGNIZED, ACCEPTED, ACCEPTED], 2).await;
        assert!(proven.is_ok());
        assert!(heads.iter().all(|head| head.starts_with("GET /foundation-models")), "{heads:?}");
        assert!(heads.iter().all(|head| head.contains("ASIANEW/19700101/eu-west-1/bedrock/aws4_request")), "{heads:?}");
    }

    #[tokio::test]
    async fn a_denied_call_is_not_repeated() {
        let (proven, heads) = prove(&[DENIED], 2).await;
        assert_eq!((proven.unwrap_err().class, heads.len()), (ErrorClass::Permission, 1));
    }

    #[tokio::test]
    async fn an_answer_that_is_not_json_proves_nothing() {
        let (proven, _) = prove(&[PORTAL, DENIED], 1).await;
        assert_eq!(proven.unwrap_err().class, ErrorClass::Permission);
    }

    #[test]
    fn a_new_api_key_that_bedrock_does_not_know_yet_is_not_taken_for_a_forbidden_one() {
        const DENIED: &str = "AccessDeniedException";
        let unknown = r#"{"Message":"Authentication failed: Please make sure your API Key is valid."}"#;
        let forbidden = r#"{"message":"User: arn:… is not authorized to perform: bedrock:CallWithBearerToken on …"}"#;
        let (bedrock, target) = (bedrock(None), target());
        let call = bedrock.call(&target).unwrap();
        for (is_api_key, code, body, class) in [
            (true, DENIED, unknown, ErrorClass::InvalidCredentials),
            (true, DENIED, "<html>", ErrorClass::InvalidCredentials),
            (true, DENIED, forbidden, ErrorClass::Permission),
            (false, DENIED, unknown, ErrorClass::Permission),
            (false, "UnrecognizedClientException", forbidden, ErrorClass::InvalidCredentials),
        ] {
            let name = format!("{code}:http://internal.amazon.com/").try_into().unwrap();
            let error = call.refusal(403, Some(&name), body.as_bytes(), is_api_key);
            assert_eq!((error.problem, error.class), (format!("answered 403 {code}"), class), "{body}");
        }
    }

    #[test]
    fn an_error_is_named_by_the_header_or_by_the_body() {
        let (bedrock, target) = (bedrock(None), target());
        let problem = |body: &[u8]| bedrock.call(&target).unwrap().refusal(403, None, body, false).problem;
        let named = br#"{"__type":"com.amazon.coral.service#AccessDeniedException"}"#;
        assert_eq!(problem(named), "answered 403 AccessDeniedException");
        assert_eq!(problem(b"not JSON"), "answered 403");
    }
}
