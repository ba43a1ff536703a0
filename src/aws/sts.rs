//! Calls AWS Security Token Service (STS) to assume roles and to identify the function's own role.

use std::time::Duration;

use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_sts::Client;
use aws_sdk_sts::config::Builder;
use aws_sdk_sts::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings};
use aws_types::SdkConfig;
use backon::ExponentialBuilder;
use jiff::Timestamp;
use percent_encoding::utf8_percent_encode;
use reqwest::Url;
use reqwest::header::CONTENT_TYPE;
use tokio::sync::OnceCell;

use super::direct::{self, element};
use super::refusals::{self, Refusal};
use super::requests::AwsRequests;
use super::retries::{CountAttempts, RepeatRefused};
use super::{sdk, signature};
use crate::config::{AssumeRole, RoleArn, SessionNames};
use crate::credentials::SessionCredentials;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorClass, Service};
use crate::http;

const ASSUME_ROLE: &str = "AssumeRole";
const FORM: &str = "application/x-www-form-urlencoded";
/// Over 8 to 15 seconds, as the SDK's: STS throttles an account by the second, and a run has many targets.
const RETRIES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(500))
    .with_max_delay(Duration::from_secs(10))
    .with_max_times(4)
    .with_jitter();

pub struct Sts {
    client: Client,
    /// For `AssumeRole`: every target of a run may need it, and the SDK takes twice as much CPU time for it.
    http: reqwest::Client,
    config: SdkConfig,
    endpoint: OnceCell<Option<Endpoint>>,
    clock: fn() -> Timestamp,
}

#[derive(Debug)]
struct Endpoint {
    url: Url,
    /// The region of the signature.
    region: String,
}

/// The answer to a call that succeeded. It has no `Debug`, because the body holds secrets.
struct Answer {
    body: String,
    request_id: String,
}

impl Sts {
    pub fn new(http: reqwest::Client, config: SdkConfig, clock: fn() -> Timestamp) -> Self {
        let client = Builder::from(&config).interceptor(CountAttempts).retry_classifier(RepeatRefused);
        Self { client: Client::from_conf(client.build()), http, config, endpoint: OnceCell::new(), clock }
    }

    /// Assumes `role` in a session that is named after the target, so that CloudTrail shows which target calls Bedrock.
    /// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
    pub async fn assume_role(
        &self,
        role: &AssumeRole,
        names: SessionNames<'_>,
        deadline: Deadline,
        requests: &AwsRequests,
    ) -> Result<SessionCredentials, Error> {
        let (now, form) = ((self.clock)(), form(role, names));
        // Every target that is under way has one of these futures.
        let answer = Box::pin(repeat(deadline, || self.exchange(&form)));
        let answer = requests.record(Service::Sts, ASSUME_ROLE, answer, |answer| Some(&*answer.request_id)).await;
        let answer = answer.map_err(|error| explain(error.into_final(), role))?;
        let missing = || sdk::missing(Service::Sts, ASSUME_ROLE, "credentials or their expiry");
        session(&answer.body, now).ok_or_else(missing)
    }

    async fn exchange(&self, form: &str) -> Result<Answer, Error> {
        let request = self.request(form).await.ok_or_else(|| sdk::no_request(Service::Sts, ASSUME_ROLE))?;
        let mut response = direct::send(&self.http, request, Service::Sts, ASSUME_ROLE).await?;
        let status = response.status();
        let body = http::read_body(&mut response, sdk::MAX_RESPONSE_MEGABYTES).await.map_err(unavailable)?;
        // Security: the body holds the session's secrets. The allocator zeroizes it.
        let body = String::from_utf8_lossy(&body).into_owned();
        let request_id = direct::header(response.headers(), "x-amzn-requestid").map(str::to_owned);
        let request_id = request_id.unwrap_or_else(|| element(&body, "RequestId"));
        if !status.is_success() {
            return Err(refusal(status.as_u16(), &body, &request_id));
        }
        if !body.contains("</AssumeRoleResponse>") {
            return Err(unavailable(format!("answered {} with an unreadable body", status.as_u16())));
        }
        Ok(Answer { body, request_id })
    }

    /// Makes a request with a signature of its own, because Lambda may have frozen the function since the last attempt.
    async fn request(&self, form: &str) -> Option<reqwest::Request> {
        let Endpoint { url, region } = self.endpoint().await?;
        let signer = self.config.credentials_provider()?.provide_credentials().await.ok()?;
        let mut request = ::http::Request::post(url.as_str()).header(CONTENT_TYPE, FORM).body(form.to_owned()).ok()?;
        let (headers, body) = ([(CONTENT_TYPE.as_str(), FORM)], SignableBody::Bytes(form.as_bytes()));
        let signable = SignableRequest::new("POST", url.as_str(), headers.into_iter(), body).ok()?;
        let settings = SigningSettings::default();
        let signature = signature::sign(signable, signer, "sts", region, (self.clock)(), settings).ok()?;
        // Security: the signer marks the header with the session token as sensitive.
        signature.apply_to_request_http1x(&mut request);
        request.try_into().ok()
    }

    /// The endpoint that the SDK's client calls.
    async fn endpoint(&self) -> Option<&Endpoint> {
        let resolve = async || {
            let region = self.config.region()?.as_ref();
            let parameters = Params::builder().region(region).set_endpoint(sdk::endpoint_url(&self.config, "STS"));
            let parameters = parameters.set_use_fips(self.config.use_fips());
            let parameters = parameters.set_use_dual_stack(self.config.use_dual_stack()).use_global_endpoint(false);
            let endpoint = DefaultResolver::new().resolve_endpoint(&parameters.build().ok()?).await.ok()?;
            let region_of_signature = endpoint.auth_schemes().iter().find_map(|scheme| scheme.get("signingRegion"));
            let region = region_of_signature.and_then(|region| region.as_string()).unwrap_or(region).to_owned();
            Some(Endpoint { url: Url::parse(&format!("{}/", endpoint.url().trim_end_matches('/'))).ok()?, region })
        };
        self.endpoint.get_or_init(resolve).await.as_ref()
    }

    /// The role that the function runs as.
    pub async fn caller(&self, deadline: Deadline) -> Result<RoleArn, Error> {
        const CALL: &str = "GetCallerIdentity";
        let request = self.client.get_caller_identity().send();
        let identity = sdk::send(Service::Sts, CALL, deadline, request).await?;
        role_of_session(&identity.arn.unwrap_or_default()).ok_or_else(|| {
            let problem = "the function doesn't run as a role";
            let remedy = "A rotation shows whether its permissions are sufficient";
            Error::new(ErrorClass::Configuration, Service::Sts, CALL, problem, remedy)
        })
    }
}

/// The parameters of the call.
fn form(role: &AssumeRole, names: SessionNames<'_>) -> String {
    let mut form = "Action=AssumeRole&Version=2011-06-15".to_owned();
    let mut add = |name: &str, value: &str| {
        form.extend(["&", name, "="]);
        form.extend(utf8_percent_encode(value, signature::ENCODED));
    };
    add("RoleArn", role.role_arn.as_str());
    add("RoleSessionName", &format!("braintrust-{}", names.target));
    add("DurationSeconds", &role.duration_seconds.to_string());
    for (name, value) in [
        ("Policy", role.session_policy.clone()),
        ("ExternalId", role.external_id.as_ref().map(ToString::to_string)),
        ("SourceIdentity", role.source_identity.as_ref().map(|identity| names.expand(identity.as_str()))),
    ] {
        value.into_iter().for_each(|value| add(name, &value));
    }
    for (number, (key, value)) in (1..).zip(role.session_tags.iter()) {
        add(&format!("Tags.member.{number}.Key"), key);
        add(&format!("Tags.member.{number}.Value"), &names.expand(value));
    }
    form
}

/// Repeats a call until it succeeds or its error is not retryable, and once if AWS refused the time of the first
/// signature.
async fn repeat<F: Future<Output = Result<Answer, Error>>>(
    deadline: Deadline,
    attempt: impl FnMut() -> F,
) -> Result<Answer, Error> {
    let mut attempts = 0;
    let may_succeed = |error: &Error| {
        attempts += 1;
        error.is_retryable() || (attempts == 1 && error.remedy == refusals::CLOCK)
    };
    deadline.retry_while(Service::Sts, ASSUME_ROLE, RETRIES, may_succeed, attempt).await
}

/// Explains an error response.
fn refusal(status: u16, body: &str, request_id: &str) -> Error {
    let (code, message, request_id) = (&*element(body, "Code"), &*element(body, "Message"), Some(request_id));
    let error = Refusal { service: Service::Sts, call: ASSUME_ROLE, status, code, message, request_id };
    let error = refusals::explain(error);
    // Something other than AWS refuses the request, such as a firewall.
    if code.is_empty() && status < 500 && status != 429 { error.into_final() } else { error }
}

fn unavailable(problem: String) -> Error {
    let class = ErrorClass::Unavailable;
    Error::new(class, Service::Sts, ASSUME_ROLE, problem, refusals::remedy(class))
}

/// Reads the credentials of a session. `None` if anything of them is missing.
fn session(body: &str, created_at: Timestamp) -> Option<SessionCredentials> {
    let text = |name| Some(element(body, name)).filter(|text| !text.is_empty());
    let expiration: Timestamp = text("Expiration")?.parse().ok()?;
    Some(SessionCredentials {
        access_key_id: text("AccessKeyId")?,
        // Security: from here on, the secrets are `SecretString`s.
        secret_access_key: text("SecretAccessKey")?.into(),
        session_token: text("SessionToken")?.into(),
        created_at,
        expires_at: Timestamp::from_second(expiration.as_second()).ok()?,
    })
}

/// Reads `arn:aws:sts::123456789012:assumed-role/NAME/SESSION`. The role's path is not part of that ARN, so the result
/// is right only for a role without a path.
fn role_of_session(arn: &str) -> Option<RoleArn> {
    let (account, session) = arn.split_once(":assumed-role/")?;
    let role = session.split('/').next()?;
    format!("{}:role/{role}", account.replacen(":sts:", ":iam:", 1)).try_into().ok()
}

fn explain(error: Error, role: &AssumeRole) -> Error {
    let arn = &role.role_arn;
    let message = error.aws.as_ref().and_then(|details| details.message.as_deref()).unwrap_or_default();
    let names = [("sts:TagSession", "session_tags"), ("sts:SetSourceIdentity", "source_identity")];
    if let Some((action, field)) = names.into_iter().find(|(action, _)| message.contains(action)) {
        let remedy = format!(
            "AWS denies {action}. Allow it to the function's role in the trust policy of the role {arn} (the parameter \
             AllowSessionTags of bedrock-role.yaml), or remove {field} from the target (the parameters SessionTags and \
             SourceIdentity)"
        );
        return error.with_remedy_for(ErrorClass::Permission, remedy);
    }
    let external_id = match role.external_id {
        Some(_) => "requires the configured external ID (the parameter ExternalId, or the target's external_id)",
        None => "requires no external ID, because none is configured (the parameter ExternalId, or external_id)",
    };
    let source_identity = role.source_identity.as_ref().map(|_| "sts:SetSourceIdentity");
    let session_tags = (!role.session_tags.is_empty()).then_some("sts:TagSession");
    let actions: Vec<_> = [Some("sts:AssumeRole"), source_identity, session_tags].into_iter().flatten().collect();
    let actions = actions.join(" and ");
    let name = arn.as_str().rsplit('/').next().unwrap_or_default();
    let trust = format!(
        "Check that the role {arn} exists, that its trust policy allows {actions} to the function's role (the stack's \
         output ExecutionRoleArn) and {external_id}, and that the policy of the function's role allows {actions} on it \
         (the parameter BedrockRoleArn, or RoleArns with Targets). To see the trust policy, with credentials of the \
         role's account: `aws iam get-role --role-name {name} --query Role.AssumeRolePolicyDocument`"
    );
    error.with_remedy_for(ErrorClass::Permission, trust)
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::super::direct::Received;
    use super::super::refusals::codes;
    use super::*;
    use crate::config::Source;
    use crate::config::for_test::role_based;
    use crate::error::AwsDetails;

    const ID: &str = "6f0c7d1e-2b7a-4c55-9d0e-6a3f0b9c7e21";
    const NAMES: SessionNames<'_> = SessionNames { target: "prod", trigger: "schedule" };

    fn role() -> AssumeRole {
        let Source::RoleBased(source) = role_based("prod").source else { unreachable!() };
        source.role
    }

    fn deadline() -> Deadline {
        Deadline::after(Duration::from_secs(300))
    }

    fn assumed(credentials: &str) -> String {
        format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n<AssumeRoleResult>\
             <AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/x/y</Arn></AssumedRoleUser><Credentials>{credentials}\
             </Credentials></AssumeRoleResult>\n<ResponseMetadata><RequestId>{ID}</RequestId></ResponseMetadata>\
             </AssumeRoleResponse>\n"
        )
    }

    const CREDENTIALS: &str = "<AccessKeyId>ASIATEST</AccessKeyId><SecretAccessKey>a/b+c&amp;d</SecretAccessKey>\
                               <SessionToken>e&#61;&lt;f</SessionToken>\
                               <Expiration>2026-01-15T13:00:00Z</Expiration>";

    fn refused(code: &str, message: &str) -> String {
        let error = format!("<Type>Sender</Type><Code>{code}</Code><Message>{message}</Message>");
        format!("<ErrorResponse><Error>{error}</Error><RequestId>{ID}</RequestId></ErrorResponse>")
    }

    fn response(status: u16, body: &str) -> String {
        format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    /// A clock that advances by a second each time.
    fn clock() -> Timestamp {
        static SECONDS: AtomicI64 = AtomicI64::new(0);
        Timestamp::from_second(SECONDS.fetch_add(1, Ordering::Relaxed)).unwrap()
    }

    fn config(variables: &[(&str, &str)]) -> (reqwest::Client, SdkConfig) {
        let http = http::client(None, None).unwrap();
        let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        (http.clone(), sdk::config(http, &value))
    }

    /// Assumes `role` at a server that gives these responses. With the result is what the run recorded.
    async fn assume(
        role: &AssumeRole,
        responses: &[String],
    ) -> (Result<SessionCredentials, Error>, serde_json::Value, Vec<Received>) {
        let (url, server) = direct::serve(responses.to_vec());
        let (http, config) = config(&[
            ("AWS_ACCESS_KEY_ID", "AKIATEST"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "token"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ENDPOINT_URL_STS", url.as_str()),
        ]);
        let requests = AwsRequests::default();
        let session = Sts::new(http, config, clock).assume_role(role, NAMES, deadline(), &requests).await;
        (session, json!(requests.take()), server.join().unwrap())
    }

    #[tokio::test]
    async fn the_session_of_a_role_is_read_and_the_request_recorded() {
        let (session, recorded, received) = assume(&role(), &[response(200, &assumed(CREDENTIALS))]).await;
        let session = session.unwrap();
        assert_eq!(session.access_key_id, "ASIATEST");
        assert_eq!(session.secret_access_key.expose_secret(), "a/b+c&d");
        assert_eq!(session.session_token.expose_secret(), "e=<f");
        assert_eq!(session.expires_at.to_string(), "2026-01-15T13:00:00Z");
        assert_eq!(recorded, json!([{"call": "sts:AssumeRole", "request_id": ID}]));
        let head = received[0].head.to_ascii_lowercase();
        assert!(head.starts_with("post / http/1.1") && head.contains("x-amz-security-token: token"), "{head}");
        assert!(head.contains("/eu-west-1/sts/aws4_request, "), "{head}");
        assert!(head.contains("signedheaders=content-type;host;x-amz-date;x-amz-security-token,"), "{head}");
    }

    #[test]
    fn the_parameters_are_those_of_the_role() {
        let parameters = |role: &AssumeRole| {
            let url = Url::parse(&format!("http://x/?{}", form(role, NAMES))).unwrap();
            let pairs = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned()));
            pairs.collect::<Vec<_>>()
        };
        let expected = |pairs: &[(&str, &str)]| -> Vec<_> {
            pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let mut role = AssumeRole { duration_seconds: 900, external_id: None, ..role() };
        let always = [
            ("Action", "AssumeRole"),
            ("Version", "2011-06-15"),
            ("RoleArn", "arn:aws:iam::123456789012:role/bedrock"),
            ("RoleSessionName", "braintrust-prod"),
            ("DurationSeconds", "900"),
        ];
        assert_eq!(parameters(&role), expected(&always));
        role.session_policy = Some("{\"a\": \"b&c=d+e %\"}".to_owned());
        role.external_id = serde_json::from_value(json!("x:/1")).unwrap();
        role.source_identity = serde_json::from_value(json!("rotator-{target}")).unwrap();
        role.session_tags = serde_json::from_value(json!({"target": "{target}", "trigger of": "{trigger}"})).unwrap();
        let all = [
            ("Policy", "{\"a\": \"b&c=d+e %\"}"),
            ("ExternalId", "x:/1"),
            ("SourceIdentity", "rotator-prod"),
            ("Tags.member.1.Key", "target"),
            ("Tags.member.1.Value", "prod"),
            ("Tags.member.2.Key", "trigger of"),
            ("Tags.member.2.Value", "schedule"),
        ];
        assert_eq!(parameters(&role), expected(&[&always[..], &all].concat()));
    }

    #[tokio::test]
    async fn an_answer_without_all_credentials_is_missing_something_and_not_repeated() {
        for name in ["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"] {
            let incomplete = CREDENTIALS.replace(&format!("<{name}>"), "<Other>");
            let (session, recorded, _) = assume(&role(), &[response(200, &assumed(&incomplete))]).await;
            let error = session.err().unwrap();
            assert_eq!(
                (error.class, &*error.problem),
                (ErrorClass::Unavailable, "answered without credentials or their expiry")
            );
            assert_eq!(recorded, json!([{"call": "sts:AssumeRole", "request_id": ID}]));
        }
    }

    #[tokio::test]
    async fn a_refusal_is_recorded_and_shown_with_its_id_and_the_message_of_a_denial() {
        const OTHER_ID: &str = "00000000-2b7a-4c55-9d0e-6a3f0b9c7e21";
        let denied = response(403, &refused("AccessDenied", "x is not authorized to perform: sts:AssumeRole &amp; y"));
        let with_header = denied.replacen("\r\n", &format!("\r\nx-amzn-requestid: {OTHER_ID}\r\n"), 1);
        for (denied, id) in [(denied, ID), (with_header, OTHER_ID)] {
            let (session, recorded, _) = assume(&role(), &[denied]).await;
            let error = session.err().unwrap();
            assert_eq!((error.class, &*error.problem), (ErrorClass::Permission, "answered AccessDenied"));
            let aws = error.aws.unwrap();
            assert_eq!(aws.message.as_deref(), Some("x is not authorized to perform: sts:AssumeRole & y"));
            assert_eq!(aws.request_id.as_deref(), Some(id));
            assert_eq!(recorded, json!([{"call": "sts:AssumeRole", "request_id": id, "failed": true}]));
        }
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_made_is_a_wrong_configuration() {
        let credentials = [("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "secret")];
        let (region, url) = (("AWS_REGION", "us-east-1"), ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"));
        let fips = ("AWS_USE_FIPS_ENDPOINT", "true");
        for variables in
            [vec![region, url], [&credentials[..], &[url]].concat(), [&credentials[..], &[region, url, fips]].concat()]
        {
            let (http, config) = config(&variables);
            let (sts, requests) = (Sts::new(http, config, clock), AwsRequests::default());
            let error = sts.assume_role(&role(), NAMES, deadline(), &requests).await.err().unwrap();
            assert_eq!((error.class, &*error.problem), (ErrorClass::Configuration, "the request could not be made"));
            assert!(!error.is_retryable());
        }
    }

    /// How often a call is sent that is always answered like this, and its error.
    async fn attempts(status: u16, body: &str) -> (usize, Error) {
        let mut attempts = 0;
        let attempt = || {
            attempts += 1;
            ready(Err(refusal(status, body, ID)))
        };
        let error = repeat(deadline(), attempt).await.err().unwrap();
        (attempts, error)
    }

    #[tokio::test(start_paused = true)]
    async fn each_refused_call_is_repeated_as_often_as_its_error_code_allows() {
        let mut tried = 0;
        for row in codes::all().iter().filter(|row| row.service() == Some(Service::Sts)) {
            let (attempts, error) = attempts(row.status, &refused(&row.code, &row.message)).await;
            assert_eq!(Some(attempts), row.attempts, "{} {}: {error}", row.code, row.message);
            assert_eq!(serde_json::to_value(error.class).unwrap(), row.class, "{} {}", row.code, row.message);
            tried += 1;
        }
        assert!(tried > 15, "{tried}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_firewall_answers_is_not_repeated() {
        for (status, times, class) in [
            (302, 1, ErrorClass::Unavailable),
            (403, 1, ErrorClass::Unavailable),
            (429, 5, ErrorClass::Throttled),
            (503, 5, ErrorClass::Unavailable),
        ] {
            let (attempts, error) = attempts(status, "<html><title>403</title></html>").await;
            assert_eq!((attempts, error.class, error.problem), (times, class, format!("answered {status}")));
        }
    }

    #[tokio::test]
    async fn a_call_is_repeated_with_a_new_signature_after_a_stale_one_and_after_an_unreadable_answer() {
        let unreadable = assumed(CREDENTIALS).replace("</AssumeRoleResponse>", "");
        for first in [
            response(403, &refused("SignatureDoesNotMatch", "Signature expired: 1 is now earlier than 2")),
            response(200, "<html></html>"),
            response(200, &unreadable),
            response(503, ""),
        ] {
            let (session, recorded, received) = assume(&role(), &[first, response(200, &assumed(CREDENTIALS))]).await;
            assert_eq!(session.unwrap().access_key_id, "ASIATEST");
            assert_eq!(recorded, json!([{"call": "sts:AssumeRole", "request_id": ID}]));
            let date = |received: &Received| {
                received.head.lines().find(|line| line.starts_with("x-amz-date: ")).unwrap().to_owned()
            };
            assert_ne!(date(&received[0]), date(&received[1]));
            assert_eq!(received[0].body, received[1].body);
        }
    }

    /// Refuses each request of the SDK, and keeps its URL and the region of its signature.
    #[derive(Clone, Debug, Default)]
    struct Called(Arc<Mutex<Option<(String, String)>>>);

    impl HttpConnector for Called {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let scope = request.headers().get("authorization").unwrap().split('/').nth(2).unwrap().to_owned();
            *self.0.lock().unwrap() = Some((request.uri().to_owned(), scope));
            HttpConnectorFuture::ready(Err(ConnectorError::other("refused".into(), None)))
        }
    }

    #[tokio::test]
    async fn the_endpoint_is_that_of_the_sdks_client() {
        let regions = ["us-east-1", "eu-central-1", "us-gov-west-1", "cn-north-1", "us-iso-east-1", "eusc-de-east-1"];
        let (fips, dual_stack) = (("AWS_USE_FIPS_ENDPOINT", "true"), ("AWS_USE_DUALSTACK_ENDPOINT", "true"));
        let (general, sts) =
            (("AWS_ENDPOINT_URL", "https://aws.test/x"), ("AWS_ENDPOINT_URL_STS", "http://sts.test:1/"));
        let mut called = 0;
        for region in regions.into_iter().chain(["xx-new-1", "aws-global"]) {
            for settings in
                [&[][..], &[fips], &[dual_stack], &[fips, dual_stack], &[general], &[general, sts], &[fips, sts]]
            {
                let function =
                    [("AWS_REGION", region), ("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "secret")];
                let (http, config) = config(&[&function, settings].concat());
                let expected = Called::default();
                let connector = SharedHttpConnector::new(expected.clone());
                let config = config.into_builder().http_client(http_client_fn(move |_, _| connector.clone())).build();
                let sts = Sts::new(http, config, clock);
                assert!(sts.caller(deadline()).await.is_err());
                let found = sts.endpoint().await.map(|it| (it.url.to_string(), it.region.clone()));
                let expected = expected.0.lock().unwrap().clone();
                assert_eq!(found, expected, "{region} {settings:?}");
                called += usize::from(expected.is_some());
            }
        }
        assert!(called > 35, "{called}");
    }

    #[test]
    fn a_denied_call_is_explained_for_this_role() {
        let denied = Error::new(ErrorClass::Permission, Service::Sts, "AssumeRole", "answered AccessDenied", "");
        let remedy = explain(denied, &role()).remedy;
        assert!(remedy.contains("the role arn:aws:iam::123456789012:role/bedrock exists"), "{remedy}");
        assert!(
            remedy.contains("requires no external ID") && remedy.contains("get-role --role-name bedrock "),
            "{remedy}"
        );
    }

    #[test]
    fn a_denied_tag_or_source_identity_is_named_with_its_field() {
        for (action, field) in [("sts:TagSession", "session_tags"), ("sts:SetSourceIdentity", "source_identity")] {
            let message = Some(format!("User: x is not authorized to perform: {action} on resource: y"));
            let denied = Error::new(ErrorClass::Permission, Service::Sts, "AssumeRole", "answered AccessDenied", "");
            let denied = denied.with_aws(AwsDetails { message, request_id: None });
            let remedy = explain(denied, &role()).remedy;
            assert!(remedy.starts_with(&format!("AWS denies {action}. ")), "{remedy}");
            assert!(remedy.contains(&format!("remove {field} ")), "{remedy}");
        }
    }

    #[test]
    fn the_functions_role_is_read_from_the_arn_of_its_session() {
        let role = role_of_session("arn:aws-cn:sts::123456789012:assumed-role/rotator/function").unwrap();
        assert_eq!(role.as_str(), "arn:aws-cn:iam::123456789012:role/rotator");
        assert_eq!(role_of_session("arn:aws:iam::123456789012:user/somebody"), None);
        assert_eq!(role_of_session(""), None);
    }
}
