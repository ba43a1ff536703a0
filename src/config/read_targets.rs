//! Reads the array `TARGETS` and checks every rule, also those between targets; it must never take a wrong value for a default.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::target::{AiSecret, AssumeRole, Kind, LayoutChoice, Lookup, Probe, Standing, Target};
use super::{ACCEPTED_URL, Defaults, braintrust_url, is_same_secret, secret_id, without_suffix};

/// STS accepts 900 s to the role's maximum, and role chaining (a Lambda's role that assumes another) at most 3,600 s.
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
const DURATION_SECONDS: std::ops::RangeInclusive<u64> = 900..=3_600;

/// STS's limit on an inline session policy, in characters.
const LONGEST_SESSION_POLICY: usize = 2_048;

/// Leaves room for a prefix in a role session name, which has at most 64 characters.
const LONGEST_NAME: usize = 48;

/// What is wrong in the array of targets, and where.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{at}: {problem}")]
pub(super) struct Wrong {
    at: String,
    problem: String,
}

impl Wrong {
    /// Where it is wrong, without what was found there: the target, and the field.
    pub(super) fn place(&self) -> String {
        let field = self.problem.split(": ").next().filter(|field| field.chars().all(|c| !c.is_whitespace()));
        field.map_or_else(|| self.at.clone(), |field| format!("{}: {field}", self.at))
    }

    fn new(at: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { at: at.into(), problem: problem.into() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenKind {
    Temporary,
    AccessKey,
    ShortTermApiKey,
    LongTermApiKey,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Written {
    name: String,
    kind: WrittenKind,
    role_arn: Option<String>,
    external_id: Option<String>,
    duration_seconds: Option<Value>,
    session_policy: Option<Map<String, Value>>,
    user_name: Option<String>,
    rotate_after: Option<String>,
    overlap: Option<String>,
    credential_age_days: Option<Value>,
    secret_id: Option<String>,
    region: String,
    #[serde(default)]
    probe: Probe,
    ai_secrets: Vec<WrittenAiSecret>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct WrittenAiSecret {
    id: Option<Uuid>,
    name: Option<String>,
    org_name: Option<String>,
    api_url: Option<String>,
    api_key_secret_id: Option<String>,
    #[serde(default)]
    layout: LayoutChoice,
}

/// Reads all targets and the rules between them. `targets_secret` is where they are from, if not from a variable.
pub(super) fn read_all(json: &str, defaults: &Defaults, targets_secret: Option<&str>) -> Result<Vec<Target>, Wrong> {
    let entries: Vec<Value> = serde_json::from_str(json).map_err(|error| {
        Wrong::new(
            "the array",
            format!("not a JSON array of targets (line {}, column {})", error.line(), error.column()),
        )
    })?;
    if entries.is_empty() {
        return Err(Wrong::new("the array", "it has no target"));
    }
    let mut targets: Vec<Target> = Vec::with_capacity(entries.len());
    let (mut names, mut written_to) = (HashSet::new(), HashSet::new());
    for (index, entry) in entries.into_iter().enumerate() {
        let target = read(index, entry, defaults)?;
        if !names.insert(target.name.clone()) {
            return Err(target.wrong("name: another target has it already"));
        }
        for ai_secret in &target.ai_secrets {
            if !written_to.insert((ai_secret.api_url.clone(), ai_secret.lookup.clone())) {
                let problem = format!("ai_secrets: {} is named twice, so two would write to it", ai_secret.lookup);
                return Err(target.wrong(&problem));
            }
        }
        targets.push(target);
    }
    check_shared_users(&targets)?;
    check_shared_secrets(&targets, targets_secret)?;
    Ok(targets)
}

fn check_shared_users(targets: &[Target]) -> Result<(), Wrong> {
    // The function's own account is not known here, so it may be any.
    let mut accounts: HashMap<&str, Vec<Option<&str>>> = HashMap::new();
    for target in targets {
        let Some(standing) = target.kind.standing() else { continue };
        let account = standing.role.as_ref().and_then(|role| role.role_arn.split(':').nth(4));
        let others = accounts.entry(&standing.user_name).or_default();
        if others.iter().any(|other| other.is_none() || account.is_none() || *other == account) {
            let problem = "user_name: another target rotates this IAM user, and each would retire the other's key";
            return Err(target.wrong(problem));
        }
        others.push(account);
    }
    Ok(())
}

fn check_shared_secrets(targets: &[Target], targets_secret: Option<&str>) -> Result<(), Wrong> {
    const API_KEY: &str = "secret_id: that secret holds a Braintrust API key, which would be overwritten";
    const TARGETS: &str = "secret_id: that secret holds the targets, which would be overwritten";
    // By name, each secret's spellings, and what it would be to overwrite it.
    let mut named: HashMap<&str, Vec<(&str, &str)>> = HashMap::new();
    let api_keys: HashSet<&str> =
        targets.iter().flat_map(|target| &target.ai_secrets).map(|entry| entry.api_key_secret_id.as_str()).collect();
    let taken = api_keys.into_iter().map(|id| (id, API_KEY)).chain(targets_secret.map(|id| (id, TARGETS)));
    for (id, problem) in taken {
        names_of(id).for_each(|name| named.entry(name).or_default().push((id, problem)));
    }
    for target in targets {
        let Some(id) = target.secret_id.as_deref() else { continue };
        let is_same = |other: &str| is_same_secret(id, other) || is_same_secret(other, id);
        let mut others = names_of(id).filter_map(|name| named.get(name)).flatten();
        if let Some((_, problem)) = others.find(|(other, _)| is_same(other)) {
            return Err(target.wrong(problem));
        }
        let problem = "secret_id: another target keeps its credentials there";
        names_of(id).for_each(|name| named.entry(name).or_default().push((id, problem)));
    }
    Ok(())
}

/// The names that an id may stand for: itself, or what an ARN ends in, with and without its six characters.
fn names_of(id: &str) -> impl Iterator<Item = &str> {
    let name = |id: &'_ str| id.rfind(':').map_or(0, |colon| colon + 1);
    let short = without_suffix(id);
    let is_arn = id.starts_with("arn:");
    [Some(id), (is_arn && short != id).then_some(short)].into_iter().flatten().filter_map(move |id| id.get(name(id)..))
}

impl Target {
    fn wrong(&self, problem: &str) -> Wrong {
        Wrong::new(format!("target {:?}", self.name), problem)
    }
}

fn read(index: usize, entry: Value, defaults: &Defaults) -> Result<Target, Wrong> {
    let at = match entry.get("name").and_then(Value::as_str) {
        Some(name) => format!("target {name:?}"),
        None => format!("target number {}", index + 1),
    };
    if !entry.is_object() {
        return Err(Wrong::new(at, "it is no object"));
    }
    let written: Written = serde_path_to_error::deserialize(entry).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.into_inner().to_string();
        Wrong::new(&at, if path == "." { problem } else { format!("{path}: {problem}") })
    })?;
    written.check(defaults).map_err(|problem| Wrong::new(&at, problem))
}

impl Written {
    fn check(self, defaults: &Defaults) -> Result<Target, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || self.name.len() > LONGEST_NAME || !self.name.chars().all(fits) {
            return Err(format!("name: accepted are 1 to {LONGEST_NAME} letters, digits, '-', '_' and '.'"));
        }
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.region.is_empty() || !self.region.chars().all(fits) {
            return Err(format!("region: found {:?}; accepted is a region's name such as \"us-east-1\"", self.region));
        }
        if matches!(&self.probe, Probe::Converse(model) if model.trim().is_empty()) {
            return Err("probe: converse needs a model id".to_owned());
        }
        if self.ai_secrets.is_empty() {
            return Err("ai_secrets: at least one is needed".to_owned());
        }
        self.refuse_fields_of_other_kinds()?;
        if self.secret_id.as_deref() == Some("") {
            return Err("secret_id: it may not be empty".to_owned());
        }
        let kind = match self.kind {
            WrittenKind::Temporary => Kind::Temporary(self.assume_role()?.ok_or(NEEDS_ROLE)?),
            WrittenKind::ShortTermApiKey => Kind::ShortTermApiKey(self.assume_role()?.ok_or(NEEDS_ROLE)?),
            WrittenKind::AccessKey => Kind::AccessKey(self.standing()?),
            WrittenKind::LongTermApiKey => {
                let (standing, age_days) = (self.standing()?, age_days(self.credential_age_days.as_ref())?);
                if Duration::from_secs(86_400 * u64::from(age_days)) <= standing.rotate_after + standing.overlap {
                    return Err("credential_age_days: has to be more than rotate_after and overlap together".to_owned());
                }
                Kind::LongTermApiKey { standing, age_days }
            }
        };
        let is_api_key = matches!(kind, Kind::ShortTermApiKey(_) | Kind::LongTermApiKey { .. });
        if is_api_key && self.ai_secrets.iter().any(|written| written.layout == LayoutChoice::Documented) {
            return Err(
                "ai_secrets: the documented layout cannot hold an API key; accepted are auto and gateway".to_owned()
            );
        }
        let ai_secrets = self.ai_secrets.into_iter().enumerate();
        let ai_secrets = ai_secrets
            .map(|(n, written)| written.check(defaults).map_err(|problem| format!("ai_secrets[{n}]{problem}")))
            .collect::<Result<_, _>>()?;
        let Self { name, region, secret_id, probe, .. } = self;
        Ok(Target { name, kind, region, secret_id, probe, ai_secrets })
    }

    fn is_standing(&self) -> bool {
        matches!(self.kind, WrittenKind::AccessKey | WrittenKind::LongTermApiKey)
    }

    /// A field that would be ignored is a misunderstanding.
    fn refuse_fields_of_other_kinds(&self) -> Result<(), String> {
        let standing = self.is_standing();
        let long_term = matches!(self.kind, WrittenKind::LongTermApiKey);
        for (field, given, fits) in [
            ("user_name", self.user_name.is_some(), standing),
            ("rotate_after", self.rotate_after.is_some(), standing),
            ("overlap", self.overlap.is_some(), standing),
            ("credential_age_days", self.credential_age_days.is_some(), long_term),
            ("duration_seconds", self.duration_seconds.is_some(), !standing),
            ("session_policy", self.session_policy.is_some(), !standing),
        ] {
            if given && !fits {
                return Err(format!("{field}: this kind does not take it"));
            }
        }
        Ok(())
    }

    fn assume_role(&self) -> Result<Option<AssumeRole>, String> {
        let Some(arn) = &self.role_arn else { return Ok(None) };
        Ok(Some(AssumeRole {
            role_arn: role_arn(arn)?,
            external_id: self.external_id.as_deref().map(external_id).transpose()?,
            duration_seconds: duration_seconds(self.duration_seconds.as_ref())?,
            session_policy: self.session_policy.as_ref().map(session_policy).transpose()?,
        }))
    }

    fn standing(&self) -> Result<Standing, String> {
        let user_name = self.user_name.clone().ok_or("user_name: this kind needs it")?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        if user_name.is_empty() || user_name.len() > 64 || !user_name.chars().all(fits) {
            return Err(format!("user_name: found {user_name:?}; accepted is an IAM user's name, without its path"));
        }
        if self.secret_id.is_none() {
            return Err("secret_id: this kind needs it, because a key that is lost cannot be read again".to_owned());
        }
        let standing = Standing {
            user_name,
            role: self.assume_role()?,
            rotate_after: period("rotate_after", self.rotate_after.as_deref(), "30d")?,
            overlap: period("overlap", self.overlap.as_deref(), "1h")?,
        };
        if standing.overlap >= standing.rotate_after {
            return Err("overlap: it must be shorter than rotate_after".to_owned());
        }
        Ok(standing)
    }
}

impl WrittenAiSecret {
    /// The problem starts with its field, as in `.id: …`, or with `: …`.
    fn check(self, defaults: &Defaults) -> Result<AiSecret, String> {
        let lookup = match (self.id, self.name, self.org_name) {
            (Some(id), None, None) => Lookup::Id(id),
            (None, Some(name), org_name) => {
                if name.is_empty() || org_name.as_ref().is_some_and(String::is_empty) {
                    return Err(": name and org_name may not be empty".to_owned());
                }
                Lookup::Name { name, org_name }
            }
            (Some(_), Some(_), _) => return Err(": both id and name are given; accepted is one of them".to_owned()),
            (Some(_), None, Some(_)) => return Err(".org_name: it goes with name, an id needs none".to_owned()),
            (None, None, _) => return Err(": neither id nor name is given; accepted is one of them".to_owned()),
        };
        let api_url = match self.api_url {
            Some(url) => braintrust_url(&url).map_err(|problem| format!(".api_url: {problem}. {ACCEPTED_URL}"))?,
            None => defaults.api_url.clone(),
        };
        let api_key_secret_id = self.api_key_secret_id.map(secret_id).transpose();
        let api_key_secret_id = api_key_secret_id
            .map_err(|problem| format!(".api_key_secret_id: {problem}"))?
            .or_else(|| defaults.api_key_secret_id.clone())
            .ok_or(".api_key_secret_id: it is not given and BRAINTRUST_API_KEY_SECRET_ID, its default, is not set")?;
        Ok(AiSecret { lookup, api_url, api_key_secret_id, layout: self.layout })
    }
}

const NEEDS_ROLE: &str = "role_arn: this kind needs it";

/// `90m`, `12h` or `30d`.
fn period(field: &str, found: Option<&str>, default: &str) -> Result<Duration, String> {
    let text = found.unwrap_or(default);
    let wrong =
        || format!("{field}: found {text:?}; accepted are minutes, hours or days, such as \"90m\", \"12h\", \"30d\"");
    let unit = match text.chars().last() {
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => return Err(wrong()),
    };
    let count: u32 = text.get(..text.len() - 1).and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
    if count == 0 && field == "rotate_after" {
        return Err(wrong());
    }
    Ok(Duration::from_secs(u64::from(count) * unit))
}

/// IAM takes 1 to 36,600 days, and makes a key that never expires where none are given.
fn age_days(found: Option<&Value>) -> Result<u16, String> {
    let Some(found) = found else { return Ok(90) };
    let days = found.as_u64().and_then(|days| u16::try_from(days).ok()).filter(|days| (1..=36_600).contains(days));
    days.ok_or_else(|| format!("credential_age_days: found {found}; accepted is a whole number from 1 to 36600"))
}

fn role_arn(arn: &str) -> Result<String, String> {
    let mut parts = arn.splitn(6, ':');
    let fits = parts.next() == Some("arn")
        && parts.next().is_some_and(|partition| partition.starts_with("aws"))
        && parts.next() == Some("iam")
        && parts.next() == Some("")
        && parts.next().is_some_and(|account| account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()))
        && parts.next().is_some_and(|role| role.strip_prefix("role/").is_some_and(|name| !name.is_empty()));
    if fits {
        Ok(arn.to_owned())
    } else {
        Err(format!("role_arn: found {arn:?}; accepted is arn:aws:iam::<account>:role/<name>"))
    }
}

fn external_id(id: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@:/-".contains(c);
    if (2..=1_224).contains(&id.len()) && id.chars().all(fits) {
        Ok(id.to_owned())
    } else {
        Err("external_id: accepted are 2 to 1,224 letters, digits and the characters _+=,.@:/-".to_owned())
    }
}

fn duration_seconds(found: Option<&Value>) -> Result<u16, String> {
    let Some(found) = found else { return Ok(3_600) };
    match found.as_u64() {
        Some(seconds) if DURATION_SECONDS.contains(&seconds) => {
            u16::try_from(seconds).map_err(|error| error.to_string())
        }
        Some(seconds) if seconds > *DURATION_SECONDS.end() => Err(format!(
            "duration_seconds: found {seconds}; accepted is 900 to 3600, because a Lambda's role that assumes another \
             role is role chaining, which AWS limits to one hour"
        )),
        _ => Err(format!("duration_seconds: found {found}; accepted is a whole number from 900 to 3600")),
    }
}

fn session_policy(policy: &Map<String, Value>) -> Result<String, String> {
    let policy = Value::Object(policy.clone()).to_string();
    let length = policy.chars().count();
    if length > LONGEST_SESSION_POLICY {
        return Err(format!("session_policy: it has {length} characters; STS takes {LONGEST_SESSION_POLICY}"));
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use reqwest::Url;
    use serde_json::json;

    use super::*;

    fn defaults() -> Defaults {
        Defaults {
            api_url: Url::parse("https://api.braintrust.dev").unwrap(),
            api_key_secret_id: Some("braintrust".to_owned()),
        }
    }

    fn minimal() -> Value {
        json!({
            "name": "prod",
            "kind": "temporary",
            "role_arn": "arn:aws:iam::123456789012:role/bedrock",
            "region": "us-east-1",
            "ai_secrets": [{"id": "11111111-1111-4111-8111-111111111111"}],
        })
    }

    fn with(change: &Value) -> Value {
        let mut target = minimal();
        for (field, value) in change.as_object().unwrap() {
            if value.is_null() {
                target.as_object_mut().unwrap().remove(field);
            } else {
                target[field] = value.clone();
            }
        }
        target
    }

    fn standing(change: Value) -> Value {
        let mut target = json!({"kind": "access_key", "user_name": "braintrust", "secret_id": "staged"});
        target.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        target
    }

    fn read(targets: &Value) -> Result<Vec<Target>, Wrong> {
        read_all(&targets.to_string(), &defaults(), None)
    }

    #[test]
    fn a_minimal_target_gets_the_defaults() {
        let targets = read(&json!([minimal()])).unwrap();
        let target = &targets[0];
        let Kind::Temporary(role) = &target.kind else { panic!("{:?}", target.kind) };
        assert_eq!((role.duration_seconds, &target.probe), (3_600, &Probe::Models));
        assert_eq!(target.ai_secrets[0].layout, LayoutChoice::Auto);
        assert_eq!(target.ai_secrets[0].api_key_secret_id, "braintrust");
    }

    #[test]
    fn each_wrong_field_is_named_with_what_is_accepted() {
        let name = |value: Value| json!({"ai_secrets": [value]});
        for (change, expected) in [
            (json!({"regoin": "us-east-1"}), "target \"prod\": regoin: unknown field `regoin`, expected one of"),
            (json!({"name": null}), "target number 1: missing field `name`"),
            (json!({"name": "a b"}), "target \"a b\": name: accepted are"),
            (json!({"name": "x".repeat(49)}), "name: accepted are 1 to 48"),
            (json!({"kind": "forever"}), "kind: unknown variant `forever`, expected one of `temporary`"),
            (json!({"region": ""}), "region: found \"\""),
            (json!({"region": "us-east-1/x"}), "region: found"),
            (json!({"role_arn": null}), "role_arn: this kind needs it"),
            (json!({"role_arn": "arn:aws:iam::123:role/x"}), "role_arn: found \"arn:aws:iam::123:role/x\""),
            (json!({"role_arn": "arn:aws:iam::123456789012:user/x"}), "role_arn: found"),
            (json!({"role_arn": "arn:aws:iam::123456789012:role/"}), "role_arn: found"),
            (json!({"role_arn": "arn:aws:iam::12345678901x:role/x"}), "role_arn: found"),
            (json!({"role_arn": "arn:aws:iam:us-east-1:123456789012:role/x"}), "role_arn: found"),
            (json!({"role_arn": "arn:aws:sts::123456789012:role/x"}), "role_arn: found"),
            (json!({"role_arn": "arn:gcp:iam::123456789012:role/x"}), "role_arn: found"),
            (json!({"role_arn": "nra:aws:iam::123456789012:role/x"}), "role_arn: found"),
            (json!({"duration_seconds": 7200}), "found 7200; accepted is 900 to 3600, because a Lambda's role"),
            (json!({"duration_seconds": 899}), "duration_seconds: found 899; accepted is a whole number"),
            (json!({"duration_seconds": 900.5}), "duration_seconds: found 900.5"),
            (json!({"duration_seconds": "3600"}), "duration_seconds: found \"3600\""),
            (json!({"external_id": "a b"}), "external_id: accepted are"),
            (json!({"external_id": "a"}), "external_id: accepted are"),
            (json!({"external_id": "a".repeat(1_225)}), "external_id: accepted are"),
            (json!({"name": ""}), "name: accepted are"),
            (json!({"session_policy": {"x": "y".repeat(2_048)}}), "session_policy: it has 2056 characters"),
            (json!({"user_name": "x"}), "user_name: this kind does not take it"),
            (json!({"kind": "access_key"}), "user_name: this kind needs it"),
            (json!({"kind": "access_key", "user_name": "x"}), "secret_id: this kind needs it"),
            (json!({"kind": "access_key", "user_name": "/x"}), "user_name: found \"/x\""),
            (json!({"kind": "access_key", "user_name": ""}), "user_name: found \"\""),
            (json!({"kind": "access_key", "user_name": "x".repeat(65)}), "user_name: found \"xxx"),
            (json!({"kind": "access_key", "duration_seconds": 900}), "duration_seconds: this kind does not take it"),
            (standing(json!({"rotate_after": "30"})), "rotate_after: found \"30\""),
            (standing(json!({"rotate_after": "0d"})), "rotate_after: found \"0d\""),
            (standing(json!({"rotate_after": "€"})), "rotate_after: found"),
            (standing(json!({"overlap": "-1h"})), "overlap: found \"-1h\""),
            (standing(json!({"overlap": "30d"})), "overlap: it must be shorter than rotate_after"),
            (standing(json!({"credential_age_days": 30})), "credential_age_days: this kind does not take it"),
            (
                standing(json!({"kind": "long_term_api_key", "credential_age_days": 30})),
                "credential_age_days: has to be more than rotate_after and overlap together",
            ),
            (json!({"kind": "short_term_api_key", "role_arn": null}), "role_arn: this kind needs it"),
            (
                json!({"kind": "short_term_api_key", "ai_secrets": [{"name": "x", "layout": "documented"}]}),
                "cannot hold an API key",
            ),
            (json!({"secret_id": ""}), "secret_id: it may not be empty"),
            (json!({"probe": {"converse": " "}}), "probe: converse needs a model id"),
            (json!({"probe": "ping"}), "probe: unknown variant `ping`"),
            (json!({"ai_secrets": []}), "ai_secrets: at least one is needed"),
            (name(json!({})), "ai_secrets[0]: neither id nor name"),
            (name(json!({"id": "5f1c"})), "ai_secrets[0].id: UUID parsing failed"),
            (name(json!({"id": Uuid::nil(), "name": "x"})), "ai_secrets[0]: both id and name"),
            (name(json!({"id": Uuid::nil(), "org_name": "x"})), "ai_secrets[0].org_name: it goes with name"),
            (name(json!({"name": "x", "org_name": ""})), "may not be empty"),
            (name(json!({"name": ""})), "may not be empty"),
            (name(json!({"name": "x", "layout": "new"})), "ai_secrets[0].layout: unknown variant `new`"),
            (
                name(json!({"name": "x", "api_url": "http://x.example"})),
                "ai_secrets[0].api_url: found a URL with http://",
            ),
        ] {
            let error = read(&json!([with(&change)])).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\n  expected {expected}");
        }
    }

    #[test]
    fn what_is_just_within_the_bounds_is_taken() {
        let long_term = |age_days: u32| {
            let periods = json!({"kind": "long_term_api_key", "rotate_after": "29d", "overlap": "24h"});
            let mut target = standing(periods);
            target["credential_age_days"] = json!(age_days);
            target
        };
        for change in [
            json!({"name": "x".repeat(48)}),
            json!({"external_id": "ab"}),
            json!({"external_id": "_+=,.@:/-".repeat(136)}),
            json!({"session_policy": {"x": "y".repeat(2_048 - 8)}}),
            json!({"duration_seconds": 900}),
            json!({"role_arn": "arn:aws-us-gov:iam::123456789012:role/path/x"}),
            standing(json!({"user_name": "x".repeat(64)})),
            standing(json!({"rotate_after": "61m"})),
            long_term(31),
            long_term(36_600),
        ] {
            assert!(read(&json!([with(&change)])).is_ok(), "{change}");
        }
        for age_days in [0, 30, 36_601] {
            assert!(read(&json!([with(&long_term(age_days))])).is_err(), "{age_days}");
        }
    }

    #[test]
    fn without_a_default_each_ai_secret_needs_its_own_key() {
        let defaults = Defaults { api_key_secret_id: None, ..defaults() };
        let error = read_all(&json!([minimal()]).to_string(), &defaults, None).unwrap_err().to_string();
        assert!(error.contains("BRAINTRUST_API_KEY_SECRET_ID, its default, is not set"), "{error}");
    }

    #[test]
    fn two_targets_may_not_share_a_name_or_an_ai_secret() {
        let error = read(&json!([minimal(), minimal()])).unwrap_err().to_string();
        assert_eq!(error, "target \"prod\": name: another target has it already");
        let error = read(&json!([minimal(), with(&json!({"name": "other"}))])).unwrap_err().to_string();
        let id = "11111111-1111-4111-8111-111111111111";
        assert!(error.contains(&format!("ai_secrets: {id} is named twice")), "{error}");
        let twice = |entry: Value| read(&json!([with(&json!({"ai_secrets": [entry.clone(), entry]}))])).unwrap_err();
        let error = twice(json!({"name": "a", "org_name": "b"})).to_string();
        assert!(error.contains("ai_secrets: \"a\" of \"b\" is named twice"), "{error}");
        let error = twice(json!({"name": "a"})).to_string();
        assert!(error.contains("ai_secrets: \"a\" is named twice"), "{error}");
    }

    #[test]
    fn a_standing_target_gets_the_defaults() {
        let long_term = json!({"kind": "long_term_api_key", "user_name": "x", "secret_id": "staged"});
        let targets = read(&json!([with(&long_term)])).unwrap();
        let Kind::LongTermApiKey { standing, age_days } = &targets[0].kind else { panic!() };
        assert_eq!((standing.rotate_after.as_secs(), standing.overlap.as_secs(), *age_days), (2_592_000, 3_600, 90));
    }

    #[test]
    fn the_secret_with_the_targets_is_nobodys_staged_secret() {
        let json = json!([with(&standing(json!({"secret_id": "the-targets"})))]).to_string();
        let error = read_all(&json, &defaults(), Some("the-targets")).unwrap_err().to_string();
        assert!(error.contains("secret_id: that secret holds the targets"), "{error}");
        assert!(read_all(&json, &defaults(), Some("other-targets")).is_ok());
    }

    #[test]
    fn two_targets_may_not_share_an_iam_user_or_a_staged_secret() {
        let other = |change: Value| {
            let ai_secrets = json!({"name": "other", "ai_secrets": [{"name": "other"}]});
            let mut target = with(&standing(ai_secrets));
            target.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            target
        };
        let first = with(&standing(json!({})));
        let error = read(&json!([first, other(json!({"secret_id": "another"}))])).unwrap_err().to_string();
        assert!(error.contains("user_name: another target rotates this IAM user"), "{error}");
        let error = read(&json!([first, other(json!({"user_name": "another"}))])).unwrap_err().to_string();
        assert!(error.contains("secret_id: another target keeps"), "{error}");
    }

    #[test]
    fn a_users_or_secrets_other_spellings_do_not_hide_that_it_is_shared() {
        let arn = |name: &str| format!("arn:aws:secretsmanager:us-east-1:123456789012:secret:{name}");
        let role = |account: &str| json!({"role_arn": format!("arn:aws:iam::{account}:role/x")});
        let two = |one: Value, two: Value| {
            let mut targets = [with(&standing(json!({"name": "one"}))), with(&standing(json!({"name": "two"})))];
            targets[1]["ai_secrets"] = json!([{"name": "other"}]);
            for (target, change) in targets.iter_mut().zip([one, two]) {
                target.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            }
            read(&json!(targets)).map(drop).map_err(|wrong| wrong.to_string())
        };
        let users = |one: Value, other: Value| {
            let mut other = other;
            other["secret_id"] = json!("another");
            two(one, other).is_err_and(|error| error.contains("user_name: another target"))
        };
        assert!(users(role("123456789012"), role("123456789012")));
        let own = || json!({"role_arn": null});
        assert!(users(own(), role("123456789012")));
        assert!(users(role("123456789012"), own()));
        assert!(users(own(), own()));
        assert!(!users(role("123456789012"), role("210987654321")));
        let secrets = |one: &str, other: &str| {
            two(json!({"secret_id": one}), json!({"secret_id": other, "user_name": "another"}))
                .is_err_and(|error| error.contains("secret_id: another target keeps"))
        };
        assert!(secrets("staged", &arn("staged-AbCdEf")));
        assert!(secrets(&arn("staged-AbCdEf"), &arn("staged")));
        assert!(!secrets("staged-prod", "staged"));
        // A name whose end looks like the six characters of an ARN.
        assert!(secrets("bedrock-staged", &arn("bedrock-staged-AbCdEf")));
        assert!(secrets(&arn("bedrock-staged-AbCdEf"), "bedrock-staged"));
        assert!(!secrets("bedrock-staged", "bedrock"));
        for api_key in ["the-key", &arn("the-key-AbCdEf")] {
            let ai_secrets = json!([{"name": "x", "api_key_secret_id": api_key}]);
            let error = two(json!({"secret_id": "the-key"}), json!({"user_name": "b", "ai_secrets": ai_secrets}));
            assert!(error.unwrap_err().contains("secret_id: that secret holds a Braintrust API key"), "{api_key}");
        }
    }

    #[test]
    fn what_is_no_array_of_targets_is_refused() {
        for json in ["", "{}", "[", "[]", "null", "[5]", "[[\"prod\"]]"] {
            assert!(read_all(json, &defaults(), None).is_err(), "{json}");
        }
    }
}
