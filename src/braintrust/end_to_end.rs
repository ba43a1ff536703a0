//! Proves that Braintrust can use the credentials in an `ai_secret`: asks its AI proxy for one token of a model.
//!
//! The request names the `ai_secret`, and bypasses and refreshes the credentials that the proxy has cached for this API
//! key and model. The answer names the `ai_secret` that was used. <https://www.braintrust.dev/docs/guides/proxy>
//!
//! A refusal by Bedrock usually comes as a 400 that begins with the name of the AWS SDK's exception and doesn't say
//! which `ai_secret` was used. The same request for an `ai_secret` that doesn't exist then shows whether the proxy
//! heeds the name. If it does, it finds no credentials, and nothing is sent to Bedrock.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use backon::ExponentialBuilder;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::client::{Braintrust, Request, retry_after, unavailable};
use crate::config::ModelId;
use crate::error::{Error, ErrorClass, Service, shortened};
use crate::http;

/// The call, as errors name it.
pub const COMPLETION: &str = "POST /v1/proxy/chat/completions";
const USE_CACHE: HeaderName = HeaderName::from_static("x-bt-use-cache");
const USE_CREDENTIALS_CACHE: HeaderName = HeaderName::from_static("x-bt-use-creds-cache");
const ENDPOINT_NAME: HeaderName = HeaderName::from_static("x-bt-endpoint-name");
const ORG_NAME: HeaderName = HeaderName::from_static("x-bt-org-name");
const USED_ENDPOINT: &str = "x-bt-used-endpoint";
const CACHED: &str = "x-bt-cached";
const NEVER: HeaderValue = HeaderValue::from_static("never");
/// A name that no `ai_secret` has.
const NO_AI_SECRET: HeaderValue = HeaderValue::from_static("bedrock-braintrust-rotator-asks-for-none");
/// What the proxy answers if no `ai_secret` has the name and serves the model.
const NONE_FOUND: &str = "No API keys found";
/// In MB. A completion of one token has less than a kilobyte.
const MAX_RESPONSE: usize = 1;
/// Bedrock usually recognizes new IAM credentials after 5–15 seconds, and the probe has waited for that already.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How many times a request is sent again after a failure that says nothing about the credentials. Each may cost a
/// token.
const MAX_REPEATED: u32 = 4;
/// Frequent at first, because Bedrock recognizes most credentials at once. The deadline ends it.
const UNTIL_RECOGNIZED: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(250))
    .with_max_delay(Duration::from_secs(4))
    .without_max_times()
    .with_jitter();

/// The `ai_secret` that a request names.
pub struct Pin {
    name: HeaderValue,
    org_name: Option<HeaderValue>,
}

impl Pin {
    /// The error says why the names can't be sent in a header.
    pub fn new(name: &str, org_name: Option<&str>) -> Result<Self, String> {
        let header = |name: &str| {
            // A proxy reads other characters as Latin-1.
            let is_exact = !name.is_empty() && name.is_ascii() && name.trim() == name;
            let value = HeaderValue::from_str(name).ok().filter(|_| is_exact);
            value.ok_or_else(|| format!("the name {:?} can't be sent in a header", shortened(name)))
        };
        Ok(Self { name: header(name)?, org_name: org_name.map(header).transpose()? })
    }

    /// The same with the name of an `ai_secret` that doesn't exist.
    fn without_a_match(&self) -> Self {
        Self { name: NO_AI_SECRET, org_name: self.org_name.clone() }
    }
}

/// What the request established.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Braintrust called Bedrock with the credentials of this `ai_secret`, and got an answer of the model.
    Proven,
    /// The request showed nothing about the credentials. The reason follows "… not proven through Braintrust:".
    Unproven(String),
    /// Bedrock refused the credentials of this `ai_secret` when Braintrust used them.
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// Bedrock doesn't recognize the credentials.
    NotRecognized,
    /// A policy denies the call.
    Denied,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub kind: RefusalKind,
    /// The status, and the name of the exception if there is one.
    pub answer: String,
    /// Whether the answer names the `ai_secret`.
    is_of_the_pinned: bool,
}

/// What one answer shows.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Proven,
    Unproven(String),
    /// The model is busy. Braintrust itself is not.
    Busy(String),
    Refused(Refusal),
}

/// The parts of an answer that are evaluated.
struct Answer {
    status: u16,
    headers: HeaderMap,
    /// Security: it may repeat what was sent, so nothing of it gets into a report. It is only searched for known texts.
    body: Vec<u8>,
}

/// What an exception of the AWS SDK shows about the credentials, as opposed to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    NotRecognized,
    Denied,
    /// The model can't answer. Bedrock checks the credentials first.
    Model,
    /// The model can't answer now.
    Busy,
    Failure,
}

/// <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_Errors>
const EXCEPTIONS: [(&str, Evidence); 15] = [
    ("UnrecognizedClientException", Evidence::NotRecognized),
    ("InvalidClientTokenId", Evidence::NotRecognized),
    ("InvalidSignatureException", Evidence::NotRecognized),
    ("ExpiredTokenException", Evidence::NotRecognized),
    ("MissingAuthenticationTokenException", Evidence::NotRecognized),
    ("AccessDeniedException", Evidence::Denied),
    ("ValidationException", Evidence::Model),
    ("ResourceNotFoundException", Evidence::Model),
    ("ServiceQuotaExceededException", Evidence::Model),
    ("ModelErrorException", Evidence::Model),
    ("ModelTimeoutException", Evidence::Model),
    ("ThrottlingException", Evidence::Busy),
    ("ModelNotReadyException", Evidence::Busy),
    ("InternalServerException", Evidence::Failure),
    ("ServiceUnavailableException", Evidence::Failure),
];

impl Braintrust<'_> {
    /// Asks for one token until Bedrock recognizes the credentials, for at most [`MAX_WAIT`] and half of the time that
    /// is left.
    pub async fn prove_end_to_end(&self, pin: &Pin, model: &ModelId) -> Verdict {
        let (repeated, last_refusal) = (Cell::new(0), RefCell::new(None));
        let attempt = async || {
            let found = self.ask(pin, model).await;
            last_refusal.replace(None);
            match found? {
                Finding::Busy(reason) => Err(failed(ErrorClass::Throttled, reason)),
                Finding::Refused(refusal) if refusal.kind == RefusalKind::NotRecognized => {
                    let error = failed(ErrorClass::InvalidCredentials, refusal.answer.clone());
                    last_refusal.replace(Some(refusal));
                    Err(error)
                }
                found @ (Finding::Proven | Finding::Unproven(_) | Finding::Refused(_)) => Ok(found),
            }
        };
        let may_succeed = |error: &Error| {
            if error.class == ErrorClass::InvalidCredentials {
                return true;
            }
            repeated.set(repeated.get() + 1);
            error.is_retryable() && repeated.get() <= MAX_REPEATED
        };
        let wait = self.deadline.half().at_most(MAX_WAIT);
        let found = wait.retry_while(Service::Braintrust, COMPLETION, UNTIL_RECOGNIZED, may_succeed, attempt).await;
        // If the limit interrupts an attempt, the refusal before it says more.
        match (found, last_refusal.take()) {
            (Ok(Finding::Refused(refusal)), _) | (Err(_), Some(refusal)) => self.attribute(refusal, pin, model).await,
            (Ok(Finding::Proven), _) => Verdict::Proven,
            (Ok(Finding::Unproven(reason) | Finding::Busy(reason)), _) => Verdict::Unproven(reason),
            (Err(error), None) => Verdict::Unproven(error.problem),
        }
    }

    /// Whether a refusal is about the credentials in the pinned `ai_secret`. If the answer doesn't say, the proxy must
    /// heed the name in the request.
    async fn attribute(&self, refusal: Refusal, pin: &Pin, model: &ModelId) -> Verdict {
        let Refusal { ref answer, is_of_the_pinned, .. } = refusal;
        let unproven = |why: &str| Verdict::Unproven(format!("Bedrock refused some credentials ({answer}), but {why}"));
        if is_of_the_pinned {
            return Verdict::Refused(refusal);
        }
        let no_match = pin.without_a_match();
        let control = async { Ok(self.with_permit(COMPLETION, self.complete(&no_match, model)).await?.control()) };
        match self.deadline.half().bound(Service::Braintrust, COMPLETION, control).await {
            Ok(Control::Heeded) => Verdict::Refused(refusal),
            Ok(Control::Ignored) => unproven("Braintrust doesn't choose the ai_secret by its name"),
            Ok(Control::Unknown) | Err(_) => unproven("it isn't known whether they are those of this ai_secret"),
        }
    }

    async fn ask(&self, pin: &Pin, model: &ModelId) -> Result<Finding, Error> {
        let found = async { self.complete(pin, model).await?.finding(pin) };
        self.with_permit(COMPLETION, found).await
    }

    /// Sends the request, and reads the answer whatever its status is.
    async fn complete(&self, pin: &Pin, model: &ModelId) -> Result<Answer, Error> {
        let body = json!({
            "model": model.as_str(),
            "messages": [{"role": "user", "content": "."}],
            "max_tokens": 1,
        });
        let request = self.request(COMPLETION, None);
        let mut response =
            self.respond(&Request { headers: pin.headers(), body: Some(body.to_string().into()), ..request }).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = http::read_body(&mut response, MAX_RESPONSE).await;
        Ok(Answer { status, headers, body: body.map_err(|problem| unavailable(COMPLETION, problem))? })
    }
}

impl Pin {
    fn headers(&self) -> HeaderMap {
        let pinned = [(USE_CACHE, NEVER), (USE_CREDENTIALS_CACHE, NEVER), (ENDPOINT_NAME, self.name.clone())];
        let org_name = self.org_name.clone().map(|name| (ORG_NAME, name));
        pinned.into_iter().chain(org_name).collect()
    }
}

/// Whether the proxy heeds the name of an `ai_secret`, as its answer to a name that no `ai_secret` has shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Heeded,
    Ignored,
    Unknown,
}

impl Answer {
    fn control(&self) -> Control {
        match (self.exception(), self.status) {
            (Some(_), _) | (None, 200..300) => Control::Ignored,
            // Other refusals may come from anything on the way, and show nothing about the name.
            (None, 400..500) if self.says(NONE_FOUND) => Control::Heeded,
            (None, _) => Control::Unknown,
        }
    }

    /// What the answer shows about the pinned `ai_secret`. An error is a failure of Braintrust.
    fn finding(&self, pin: &Pin) -> Result<Finding, Error> {
        let (used, exception) = (self.headers.get(USED_ENDPOINT), self.exception());
        let answer = format!("{} {}", self.status, exception.unwrap_or_default()).trim_end().to_owned();
        let unproven = |reason: String| Ok(Finding::Unproven(reason));
        if let Some(other) = used.filter(|used| **used != pin.name) {
            let other = shortened(other.to_str().unwrap_or("another name"));
            return unproven(format!("Braintrust used the ai_secret {other:?}"));
        }
        let refused = |kind| {
            let answer = answer.clone();
            Ok(Finding::Refused(Refusal { kind, answer, is_of_the_pinned: used.is_some() }))
        };
        match (exception.map(|name| self.evidence(name)), self.status) {
            (Some(Evidence::NotRecognized), _) => refused(RefusalKind::NotRecognized),
            (Some(Evidence::Denied), _) => refused(RefusalKind::Denied),
            (Some(Evidence::Model), _) => unproven(format!("the model did not answer ({answer})")),
            (Some(Evidence::Busy), _) => Ok(Finding::Busy(format!("the model is busy ({answer})"))),
            (Some(Evidence::Failure), _) | (None, 500..) => Err(unavailable(COMPLETION, format!("answered {answer}"))),
            (None, 200..300) => self.completion(used.is_some()),
            (None, 401 | 403) if used.is_some() => refused(RefusalKind::NotRecognized),
            (None, 429) if used.is_some() => Ok(Finding::Busy(format!("the model is busy ({answer})"))),
            (None, 429) => {
                let retry_after = retry_after(&self.headers);
                Err(Error { retry_after, ..failed(ErrorClass::Throttled, "answered 429") })
            }
            (None, 404) => {
                unproven("answered 404, so this data plane has no AI proxy, or it doesn't know the model".into())
            }
            (None, _) if self.says(NONE_FOUND) => {
                unproven("Braintrust found no ai_secret with this name that serves the model".into())
            }
            (None, _) if self.says("does not support OpenAI format") => {
                unproven("Braintrust doesn't know the model as one of Bedrock's".into())
            }
            (None, _) => unproven(format!("answered {answer}")),
        }
    }

    fn completion(&self, is_of_the_pinned: bool) -> Result<Finding, Error> {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let is_completion = body.get("choices").and_then(Value::as_array).is_some_and(|choices| !choices.is_empty());
        let is_cached = self.headers.get(CACHED).is_some_and(|cached| cached == "HIT");
        let reason = match (is_completion, is_cached, is_of_the_pinned) {
            (true, false, true) => return Ok(Finding::Proven),
            (false, _, _) => format!("answered {} without a completion", http::media_type(&self.headers)),
            (true, true, _) => "the answer came from Braintrust's cache".to_owned(),
            (true, false, false) => "the answer doesn't say which ai_secret Braintrust used".to_owned(),
        };
        Ok(Finding::Unproven(reason))
    }

    /// The name of AWS's exception, from the header that a gateway passes on, or from the text of the AWS SDK.
    fn exception(&self) -> Option<&'static str> {
        if (200..300).contains(&self.status) {
            return None;
        }
        let header = self.headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let names = || EXCEPTIONS.iter().map(|(name, _)| *name);
        names().find(|name| header.contains(name)).or_else(|| names().find(|name| self.says(name)))
    }

    fn evidence(&self, exception: &str) -> Evidence {
        let evidence = EXCEPTIONS.iter().find(|(name, _)| *name == exception).map(|(_, evidence)| *evidence);
        match evidence {
            // A signature that is not valid at this time points to a wrong clock in Braintrust.
            Some(Evidence::NotRecognized) if self.says("Signature expired") || self.says("Signature not yet") => {
                Evidence::Failure
            }
            Some(Evidence::Denied) if self.says("not authorized to perform: bedrock") => Evidence::Denied,
            Some(Evidence::Denied) if self.says("API Key is valid") || self.says("Bearer Token has expired") => {
                Evidence::NotRecognized
            }
            // The account has no access to the model, or something other than a Bedrock action is denied, such as the
            // data plane's use of a KMS key.
            Some(Evidence::Denied) => Evidence::Model,
            Some(evidence) => evidence,
            None => Evidence::Failure,
        }
    }

    fn says(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|found| found == text.as_bytes())
    }
}

fn failed(class: ErrorClass, problem: impl Into<String>) -> Error {
    Error { class, ..unavailable(COMPLETION, problem) }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::super::test_server::{Answer as Served, TestServer};
    use super::*;

    const COMPLETED: &str = r#"{"choices":[{"message":{"content":"."}}]}"#;
    const UNRECOGNIZED: &str = "UnrecognizedClientException: The security token included in the request is invalid.";

    fn pin() -> Pin {
        Pin::new("AWS Bedrock", None).unwrap()
    }

    fn answer(status: u16, used: Option<&str>, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        for (name, value) in [("content-type", Some("application/json")), (USED_ENDPOINT, used)] {
            value.map(|value| headers.insert(name, value.parse().unwrap()));
        }
        Answer { status, headers, body: body.as_bytes().to_vec() }
    }

    fn summary(found: Result<Finding, Error>) -> String {
        match found {
            Ok(Finding::Proven) => "proven".to_owned(),
            Ok(Finding::Unproven(reason)) => format!("unproven: {reason}"),
            Ok(Finding::Busy(reason)) => format!("busy: {reason}"),
            Ok(Finding::Refused(Refusal { kind, answer, is_of_the_pinned })) => {
                format!("{kind:?} {answer}{}", if is_of_the_pinned { ", pinned" } else { "" })
            }
            Err(error) => format!("{:?}: {}", error.class, error.problem),
        }
    }

    #[test]
    fn an_answer_claims_only_what_it_establishes() {
        const PINNED: Option<&str> = Some("AWS Bedrock");
        for (status, used, body, expected) in [
            (200, PINNED, COMPLETED, "proven"),
            (200, None, COMPLETED, "unproven: the answer doesn't say which ai_secret Braintrust used"),
            (200, Some("Other"), COMPLETED, "unproven: Braintrust used the ai_secret \"Other\""),
            (200, PINNED, "{}", "unproven: answered application/json without a completion"),
            (200, PINNED, r#"{"choices":[]}"#, "unproven: answered application/json without a completion"),
            (400, None, UNRECOGNIZED, "NotRecognized 400 UnrecognizedClientException"),
            (403, PINNED, UNRECOGNIZED, "NotRecognized 403 UnrecognizedClientException, pinned"),
            (403, Some("Other"), UNRECOGNIZED, "unproven: Braintrust used the ai_secret \"Other\""),
            (400, None, "ExpiredTokenException: expired", "NotRecognized 400 ExpiredTokenException"),
            (400, None, "InvalidSignatureException: does not match", "NotRecognized 400 InvalidSignatureException"),
            (
                400,
                None,
                "InvalidSignatureException: Signature expired: 1",
                "Unavailable: answered 400 InvalidSignatureException",
            ),
            (
                400,
                None,
                "AccessDeniedException: User: x is not authorized to perform: bedrock:InvokeModel on model y",
                "Denied 400 AccessDeniedException",
            ),
            (
                400,
                None,
                "AccessDeniedException: Forbidden",
                "unproven: the model did not answer (400 AccessDeniedException)",
            ),
            (
                400,
                None,
                "AccessDeniedException: User: x is not authorized to perform: kms:Decrypt",
                "unproven: the model did not answer (400 AccessDeniedException)",
            ),
            (
                400,
                None,
                "AccessDeniedException: You don't have access to the model with the specified model ID.",
                "unproven: the model did not answer (400 AccessDeniedException)",
            ),
            (
                400,
                None,
                "AccessDeniedException: Authentication failed: Please make sure your API Key is valid.",
                "NotRecognized 400 AccessDeniedException",
            ),
            (400, None, "AccessDeniedException: Bearer Token has expired", "NotRecognized 400 AccessDeniedException"),
            (401, PINNED, "hidden", "NotRecognized 401, pinned"),
            (403, PINNED, "hidden", "NotRecognized 403, pinned"),
            (401, None, "hidden", "unproven: answered 401"),
            (403, None, "hidden", "unproven: answered 403"),
            (400, None, "ThrottlingException: hidden", "busy: the model is busy (400 ThrottlingException)"),
            (400, None, "ModelNotReadyException: hidden", "busy: the model is busy (400 ModelNotReadyException)"),
            (429, PINNED, "hidden", "busy: the model is busy (429)"),
            (429, None, "hidden", "Throttled: answered 429"),
            (400, None, "ValidationException: x", "unproven: the model did not answer (400 ValidationException)"),
            (
                400,
                None,
                "ResourceNotFoundException",
                "unproven: the model did not answer (400 ResourceNotFoundException)",
            ),
            (
                400,
                None,
                "Error: No API keys found (for x).",
                "unproven: Braintrust found no ai_secret with this name that serves the model",
            ),
            (
                400,
                None,
                "Error: Bedrock does not support OpenAI format",
                "unproven: Braintrust doesn't know the model as one of Bedrock's",
            ),
            (
                404,
                None,
                "hidden",
                "unproven: answered 404, so this data plane has no AI proxy, or it doesn't know the model",
            ),
            (400, None, "hidden", "unproven: answered 400"),
            (302, None, "hidden", "unproven: answered 302"),
            (500, None, "hidden", "Unavailable: answered 500"),
            (503, PINNED, "hidden", "Unavailable: answered 503"),
            (400, None, "InternalServerException: x", "Unavailable: answered 400 InternalServerException"),
        ] {
            let found = summary(answer(status, used, body).finding(&pin()));
            assert_eq!(found, expected, "{status} {used:?} {body}");
        }
    }

    #[test]
    fn an_exception_is_found_in_the_header_that_a_gateway_passes_on() {
        let denied = "not authorized to perform: bedrock:InvokeModel";
        let mut answer = answer(403, Some("AWS Bedrock"), &json!({"message": denied}).to_string());
        answer.headers.insert("x-amzn-errortype", "AccessDeniedException:http://internal".parse().unwrap());
        assert_eq!(summary(answer.finding(&pin())), "Denied 403 AccessDeniedException, pinned");
    }

    #[test]
    fn a_cached_answer_proves_nothing() {
        let mut cached = answer(200, Some("AWS Bedrock"), COMPLETED);
        cached.headers.insert(CACHED, "HIT".parse().unwrap());
        assert_eq!(summary(cached.finding(&pin())), "unproven: the answer came from Braintrust's cache");
        cached.headers.insert(CACHED, "MISS".parse().unwrap());
        assert_eq!(summary(cached.finding(&pin())), "proven");
    }

    #[test]
    fn a_name_is_heeded_if_its_absence_changes_the_answer() {
        for (status, body, expected) in [
            (400, "Error: No API keys found (for x).", Control::Heeded),
            (200, COMPLETED, Control::Ignored),
            (400, UNRECOGNIZED, Control::Ignored),
            (400, "No API keys found: AccessDeniedException", Control::Ignored),
            (400, "ThrottlingException: x", Control::Ignored),
            // From a gateway's own parser, a firewall, or a data plane without a proxy.
            (400, "The region is missing", Control::Unknown),
            (403, "<html>Forbidden</html>", Control::Unknown),
            (403, "IncompleteSignatureException", Control::Unknown),
            (404, "", Control::Unknown),
            (429, "", Control::Unknown),
            (502, "No API keys found", Control::Unknown),
            (302, "", Control::Unknown),
        ] {
            assert_eq!(answer(status, None, body).control(), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_name_that_no_header_can_carry_is_refused() {
        for name in ["Größe", "two\nlines", " padded", ""] {
            assert!(Pin::new(name, None).is_err_and(|reason| reason.contains("can't be sent in a header")), "{name:?}");
        }
        assert!(Pin::new("AWS Bedrock", Some("Größe")).is_err());
    }

    async fn verdict(server: &TestServer) -> Verdict {
        let model = "amazon.nova-micro-v1:0".to_owned().try_into().unwrap();
        server.api().prove_end_to_end(&pin(), &model).await
    }

    fn refusal() -> Served {
        Served::status(400).with_body("text/plain", UNRECOGNIZED)
    }

    fn completion() -> Served {
        Served::status(200).with_body("application/json", COMPLETED).with_header("x-bt-used-endpoint: AWS Bedrock")
    }

    #[tokio::test]
    async fn a_request_asks_for_one_token() {
        let server = TestServer::start_with([completion()]);
        assert_eq!(verdict(&server).await, Verdict::Proven);
        let received = server.received();
        assert_eq!((received[0].method.as_str(), received[0].target.as_str()), ("POST", "/v1/proxy/chat/completions"));
        let body = received[0].json();
        assert_eq!((&body["model"], &body["max_tokens"]), (&json!("amazon.nova-micro-v1:0"), &json!(1)));
    }

    #[tokio::test]
    async fn credentials_that_bedrock_does_not_recognize_yet_and_passing_failures_are_waited_for() {
        for first in [refusal(), Served::status(500), Served::status(429), Served::HangUp] {
            let server = TestServer::start_with([first, completion()]);
            assert_eq!(verdict(&server).await, Verdict::Proven);
            assert_eq!(server.received().len(), 2);
        }
    }

    #[tokio::test]
    async fn a_failure_that_stays_proves_nothing_and_is_repeated_four_times() {
        let server = TestServer::start(|_| Served::status(500).with_body("text/plain", "hidden"));
        assert_eq!(verdict(&server).await, Verdict::Unproven("answered 500".to_owned()));
        assert_eq!(server.received().len(), 5);
    }

    fn denial() -> Served {
        let denied = "AccessDeniedException: not authorized to perform: bedrock:InvokeModel";
        Served::status(400).with_body("text/plain", denied)
    }

    #[tokio::test]
    async fn a_refusal_counts_if_the_proxy_heeds_the_name() {
        let none_found = Served::status(400).with_body("text/plain", "Error: No API keys found (for x).");
        for (control, is_refused) in
            [(none_found, true), (Served::status(400), false), (denial(), false), (completion(), false)]
        {
            let server = TestServer::start_with([denial(), control]);
            assert_eq!(matches!(verdict(&server).await, Verdict::Refused(_)), is_refused);
            assert_eq!(server.received().len(), 2);
        }
        let server = TestServer::start_with([denial().with_header("x-bt-used-endpoint: AWS Bedrock")]);
        assert!(matches!(verdict(&server).await, Verdict::Refused(_)));
        assert_eq!(server.received().len(), 1);
    }
}
