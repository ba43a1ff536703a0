//! Keeps the Amazon Bedrock credentials inside Braintrust fresh. `ARCHITECTURE.md` explains the code.

mod aws;
mod braintrust;
mod commands;
mod config;
mod credentials;
mod deadline;
mod error;
mod event;
mod http;
mod inventory;
mod invocation;
mod json;
mod limits;
mod log;
mod metrics;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod report;
mod revocation;
mod rotation;
pub mod runtime;
mod services;
mod spread;
pub mod startup;
mod target_list;
