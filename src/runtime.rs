//! The client of Lambda's Runtime API: fetches each event, and returns the function's answer.
//!
//! `lambda_runtime` isn't used, because it ends the process if a caller sends a client context that differs from that
//! of AWS's mobile SDKs, and because it brings a second HTTP client. This function ignores client contexts.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::convert::Infallible;
use std::error::Error as StdError;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder, Response};

use crate::error::{Error, ErrorClass, Service};
use crate::http::{self, Failure};
use crate::invocation::{Function, Invocation};
use crate::log;

type RuntimeError = Box<dyn StdError + Send + Sync>;

const REQUEST_ID: &str = "lambda-runtime-aws-request-id";
const DEADLINE: &str = "lambda-runtime-deadline-ms";
/// The header that the answer repeats, so that Lambda can refuse the late answer of an invocation that timed out.
const INVOCATION_ID: &str = "lambda-runtime-invocation-id";

/// Answers one event after another. Ends only if the Runtime API can't be reached or doesn't follow its contract.
pub async fn serve(function: &mut Function, runtime_api: Option<String>) -> Result<Infallible, RuntimeError> {
    let runtime_api = runtime_api.ok_or("AWS_LAMBDA_RUNTIME_API is not set")?;
    let (http, invocations) =
        (http::client(None, None)?, format!("http://{runtime_api}/2018-06-01/runtime/invocation"));
    loop {
        let next = send(http.get(format!("{invocations}/next"))).await?;
        if !next.status().is_success() {
            return Err(format!("it answered {} instead of an event", next.status().as_u16()).into());
        }
        let headers = next.headers().clone();
        let event = next.bytes().await.map_err(|error| Failure::of(&error))?;
        let answer = Box::pin(answer(function, &http, &invocations, &headers, &event)).await?;
        let status = send(answer).await?.status();
        if !status.is_success() {
            // Lambda doesn't accept the answer of an invocation that timed out. The next event may still come.
            let problem = format!("Lambda answered {} to the invocation's answer", status.as_u16());
            let remedy = "The log has the report. If the function timed out, raise its timeout (the parameter \
                          TimeoutSeconds) or lower the number of targets";
            let error = Error::new(ErrorClass::Unavailable, Service::Function, "response", problem, remedy);
            log::error(&error, function.services.now());
        }
    }
}

async fn answer(
    function: &mut Function,
    http: &Client,
    invocations: &str,
    headers: &HeaderMap,
    event: &[u8],
) -> Result<RequestBuilder, RuntimeError> {
    let request_id = headers.get(REQUEST_ID).ok_or("the event has no request ID")?.to_str()?;
    let deadline_ms = headers.get(DEADLINE).ok_or("the event has no deadline")?.to_str()?.parse()?;
    let result = match serde_json::from_slice(event) {
        Ok(event) => function.handle(Invocation { request_id: request_id.to_owned(), deadline_ms, event }).await,
        Err(error) => Err(function.refuse_malformed(&error)),
    };
    let request = match result {
        Ok(answer) => http.post(format!("{invocations}/{request_id}/response")).body(serde_json::to_vec(&answer)?),
        Err(failure) => http
            .post(format!("{invocations}/{request_id}/error"))
            .header("lambda-runtime-function-error-type", "unhandled")
            .body(serde_json::to_vec(&failure)?),
    };
    Ok(match headers.get(INVOCATION_ID) {
        Some(invocation_id) => request.header(INVOCATION_ID, invocation_id),
        None => request,
    })
}

/// Waits without a limit: the next event may come after days, and Lambda may freeze the function during each call.
async fn send(request: RequestBuilder) -> Result<Response, Failure> {
    request.timeout(Duration::MAX).send().await.map_err(|error| Failure::of(&error))
}
