//! What is wrong with a provider, in the order of importance.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use super::Provider;
use crate::braintrust::ai_provider::{AuthType, Place};

/// In the order of importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    NoRegion,
    UnknownAuthType,
    SharesLoadBroken,
    NoRole,
    NoAccessKey,
    TokenMissing,
    StaleToken,
    Expired,
    SecretInMetadata,
    CustomApiBase,
    OverridesTarget,
    SharesLoad,
    Old,
    Namesake,
    UsesAssumeRole,
    CouldUseAssumeRole,
    MightUseAssumeRole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Calls to models fail, or a secret can be read by people who shouldn't.
    Now,
    /// Rotations don't reach all calls, or will not, or credentials may be sent to a host that shouldn't get them.
    Soon,
    Hygiene,
    Simpler,
}

impl Finding {
    pub fn severity(self) -> Severity {
        match self {
            Self::NoRegion
            | Self::UnknownAuthType
            | Self::SharesLoadBroken
            | Self::NoRole
            | Self::NoAccessKey
            | Self::TokenMissing
            | Self::StaleToken
            | Self::Expired
            | Self::SecretInMetadata => Severity::Now,
            // A company's own proxy is legitimate, and would otherwise need attention forever.
            Self::CustomApiBase | Self::OverridesTarget | Self::SharesLoad => Severity::Soon,
            Self::Old | Self::Namesake | Self::UsesAssumeRole => Severity::Hygiene,
            Self::CouldUseAssumeRole | Self::MightUseAssumeRole => Severity::Simpler,
        }
    }

    /// Whether calls that use this provider fail.
    fn breaks_calls(self) -> bool {
        self.severity() == Severity::Now && !matches!(self, Self::SecretInMetadata | Self::SharesLoadBroken)
    }

    /// Whether it concerns the targets that write other providers of the same organization.
    fn concerns_others(self) -> bool {
        matches!(self, Self::NoRegion | Self::UnknownAuthType | Self::SharesLoadBroken | Self::OverridesTarget)
            || self == Self::SharesLoad
    }

    /// Whether it concerns the target that writes the provider, and no other line of the check says so.
    fn concerns_writer(self, provider: &Provider) -> bool {
        let is_said = if self == Self::SecretInMetadata {
            // Where a rotation may write.
            !provider.metadata.assumes_a_role()
        } else {
            self == Self::Expired || !self.breaks_calls()
        };
        !is_said
    }

    /// What it means and what to do, without the last full stop.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::NoRegion => {
                "It has no region. Nothing can be sent to Bedrock with it. At Braintrust's hosted edge, one such \
                 provider also makes the lookup of all Bedrock providers of the organization fail. Set the region in \
                 Braintrust, let a target write it, or delete it"
            }
            Self::UnknownAuthType => {
                "Its auth_type is empty or unknown. Gateways send nothing with it. At Braintrust's hosted edge, one \
                 such provider also makes the lookup of all Bedrock providers of the organization fail. Save it again \
                 in Braintrust's settings, or delete it"
            }
            Self::SharesLoadBroken => {
                "Its organization's calls are shared between it and a target's ai_secret, and the calls that use this \
                 one fail, because gateways don't try another one after a refusal. Let a target write it, or delete it"
            }
            Self::NoRole => {
                "Its auth_type is assume_role, and it has no role_arn, so calls with it fail. Save it again with the \
                 role's ARN in Braintrust's settings, or delete it: see docs/assume-role.md"
            }
            Self::NoAccessKey => {
                "It has no access_key, so gateways have nothing to sign with. No known gateway reads the fields aws_* \
                 alone. Let a target write it, or delete it"
            }
            Self::TokenMissing => {
                "It has a temporary access key and no session token, so AWS refuses it. Let a target write it, or put \
                 complete credentials into it"
            }
            Self::StaleToken => {
                "It has a permanent access key and the session token of an earlier one, so AWS refuses it. If \
                 a target of a role-based kind writes it, rotate that target. Otherwise, replace the provider with a \
                 new one, because Braintrust's API can only empty the token"
            }
            Self::Expired => {
                "Its temporary credentials have expired. If a target writes it, run make doctor; otherwise let a \
                 target write it, or delete it"
            }
            Self::SecretInMetadata => {
                "Everybody who may list providers can read the secret access key in its metadata. Retire that key, and \
                 replace the provider with one that is created in Braintrust's settings, because the field can't be \
                 removed"
            }
            Self::CustomApiBase => {
                "Its api_base is not Bedrock's, so Braintrust sends its requests, and with them an API key itself, to \
                 another host. Unless that is a proxy of your own, replace the provider with a new one, and retire the \
                 credentials that were in it"
            }
            Self::OverridesTarget => {
                "It is a project's own provider in the organization of a target's ai_secret, and no target writes it. \
                 In its project, calls use it instead of the credentials that are rotated. Name it in a target, or \
                 delete it"
            }
            Self::SharesLoad => {
                "Its organization's calls are shared between it and a target's ai_secret, and no target writes it. If \
                 its credentials stop working, some of the calls fail. Name it in a target, or delete it"
            }
            Self::Old => "Its permanent credentials are older than 90 days. Let a target rotate them",
            Self::Namesake => {
                "A target's ai_secret in another organization has the same name. If the target names that one without \
                 org_name, its rotation is refused. Name the organization or the ID in the target"
            }
            Self::UsesAssumeRole => {
                "Braintrust assumes a role itself with it, so nothing is rotated, although a target still names it. \
                 Keep the target in case you move back, or remove it: see docs/assume-role.md"
            }
            Self::CouldUseAssumeRole => {
                "Braintrust's hosted gateway can assume a role itself, so that nothing has to be rotated: see \
                 docs/assume-role.md"
            }
            Self::MightUseAssumeRole => {
                "A self-hosted gateway of 2026-07-15 or later can assume a role itself, so that nothing has to be \
                 rotated. The API doesn't show the gateway's version: see docs/assume-role.md"
            }
        }
    }
}

/// Credentials that are older than this should have been rotated.
const OLD: SignedDuration = SignedDuration::from_hours(90 * 24);
/// The longest life of temporary credentials: those of `GetSessionToken` and `GetFederationToken`.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_request.html>
const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(36);
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids>
const TEMPORARY_KEY_PREFIX: &str = "ASIA";

/// Judges all providers, each by itself and beside the others of its organization. `hosted` says for each data plane
/// whether Braintrust hosts it.
pub fn judge(now: Timestamp, providers: &mut [Provider], hosted: &[bool]) {
    for provider in &mut *providers {
        provider.findings = of_itself(now, provider, hosted.get(provider.url) == Some(&true));
    }
    let rotated = RotatedElsewhere::of(providers);
    for provider in &mut *providers {
        provider.findings.extend(rotated.beside(provider));
        provider.findings.sort_unstable();
    }
}

fn of_itself(now: Timestamp, provider: &Provider, is_hosted: bool) -> Vec<Finding> {
    let metadata = &provider.metadata;
    let mut found = Vec::new();
    if metadata.region.is_none() {
        found.push(Finding::NoRegion);
    }
    if metadata.has_aws_secret_access_key {
        found.push(Finding::SecretInMetadata);
    }
    if metadata.custom_api_base.is_some() {
        found.push(Finding::CustomApiBase);
    }
    let simpler = if is_hosted { Finding::CouldUseAssumeRole } else { Finding::MightUseAssumeRole };
    match &metadata.auth_type {
        AuthType::Empty | AuthType::Other(_) => found.push(Finding::UnknownAuthType),
        AuthType::AssumeRole if !metadata.has_role_arn => found.push(Finding::NoRole),
        AuthType::AssumeRole if metadata.assumes_a_role() && !provider.writers.is_empty() => {
            found.push(Finding::UsesAssumeRole);
        }
        AuthType::AssumeRole => {}
        AuthType::ApiKey => found.extend([simpler].into_iter().chain(by_age(now, provider))),
        AuthType::Absent | AuthType::IamCredentials => {
            found.extend([simpler].into_iter().chain(by_age(now, provider)));
            found.extend(match (&metadata.access_key, metadata.has_session_token) {
                (None, _) => Some(Finding::NoAccessKey),
                (Some(id), false) if is_temporary(id) => Some(Finding::TokenMissing),
                (Some(id), true) if !is_temporary(id) => Some(Finding::StaleToken),
                (Some(_), true | false) => None,
            });
        }
    }
    found
}

fn is_temporary(access_key_id: &str) -> bool {
    access_key_id.starts_with(TEMPORARY_KEY_PREFIX)
}

/// What the time of the secret's last change says. It doesn't change with the fields of the documented layout.
fn by_age(now: Timestamp, provider: &Provider) -> Option<Finding> {
    let age = now.duration_since(provider.secret_updated_at?);
    let shows_temporary_key = provider.metadata.access_key.as_deref().is_some_and(is_temporary);
    let is_api_key = provider.metadata.auth_type == AuthType::ApiKey;
    let lifetimes = provider.writers.iter().filter_map(|writer| writer.lifetime);
    let life = match lifetimes.max().and_then(|life| SignedDuration::try_from(life).ok()) {
        Some(life) if is_api_key || shows_temporary_key => Some(life),
        _ if shows_temporary_key && !is_api_key => Some(LONGEST_LIFE),
        _ => None,
    };
    match life {
        Some(life) => (age > life).then_some(Finding::Expired),
        None => (age > OLD).then_some(Finding::Old),
    }
}

/// The organizations in which a target writes an `ai_secret`, and the names of those `ai_secret`s.
struct RotatedElsewhere {
    organizations: BTreeSet<(usize, Uuid)>,
    names: HashMap<(usize, String), BTreeSet<Uuid>>,
}

impl RotatedElsewhere {
    fn of(providers: &[Provider]) -> Self {
        let mut rotated = Self { organizations: BTreeSet::new(), names: HashMap::new() };
        let written = |provider: &&Provider| provider.place == Place::Organization && !provider.writers.is_empty();
        for provider in providers.iter().filter(written) {
            let Some((url, organization)) = provider.place_of_load() else { continue };
            rotated.organizations.insert((url, organization));
            if provider.writers.iter().any(|writer| writer.by_name) {
                rotated.names.entry((url, provider.name.clone())).or_default().insert(organization);
            }
        }
        rotated
    }

    /// What is wrong with a provider that no target writes, beside those that a target writes. One with which
    /// Braintrust assumes a role itself needs no target.
    fn beside(&self, provider: &Provider) -> Vec<Finding> {
        let may_be_written = !provider.writers.is_empty() || !provider.possible_targets.is_empty();
        let Some((url, organization)) = provider.place_of_load().filter(|_| !may_be_written) else {
            return Vec::new();
        };
        let needs_a_target = !provider.metadata.assumes_a_role();
        let is_rotated = needs_a_target && self.organizations.contains(&(url, organization));
        match provider.place {
            Place::Project => is_rotated.then_some(Finding::OverridesTarget).into_iter().collect(),
            Place::Organization => {
                let is_broken = provider.findings.iter().any(|finding| finding.breaks_calls());
                let load = if is_broken { Finding::SharesLoadBroken } else { Finding::SharesLoad };
                let names = self.names.get(&(url, provider.name.clone()));
                let is_namesake = names.is_some_and(|found| found.iter().any(|other| *other != organization));
                let namesake = is_namesake.then_some(Finding::Namesake);
                is_rotated.then_some(load).into_iter().chain(namesake).collect()
            }
        }
    }
}

/// The providers that concern a target, its own and others, with what concerns it.
pub fn concerning<'a>(target: &str, providers: &'a [Provider]) -> Vec<(&'a Provider, Finding)> {
    let own = || providers.iter().filter(|provider| provider.is_written_by(target));
    let own_ai_secrets = || own().filter(|provider| provider.place == Place::Organization);
    let organizations: BTreeSet<_> = own_ai_secrets().filter_map(Provider::place_of_load).collect();
    let names: BTreeSet<_> = own_ai_secrets().map(|provider| (provider.url, provider.name.as_str())).collect();
    let mut concerning = Vec::new();
    for provider in providers {
        let is_own = provider.is_written_by(target);
        let is_here = provider.place_of_load().is_some_and(|place| organizations.contains(&place));
        let is_namesake = names.contains(&(provider.url, provider.name.as_str()));
        let concerns = |finding: &Finding| {
            if is_own {
                finding.concerns_writer(provider)
            } else if *finding == Finding::Namesake {
                is_namesake && !is_here
            } else {
                is_here && finding.concerns_others()
            }
        };
        concerning.extend(provider.findings.iter().copied().filter(concerns).map(|finding| (provider, finding)));
    }
    concerning.sort_by_key(|(_, finding)| *finding);
    concerning
}

/// How many providers have each finding.
pub fn counts(providers: &[Provider]) -> BTreeMap<Finding, usize> {
    let mut counts = BTreeMap::new();
    for finding in providers.iter().flat_map(|provider| &provider.findings) {
        *counts.entry(*finding).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
