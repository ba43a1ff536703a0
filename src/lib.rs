//! Keeps the Amazon Bedrock credentials inside Braintrust fresh: `ARCHITECTURE.md` is the way in.

mod api_keys;
mod braintrust;
mod check;
mod config;
mod credentials;
mod deadline;
mod error;
mod handler;
mod iam;
mod metrics;
mod mint;
mod plan;
mod probe;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod report;
mod rotation;
mod staging;
pub mod start;
mod status;
mod transport;
mod trigger;
