//! The cold start: reads the configuration and makes the clients once; it must never call a service that no target needs.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_iam as iam;
use aws_sdk_secretsmanager as secretsmanager;
use aws_sdk_sts as sts;
use jiff::Timestamp;
use secrecy::ExposeSecret;

use crate::api_keys::{self, ApiKeys};
use crate::braintrust::pace::Paces;
use crate::config::{Config, TargetsSource};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::handler::Handler;
use crate::metrics::Metrics;
use crate::probe::Bedrock;
use crate::report;
use crate::rotation::Rotation;
use crate::transport;

/// Lambda gives a cold start ten seconds.
const INIT: Duration = Duration::from_secs(9);

/// One attempt of an AWS call. The SDK repeats it with backoff.
const ATTEMPT: Duration = Duration::from_secs(10);

/// The same number as for Braintrust's calls.
const ATTEMPTS: u32 = 5;

/// Reads the configuration through `variable` and makes what lives as long as the execution environment.
///
/// # Errors
/// One, which names the variable or the target and field.
pub async fn start(variable: impl Fn(&str) -> Option<String>, clock: fn() -> Timestamp) -> Result<Handler, Error> {
    let config = Config::read(&variable)?;
    let http = transport::client(None)?;
    // A private CA is trusted for Braintrust alone: who holds it must not be able to answer for AWS.
    let for_braintrust = match &config.ca_bundle {
        Some(bundle) => transport::client(Some(bundle))?,
        None => http.clone(),
    };
    let aws = aws_config::defaults(BehaviorVersion::latest())
        .http_client(transport::for_the_sdk(http.clone()))
        // What Lambda gives a function: no files, no instance metadata.
        .credentials_provider(EnvironmentVariableCredentialsProvider::new())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).build())
        .load()
        .await;
    let secrets_manager = secretsmanager::Client::new(&aws);
    let targets = match &config.targets {
        TargetsSource::Inline(json) => config.read_targets(json)?,
        TargetsSource::Secret(id) => {
            let json = api_keys::read(&secrets_manager, id, Deadline::after(INIT)).await?;
            config.read_targets(json.expose_secret())?
        }
    };
    Ok(Handler {
        targets,
        schedule: config.schedule,
        metrics: Metrics { namespace: config.metrics_namespace },
        rotation: Rotation {
            sts: sts::Client::new(&aws),
            iam: iam::Client::new(&aws),
            secrets_manager: secrets_manager.clone(),
            clock,
            bedrock: Bedrock {
                http,
                endpoint: config.bedrock_endpoint,
                runtime_endpoint: config.bedrock_runtime_endpoint,
                clock,
            },
            http: for_braintrust,
            api_keys: ApiKeys::new(secrets_manager),
            paces: Paces::default(),
        },
        clock,
    })
}

/// Tells why the function cannot start: in the log, and to Lambda, which answers the invocations with it.
/// <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html#runtimes-api-initerror>
pub async fn report_failed_start(error: &Error, now: Timestamp, runtime_api: Option<&str>) {
    report::log_error(error, now);
    let (Some(runtime_api), Ok(http)) = (runtime_api, transport::client(None)) else { return };
    let url = format!("http://{runtime_api}/2018-06-01/runtime/init/error");
    let body = serde_json::json!({"errorType": "StartRefused", "errorMessage": error.to_string()}).to_string();
    // Lambda says by itself that the function ended, should it not take the reason.
    let _ = http.post(url).header("Lambda-Runtime-Function-Error-Type", "StartRefused").body(body).send().await;
}

/// Tells in the log that Lambda's runtime API cannot be talked to any more; Lambda starts the function anew.
pub fn report_lost_runtime(error: &(dyn std::error::Error + Send + Sync), now: Timestamp) {
    let problem = format!("the connection to Lambda's runtime API was lost ({error})");
    report::log_error(
        &Error::configuration("runtime", problem, "Lambda starts the function anew; nothing is to be done"),
        now,
    );
}
