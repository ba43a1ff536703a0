//! Where Bedrock is called: at a configured endpoint, or at the region's, as AWS's SDKs resolve it.

use reqwest::Url;

use super::super::sdk;
use crate::config::Region;

/// The two APIs of Bedrock that the probe calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Control,
    Runtime,
}

impl Api {
    fn host(self) -> &'static str {
        match self {
            Self::Control => "bedrock",
            Self::Runtime => "bedrock-runtime",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// `AWS_ENDPOINT_URL_BEDROCK` or `AWS_ENDPOINT_URL`, which replaces the endpoints of all regions.
    pub control: Option<Url>,
    pub runtime: Option<Url>,
    /// `AWS_USE_FIPS_ENDPOINT` and `AWS_USE_DUALSTACK_ENDPOINT`.
    pub fips: bool,
    pub dual_stack: bool,
}

impl Endpoints {
    pub(super) async fn of(&self, api: Api, region: &Region) -> Option<Url> {
        let own = match api {
            Api::Control => &self.control,
            Api::Runtime => &self.runtime,
        };
        match own {
            Some(url) => Some(url.clone()),
            None => {
                let (host, suffix) = (api.host(), sdk::domain(region.as_str(), self.dual_stack).await?);
                let fips = if self.fips { "-fips" } else { "" };
                Url::parse(&format!("https://{host}{fips}.{region}.{suffix}")).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tests/test_bedrock_endpoints.py` compares the file with the rules of AWS's own SDK.
    #[tokio::test]
    async fn the_endpoints_are_those_of_the_sdks_rules() {
        let json = include_str!("../../../tests/vectors/bedrock_endpoints.json");
        let rows: Vec<(String, bool, bool, String, String)> = serde_json::from_str(json).unwrap();
        assert!(rows.len() >= 32, "{}", rows.len());
        for (region, fips, dual_stack, control, runtime) in rows {
            let (region, endpoints) =
                (region.try_into().unwrap(), Endpoints { fips, dual_stack, ..Endpoints::default() });
            for (api, expected) in [(Api::Control, &control), (Api::Runtime, &runtime)] {
                let url = endpoints.of(api, &region).await.unwrap();
                assert_eq!(url.as_str().trim_end_matches('/'), expected);
            }
        }
    }

    #[tokio::test]
    async fn a_configured_endpoint_replaces_the_regions() {
        let url: Url = "http://127.0.0.1:1".parse().unwrap();
        let endpoints = Endpoints { runtime: Some(url.clone()), fips: true, ..Endpoints::default() };
        let region = "us-east-1".to_owned().try_into().unwrap();
        assert_eq!(endpoints.of(Api::Runtime, &region).await, Some(url));
        assert_ne!(endpoints.of(Api::Control, &region).await, endpoints.of(Api::Runtime, &region).await);
    }
}
