//! The action `inventory`: every Bedrock provider that the configured API keys see, and what is wrong with each. It
//! only reads.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::braintrust::ai_provider::{AuthType, Metadata};
use crate::config::Target;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::inventory::findings::{self, Finding, Severity};
use crate::inventory::reading::{Inventory, KeyReading};
use crate::inventory::{NamedProject, Provider};
use crate::services::Services;

#[derive(Serialize)]
pub struct Answer<'a> {
    action: &'static str,
    /// Whether nothing has to be done now, as far as everything could be read.
    ok: bool,
    started_at: String,
    /// Why the newest list of targets could not be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    targets_error: Option<Error>,
    /// One entry for each data plane and API key.
    api_keys: Vec<KeyReading<'a>>,
    /// What was found, and what it means, in the order of importance.
    findings: Vec<Meaning>,
    /// The providers whose findings matter most come first.
    providers: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Meaning {
    finding: Finding,
    severity: Severity,
    providers: usize,
    meaning: &'static str,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: Uuid,
    name: String,
    api_url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<ProjectEntry>,
    auth_type: String,
    layout: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_updated_at: Option<Timestamp>,
    /// The targets that write it.
    targets: Vec<String>,
    /// The targets that may write it: which provider they name could not be determined.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    possible_targets: Vec<String>,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct ProjectEntry {
    id: Uuid,
    name: String,
}

pub async fn run<'a>(
    services: &Services,
    targets: &'a [Target],
    started_at: String,
    targets_error: Option<Error>,
    deadline: Deadline,
) -> Box<Answer<'a>> {
    let all: Vec<_> = targets.iter().collect();
    let inventory = Inventory::read(services, &all, targets, deadline).await;
    Box::new(answer(inventory, started_at, targets_error))
}

fn answer(inventory: Inventory<'_>, started_at: String, targets_error: Option<Error>) -> Answer<'_> {
    let Inventory { urls, keys, mut providers, organizations } = inventory;
    let counts = findings::counts(&providers);
    // Those without findings come last.
    providers.sort_by(|one, other| order(one).cmp(&order(other)));
    let meaning = |(finding, providers): (Finding, usize)| Meaning {
        finding,
        severity: finding.severity(),
        providers,
        meaning: finding.meaning(),
    };
    let findings: Vec<_> = counts.into_iter().map(meaning).collect();
    let entry = |provider| entry(provider, &urls, &organizations);
    Answer {
        action: "inventory",
        ok: targets_error.is_none()
            && findings.iter().all(|found| found.severity != Severity::Now)
            && keys.iter().all(|key| key.unknown.is_empty()),
        started_at,
        targets_error,
        api_keys: keys,
        findings,
        providers: providers.into_iter().map(entry).collect(),
    }
}

fn order(provider: &Provider) -> impl Ord + use<'_> {
    let worst = provider.findings.first();
    let project = provider.project.as_ref().map(|project| project.name.as_str());
    (worst.is_none(), worst, provider.url, provider.organization, project, provider.name.as_str(), provider.id)
}

fn entry<'a>(provider: Provider, urls: &[&'a str], organizations: &HashMap<Uuid, String>) -> Entry<'a> {
    let layout = layout(&provider.metadata);
    let Metadata { auth_type, access_key, region, aws_access_key_id, .. } = provider.metadata;
    let holds_pair = matches!(auth_type, AuthType::Absent | AuthType::IamCredentials);
    Entry {
        id: provider.id,
        name: provider.name,
        api_url: urls.get(provider.url).copied().unwrap_or_default(),
        organization: provider.organization,
        organization_name: provider.organization.and_then(|id| organizations.get(&id).cloned()),
        project: provider.project.map(|NamedProject { id, name }| ProjectEntry { id, name }),
        access_key_id: access_key.or(aws_access_key_id).filter(|_| holds_pair),
        auth_type: named(auth_type),
        layout,
        region,
        secret_updated_at: provider.secret_updated_at,
        targets: provider.writers.into_iter().map(|writer| writer.target).collect(),
        possible_targets: provider.possible_targets,
        findings: provider.findings,
    }
}

/// Gateways treat an absent `auth_type` as `iam_credentials`.
fn named(auth_type: AuthType) -> String {
    match auth_type {
        AuthType::Absent | AuthType::IamCredentials => "iam_credentials".to_owned(),
        AuthType::Empty => "empty".to_owned(),
        AuthType::ApiKey => "api_key".to_owned(),
        AuthType::AssumeRole => "assume_role".to_owned(),
        AuthType::Other(other) => other,
    }
}

/// The layout of the credentials that are there, and not that in which a target would write them.
fn layout(metadata: &Metadata) -> Option<&'static str> {
    let has_gateway_fields = metadata.access_key.is_some() || metadata.auth_type == AuthType::ApiKey;
    let has_documented_fields = metadata.aws_access_key_id.is_some() || metadata.has_aws_secret_access_key;
    match (has_gateway_fields, has_documented_fields) {
        _ if metadata.auth_type == AuthType::AssumeRole => None,
        (true, true) => Some("both"),
        (true, false) => Some("gateway"),
        (false, true) => Some("documented"),
        (false, false) => None,
    }
}
