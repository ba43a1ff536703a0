//! Braintrust's API, and what its answers say about the credentials inside an `ai_secret`.
//!
//! [`client`] sends a call, with its retries; [`rate_limit`] spaces the calls, and [`api_keys`] caches the API keys.
//! [`ai_secret`] and [`service_tokens`] are what the calls are about. [`layout`] decides where credentials go in an
//! `ai_secret` and writes them there, and [`arrival`] decides whether they have arrived. [`end_to_end`] proves that
//! Braintrust can use them.

pub mod ai_secret;
pub mod api_keys;
pub mod arrival;
pub mod client;
pub mod end_to_end;
pub mod layout;
pub mod rate_limit;
pub mod service_tokens;
#[cfg(test)]
pub mod test_server;
