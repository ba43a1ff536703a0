//! What the services of the world hold. The secret part of a key is `secret-of-` and its ID.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{in_hours, now};
use crate::aws::staged_value;
use crate::config::{Region, Target, TargetName};
use crate::credentials::{Credentials, Kind, Secret};

#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub secret_created_at: Timestamp,
    pub secret_changed_at: Timestamp,
    pub rotation_enabled: Option<bool>,
    pub versions: BTreeMap<String, StagedVersion>,
    pub keys: Vec<IamKey>,
    pub ai_secrets: Vec<StoredAiSecret>,
    /// Bedrock knows all other active keys, and the sessions of all roles.
    pub unknown_to_bedrock: BTreeSet<String>,
    /// Ended keys that Bedrock still accepts.
    pub still_accepted: BTreeSet<String>,
    /// Sessions before this one are denied everything. `None` if the role has no such policy.
    pub denied_before: Option<u32>,
    /// Bedrock denies these if Braintrust uses them.
    pub denied_through_braintrust: BTreeSet<String>,
    pub created: u32,
    /// Of the credentials that are staged or stored next.
    pub kind: Kind,
    names: (TargetName, Region),
    changes_of_ai_secrets: i64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct StagedVersion {
    pub stages: BTreeSet<String>,
    pub text: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct IamKey {
    pub id: String,
    pub active: bool,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StoredAiSecret {
    /// As the API shows it.
    pub json: Value,
    /// The value that the API encrypts.
    pub secret: String,
}

pub(super) fn id(number: u128) -> Uuid {
    if number == 1 { "11111111-1111-4111-8111-111111111111".parse().unwrap() } else { Uuid::from_u128(number) }
}

/// The project of a project's providers.
pub(super) const PROJECT: Uuid = Uuid::max();

pub(super) fn secret_of(id: &str) -> String {
    format!("secret-of-{id}")
}

impl State {
    /// A secret that is a thousand hours old, without a version.
    pub(super) fn new(target: &Target) -> Self {
        Self {
            secret_created_at: in_hours(-1_000),
            secret_changed_at: in_hours(-1_000),
            rotation_enabled: None,
            versions: BTreeMap::new(),
            keys: Vec::new(),
            ai_secrets: Vec::new(),
            unknown_to_bedrock: BTreeSet::new(),
            still_accepted: BTreeSet::new(),
            denied_before: None,
            denied_through_braintrust: BTreeSet::new(),
            created: 0,
            kind: target.kind(),
            names: (target.name.clone(), target.region.clone()),
            changes_of_ai_secrets: 0,
        }
    }

    pub(super) fn add_ai_secret(&mut self, number: u128) {
        let json = json!({
            "id": id(number), "name": format!("number {number}"), "type": "bedrock",
            "metadata": {"region": "us-east-1"}, "secret_updated_at": in_hours(-500).to_string(),
        });
        self.ai_secrets.push(StoredAiSecret { json, secret: String::new() });
    }

    /// Makes all `ai_secret`s a project's providers.
    pub(super) fn move_to_a_project(&mut self) {
        for provider in &mut self.ai_secrets {
            let fields = provider.json.as_object_mut().unwrap();
            let type_name = fields.remove("type").unwrap();
            fields.extend([
                ("object_type".to_owned(), json!("project")),
                ("object_id".to_owned(), json!(PROJECT)),
                ("secret_category".to_owned(), json!("ai_provider")),
                ("secret_type".to_owned(), type_name),
            ]);
        }
    }

    /// Makes the last change of the secret older than any overlap.
    pub fn end_the_overlap(&mut self) {
        self.secret_changed_at = in_hours(-100);
        for version in self.versions.values_mut() {
            let older = |stage: &String| match stage.split('_').collect::<Vec<_>>()[..] {
                [name, time, version] if time.parse::<i64>().is_ok() => {
                    format!("{name}_{}_{version}", in_hours(-100).as_microsecond())
                }
                _ => stage.clone(),
            };
            version.stages = version.stages.iter().map(older).collect();
        }
    }

    pub fn add_key(&mut self, id: &str, created: i64) {
        self.keys.push(IamKey { id: id.to_owned(), active: true, created_at: in_hours(created) });
    }

    pub fn key(&self, id: &str) -> Option<&IamKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    pub fn is_active(&self, id: &str) -> bool {
        self.key(id).is_some_and(|key| key.active)
    }

    pub fn deactivate(&mut self, id: &str) {
        self.keys.iter_mut().find(|key| key.id == id).unwrap().active = false;
    }

    pub fn key_ids(&self) -> Vec<&str> {
        self.keys.iter().map(|key| key.id.as_str()).collect()
    }

    /// A version that holds the credentials `id` of the target's kind, which never expire unless `expires` says when.
    pub fn stage_until(&mut self, version: &str, stage: &str, id: &str, created: i64, expires: Option<i64>) {
        let secret_part = || secret_of(id).into();
        let secret = match self.kind {
            Kind::Temporary => Secret::Temporary { secret_access_key: secret_part(), session_token: "token".into() },
            Kind::ShortTermApiKey => Secret::ShortTermApiKey(secret_part()),
            Kind::AccessKey => Secret::AccessKey { secret_access_key: secret_part() },
            Kind::LongTermApiKey => Secret::LongTermApiKey(secret_part()),
        };
        let (created_at, expires_at) = (in_hours(created), expires.map(in_hours));
        let credentials = Credentials { id: id.to_owned(), created_at, expires_at, secret };
        let text = staged_value::write(&credentials, &self.names.0, &self.names.1).unwrap();
        let staged = StagedVersion { stages: BTreeSet::new(), text: Some(text.expose_secret().to_owned()) };
        self.versions.insert(version.to_owned(), staged);
        self.move_stage(stage, Some(version));
        self.secret_changed_at = self.secret_changed_at.max(created_at);
    }

    /// A version that holds the key `id`, which IAM has as well.
    pub fn stage_key(&mut self, version: &str, stage: &str, id: &str, created: i64) {
        self.add_key(id, created);
        self.stage_until(version, stage, id, created, None);
    }

    /// Another run stages a key that is there.
    pub fn stage_existing(&mut self, version: &str, stage: &str, id: &str) {
        self.stage_until(version, stage, id, -1, None);
    }

    /// Moves a stage as Secrets Manager does: `AWSPREVIOUS` follows `AWSCURRENT`.
    pub fn move_stage(&mut self, stage: &str, to: Option<&str>) {
        let from = self.version_with(stage);
        for version in self.versions.values_mut() {
            version.stages.remove(stage);
        }
        if let Some(to) = to {
            self.versions.get_mut(to).unwrap().stages.insert(stage.to_owned());
        }
        if let (true, Some(from)) = (stage == "AWSCURRENT", from)
            && to != Some(&from)
        {
            self.move_stage("AWSPREVIOUS", Some(&from));
        }
    }

    /// The version with a label whose name ends with a time.
    pub fn version_labelled(&self, prefix: &str) -> Option<String> {
        let is_labelled = |version: &StagedVersion| version.stages.iter().any(|stage| stage.starts_with(prefix));
        self.versions.iter().find(|(_, version)| is_labelled(version)).map(|(id, _)| id.clone())
    }

    /// A run set a label so many hours before now.
    pub fn label(&mut self, prefix: &str, hours: i64, version: &str) {
        self.move_stage(&format!("{prefix}{}_{version}", in_hours(hours).as_microsecond()), Some(version));
    }

    pub fn version_with(&self, stage: &str) -> Option<String> {
        self.versions.iter().find(|(_, version)| version.stages.contains(stage)).map(|(id, _)| id.clone())
    }

    /// The ID of the credentials in the version with a stage.
    pub fn staged(&self, stage: &str) -> Option<String> {
        let text = self.versions[&self.version_with(stage)?].text.as_ref()?;
        let value: Value = serde_json::from_str(text).unwrap();
        Some(value["credential_id"].as_str().unwrap().to_owned())
    }

    /// All `ai_secret`s hold a key.
    pub fn store(&mut self, id: &str) {
        for index in 0..self.ai_secrets.len() {
            self.store_in(index, id);
        }
    }

    pub fn store_in(&mut self, index: usize, id: &str) {
        let metadata = if self.kind.is_api_key() {
            json!({"auth_type": "api_key"})
        } else {
            json!({"auth_type": "iam_credentials", "access_key": id, "session_token": ""})
        };
        self.patch(index, &json!({"secret": secret_of(id), "metadata": metadata}));
        let updated_at = in_hours(-100) + SignedDuration::from_secs(1);
        self.ai_secrets[index].json["secret_updated_at"] = json!(updated_at.to_string());
    }

    /// Merges as Braintrust does.
    pub(super) fn patch(&mut self, index: usize, body: &Value) {
        let ai_secret = &mut self.ai_secrets[index];
        for (name, value) in body["metadata"].as_object().into_iter().flatten() {
            ai_secret.json["metadata"][name] = value.clone();
        }
        let secret = body["secret"].as_str().or(body["value"].as_str());
        // The same value again changes no time.
        if let Some(secret) = secret.filter(|secret| *secret != ai_secret.secret) {
            ai_secret.secret = secret.to_owned();
            self.changes_of_ai_secrets += 1;
            let changed_at = now() + SignedDuration::from_millis(self.changes_of_ai_secrets);
            ai_secret.json["secret_updated_at"] = json!(changed_at.to_string());
        }
    }

    /// The ID of the credentials that each `ai_secret` holds, all parts of which must match.
    pub fn in_braintrust(&self) -> Vec<&str> {
        let held = self.ai_secrets.iter().map(|ai_secret| {
            let held = ai_secret.secret.strip_prefix("secret-of-").unwrap_or_default();
            let metadata = &ai_secret.json["metadata"];
            let shown = metadata["access_key"].as_str().filter(|_| metadata["auth_type"] != "api_key");
            assert!(shown.is_none_or(|shown| shown == held), "{shown:?} is shown beside the secret of {held:?}");
            held
        });
        held.collect()
    }
}
