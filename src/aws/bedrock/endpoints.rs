//! Where Bedrock is called: at a configured endpoint, or at the region's, as AWS's SDKs resolve it.

use aws_sdk_sts::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use reqwest::Url;

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
                let (host, suffix) = (api.host(), suffix(region, self.dual_stack).await?);
                let fips = if self.fips { "-fips" } else { "" };
                Url::parse(&format!("https://{host}{fips}.{region}.{suffix}")).ok()
            }
        }
    }
}

/// The domain of the region's partition. This crate has no Bedrock client of the SDK, but the endpoint rules of STS
/// contain the partitions. They aren't asked for a FIPS endpoint, because STS has no separate ones in AWS GovCloud.
async fn suffix(region: &Region, dual_stack: bool) -> Option<String> {
    let parameters = Params::builder().region(region.as_str()).use_dual_stack(dual_stack).use_global_endpoint(false);
    let endpoint = DefaultResolver::new().resolve_endpoint(&parameters.build().ok()?).await.ok()?;
    endpoint.url().strip_prefix("https://sts.")?.strip_prefix(region.as_str())?.strip_prefix('.').map(str::to_owned)
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
