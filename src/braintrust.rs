//! Braintrust's API, and what its answers say about the credentials inside an AI provider.
//!
//! [`client`] sends a call, with its retries; [`rate_limit`] spaces the calls, and [`api_keys`] caches the API keys.
//! [`ai_provider`] and [`service_tokens`] are what the calls are about, and [`ai_secrets`] and [`project_providers`]
//! find a provider by its name. [`listing`] lists them all, and [`organizations`] names their organizations. [`layout`]
//! decides where credentials go in a provider and writes them there, and [`arrival`] decides whether they have arrived.
//! [`end_to_end`] proves that Braintrust can use them. [`api_base`] tells whether readers send them elsewhere.

pub mod ai_provider;
mod ai_secrets;
mod api_base;
pub mod api_keys;
pub mod arrival;
pub mod client;
pub mod end_to_end;
pub mod layout;
pub mod listing;
mod organizations;
mod project_providers;
pub mod rate_limit;
pub mod service_tokens;
#[cfg(test)]
pub mod test_server;
