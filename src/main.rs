//! Serves Lambda's runtime API, and passes in the environment and the clock, which no other module reads.

use std::alloc::System;
use std::process::ExitCode;

use bedrock_braintrust_rotator::runtime;
use bedrock_braintrust_rotator::startup::{self, report_failed_start};
use zeroizing_alloc::ZeroAlloc;

// Security: zeroizes all memory that is freed, with the bodies of requests and responses and the SDKs' copies of secrets.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    // One thread: with 128 MB of memory, Lambda gives a function a twelfth of a CPU.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_or(ExitCode::FAILURE, |runtime| runtime.block_on(serve()))
}

#[expect(clippy::disallowed_methods, reason = "only this function reads the environment and the clock")]
async fn serve() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let mut function = match startup::start(variable, jiff::Timestamp::now).await {
        Ok(function) => function,
        Err(error) => {
            report_failed_start(&error, jiff::Timestamp::now(), variable("AWS_LAMBDA_RUNTIME_API").as_deref()).await;
            return ExitCode::FAILURE;
        }
    };
    let Err(error) = runtime::serve(&mut function, variable("AWS_LAMBDA_RUNTIME_API")).await;
    startup::report_lost_runtime(error.as_ref(), jiff::Timestamp::now());
    ExitCode::FAILURE
}
