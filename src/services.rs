//! The clients of all services, made once at cold start.

use jiff::Timestamp;
use reqwest::Client;
use secrecy::SecretString;

use crate::aws::bedrock::Bedrock;
use crate::aws::iam_keys::Iam;
use crate::aws::s3::S3;
use crate::aws::secrets_manager::SecretsManager;
use crate::aws::sts::Sts;
use crate::braintrust::api_keys::ApiKeys;
use crate::braintrust::client::Braintrust;
use crate::braintrust::rate_limit::RateLimits;
use crate::config::DataPlane;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::http;

pub struct Services {
    pub sts: Sts,
    pub iam: Iam,
    pub secrets_manager: SecretsManager,
    pub s3: S3,
    pub bedrock: Bedrock,
    /// For Braintrust only, because it may trust a private CA.
    pub braintrust_http: Client,
    pub api_keys: ApiKeys,
    pub rate_limits: RateLimits,
    pub clock: fn() -> Timestamp,
}

impl Services {
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Calls Braintrust with the data plane's API key. While the key is being read, a connection to Braintrust is
    /// opened.
    pub async fn braintrust<T>(
        &self,
        data_plane: &DataPlane,
        deadline: Deadline,
        call: impl AsyncFn(Braintrust<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let DataPlane { api_url, api_key_secret_id: id } = data_plane;
        let (http, rate_limit) = (&self.braintrust_http, &self.rate_limits.of(data_plane));
        let read = async || self.secrets_manager.current_text(id, deadline).await;
        let with =
            async |api_key: &SecretString| call(Braintrust { http, api_url, api_key, rate_limit, deadline }).await;
        if !self.api_keys.has(id).await {
            http::connect_early(http, api_url);
        }
        self.api_keys.call(id, read, with).await
    }
}
