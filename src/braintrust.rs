//! Braintrust's API, and what its answers say about the credentials inside an AI provider.
//!
//! [`client`] sends a call, with its retries; [`rate_limit`] spaces the calls, and [`api_keys`] caches the API keys.
//! [`ai_provider`] and [`service_tokens`] are what the calls are about, and [`ai_secrets`] and [`project_providers`] find
//! a provider by its name. [`layout`] decides where credentials go in a provider and writes them there, and [`arrival`]
//! decides whether they have arrived.

pub mod ai_provider;
mod ai_secrets;
pub mod api_keys;
pub mod arrival;
pub mod client;
pub mod layout;
mod project_providers;
pub mod rate_limit;
pub mod service_tokens;
#[cfg(test)]
pub mod test_server;
