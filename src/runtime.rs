//! The client of Lambda's Runtime API: fetches each event, and returns the function's answer.
//!
//! `lambda_runtime::run` isn't used, because it ends the process if a caller sends a client context that differs from
//! that of AWS's mobile SDKs. This function ignores client contexts.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::convert::Infallible;
use std::sync::Arc;

use http::header::HeaderMap;
use http::{Method, Request, Uri};
use http_body_util::BodyExt;
use lambda_runtime::{Config, Context, Error as RuntimeError, LambdaEvent};
use lambda_runtime_api_client::body::Body;
use lambda_runtime_api_client::{PooledClient, build_request};

use crate::error::{Error, ErrorClass, Service};
use crate::invocation::Function;
use crate::log;

const INVOCATION: &str = "/2018-06-01/runtime/invocation";
const REQUEST_ID: &str = "lambda-runtime-aws-request-id";
const DEADLINE: &str = "lambda-runtime-deadline-ms";
/// The header that the answer repeats, so that Lambda can refuse the late answer of an invocation that timed out.
const INVOCATION_ID: &str = "lambda-runtime-invocation-id";
/// The headers that the library parses and this function doesn't use.
const UNUSED: [&str; 2] = ["lambda-runtime-client-context", "lambda-runtime-cognito-identity"];

/// Answers one event after another. Ends only if the Runtime API can't be reached or doesn't follow its contract.
pub async fn serve(function: &Function) -> Result<Infallible, RuntimeError> {
    let (client, config) = (PooledClient::builder().build(), Arc::new(Config::from_env()));
    loop {
        let next = request(Method::GET, "next", Body::empty())?;
        let (mut head, body) = client.call(next).await?.into_parts();
        if !head.status.is_success() {
            return Err(format!("it answered {} instead of an event", head.status.as_u16()).into());
        }
        UNUSED.iter().for_each(|name| drop(head.headers.remove(*name)));
        let event = body.collect().await?.to_bytes();
        let answer = Box::pin(answer(function, &config, &head.headers, &event)).await?;
        let status = client.call(answer).await?.status();
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
    function: &Function,
    config: &Arc<Config>,
    headers: &HeaderMap,
    event: &[u8],
) -> Result<Request<Body>, RuntimeError> {
    let id = headers.get(REQUEST_ID).ok_or("the event has no request ID")?.to_str()?;
    // Without it, the library panics.
    headers.get(DEADLINE).ok_or("the event has no deadline")?;
    let context = Context::new(id, config.clone(), headers)?;
    let result = match serde_json::from_slice(event) {
        Ok(payload) => function.handle(LambdaEvent { payload, context }).await,
        Err(error) => Err(function.refuse_malformed(&error)),
    };
    let mut request = match result {
        Ok(answer) => request(Method::POST, &format!("{id}/response"), serde_json::to_vec(&answer)?.into())?,
        Err(failure) => {
            let mut request = request(Method::POST, &format!("{id}/error"), serde_json::to_vec(&failure)?.into())?;
            request.headers_mut().insert("lambda-runtime-function-error-type", "unhandled".parse()?);
            request
        }
    };
    if let Some(invocation_id) = headers.get(INVOCATION_ID) {
        request.headers_mut().insert(INVOCATION_ID, invocation_id.clone());
    }
    Ok(request)
}

fn request(method: Method, path: &str, body: Body) -> Result<Request<Body>, RuntimeError> {
    Ok(build_request().method(method).uri(format!("{INVOCATION}/{path}").parse::<Uri>()?).body(body)?)
}
