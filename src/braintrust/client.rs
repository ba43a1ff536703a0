//! Sends calls to Braintrust: under the rate limit, with retries, and until the deadline.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, Response, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::rate_limit::RateLimit;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorClass, Service};
use crate::http::{self, Failure};

/// In MB. A page of `ai_secret`s with long lists of models has a few hundred kilobytes, and all concurrent targets may
/// read one at the same time.
const MAX_RESPONSE: usize = 1;
const PAGE_SIZE: usize = 50;
/// Ends the reading of a data plane that ignores the cursor and returns the same page again and again.
const MAX_PAGES: usize = 100;

/// A data plane, as one API key sees it, until a deadline.
pub struct Braintrust<'a> {
    pub http: &'a Client,
    pub api_url: &'a Url,
    pub api_key: &'a SecretString,
    pub rate_limit: &'a RateLimit,
    pub deadline: Deadline,
}

/// One call. It has no `Debug`, because the body may hold a secret.
#[derive(Clone)]
pub(super) struct Request {
    pub call: &'static str,
    pub method: Method,
    pub url: Url,
    /// Besides those that every call has.
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
}

/// Why the reading of pages ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// There are no more.
    Last,
    /// The reader wanted no more.
    Enough,
    TooManyPages,
}

#[derive(Deserialize)]
struct Page<T> {
    objects: Vec<T>,
}

impl Braintrust<'_> {
    /// `call` is the operation as in the API's reference: the method and the path, in which `id` replaces `{id}`.
    pub(super) fn request(&self, call: &'static str, id: Option<Uuid>) -> Request {
        let (method, path) = call.split_once(' ').unwrap_or_default();
        let path = path.replace("{id}", &id.unwrap_or_default().to_string());
        let mut url = self.api_url.clone();
        url.set_path(&format!("{}{path}", self.api_url.path().trim_end_matches('/')));
        Request { call, method: method.parse().unwrap_or_default(), url, headers: HeaderMap::new(), body: None }
    }

    pub(super) async fn send<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Error> {
        let attempt = || self.with_permit(request.call, self.exchange(request));
        self.deadline.retry(Service::Braintrust, request.call, attempt).await
    }

    /// Reads a list that has no pages.
    pub(super) async fn list_once<T: DeserializeOwned>(&self, request: &Request) -> Result<Vec<T>, Error> {
        self.send(request).await.map(|Page { objects }| objects)
    }

    /// Reads pages until `enough` wanted objects are found. The answers have no cursor: the last ID of a page leads to
    /// the next one, and an empty page is the end. So is a page that repeats, from a data plane that ignores the cursor
    /// and the limit.
    pub(super) async fn pages<T: DeserializeOwned>(
        &self,
        request: &Request,
        id: impl Fn(&T) -> Uuid,
        is_wanted: &dyn Fn(&T) -> bool,
        enough: usize,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        let take = |objects: Vec<T>| {
            found.extend(objects.into_iter().filter(is_wanted));
            found.len() < enough
        };
        match self.each_page(request, id, take).await? {
            End::Last | End::Enough => Ok(found),
            End::TooManyPages => {
                let problem = format!("answered more than {MAX_PAGES} pages");
                let remedy = "Check that the Braintrust URL (the parameter BraintrustApiUrl, or the ai_secret's api_url) \
                              is that of a data plane, or give the ID (the parameter AiSecretId or BraintrustProject) \
                              instead of the name";
                Err(Error::new(ErrorClass::Unavailable, Service::Braintrust, request.call, problem, remedy))
            }
        }
    }

    /// Reads pages for as long as `take` wants more.
    pub(super) async fn each_page<T: DeserializeOwned>(
        &self,
        request: &Request,
        id: impl Fn(&T) -> Uuid,
        mut take: impl FnMut(Vec<T>) -> bool,
    ) -> Result<End, Error> {
        let mut cursor = None;
        for _ in 0..MAX_PAGES {
            let mut page = request.clone();
            let after = cursor.map(|last: Uuid| ("starting_after", last.to_string()));
            page.url.query_pairs_mut().append_pair("limit", &PAGE_SIZE.to_string()).extend_pairs(after);
            let Page { objects } = self.send(&page).await?;
            let last = objects.last().map(&id);
            if last == cursor && objects.len() != PAGE_SIZE {
                return Ok(End::Last);
            }
            cursor = last;
            if !take(objects) {
                return Ok(End::Enough);
            }
            if cursor.is_none() {
                return Ok(End::Last);
            }
        }
        Ok(End::TooManyPages)
    }

    /// Does `work` once the rate limit permits it, and reports the result to the rate limit.
    pub(super) async fn with_permit<T>(
        &self,
        call: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(permit) = self.rate_limit.permit(self.deadline).await else {
            let problem = "allows so few calls that this one could not be sent before the deadline";
            let remedy = "The next scheduled run tries again. If this continues, give some targets a schedule of their \
                          own, at another time";
            return Err(Error::new(ErrorClass::Throttled, Service::Braintrust, call, problem, remedy).into_final());
        };
        let result = work.await;
        match &result {
            Ok(_) => self.rate_limit.succeeded(),
            Err(error) if error.class == ErrorClass::Throttled => self.rate_limit.throttled(permit, error.retry_after),
            Err(_) => {}
        }
        result
    }

    /// Sends one request and parses its response, without a permit or a retry.
    pub(super) async fn exchange<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Error> {
        let call = request.call;
        let mut response = self.respond(request).await?;
        if !response.status().is_success() {
            return Err(refused(call, response.status().as_u16(), response.headers()));
        }
        let media_type = http::media_type(response.headers());
        // Security: the body may hold secrets of the documented layout. The allocator zeroizes it.
        let body = http::read_body(&mut response, MAX_RESPONSE).await.map_err(|problem| unavailable(call, problem))?;
        let problem = || format!("answered {media_type} where JSON was expected");
        serde_json::from_slice(&body).map_err(|_| unavailable(call, problem()))
    }

    /// Sends one request and returns the start of its response, whatever the status is.
    pub(super) async fn respond(&self, request: &Request) -> Result<Response, Error> {
        let Request { call, method, url, headers, body } = request.clone();
        // Security: exposed into the header, which reqwest marks as sensitive, so that no `Debug` shows it.
        let mut request = self.http.request(method, url).bearer_auth(self.api_key.expose_secret()).headers(headers);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        request.send().await.map_err(|error| {
            let class = http::class(&error);
            Failure::of(&error).into_error(|problem| Error { class, ..unavailable(call, problem) })
        })
    }
}

/// The error of a call that got no answer, or one that Braintrust did not send.
pub(super) fn unavailable(call: &'static str, problem: impl Into<String>) -> Error {
    let remedy = "The next scheduled run tries again. Check that the Braintrust URL is right (the parameter \
                  BraintrustApiUrl, or the ai_secret's api_url), and that the function can reach it and trusts its \
                  certificate (the parameter BraintrustCaBundle)";
    Error::new(ErrorClass::Unavailable, Service::Braintrust, call, problem, remedy)
}

/// The error for a status. The body is not read, because it may repeat what was sent. Braintrust's refusals are plain
/// text or JSON, so a refusal of another type, such as a firewall's page, says nothing about the call.
fn refused(call: &'static str, status: u16, headers: &HeaderMap) -> Error {
    if matches!(status, 400 | 401 | 403 | 404) && !is_of_an_api(headers) {
        let problem = format!("answered {status} with {}, so something else answered", http::media_type(headers));
        let remedy = "Check that the Braintrust URL is that of a data plane, and find out what refuses the function's \
                      requests on the way there, such as a firewall, a proxy, or a gateway";
        // A refusal is not retried, whatever it comes from.
        return Error::new(ErrorClass::Unavailable, Service::Braintrust, call, problem, remedy).into_final();
    }
    // Some data planes answer 400 when they don't know an ID, such as that of the project whose env_vars are listed.
    let names_an_id = call.ends_with("{id}") || call.ends_with("/env_var");
    let is_unknown = status == 404 || (status == 400 && call.starts_with("GET ") && names_an_id);
    let is_of_a_project = call.contains("/env_var") || call.contains("/project");
    let (class, remedy) = match status {
        _ if is_unknown && is_of_a_project => (
            ErrorClass::NotFound,
            "Check the IDs (the parameters AiSecretId and BraintrustProject, or id and project in the target's \
             ai_secrets), that the Braintrust URL (BraintrustApiUrl, or api_url) is that of the data plane without a \
             path, and that the data plane is not too old to have project-level providers",
        ),
        _ if is_unknown => (
            ErrorClass::NotFound,
            "Check the ID (the parameter AiSecretId, or the ai_secret's id), that the Braintrust URL \
             (BraintrustApiUrl, or api_url) is that of the data plane without a path, and that the API key belongs to \
             the organization of the ai_secret",
        ),
        401 => (
            ErrorClass::InvalidCredentials,
            "Braintrust refuses the API key. Put a valid one into its secret, which the function reads again after a \
             refusal",
        ),
        403 if is_of_a_project => (
            ErrorClass::Permission,
            "The call is denied. Use an API key whose user or service account may read the project and update it. Some \
             data planes answer 403 for an unknown ID",
        ),
        403 => (
            ErrorClass::Permission,
            "The call is denied. Use the API key of an admin of the ai_secret's organization: others may not update \
             ai_secrets, and an API key sees its own organizations only. Some data planes answer 403 for an unknown ID",
        ),
        429 => (ErrorClass::Throttled, "The next scheduled run tries again"),
        300..=399 => (ErrorClass::Configuration, "Check the parameter BraintrustApiUrl: an API does not redirect"),
        500.. => (ErrorClass::Unavailable, "The next scheduled run tries again"),
        _ => {
            (ErrorClass::Configuration, "Check the parameter BraintrustApiUrl, and that the data plane is not too old")
        }
    };
    let error = Error::new(class, Service::Braintrust, call, format!("answered {status}"), remedy);
    Error { retry_after: retry_after(headers), ..error }
}

/// Whether a refusal has no content type, or one that an API uses for refusals.
fn is_of_an_api(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(media_type.as_str(), "" | "text/plain" | "application/json") || media_type.ends_with("+json")
}

/// The seconds of `Retry-After`. A date, which the header may also hold, is left to the backoff.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::super::test_server::{Answer, TestServer};
    use super::*;

    const CALL: &str = "GET /v1/ai_secret";
    const BY_ID: &str = "GET /v1/ai_secret/{id}";

    async fn get(server: &TestServer) -> Result<Value, Error> {
        let api = server.api();
        api.send(&api.request(CALL, None)).await
    }

    async fn get_once(server: &TestServer, call: &'static str) -> Result<Value, Error> {
        let api = server.api();
        api.with_permit(call, api.exchange(&api.request(call, None))).await
    }

    #[tokio::test]
    async fn a_status_gives_its_class_and_never_the_body() {
        for (call, status, class) in [
            (CALL, 400, ErrorClass::Configuration),
            (BY_ID, 400, ErrorClass::NotFound),
            ("PATCH /v1/ai_secret/{id}", 400, ErrorClass::Configuration),
            (CALL, 401, ErrorClass::InvalidCredentials),
            (CALL, 403, ErrorClass::Permission),
            ("GET /v1/env_var", 400, ErrorClass::NotFound),
            ("GET /v1/project", 400, ErrorClass::Configuration),
            ("PATCH /v1/env_var/{id}", 400, ErrorClass::Configuration),
            (CALL, 404, ErrorClass::NotFound),
            (CALL, 302, ErrorClass::Configuration),
            (CALL, 418, ErrorClass::Configuration),
            (CALL, 429, ErrorClass::Throttled),
            (CALL, 500, ErrorClass::Unavailable),
            (CALL, 503, ErrorClass::Unavailable),
        ] {
            let server = TestServer::start(move |_| Answer::status(status).with_body("text/plain", "hidden"));
            let error = get_once(&server, call).await.unwrap_err();
            assert_eq!((error.class, error.problem.as_str()), (class, format!("answered {status}").as_str()), "{call}");
            assert!(!format!("{error:?}").contains("hidden"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_denial_says_whose_right_is_missing() {
        for (call, needed) in [
            (CALL, "admin of the ai_secret's organization"),
            ("PATCH /v1/ai_secret/{id}", "admin of the ai_secret's organization"),
            ("GET /v1/project", "may read the project"),
            ("GET /v1/env_var", "may read the project"),
            ("PATCH /v1/env_var/{id}", "may read the project and update it"),
        ] {
            let error = get_once(&TestServer::start(|_| Answer::status(403)), call).await.unwrap_err();
            assert_eq!((error.class, error.call), (ErrorClass::Permission, call));
            assert!(error.remedy.contains(needed), "{error}");
        }
    }

    #[tokio::test]
    async fn a_refusal_that_no_api_sends_is_unavailable_and_is_not_retried() {
        let of = |status, media_type: &'static str| {
            TestServer::start(move |_| Answer::status(status).with_body(media_type, "<p>hidden</p>"))
        };
        for call in [CALL, BY_ID, "PATCH /v1/ai_secret/{id}", "DELETE /v1/service_token/{id}"] {
            for status in [400, 401, 403, 404] {
                for media_type in ["text/html", "text/html; charset=utf-8", "TEXT/HTML", "application/xml"] {
                    let server = of(status, media_type);
                    let api = server.api();
                    let error = api.send::<Value>(&api.request(call, None)).await.unwrap_err();
                    assert_eq!((error.class, server.received().len()), (ErrorClass::Unavailable, 1), "{call} {status}");
                    assert!(error.problem.starts_with(&format!("answered {status} with ")), "{error}");
                }
            }
        }
        for media_type in ["text/plain", "application/json; charset=utf-8", "application/problem+json", "Text/Plain"] {
            let error = get_once(&of(403, media_type), CALL).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::Permission, "{media_type}");
        }
        let throttled = get_once(&of(429, "text/html"), CALL).await.unwrap_err();
        assert_eq!(throttled.class, ErrorClass::Throttled);
    }

    #[tokio::test]
    async fn a_request_carries_the_api_key_and_the_path_below_the_url() {
        let server = TestServer::start(|_| Answer::json(&json!({})));
        let api_url = server.api_url.join("/behind/a/proxy/").unwrap();
        let api = Braintrust { api_url: &api_url, ..server.api() };
        let _: Value = api.send(&api.request(CALL, None)).await.unwrap();
        let received = server.received();
        assert_eq!(received[0].target, "/behind/a/proxy/v1/ai_secret");
        assert_eq!(received[0].authorization, "Bearer sk-test");
    }

    #[tokio::test]
    async fn a_refusal_is_not_retried() {
        for status in [400, 401, 403, 404] {
            let server = TestServer::start(move |_| Answer::status(status));
            assert!(get(&server).await.is_err());
            assert_eq!(server.received().len(), 1, "{status}");
        }
    }

    #[tokio::test]
    async fn a_failure_a_429_and_a_lost_connection_are_retried() {
        for first in [Answer::status(500), Answer::status(429), Answer::HangUp] {
            let server = TestServer::start_with([first, Answer::json(&json!({"ok": true}))]);
            assert_eq!(get(&server).await.unwrap(), json!({"ok": true}));
            assert_eq!(server.received().len(), 2);
        }
    }

    #[tokio::test]
    async fn a_call_that_must_not_be_retried_is_sent_once() {
        let server = TestServer::start(|_| Answer::status(500));
        assert!(get_once(&server, CALL).await.is_err());
        assert_eq!(server.received().len(), 1);
    }

    #[tokio::test]
    async fn a_retry_after_is_waited_for() {
        let throttled = Answer::status(429).with_header("retry-after: 1");
        let server = TestServer::start_with([throttled, Answer::json(&json!({}))]);
        let start = Instant::now();
        get(&server).await.unwrap();
        assert!(start.elapsed() >= Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_retry_after_past_the_deadline_ends_with_the_429() {
        let server = TestServer::start(|_| Answer::status(429).with_header("retry-after: 3600"));
        let error = get(&server).await.unwrap_err();
        assert_eq!((error.class, server.received().len()), (ErrorClass::Throttled, 1));
        assert_eq!(error.retry_after, Some(Duration::from_secs(3_600)));
    }

    #[test]
    fn a_retry_after_is_a_number_of_seconds_and_a_date_is_left_to_the_backoff() {
        for (value, seconds) in
            [("3", Some(3)), (" 3 ", Some(3)), ("-1", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)]
        {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            assert_eq!(retry_after(&headers), seconds.map(Duration::from_secs), "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn a_429_slows_down_the_calls_that_follow() {
        let server = TestServer::start(|_| Answer::status(429));
        assert!(get_once(&server, CALL).await.is_err());
        let start = Instant::now();
        assert!(get_once(&server, CALL).await.is_err());
        assert!(start.elapsed() >= Duration::from_millis(40), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn a_call_without_a_permit_before_the_deadline_is_not_sent() {
        let server = TestServer::start(|_| Answer::json(&json!({})));
        server.rate_limit.throttled(Instant::now(), Some(Duration::from_secs(5)));
        let api = Braintrust { deadline: Deadline::after(Duration::from_millis(1_200)), ..server.api() };
        let error = api.send::<Value>(&api.request(CALL, None)).await.unwrap_err();
        assert_eq!((error.class, error.is_retryable()), (ErrorClass::Throttled, false));
        assert!(server.received().is_empty());
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_ends_in_a_timeout_at_the_deadline() {
        let server = TestServer::start(|_| Answer::Silence);
        let api = Braintrust { deadline: Deadline::after(Duration::from_millis(1_200)), ..server.api() };
        let error = api.send::<Value>(&api.request(CALL, None)).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Timeout);
    }

    // With a paused clock, the client's own timeout passes at once.
    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_takes_too_long_is_a_timeout() {
        let server = TestServer::start(|_| Answer::Silence);
        let error = get_once(&server, CALL).await.unwrap_err();
        assert_eq!((error.class, error.problem.as_str()), (ErrorClass::Timeout, "did not answer in time"));
    }

    #[tokio::test]
    async fn html_in_place_of_json_is_named_and_not_shown() {
        let server = TestServer::start(|_| Answer::status(200).with_body("text/html; charset=utf-8", "<p>hidden</p>"));
        let error = get_once(&server, CALL).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Unavailable);
        assert_eq!(error.problem, "answered text/html where JSON was expected");
    }

    #[tokio::test]
    async fn an_answer_is_read_up_to_a_megabyte() {
        for (bytes, is_read) in [((1 << 20) - 2, true), ((1 << 20) - 1, false)] {
            let server = TestServer::start(move |_| Answer::json(&json!("x".repeat(bytes)))); // and two quotes
            match get_once(&server, CALL).await {
                Ok(_) => assert!(is_read),
                Err(error) => assert_eq!((is_read, error.problem.as_str()), (false, "answered more than 1 MB")),
            }
        }
    }

    #[tokio::test]
    async fn pages_are_read_until_one_is_empty() {
        let server = TestServer::start(|received| {
            let ids: &[u128] = match received.query("starting_after").as_deref() {
                None => &[1, 2],
                Some("00000000-0000-0000-0000-000000000002") => &[3],
                Some(_) => &[],
            };
            Answer::json(&json!({"objects": ids.iter().map(|id| Uuid::from_u128(*id)).collect::<Vec<_>>()}))
        });
        let api = server.api();
        let mut request = api.request(CALL, None);
        request.url.query_pairs_mut().append_pair("a", "b c");
        let found = api.pages(&request, |id: &Uuid| *id, &|_| true, usize::MAX).await.unwrap();
        assert_eq!(found, [1, 2, 3].map(Uuid::from_u128));
        let received = server.received();
        assert_eq!(received.len(), 3);
        assert_eq!(received[0].target, "/v1/ai_secret?a=b+c&limit=50");
        assert!(received.iter().all(|page| page.query("a").as_deref() == Some("b c")));
    }

    #[tokio::test]
    async fn pages_are_read_until_there_is_enough() {
        let mut number = 0;
        let server = TestServer::start(move |_| {
            number += 1;
            Answer::json(&json!({"objects": [Uuid::from_u128(number), Uuid::max()]}))
        });
        let api = server.api();
        let request = api.request(CALL, None);
        let found = api.pages(&request, |id: &Uuid| *id, &|_| true, 2).await.unwrap();
        assert_eq!((found.len(), server.received().len()), (2, 1));
    }

    #[tokio::test]
    async fn a_page_that_repeats_is_the_end_unless_it_is_full() {
        for (count, calls) in [(1, Ok(2)), (49, Ok(2)), (51, Ok(2)), (50, Err(MAX_PAGES))] {
            let ids: Vec<_> = (1..=count).map(Uuid::from_u128).collect();
            let server = TestServer::start(move |_| Answer::json(&json!({"objects": ids})));
            let api = server.api();
            let request = api.request(CALL, None);
            match (api.pages(&request, |id: &Uuid| *id, &|_| true, usize::MAX).await, calls) {
                (Ok(found), Ok(calls)) => assert_eq!((found.len() as u128, server.received().len()), (count, calls)),
                (Err(error), Err(calls)) => {
                    assert_eq!((error.class, server.received().len()), (ErrorClass::Unavailable, calls));
                }
                (found, _) => panic!("{count}: {found:?}"),
            }
        }
    }
}
