//! Proves that Braintrust can use the credentials in an `ai_secret`: asks its AI proxy for one token of a model.
//!
//! The request names the `ai_secret`, and bypasses and refreshes the credentials that the proxy has cached for this API
//! key and model. The answer names the `ai_secret` that was used. <https://www.braintrust.dev/docs/guides/proxy>
//!
//! A refusal by Bedrock usually comes as a 400 that begins with the name of the AWS SDK's exception and doesn't say
//! which `ai_secret` was used. The same request for an `ai_secret` that doesn't exist then shows whether the proxy heeds
//! the name. If it does, it finds no credentials, and nothing is sent to Bedrock.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use backon::ExponentialBuilder;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Braintrust, Request, retry_after, unavailable};
use crate::config::ModelId;
use crate::error::{Error, ErrorClass, Service, shortened};
use crate::http;

/// The call, as errors name it.
pub const COMPLETION: &str = "POST /v1/proxy/chat/completions";
const ORGANIZATIONS: &str = "GET /v1/organization";
const USE_CACHE: HeaderName = HeaderName::from_static("x-bt-use-cache");
const USE_CREDENTIALS_CACHE: HeaderName = HeaderName::from_static("x-bt-use-creds-cache");
const ENDPOINT_NAME: HeaderName = HeaderName::from_static("x-bt-endpoint-name");
const ORG_NAME: HeaderName = HeaderName::from_static("x-bt-org-name");
const USED_ENDPOINT: &str = "x-bt-used-endpoint";
const CACHED: &str = "x-bt-cached";
const NEVER: HeaderValue = HeaderValue::from_static("never");
/// The name of no `ai_secret`.
const NO_AI_SECRET: HeaderValue = HeaderValue::from_static("bedrock-braintrust-rotator-asks-for-none");
/// In MB. A completion of one token has less than a kilobyte.
const MAX_RESPONSE: usize = 1;
/// Bedrock usually recognizes new IAM credentials after 5–15 seconds, and the probe has waited for that already.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How often a request is sent again after a failure that says nothing about the credentials. Each may cost a token.
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
            let is_exact = !name.is_empty() && name.trim() == name;
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
    /// Nothing about the credentials. The reason follows "… not proven through Braintrust:".
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

#[derive(Deserialize)]
struct Organization {
    id: Uuid,
    name: String,
}

impl Braintrust<'_> {
    /// The name of the organization, if the API key sees several. The proxy would otherwise choose among all their
    /// `ai_secret`s, and names are unique only within an organization.
    pub async fn organization_to_name(&self, id: Uuid) -> Result<Option<String>, Error> {
        let request = self.request(ORGANIZATIONS, None);
        let seen = self.pages(&request, |seen: &Organization| seen.id, &|_| true, usize::MAX).await?;
        if seen.len() <= 1 {
            return Ok(None);
        }
        let problem = "its organization is not among those that the API key sees";
        let named = seen.into_iter().find(|seen| seen.id == id).map(|seen| seen.name);
        named.map(Some).ok_or_else(|| unavailable(ORGANIZATIONS, problem).into_final())
    }

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

    /// Whether a refusal is one of the credentials in the pinned `ai_secret`. If the answer doesn't say, the proxy must
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
            (None, 429) => Control::Unknown,
            (None, 400..500) => Control::Heeded,
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
            (None, _) if self.says("No API keys found") => {
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
            // A signature outside of its time is a matter of Braintrust's clock.
            Some(Evidence::NotRecognized) if self.says("Signature expired") || self.says("Signature not yet") => {
                Evidence::Failure
            }
            Some(Evidence::Denied) if self.says("not authorized to perform") => Evidence::Denied,
            Some(Evidence::Denied) if self.says("API Key is valid") || self.says("Bearer Token has expired") => {
                Evidence::NotRecognized
            }
            // The account has no access to the model, whatever its credentials are.
            Some(Evidence::Denied) if self.says("model") => Evidence::Model,
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
