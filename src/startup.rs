//! The cold start: reads the configuration and makes the clients. It calls AWS only to read targets from a secret or
//! from S3.

use std::time::Duration;

use jiff::Timestamp;

use crate::aws::bedrock::{Bedrock, Endpoints};
use crate::aws::iam_keys::Iam;
use crate::aws::s3::S3;
use crate::aws::sdk;
use crate::aws::secrets_manager::SecretsManager;
use crate::aws::sts::Sts;
use crate::braintrust::api_keys::ApiKeys;
use crate::braintrust::rate_limit::RateLimits;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::invocation::Function;
use crate::services::Services;
use crate::target_list::TargetList;
use crate::{http, log};

/// Lambda gives a cold start ten seconds.
const INIT_TIMEOUT: Duration = Duration::from_secs(9);

/// Reads the configuration through `variable`, and makes what lives as long as the execution environment.
pub async fn start(variable: impl Fn(&str) -> Option<String>, clock: fn() -> Timestamp) -> Result<Function, Error> {
    let config = Config::read(&variable)?;
    let proxy = config.proxy.as_ref();
    let http = http::client(config.aws_ca_bundle.as_ref(), proxy)?;
    // A private CA is trusted for Braintrust alone: whoever controls it must not be able to answer for AWS.
    let braintrust_http = match (&config.aws_ca_bundle, &config.braintrust_ca_bundle) {
        (None, None) => http.clone(),
        (_, bundle) => http::client(bundle.as_ref(), proxy)?,
    };
    let aws = sdk::config(http.clone(), &variable);
    let secrets_manager = SecretsManager::new(&aws);
    let s3 = S3 { http: http.clone(), config: aws.clone(), endpoint: config.s3_endpoint, clock };
    let mut target_list = TargetList::new(config.targets);
    let targets = target_list.read(&secrets_manager, &s3, Deadline::after(INIT_TIMEOUT)).await?;
    let endpoints = Endpoints {
        control: config.bedrock_endpoint,
        runtime: config.bedrock_runtime_endpoint,
        fips: aws.use_fips().unwrap_or_default(),
        dual_stack: aws.use_dual_stack().unwrap_or_default(),
    };
    let services = Services {
        sts: Sts::new(http.clone(), aws.clone(), clock),
        iam: Iam::new(&aws),
        secrets_manager,
        s3,
        bedrock: Bedrock { http, endpoints, clock },
        braintrust_http,
        api_keys: ApiKeys::default(),
        rate_limits: RateLimits::default(),
        clock,
    };
    Ok(Function {
        name: variable("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default(),
        targets,
        target_list,
        schedule: config.schedule,
        metrics: config.metrics,
        spread: config.spread,
        services,
    })
}

/// Reports why the function can't start: in the log, and to Lambda, which answers the invocations with it.
/// <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html#runtimes-api-initerror>
pub async fn report_failed_start(error: &Error, now: Timestamp, runtime_api: Option<&str>) {
    log::error(error, now);
    let (Some(runtime_api), Ok(http)) = (runtime_api, http::client(None, None)) else { return };
    let url = format!("http://{runtime_api}/2018-06-01/runtime/init/error");
    let body = serde_json::json!({"errorType": "StartRefused", "errorMessage": error.to_string()}).to_string();
    // If Lambda doesn't get the reason, it still reports that the process ended.
    let _ = http.post(url).header("Lambda-Runtime-Function-Error-Type", "StartRefused").body(body).send().await;
}

/// Logs that the connection to Lambda's runtime API was lost. Lambda then starts the function again.
pub fn report_lost_runtime(error: &(dyn std::error::Error + Send + Sync), now: Timestamp) {
    let problem = format!("the connection to Lambda's runtime API was lost ({error})");
    let remedy = "Lambda starts the function again. No action is needed";
    log::error(&Error::configuration("runtime", problem, remedy), now);
}
