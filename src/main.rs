//! The function's edge: the environment, the clock and Lambda's runtime API. It must never decide anything.

use std::alloc::System;
use std::process::ExitCode;

use bedrock_braintrust_rotator::start::{self, report_failed_start};
use lambda_runtime::service_fn;
use zeroizing_alloc::ZeroAlloc;

// Security: our secrets are zeroized when they are dropped; this does it for the SDKs' copies, which are not.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    // One thread: at 128 MB a function has a twelfth of a processor.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(_) => return ExitCode::FAILURE,
    };
    runtime.block_on(serve())
}

#[expect(clippy::disallowed_methods, reason = "this is the edge: the one place that reads environment and clock")]
async fn serve() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let handler = match start::start(variable, jiff::Timestamp::now).await {
        Ok(handler) => handler,
        Err(error) => {
            report_failed_start(&error, jiff::Timestamp::now(), variable("AWS_LAMBDA_RUNTIME_API").as_deref()).await;
            return ExitCode::FAILURE;
        }
    };
    match lambda_runtime::run(service_fn(|event| handler.handle(event))).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            start::report_lost_runtime(error.as_ref(), jiff::Timestamp::now());
            ExitCode::FAILURE
        }
    }
}
