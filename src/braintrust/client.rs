//! The REST client, and the calls on `ai_secret`s; it must never repeat a refusal, and never show what was sent or answered.
//!
//! <https://www.braintrust.dev/docs/reference/api/AiSecrets>

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode, Url};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::AiSecret;
use super::pace::Pace;
use crate::config::Lookup;
use crate::deadline::Deadline;
use crate::error::{Cause, Error, Service, shortened};
use crate::transport;

const LIST: &str = "GET /v1/ai_secret";
const GET: &str = "GET /v1/ai_secret/{id}";
pub const PATCH: &str = "PATCH /v1/ai_secret/{id}";

const UNKNOWN_ID: &str = "Check the id, that the Braintrust URL is the data plane without a path, and that the \
                          API key belongs to the ai_secret's organization";

/// The largest answer that is read, in MB: a page of `ai_secret`s with long model lists is some hundred kilobytes. All
/// targets that are under way may get one.
const LARGEST_ANSWER: usize = 1;

/// Objects asked for in a page.
const PAGE: &str = "50";

/// A data plane that ignores the cursor would be read for ever.
const MOST_PAGES: usize = 100;

/// As many candidates as a person reads in an error; more are not looked for, nor kept.
const MOST_CANDIDATES: usize = 10;

/// One data plane, seen with one API key, until one deadline.
pub struct Braintrust<'a> {
    /// The one HTTP client.
    pub http: &'a Client,
    /// The data plane.
    pub api_url: &'a Url,
    /// The API key.
    pub api_key: &'a SecretString,
    /// When calls to the data plane may be made.
    pub pace: &'a Pace,
    /// When all calls must have ended.
    pub deadline: Deadline,
}

#[derive(Deserialize)]
struct Page<T> {
    objects: Vec<T>,
}

impl Braintrust<'_> {
    /// Finds the one `ai_secret` that `lookup` names.
    ///
    /// # Errors
    /// `not_found` and `conflict` with the candidates; `invalid_credentials` (401), `permission` (403), `throttled`,
    /// `unavailable`, `timeout`.
    pub async fn find(&self, lookup: &Lookup) -> Result<AiSecret, Error> {
        match lookup {
            Lookup::Id(id) => self.get(*id).await,
            Lookup::Name { name, org_name } => {
                let (filter, org_name) = (("ai_secret_name", name.as_str()), org_name.as_deref());
                let is_named = |ai_secret: &AiSecret| ai_secret.name == *name;
                let mut found = self.list(filter, org_name, |it| is_named(it) && is_bedrock(it)).await?;
                match (found.len(), found.pop()) {
                    (1, Some(ai_secret)) => Ok(ai_secret),
                    (_, Some(last)) => Err(several_found(lookup, found.into_iter().chain([last]).collect())),
                    // One of another type is for the layout to refuse.
                    (_, None) => match self.list(filter, org_name, is_named).await?.pop() {
                        Some(other) => Ok(other),
                        None => Err(self.nothing_found(lookup, org_name).await?),
                    },
                }
            }
        }
    }

    /// Reads one `ai_secret`.
    ///
    /// # Errors
    /// `not_found` for an unknown id, which Braintrust answers with 400 or 404 (or 403: `permission`).
    pub async fn get(&self, id: Uuid) -> Result<AiSecret, Error> {
        self.send(GET, Method::GET, self.url(Some(id)), None).await.map_err(|error| match error.cause {
            Cause::NotFound => Error { problem: format!("{} for the id {id}", error.problem), ..error },
            _ => error,
        })
    }

    /// Merges `body` into an `ai_secret`; the answer is the changed object. The same body may be sent again. What
    /// `check` asks for is asked each time, when the call's turn has come: it may have waited.
    ///
    /// # Errors
    /// Those of a call, and of `check`.
    pub async fn patch(
        &self,
        id: Uuid,
        body: Bytes,
        check: impl AsyncFn() -> Result<(), Error>,
    ) -> Result<AiSecret, Error> {
        let url = self.url(Some(id));
        let attempt = || {
            self.in_turn(PATCH, async {
                check().await?;
                self.exchange(PATCH, &Method::PATCH, &url, Some(body.clone())).await
            })
        };
        self.deadline.repeat_a_few_times(Service::Braintrust, PATCH, attempt).await
    }

    /// Reads one `ai_secret` in the turn of another call, once.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn get_in_turn(&self, id: Uuid) -> Result<AiSecret, Error> {
        self.exchange(GET, &Method::GET, &self.url(Some(id)), None).await
    }

    /// Those that are wanted: an older data plane may ignore the filter.
    async fn list(
        &self,
        filter: (&str, &str),
        org_name: Option<&str>,
        is_wanted: impl Fn(&AiSecret) -> bool,
    ) -> Result<Vec<AiSecret>, Error> {
        let mut url = self.url(None);
        url.query_pairs_mut().extend_pairs([filter]).extend_pairs(org_name.map(|org| ("org_name", org)));
        self.pages(LIST, &url, |ai_secret: &AiSecret| ai_secret.id, is_wanted, MOST_CANDIDATES + 1).await
    }

    /// What is wanted of all pages, until there is enough of it: there is no cursor in the envelope, so the last id leads to
    /// the next page, until one is empty.
    pub(super) async fn pages<T: DeserializeOwned>(
        &self,
        call: &'static str,
        url: &Url,
        id: impl Fn(&T) -> Uuid,
        is_wanted: impl Fn(&T) -> bool,
        enough: usize,
    ) -> Result<Vec<T>, Error> {
        let (mut found, mut cursor): (Vec<T>, Option<Uuid>) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let mut url = url.clone();
            url.query_pairs_mut()
                .append_pair("limit", PAGE)
                .extend_pairs(cursor.map(|last| ("starting_after", last.to_string())));
            let page: Page<T> = self.send(call, Method::GET, url, None).await?;
            cursor = page.objects.last().map(&id);
            found.extend(page.objects.into_iter().filter(&is_wanted));
            if cursor.is_none() || found.len() >= enough {
                return Ok(found);
            }
        }
        Err(Error::new(
            Cause::Unavailable,
            Service::Braintrust,
            call,
            format!("answered more than {MOST_PAGES} pages"),
            "Check that BRAINTRUST_API_URL is a data plane; an ai_secret can be named by its id instead",
        ))
    }

    async fn nothing_found(&self, lookup: &Lookup, org_name: Option<&str>) -> Result<Error, Error> {
        let others = self.list(("ai_secret_type", "bedrock"), org_name, is_bedrock).await?;
        Ok(Error::new(
            Cause::NotFound,
            Service::Braintrust,
            LIST,
            format!("no ai_secret is named {lookup}; of type bedrock there {}", candidates(&others)),
            "Name one of them in the target's ai_secrets, or make the ai_secret in Braintrust first",
        ))
    }

    fn url(&self, id: Option<Uuid>) -> Url {
        match id.map(|id| id.to_string()) {
            Some(id) => self.at(&["v1", "ai_secret", &id]),
            None => self.at(&["v1", "ai_secret"]),
        }
    }

    pub(super) fn at(&self, segments: &[&str]) -> Url {
        let mut url = self.api_url.clone();
        // Never fails: the configuration takes http and https only.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// One call without repetition, for what must not be done twice.
    pub(super) async fn send_once<T: DeserializeOwned>(
        &self,
        call: &'static str,
        method: Method,
        url: Url,
        body: Option<Bytes>,
    ) -> Result<T, Error> {
        self.deadline.bound(Service::Braintrust, call, self.attempt(call, &method, &url, body)).await
    }

    /// One call with its repetitions.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        call: &'static str,
        method: Method,
        url: Url,
        body: Option<Bytes>,
    ) -> Result<T, Error> {
        self.deadline
            .repeat_a_few_times(Service::Braintrust, call, || self.attempt(call, &method, &url, body.clone()))
            .await
    }

    async fn attempt<T: DeserializeOwned>(
        &self,
        call: &'static str,
        method: &Method,
        url: &Url,
        body: Option<Bytes>,
    ) -> Result<T, Error> {
        self.in_turn(call, self.exchange(call, method, url, body)).await
    }

    /// Waits for a turn, and lets the pace know what came of it.
    async fn in_turn<T>(&self, call: &'static str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let Some(turn) = self.pace.turn(self.deadline).await else {
            let remedy =
                "The next tick tries again. If it stays, give some targets a schedule of their own, at another time";
            let problem = "allows so few calls that this one did not get its turn";
            let error = Error::new(Cause::Throttled, Service::Braintrust, call, problem, remedy);
            return Err(error.repeated_enough());
        };
        let answer = work.await;
        match &answer {
            Ok(_) => self.pace.succeeded(),
            Err(error) if error.cause == Cause::Throttled => self.pace.throttled(turn, error.retry_after),
            Err(_) => {}
        }
        answer
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        call: &'static str,
        method: &Method,
        url: &Url,
        body: Option<Bytes>,
    ) -> Result<T, Error> {
        let mut request = self.http.request(method.clone(), url.clone()).header(AUTHORIZATION, self.bearer());
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let unavailable = |problem: String| {
            let remedy = "It was retried; the next tick tries again. Check that the Braintrust URL is right, can be \
                          reached from the function and has a certificate that it trusts (BRAINTRUST_CA_BUNDLE)";
            Error::new(Cause::Unavailable, Service::Braintrust, call, problem, remedy)
        };
        let response = request.send().await.map_err(|error| Error {
            cause: if error.is_timeout() { Cause::Timeout } else { Cause::Unavailable },
            ..unavailable(transport::unreachable_because(&error))
        })?;
        if !response.status().is_success() {
            return Err(refused(call, response.status(), response.headers()));
        }
        let kind = transport::content_type(response.headers());
        // Security: the answer may hold secrets of the documented layout.
        let body = Zeroizing::new(transport::read(response, LARGEST_ANSWER).await.map_err(unavailable)?);
        serde_json::from_slice(&body).map_err(|_| unavailable(format!("answered {kind} where JSON was expected")))
    }

    fn bearer(&self) -> HeaderValue {
        // Security: exposed into the header, which is marked sensitive so that no `Debug` shows it.
        let text = Zeroizing::new(format!("Bearer {}", self.api_key.expose_secret()));
        // The key was checked for characters that a header takes when it was read.
        let mut value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
        value.set_sensitive(true);
        value
    }
}

/// What a status means. The body is never read: it may echo what was sent.
fn refused(call: &'static str, status: StatusCode, headers: &HeaderMap) -> Error {
    let (cause, remedy) = match status.as_u16() {
        401 => (
            Cause::InvalidCredentials,
            "Braintrust refuses the API key: put a valid one into the secret that BRAINTRUST_API_KEY_SECRET_ID (or the \
             ai_secret's api_key_secret_id) names; it is read again after a refusal",
        ),
        403 => (
            Cause::Permission,
            "The API key is known and may not do this: only an organization's admins may update its ai_secrets, and a \
             key sees its own organizations only",
        ),
        404 => (Cause::NotFound, UNKNOWN_ID),
        // Some data planes answer so to an id that they do not know.
        400 if call == GET => (Cause::NotFound, UNKNOWN_ID),
        429 => (Cause::Throttled, "It was retried; the next tick tries again"),
        300..=399 => (Cause::Configuration, "Check BRAINTRUST_API_URL: an API does not redirect"),
        500.. => (Cause::Unavailable, "It was retried; the next tick tries again"),
        _ => (Cause::Configuration, "Check BRAINTRUST_API_URL, and that the data plane is not too old"),
    };
    let error = Error::new(cause, Service::Braintrust, call, format!("answered {}", status.as_u16()), remedy);
    Error { retry_after: retry_after(headers), ..error }
}

/// The seconds of `Retry-After`; a date, which it may also be, is left to the backoff.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn is_bedrock(ai_secret: &AiSecret) -> bool {
    ai_secret.provider.as_deref() == Some("bedrock")
}

fn several_found(lookup: &Lookup, found: Vec<AiSecret>) -> Error {
    Error::new(
        Cause::Conflict,
        Service::Braintrust,
        LIST,
        format!("the name {lookup} is not the only one: there {}", candidates(&found)),
        "The key sees several organizations: add org_name, or name the ai_secret by its id",
    )
}

fn candidates(found: &[AiSecret]) -> String {
    if found.is_empty() {
        return "is none".to_owned();
    }
    let shown = found.iter().take(MOST_CANDIDATES).map(|ai_secret| {
        let org = ai_secret.org_id.map(|org| format!(" of organization {org}")).unwrap_or_default();
        format!("{} ({:?}{org})", ai_secret.id, shortened(&ai_secret.name))
    });
    let more = if found.len() > MOST_CANDIDATES { ", …" } else { "" };
    format!("{} {}{more}", if found.len() == 1 { "is" } else { "are" }, shown.collect::<Vec<_>>().join(", "))
}
