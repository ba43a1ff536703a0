//! Proves that credentials work, with requests to Amazon Bedrock that are signed with them.

mod answers;
mod endpoints;

use std::cell::{Cell, RefCell};
use std::error::Error as StdError;
use std::time::Duration;

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings};
use backon::ExponentialBuilder;
use futures_util::future::join_all;
use jiff::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, Url};
use secrecy::ExposeSecret;

use self::answers::{Evidence, Refusal};
use self::endpoints::Api;
pub use self::endpoints::Endpoints;
use super::{refusals, sdk, signature};
use crate::config::{ModelId, Probe, Region, Source, Target};
use crate::credentials::{Authentication, Credentials};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorClass, Service};
use crate::http::{self, Failure};
use crate::report::iso8601;
use crate::revocation;

/// Bedrock usually recognizes new IAM credentials after 5–15 seconds. After a minute, something is wrong.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Frequent at first, because Bedrock recognizes most credentials at once. [`MAX_WAIT`] ends it.
const UNTIL_RECOGNIZED: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(250))
    .with_max_delay(Duration::from_secs(4))
    .without_max_times()
    .with_jitter();
/// IAM's changes reach one host after another, and some only after minutes.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency>
const MAX_WAIT_FOR_REFUSAL: Duration = Duration::from_secs(180);
/// The number of refusals in a row that prove that credentials are dead.
const REFUSALS: u32 = 2;
const BETWEEN_CONFIRMATIONS: Duration = Duration::from_millis(500);
/// How many times a busy model is called before its answer counts as proof that Bedrock recognizes the credentials.
const MAX_BUSY_ANSWERS: u32 = 3;
/// The smallest request that a model answers.
const ONE_TOKEN: &str = r#"{"messages":[{"role":"user","content":[{"text":"."}]}],"inferenceConfig":{"maxTokens":1}}"#;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Far more than a refusal, which is a line of text.
const MAX_REFUSAL_MEGABYTES: usize = 1;
const AGAIN: &str = "The next scheduled run tries again";
const IN_ITS_PLACE: &str = "Something else answers in Bedrock's place. Check the network path and the endpoint";
const NOT_RECOGNIZED: &str = "Bedrock doesn't recognize the credentials. The next scheduled run tries again or creates \
                              others. If this continues, check that their account may use this region";

/// How credentials were ended, which decides what answer proves that they are dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The key was deleted, so Bedrock no longer recognizes it.
    Key,
    /// A policy denies their session everything. Their successor is allowed the same call.
    Session,
}

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

/// Proven credentials, and a warning for each model that was not proven.
pub struct Proof<'a> {
    pub proven: Proven<'a>,
    pub warnings: Vec<String>,
}

pub struct Bedrock {
    pub http: Client,
    pub endpoints: Endpoints,
    pub clock: fn() -> Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    ListFoundationModels,
    Converse,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::ListFoundationModels => "ListFoundationModels",
            Self::Converse => "Converse",
        }
    }
}

/// `ListFoundationModels`, or `Converse` for one token of a model.
struct Call<'a> {
    operation: Operation,
    model: Option<&'a ModelId>,
    region: &'a Region,
    /// Whose policy allows the call: the role or the IAM user.
    owner: String,
    url: Url,
    body: &'static str,
}

enum Answered {
    Accepted,
    Refused(Refusal),
}

/// What an answer proves.
#[derive(Debug, PartialEq, Eq)]
enum Accepted {
    Everything,
    /// Bedrock recognizes the credentials, but this answer doesn't show that they can use the model.
    CredentialsOnly(String),
}

/// What one call proved, and for which model.
type Outcome<'a> = (Option<&'a ModelId>, Result<Accepted, Error>);

impl Bedrock {
    /// Calls Bedrock in the target's region until `confirmations` calls in a row have succeeded. New IAM credentials
    /// reach one host after another, so a failure may follow a success. A refusal of credentials that Bedrock
    /// recognizes (`permission`) is not retried. If the target names several models, they are called side by side, and
    /// one that works is enough.
    pub async fn prove<'a>(
        &self,
        credentials: &'a Credentials,
        target: &Target,
        confirmations: u32,
        deadline: Deadline,
    ) -> Result<Proof<'a>, Error> {
        let outcomes = self.calls(target, credentials).await?.into_iter().map(async |call| {
            let outcome = Box::pin(self.prove_one(&call, credentials, confirmations, deadline)).await;
            (call.model, outcome)
        });
        let warnings = weigh(join_all(outcomes).await)?;
        Ok(Proof { proven: Proven(credentials), warnings })
    }

    /// Opens the connections that [`Self::prove`] needs. Errors are ignored, because the proof reports them.
    pub async fn connect_early(&self, target: &Target) {
        for url in self.urls(target).await.unwrap_or_default() {
            http::connect_early(&self.http, &url);
        }
    }

    /// Calls Bedrock with credentials that were ended until it refuses them [`REFUSALS`] times in a row. The error is
    /// `verification_failed` if it still accepts them after [`MAX_WAIT_FOR_REFUSAL`].
    pub async fn prove_dead(
        &self,
        credentials: &Credentials,
        target: &Target,
        ended: Ended,
        deadline: Deadline,
    ) -> Result<revocation::Evidence, Error> {
        let calls = self.calls(target, credentials).await?;
        let Some(call) = calls.first() else {
            return Err(Error::configuration("probe", "it names no model", "Report this as a bug"));
        };
        let attempt = || async {
            let mut answer = self.refusal(call, credentials, ended).await?;
            for _ in 1..REFUSALS {
                tokio::time::sleep(BETWEEN_CONFIRMATIONS).await;
                answer = self.refusal(call, credentials, ended).await?;
            }
            Ok(answer)
        };
        let still_accepted = RefCell::new(None);
        let may_succeed = |error: &Error| {
            let is_accepted = error.class == ErrorClass::VerificationFailed;
            if is_accepted {
                still_accepted.replace(Some(error.clone()));
            }
            is_accepted || error.is_retryable()
        };
        let wait = deadline.at_most(MAX_WAIT_FOR_REFUSAL);
        let name = call.operation.name();
        let answer = wait.retry_while(Service::Bedrock, name, UNTIL_RECOGNIZED, may_succeed, attempt).await;
        // If the limit interrupts an attempt, the answer before it says more.
        let is_interrupted = |error: &Error| error.class == ErrorClass::Timeout;
        let answer =
            answer.map_err(|error| still_accepted.take().filter(|_| is_interrupted(&error)).unwrap_or(error))?;
        Ok(revocation::Evidence { service: Service::Bedrock, call: name, answer, at: iso8601((self.clock)()) })
    }

    /// The answer with which Bedrock refuses ended credentials. Anything else is an error.
    async fn refusal(&self, call: &Call<'_>, credentials: &Credentials, ended: Ended) -> Result<String, Error> {
        let still_works = |answer: &str| {
            let problem = format!("Bedrock still accepts {}: it answered {answer}", credentials.id);
            let remedy = "IAM's changes can take a few minutes to take effect. Repeat the command: it continues, and \
                          proves that the credentials are refused";
            call.error(ErrorClass::VerificationFailed, problem, remedy)
        };
        match self.exchange(call, credentials).await? {
            Answered::Accepted => Err(still_works("200")),
            // A proxy may block the request, too. Only Bedrock names an error.
            Answered::Refused(refusal) if refusal.code.is_empty() => Err(call.error(
                ErrorClass::Unavailable,
                format!("answered {} without an error code", refusal.status),
                IN_ITS_PLACE,
            )),
            Answered::Refused(refusal) => {
                let answer = format!("{} {}", refusal.status, refusal.code).trim_end().to_owned();
                match (refusal.evidence(call.operation, credentials.kind().is_api_key()), ended) {
                    (Evidence::NotRecognized, _) | (Evidence::DeniedByPolicy, Ended::Session) => Ok(answer),
                    (Evidence::DeniedByPolicy | Evidence::NoAccessToModel | Evidence::ModelUnproven { .. }, _) => {
                        Err(still_works(&answer))
                    }
                    (Evidence::Stale, _) => {
                        Err(call.error(ErrorClass::Unavailable, format!("answered {answer}"), refusals::CLOCK))
                    }
                    (Evidence::Nothing(class), _) => Err(call.error(class, format!("answered {answer}"), AGAIN)),
                }
            }
        }
    }

    async fn prove_one(
        &self,
        call: &Call<'_>,
        credentials: &Credentials,
        confirmations: u32,
        deadline: Deadline,
    ) -> Result<Accepted, Error> {
        let busy_answers = Cell::new(0);
        let attempt = || async {
            let mut accepted = self.send(call, credentials, &busy_answers).await?;
            for _ in 1..confirmations {
                tokio::time::sleep(BETWEEN_CONFIRMATIONS).await;
                accepted = self.send(call, credentials, &busy_answers).await?;
            }
            Ok(accepted)
        };
        until_recognized(call.operation.name(), deadline, attempt).await
    }

    async fn calls<'a>(&self, target: &'a Target, credentials: &Credentials) -> Result<Vec<Call<'a>>, Error> {
        let (operation, models, body) = match &target.probe {
            Probe::Models => (Operation::ListFoundationModels, &[][..], ""),
            Probe::Converse(models) => (Operation::Converse, models.as_slice(), ONE_TOKEN),
        };
        let (region, owner) = (&target.region, owner(target, credentials));
        let call = |(n, url)| Call { operation, model: models.get(n), region, owner: owner.clone(), url, body };
        Ok(self.urls(target).await?.into_iter().enumerate().map(call).collect())
    }

    /// The URLs that the target's probe calls: one for the list of models, or one for each model.
    async fn urls(&self, target: &Target) -> Result<Vec<Url>, Error> {
        let region = &target.region;
        let refuse = || {
            let problem = format!("{:?} can't be part of a URL", region.as_str());
            Error::configuration("region", problem, "Use the name of a region")
        };
        let (api, paths) = match &target.probe {
            Probe::Models => (Api::Control, vec![vec!["foundation-models"]]),
            Probe::Converse(models) => {
                let models = models.as_slice().iter();
                (Api::Runtime, models.map(|model| vec!["model", model.as_str(), "converse"]).collect())
            }
        };
        let endpoint = self.endpoints.of(api, region).await.ok_or_else(refuse)?;
        let url = |path: Vec<&str>| {
            let mut url = endpoint.clone();
            url.path_segments_mut().map_err(|()| refuse())?.pop_if_empty().extend(path);
            Ok(url)
        };
        paths.into_iter().map(url).collect()
    }

    async fn send(
        &self,
        call: &Call<'_>,
        credentials: &Credentials,
        busy_answers: &Cell<u32>,
    ) -> Result<Accepted, Error> {
        match self.exchange(call, credentials).await? {
            Answered::Accepted => Ok(Accepted::Everything),
            Answered::Refused(refusal) => call.judge(&refusal, credentials.kind().is_api_key(), busy_answers),
        }
    }

    async fn exchange(&self, call: &Call<'_>, credentials: &Credentials) -> Result<Answered, Error> {
        let request = self.request(call, credentials).map_err(|problem| {
            let problem = format!("the request can't be signed: {problem}");
            call.error(ErrorClass::Configuration, problem, "Report this as a bug")
        })?;
        let mut response = self.http.execute(request).await.map_err(|error| {
            let class = http::class(&error);
            let remedy =
                format!("Check that Bedrock is available in {} and that the function can reach it", call.region);
            Failure::of(&error).into_error(|problem| call.error(class, problem, remedy))
        })?;
        if !response.status().is_success() {
            let body = http::read_body(&mut response, MAX_REFUSAL_MEGABYTES).await.unwrap_or_default();
            return Ok(Answered::Refused(Refusal::read(response.status().as_u16(), response.headers(), &body)));
        }
        match http::media_type(response.headers()).as_str() {
            "application/json" => Ok(Answered::Accepted),
            other => Err(call.error(
                ErrorClass::Unavailable,
                format!("answered {other} where JSON was expected"),
                IN_ITS_PLACE,
            )),
        }
    }

    fn request(&self, call: &Call<'_>, credentials: &Credentials) -> Result<reqwest::Request, Box<dyn StdError>> {
        let mut request = ::http::Request::builder().uri(call.url.as_str()).header(ACCEPT, JSON).body(call.body)?;
        if !call.body.is_empty() {
            *request.method_mut() = Method::POST;
            request.headers_mut().insert(CONTENT_TYPE, JSON);
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
                let region = call.region.as_str();
                let signature = signature::sign(signable, signer, "bedrock", region, (self.clock)(), settings)?;
                // Security: the signer marks the header with the session token as sensitive.
                signature.apply_to_request_http1x(&mut request);
            }
        }
        Ok(request.try_into()?)
    }
}

/// Whose credentials these are. Those of the kind that the target had before may be somebody else's.
fn owner(target: &Target, credentials: &Credentials) -> String {
    match &target.source {
        _ if credentials.kind() != target.kind() => "their role or IAM user".to_owned(),
        Source::RoleBased(source) => format!("the role {}", source.role.role_arn),
        Source::UserBased(source) => format!("the IAM user {}", source.user_name),
    }
}

/// Repeats an attempt until Bedrock recognizes the credentials, for at most [`MAX_WAIT`]. If this limit interrupts an
/// attempt, the error of the attempt before it is returned, because that error says more.
async fn until_recognized<T, F: Future<Output = Result<T, Error>>>(
    call: &'static str,
    deadline: Deadline,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error> {
    let last_error = RefCell::new(None);
    let may_succeed = |error: &Error| error.is_retryable() || error.class == ErrorClass::InvalidCredentials;
    let attempt = || {
        let attempt = attempt();
        async { attempt.await.inspect_err(|error| drop(last_error.replace(Some(error.clone())))) }
    };
    let wait = deadline.at_most(MAX_WAIT);
    let result = wait.retry_while(Service::Bedrock, call, UNTIL_RECOGNIZED, may_succeed, attempt).await;
    match last_error.take() {
        Some(error) if result.is_err() && deadline.allows(Duration::ZERO) => Err(error),
        Some(_) | None => result,
    }
}

impl Call<'_> {
    fn error(&self, class: ErrorClass, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::new(class, Service::Bedrock, self.operation.name(), problem, remedy)
    }

    /// What a refusal proves. The error if it proves nothing, or if the credentials can't be used.
    fn judge(&self, refusal: &Refusal, is_api_key: bool, busy_answers: &Cell<u32>) -> Result<Accepted, Error> {
        let evidence = refusal.evidence(self.operation, is_api_key);
        let answer = format!("{} {}", refusal.status, refusal.code).trim_end().to_owned();
        let (class, remedy) = match evidence {
            Evidence::ModelUnproven { may_pass } => {
                let count = busy_answers.replace(busy_answers.get() + 1) + 1;
                if !may_pass || count >= MAX_BUSY_ANSWERS {
                    return Ok(Accepted::CredentialsOnly(answer));
                }
                (ErrorClass::Throttled, AGAIN.to_owned())
            }
            Evidence::NotRecognized => (ErrorClass::InvalidCredentials, NOT_RECOGNIZED.to_owned()),
            Evidence::Stale => (ErrorClass::Unavailable, refusals::CLOCK.to_owned()),
            Evidence::DeniedByPolicy => (ErrorClass::Permission, self.policy_remedy(is_api_key)),
            Evidence::NoAccessToModel => (ErrorClass::Permission, self.access_remedy()),
            Evidence::Nothing(class) if class == ErrorClass::Configuration => {
                let region = self.region;
                (
                    class,
                    format!("Check the region ({region}) and the model: BedrockRegion and ProbeModelId, or the target"),
                )
            }
            Evidence::Nothing(class) => (class, AGAIN.to_owned()),
        };
        let problem = match self.model {
            Some(model) => format!("answered {answer} for {model}"),
            None => format!("answered {answer}"),
        };
        let details = refusals::details(class, &refusal.message, refusal.request_id.as_deref());
        Err(self.error(class, problem, remedy).with_aws(details))
    }

    fn policy_remedy(&self, is_api_key: bool) -> String {
        let also = if is_api_key { "bedrock:CallWithBearerToken and " } else { "" };
        let permission = match self.model {
            Some(model) => format!("bedrock:InvokeModel on {model}"),
            None => "bedrock:ListFoundationModels".to_owned(),
        };
        format!(
            "Bedrock recognizes the credentials. Allow {also}{permission} in the policy of {}, and look for a session \
             policy, a permissions boundary, or a service control policy that denies it",
            self.owner
        )
    }

    fn access_remedy(&self) -> String {
        let model = self.model.map_or("the model", ModelId::as_str);
        format!(
            "Bedrock recognizes the credentials, but their account has no access to the model {model} in {}. Request \
             access in the Bedrock console, or name another model (the parameter ProbeModelId, or the target's probe)",
            self.region
        )
    }
}

/// Combines the outcomes of all calls into a warning for each model that was not proven, or into an error. One model
/// that works proves the credentials, whatever the others answer. If none works but Bedrock recognized the credentials,
/// a denied call is only a warning, too.
fn weigh(outcomes: Vec<Outcome<'_>>) -> Result<Vec<String>, Error> {
    let works = outcomes.iter().any(|(_, outcome)| matches!(outcome, Ok(Accepted::Everything)));
    let is_recognized = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
    let (mut warnings, mut failure) = (Vec::new(), None);
    for (model, outcome) in outcomes {
        let model = model.map_or("the model", ModelId::as_str);
        match outcome {
            Ok(Accepted::Everything) => {}
            Ok(Accepted::CredentialsOnly(answer)) => warnings.push(format!(
                "Bedrock recognizes the credentials, but the probe didn't prove that they can use {model}: it answered \
                 {answer}. Check the model's quotas, lifecycle, and inference profiles, or name another model (the \
                 parameter ProbeModelId, or the target's probe)"
            )),
            Err(error) if works || (is_recognized && error.class == ErrorClass::Permission) => {
                warnings.push(format!("The probe didn't prove that the credentials can use {model}: {error}"));
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(warnings), Err)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::for_test::user_based;
    use crate::config::{AssumeRole, RoleBased, RoleBasedKind, Source};
    use crate::credentials::Secret;

    const ACCEPTED: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    const NOT_RECOGNIZED: &str =
        "HTTP/1.1 403 Forbidden\r\nx-amzn-errortype: UnrecognizedClientException\r\ncontent-length: 0\r\n\r\n";
    const DENIED: &str =
        "HTTP/1.1 403 Forbidden\r\nx-amzn-errortype: AccessDeniedException\r\ncontent-length: 0\r\n\r\n";
    const BLOCKED: &str = "HTTP/1.1 403 Forbidden\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nno";
    const BLOCKED_WITH_401: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
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
        let endpoints = Endpoints { control: endpoint.clone(), runtime: endpoint, ..Endpoints::default() };
        Bedrock { http, endpoints, clock }
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
            source_identity: None,
            session_tags: Default::default(),
            duration_seconds: 3_600,
            session_policy: None,
        };
        Target {
            name: "prod".to_owned().try_into().unwrap(),
            region: "eu-west-1".to_owned().try_into().unwrap(),
            source: Source::RoleBased(RoleBased {
                kind: RoleBasedKind::Temporary,
                role,
                revoke_sessions: false,
                secret_id: None,
            }),
            probe: Probe::Models,
            end_to_end: None,
            destinations: Vec::new(),
            claims: Default::default(),
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
        let error = proven.unwrap_err();
        assert_eq!((error.class, heads.len()), (ErrorClass::Permission, 1));
        assert!(
            error.remedy.contains("policy of the role arn:aws:iam::123456789012:role/bedrock,"),
            "{}",
            error.remedy
        );
    }

    #[test]
    fn credentials_belong_to_the_targets_role_or_user_unless_its_kind_was_another() {
        let user = user_based("somebody");
        assert_eq!(owner(&target(), &credentials()), "the role arn:aws:iam::123456789012:role/bedrock");
        assert_eq!(owner(&user, &credentials()), "their role or IAM user");
        let of_user = Credentials { secret: Secret::AccessKey { secret_access_key: "key".into() }, ..credentials() };
        assert_eq!(owner(&user, &of_user), "the IAM user somebody");
    }

    #[tokio::test]
    async fn an_answer_that_is_not_json_proves_nothing() {
        let (proven, _) = prove(&[PORTAL, DENIED], 1).await;
        assert_eq!(proven.unwrap_err().class, ErrorClass::Permission);
    }

    #[tokio::test]
    async fn a_refusal_by_something_in_bedrocks_place_is_no_evidence_that_credentials_are_dead() {
        let (url, server) = serve(&[BLOCKED, BLOCKED_WITH_401, DENIED, BLOCKED, DENIED, DENIED]);
        let (credentials, target, deadline) = (credentials(), target(), Deadline::after(MAX_WAIT));
        let evidence = bedrock(Some(url)).prove_dead(&credentials, &target, Ended::Session, deadline).await.unwrap();
        assert_eq!(evidence.answer, "403 AccessDeniedException");
        assert_eq!(server.join().unwrap().len(), 6);
    }

    fn outcome(model: &ModelId, found: Result<Accepted, ErrorClass>) -> Outcome<'_> {
        let error = |class| Error::new(class, Service::Bedrock, "Converse", "answered", "Do this");
        (Some(model), found.map_err(error))
    }

    #[test]
    fn one_model_that_works_is_enough_and_the_warnings_name_the_others() {
        use ErrorClass::{InvalidCredentials, Permission, Throttled, Unavailable};
        let (a, b): (ModelId, ModelId) =
            ("model-a".to_owned().try_into().unwrap(), "model-b".to_owned().try_into().unwrap());
        let works = || Ok(Accepted::Everything);
        let busy = || Ok(Accepted::CredentialsOnly("429 ThrottlingException".to_owned()));
        for (first, second, expected) in [
            (works(), works(), Ok(vec![])),
            (works(), busy(), Ok(vec!["model-b"])),
            (busy(), works(), Ok(vec!["model-a"])),
            (busy(), busy(), Ok(vec!["model-a", "model-b"])),
            (works(), Err(Permission), Ok(vec!["model-b"])),
            (works(), Err(Unavailable), Ok(vec!["model-b"])),
            (works(), Err(InvalidCredentials), Ok(vec!["model-b"])),
            (busy(), Err(Permission), Ok(vec!["model-a", "model-b"])),
            (busy(), Err(InvalidCredentials), Err(InvalidCredentials)),
            (busy(), Err(Unavailable), Err(Unavailable)),
            (Err(Permission), Err(Permission), Err(Permission)),
            (Err(Throttled), Err(Permission), Err(Throttled)),
        ] {
            let case = format!("{first:?} {second:?}");
            match (weigh(vec![outcome(&a, first), outcome(&b, second)]), expected) {
                (Ok(warnings), Ok(models)) => {
                    assert_eq!(warnings.len(), models.len(), "{case}");
                    assert!(warnings.iter().zip(models).all(|(it, model)| it.contains(model)), "{case}: {warnings:?}");
                }
                (Err(error), Err(class)) => assert_eq!(error.class, class, "{case}"),
                (found, _) => panic!("{case}: {found:?}"),
            }
        }
    }

    /// The answers to a `Converse` for each of these models, one after another.
    async fn converse(models: Value, answers: &'static [&'static str]) -> (Result<Vec<String>, Error>, Vec<String>) {
        let (url, server) = serve(answers);
        let target = Target { probe: Probe::Converse(serde_json::from_value(models).unwrap()), ..target() };
        let credentials = credentials();
        let proof = bedrock(Some(url)).prove(&credentials, &target, 1, Deadline::after(MAX_WAIT)).await;
        let warnings = proof.map(|proof| proof.warnings);
        (warnings, server.join().unwrap())
    }

    const BUSY: &str =
        "HTTP/1.1 429 Too Many Requests\r\nx-amzn-errortype: ThrottlingException\r\ncontent-length: 0\r\n\r\n";
    const LEGACY: &str =
        "HTTP/1.1 404 Not Found\r\nx-amzn-errortype: ResourceNotFoundException\r\ncontent-length: 0\r\n\r\n";

    #[tokio::test]
    async fn a_busy_model_proves_the_credentials_after_a_few_attempts_with_a_warning() {
        let (warnings, heads) = converse(json!("a"), &[BUSY, BUSY, BUSY]).await;
        assert!(warnings.as_ref().unwrap()[0].contains("429 ThrottlingException"), "{warnings:?}");
        assert_eq!(heads.len(), 3);
        let (warnings, heads) = converse(json!("a"), &[BUSY, ACCEPTED]).await;
        assert_eq!((warnings.unwrap().len(), heads.len()), (0, 2));
    }

    #[tokio::test]
    async fn a_retired_model_proves_the_credentials_at_once_with_a_warning() {
        let (warnings, heads) = converse(json!("a"), &[LEGACY]).await;
        assert!(warnings.as_ref().unwrap()[0].contains("404 ResourceNotFoundException"), "{warnings:?}");
        assert!(
            heads[0].starts_with("POST /model/a/converse") && heads[0].contains("\naccept: application/json"),
            "{heads:?}"
        );
    }

    #[tokio::test]
    async fn each_of_several_models_is_called() {
        let (warnings, heads) = converse(json!(["a", "b"]), &[ACCEPTED, ACCEPTED]).await;
        assert_eq!(warnings.unwrap().len(), 0);
        for model in ["a", "b"] {
            assert!(heads.iter().any(|head| head.starts_with(&format!("POST /model/{model}/converse"))), "{heads:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_the_probes_limit_interrupts_ends_with_the_error_before_it() {
        for (remaining, class) in [(300, ErrorClass::InvalidCredentials), (30, ErrorClass::Timeout)] {
            let count = Cell::new(0);
            let attempt = || async {
                if count.replace(count.get() + 1) > 4 {
                    std::future::pending::<()>().await;
                }
                Err::<(), _>(Error::new(ErrorClass::InvalidCredentials, Service::Bedrock, "test", "a", "b"))
            };
            let deadline = Deadline::after(Duration::from_secs(remaining));
            assert_eq!(until_recognized("test", deadline, attempt).await.unwrap_err().class, class, "{remaining}");
        }
    }
}
