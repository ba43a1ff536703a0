//! Reads the JSON array of targets and checks the rules between fields and between targets.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::target::*;
use super::values::{
    self, AiSecretId, EndToEnd, ExternalId, LayoutChoice, Name, Probe, Region, RoleArn, SecretId, SessionNames,
    SessionTags, SourceIdentity, TargetName, UserName, whole_number,
};
use crate::credentials::Kind;
use crate::error::shortened;
use crate::json::Payload;

/// The shortest way to name a destination, for whoever named none.
const DESTINATION: &str = r#"{"name": "AWS Bedrock"}"#;
const UNUSED: &str = "this kind doesn't accept it; remove it, or choose another kind";

/// Gateways cache credentials for up to an hour.
const DEFAULT_OVERLAP: Duration = Duration::from_secs(2 * 3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// STS's limit on an inline session policy, in characters.
const MAX_SESSION_POLICY: usize = 2_048;

/// Characters of a problem: enough for the list of all fields.
const MAX_PROBLEM: usize = 500;

/// The shape of the array, for whoever gave something else.
const ARRAY: &str = r#"[{"name": "prod", "kind": "temporary", …}]"#;

/// Some editors put it at the start of a file.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// What is wrong with the array of targets, and where.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub(super) struct Invalid {
    /// The target and the field, without what was found there. An empty place is the whole target or destination.
    pub place: String,
    problem: String,
}

impl Invalid {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }

    /// What serde found. Its messages repeat names and values, which can be of any length if the secret is a wrong one.
    fn of_serde(error: &serde_path_to_error::Error<serde_json::Error>) -> Self {
        let field = Some(error.path().to_string()).filter(|path| path != ".").unwrap_or_default();
        let problem: String = error.inner().to_string().chars().take(MAX_PROBLEM).collect();
        // serde's words for what JSON calls an array and an object.
        let problem =
            problem.replace("expected a sequence", "expected an array").replace("expected a map", "expected an object");
        Self::new(shortened(&field), problem)
    }

    fn in_target(self, target: &str) -> Self {
        let place = if self.place.is_empty() { target.to_owned() } else { format!("{target}: {}", self.place) };
        Self { place, ..self }
    }
}

fn refuse_if(is_wrong: bool, field: &str, problem: &str) -> Result<(), Invalid> {
    if is_wrong { Err(Invalid::new(field, problem)) } else { Ok(()) }
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawTarget {
    name: TargetName,
    kind: Kind,
    role_arn: Option<RoleArn>,
    external_id: Option<ExternalId>,
    source_identity: Option<SourceIdentity>,
    session_tags: Option<SessionTags>,
    duration_seconds: Option<Value>,
    session_policy: Option<Map<String, Value>>,
    revoke_sessions: Option<bool>,
    user_name: Option<UserName>,
    rotate_after: Option<String>,
    overlap: Option<String>,
    credential_age_days: Option<Value>,
    secret_id: Option<SecretId>,
    region: Region,
    probe: Option<Probe>,
    end_to_end: Option<EndToEnd>,
    ai_secrets: Vec<RawDestination>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
struct RawDestination {
    id: Option<AiSecretId>,
    name: Option<Name>,
    org_name: Option<Name>,
    project: Option<Name>,
    api_url: Option<String>,
    api_key_secret_id: Option<SecretId>,
    layout: Option<LayoutChoice>,
}

/// The fields that have no meaning for a kind. They are refused, because whoever sets one expects an effect.
pub(super) fn refused_fields(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Temporary | Kind::ShortTermApiKey => &["user_name", "rotate_after", "overlap", "credential_age_days"],
        Kind::AccessKey => &["duration_seconds", "session_policy", "revoke_sessions", "credential_age_days"],
        Kind::LongTermApiKey => &["duration_seconds", "session_policy", "revoke_sessions"],
    }
}

/// Reads all targets. `targets_secret` is the secret that holds them, if they are not in a variable.
pub(super) fn targets(
    json: &str,
    defaults: &Defaults,
    targets_secret: Option<&SecretId>,
) -> Result<Vec<Target>, Invalid> {
    let mut entries = Entries { defaults, targets: Vec::new(), invalid: None };
    let mut parser = serde_json::Deserializer::from_str(json.trim_start_matches(BYTE_ORDER_MARK));
    parser.deserialize_seq(&mut entries).and_then(|()| parser.end()).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Invalid::new(
            "the array",
            format!("not a JSON array of targets (line {line}, column {column}); expected {ARRAY}"),
        )
    })?;
    let Entries { mut targets, invalid, .. } = entries;
    invalid.map_or(Ok(()), Err)?;
    refuse_if(targets.is_empty(), "the array", &format!("it has no target; expected {ARRAY}"))?;
    targets.shrink_to_fit();
    refuse_shared(&targets, targets_secret)?;
    set_claims(&mut targets);
    Ok(targets)
}

/// Parses the entries one at a time, because a long list takes several times as much memory as JSON values.
struct Entries<'a> {
    defaults: &'a Defaults,
    targets: Vec<Target>,
    /// What is wrong with the first wrong entry. The entries after it are only checked to be JSON.
    invalid: Option<Invalid>,
}

impl<'de> Visitor<'de> for &mut Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of targets")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(entry) = array.next_element()? {
            if self.invalid.is_none() {
                self.read(entry);
            }
        }
        Ok(())
    }
}

impl Entries<'_> {
    fn read(&mut self, entry: Payload) {
        let name = match entry.value.get("name").and_then(Value::as_str) {
            Some(name) => format!("target {:?}", shortened(name)),
            None => format!("target number {}", self.targets.len() + 1),
        };
        match target(entry, self.defaults) {
            Ok(target) => self.targets.push(target),
            Err(invalid) => self.invalid = Some(invalid.in_target(&name)),
        }
    }
}

/// Records for each destination how many destinations come before it.
fn set_claims(targets: &mut [Target]) {
    let mut destinations = targets.iter().flat_map(|target| &target.destinations);
    if destinations.all(|destination| destination.lookup.id().is_some()) {
        return;
    }
    let claims = targets.iter().flat_map(|Target { name: target, destinations, .. }| {
        let claim = |Destination { lookup, data_plane, .. }: &Destination| Claim {
            target: target.clone(),
            lookup: lookup.clone(),
            data_plane: data_plane.clone(),
        };
        destinations.iter().map(claim)
    });
    let claims: Arc<[Claim]> = claims.collect();
    targets.iter_mut().for_each(|target| target.claims = claims.clone());
    let destinations = targets.iter_mut().flat_map(|target| &mut target.destinations);
    destinations.enumerate().for_each(|(position, destination)| destination.earlier_claims = position);
}

fn target(entry: Payload, defaults: &Defaults) -> Result<Target, Invalid> {
    let Value::Object(fields) = entry.value else { return Err(Invalid::new("", "it is not an object")) };
    if let Some(field) = entry.duplicate_field {
        return Err(Invalid::new(field, "the field is given twice"));
    }
    // serde would also accept an array of the field values as a structure.
    let entries = fields.get("ai_secrets").and_then(Value::as_array).into_iter().flatten();
    if let Some(index) = entries.map(Value::is_object).position(|is_object| !is_object) {
        return Err(Invalid::new(format!("ai_secrets[{index}]"), "it is not an object"));
    }
    let mut raw: RawTarget = serde_path_to_error::deserialize(&fields).map_err(|error| Invalid::of_serde(&error))?;
    for field in refused_fields(raw.kind) {
        refuse_if(fields.get(*field).is_some_and(|value| !value.is_null()), field, UNUSED)?;
    }
    let source = raw.source()?;
    refuse_if(raw.ai_secrets.is_empty(), "ai_secrets", &format!("at least one is needed, such as {DESTINATION}"))?;
    let destinations = raw.ai_secrets.into_iter().enumerate().map(|(index, destination)| {
        let place = |invalid: Invalid| Invalid { place: format!("ai_secrets[{index}]{}", invalid.place), ..invalid };
        destination.check(raw.kind, defaults).map_err(place)
    });
    let destinations = destinations.collect::<Result<_, _>>()?;
    Ok(Target {
        name: raw.name,
        region: raw.region,
        source,
        probe: raw.probe.unwrap_or_default(),
        end_to_end: raw.end_to_end,
        destinations,
        claims: Arc::default(),
    })
}

impl RawTarget {
    fn source(&mut self) -> Result<Source, Invalid> {
        match self.kind {
            Kind::Temporary => self.role_based(RoleBasedKind::Temporary),
            Kind::ShortTermApiKey => self.role_based(RoleBasedKind::ShortTermApiKey),
            Kind::AccessKey => self.user_based(UserBasedKind::AccessKey),
            Kind::LongTermApiKey => {
                let days = self.credential_age_days.as_ref();
                // IAM accepts 1 to 36,600 days. Without a number, it creates a key that never expires.
                let days = checked("credential_age_days", days, 90, |days| whole_number(days, 1..=36_600))?;
                self.user_based(UserBasedKind::LongTermApiKey { credential_age_days: days })
            }
        }
    }

    fn role_based(&mut self, kind: RoleBasedKind) -> Result<Source, Invalid> {
        let role = self
            .assume_role()?
            .ok_or_else(|| Invalid::new("role_arn", "this kind needs it: the ARN of the role to assume"))?;
        let revoke_sessions = self.revoke_sessions.unwrap_or_default();
        Ok(Source::RoleBased(RoleBased { kind, role, revoke_sessions, secret_id: self.secret_id.take() }))
    }

    fn user_based(&mut self, kind: UserBasedKind) -> Result<Source, Invalid> {
        let needs_a_user =
            || Invalid::new("user_name", "this kind needs it: the name of an IAM user, without its path");
        let user_name = self.user_name.take().ok_or_else(needs_a_user)?;
        let problem =
            "this kind needs it: the name or ARN of a secret of its own, because a lost key can't be read again";
        let secret_id = self.secret_id.take().ok_or_else(|| Invalid::new("secret_id", problem))?;
        let rotate_after = checked("rotate_after", self.rotate_after.as_deref(), 30 * DAY, values::period)?;
        let overlap = checked("overlap", self.overlap.as_deref(), DEFAULT_OVERLAP, values::period)?;
        let zero = "it is zero; expected a period such as \"12h\" or \"30d\"";
        refuse_if(rotate_after.is_zero(), "rotate_after", zero)?;
        let shown = values::period_text;
        let problem =
            format!("found {}; it must be shorter than rotate_after, {}", shown(overlap), shown(rotate_after));
        refuse_if(overlap >= rotate_after, "overlap", &problem)?;
        if let UserBasedKind::LongTermApiKey { credential_age_days: days } = kind {
            let is_too_short = u32::from(days) * DAY <= rotate_after + overlap;
            let together = "it must be more than rotate_after and overlap together";
            let problem = format!("found {days}; {together}, {} and {}", shown(rotate_after), shown(overlap));
            refuse_if(is_too_short, "credential_age_days", &problem)?;
        }
        let role = self.assume_role()?;
        if role.is_none() {
            let problem = "it goes with role_arn, which is not given";
            refuse_if(self.external_id.is_some(), "external_id", problem)?;
            refuse_if(self.source_identity.is_some(), "source_identity", problem)?;
            refuse_if(self.session_tags.is_some(), "session_tags", problem)?;
        }
        Ok(Source::UserBased(UserBased { kind, user_name, role, secret_id, rotate_after, overlap }))
    }

    fn assume_role(&mut self) -> Result<Option<AssumeRole>, Invalid> {
        let Some(role_arn) = self.role_arn.take() else { return Ok(None) };
        self.check_lengths_of_names()?;
        let session_policy = self.session_policy.take().map(|policy| Value::Object(policy).to_string());
        let length = session_policy.as_ref().map_or(0, |policy| policy.chars().count());
        let problem = format!("it has {length} characters; STS accepts {MAX_SESSION_POLICY}");
        refuse_if(length > MAX_SESSION_POLICY, "session_policy", &problem)?;
        let duration_seconds =
            checked("duration_seconds", self.duration_seconds.as_ref(), 3_600, values::duration_seconds)?;
        Ok(Some(AssumeRole {
            role_arn,
            external_id: self.external_id.take(),
            source_identity: self.source_identity.take(),
            session_tags: self.session_tags.take().unwrap_or_default(),
            duration_seconds,
            session_policy,
        }))
    }

    /// The lengths of the source identity and of the tags with the target's name and the longest trigger.
    fn check_lengths_of_names(&self) -> Result<(), Invalid> {
        let names = SessionNames { target: self.name.as_str(), ..SessionNames::SAMPLE };
        let check = |field: &str, text: &str, accepted: RangeInclusive<usize>| {
            let length = names.expand(text).chars().count();
            let (least, most) = (accepted.start(), accepted.end());
            let problem = format!("it becomes {length} characters long; STS accepts {least} to {most}");
            refuse_if(!accepted.contains(&length), field, &problem)
        };
        if let Some(identity) = &self.source_identity {
            check("source_identity", identity.as_str(), values::SOURCE_IDENTITY)?;
        }
        let mut tags = self.session_tags.iter().flat_map(SessionTags::iter);
        tags.try_for_each(|(_, value)| check("session_tags", value, values::TAG_VALUE))
    }
}

/// Parses an optional field whose type accepts more than the field does.
fn checked<F, T>(field: &str, found: Option<F>, default: T, check: fn(F) -> Result<T, String>) -> Result<T, Invalid> {
    found.map_or(Ok(default), check).map_err(|problem| Invalid::new(field, problem))
}

impl RawDestination {
    fn check(self, kind: Kind, defaults: &Defaults) -> Result<Destination, Invalid> {
        let provider = match (self.id, self.name) {
            (None, Some(name)) => Ok(ProviderLookup::Name(name.as_str().to_owned())),
            (Some(AiSecretId(id)), None) => Ok(ProviderLookup::Id(id)),
            (Some(_), Some(_)) => Err(Invalid::new("", "both id and name are given; expected one of them")),
            (None, None) => Err(Invalid::new(
                "",
                format!("neither id nor name is given; expected one of them, such as {DESTINATION}"),
            )),
        }?;
        let org_name = self.org_name.map(|name| name.as_str().to_owned());
        let lookup = lookup(self.project, provider, org_name).map_err(|problem| Invalid::new(".org_name", problem))?;
        let api_url = checked(".api_url", self.api_url.as_deref(), defaults.api_url.clone(), values::service_url)?;
        let api_key_secret_id =
            self.api_key_secret_id.or_else(|| defaults.api_key_secret_id.clone()).ok_or_else(|| {
                let problem = "it is not given and BRAINTRUST_API_KEY_SECRET_ID, its default, is not set";
                Invalid::new(".api_key_secret_id", problem)
            })?;
        let layout = self.layout.unwrap_or_default();
        let problem = "the documented layout can't hold an API key; expected auto or gateway";
        refuse_if(kind.is_api_key() && layout == LayoutChoice::Documented, ".layout", problem)?;
        let data_plane = DataPlane { api_url, api_key_secret_id };
        Ok(Destination { lookup, data_plane, layout, earlier_claims: 0 })
    }
}

/// Fails if `org_name` is given although no name needs it.
fn lookup(project: Option<Name>, provider: ProviderLookup, org_name: Option<String>) -> Result<Lookup, &'static str> {
    let Some(project) = project else {
        return match provider {
            ProviderLookup::Name(name) => Ok(Lookup::Name { name, org_name }),
            ProviderLookup::Id(_) if org_name.is_some() => Err("it goes with name; an ID needs none"),
            ProviderLookup::Id(id) => Ok(Lookup::Id(id)),
        };
    };
    let project = match values::hyphenated_uuid(project.as_str()) {
        Some(_) if org_name.is_some() => return Err("it goes with a project's name; a project's ID needs none"),
        Some(id) => ProjectLookup::Id(id),
        None => ProjectLookup::Name { name: project.as_str().to_owned(), org_name },
    };
    Ok(Lookup::InProject { project, provider })
}

fn account(source: &UserBased) -> Option<&str> {
    source.role.as_ref().map(|role| role.role_arn.account())
}

/// Whether a revocation of the target would end the sessions of another one, too.
fn shares_revocable_role(target: &Target, targets: &[Target]) -> bool {
    let Source::RoleBased(RoleBased { role, revoke_sessions: true, .. }) = &target.source else { return false };
    // No account has two roles of one name, whatever their paths are.
    let is_same = |other: &RoleArn| (other.account(), other.name()) == (role.role_arn.account(), role.role_arn.name());
    let uses = |other: &&Target| matches!(&other.source, Source::RoleBased(other) if is_same(&other.role.role_arn));
    targets.iter().filter(uses).count() > 1
}

/// Refuses what two targets may not share.
fn refuse_shared(targets: &[Target], targets_secret: Option<&SecretId>) -> Result<(), Invalid> {
    const API_KEY: &str = "that secret holds a Braintrust API key, which would be overwritten";
    const TARGETS: &str = "that secret holds the targets, which would be overwritten";
    const STAGED: &str = "another target keeps its credentials there";
    let (mut names, mut written_to, mut accounts) = (HashSet::new(), HashSet::new(), HashMap::<_, Vec<_>>::new());
    // The secrets that no target may stage in, by every name that they may have.
    let mut taken: HashMap<&str, Vec<(&SecretId, &str)>> = HashMap::new();
    let destinations = targets.iter().flat_map(|target| &target.destinations);
    let api_keys: HashSet<_> = destinations.map(|destination| &destination.data_plane.api_key_secret_id).collect();
    let api_keys = api_keys.into_iter().map(|id| (id, API_KEY));
    for (id, problem) in api_keys.chain(targets_secret.map(|id| (id, TARGETS))) {
        id.possible_names().for_each(|name| taken.entry(name).or_default().push((id, problem)));
    }
    for target in targets {
        let in_target = |invalid: Invalid| invalid.in_target(&format!("target {:?}", target.name.as_str()));
        let refuse_if = |is_shared, field: &str, problem: &str| refuse_if(is_shared, field, problem).map_err(in_target);
        refuse_if(!names.insert(&target.name), "name", "another target has it already")?;
        let problem = "another target uses this role, and a revocation would end its sessions, too. Give each target a \
                       role of its own";
        refuse_if(shares_revocable_role(target, targets), "revoke_sessions", problem)?;
        if let Some(source) = target.user_based() {
            let (account, others) = (account(source), accounts.entry(&source.user_name).or_default());
            // Without a role, the user is in the function's own account, which is not known here.
            let is_same_account = |other: &Option<&str>| account.zip(*other).is_none_or(|(own, other)| own == other);
            let problem = "another target rotates this IAM user, and each would retire the other's key";
            refuse_if(others.iter().any(is_same_account), "user_name", problem)?;
            others.push(account);
        }
        for Destination { lookup, data_plane, .. } in &target.destinations {
            // Two API keys may belong to two organizations. If they belong to one, the run refuses the second
            // destination.
            let place = match lookup.id() {
                // An ID is unique, even if two URLs lead to its provider.
                Some(id) => (Some(id), None),
                None => (None, Some((data_plane.url(), &data_plane.api_key_secret_id, lookup))),
            };
            let is_shared = !written_to.insert(place);
            refuse_if(is_shared, "ai_secrets", &format!("{lookup} is named twice, so two would write to it"))?;
        }
        if let Some(id) = target.secret_id() {
            let mut others = id.possible_names().filter_map(|name| taken.get(name)).flatten();
            if let Some((_, problem)) = others.find(|(other, _)| id.is_same_secret(other.as_str())) {
                refuse_if(true, "secret_id", problem)?;
            }
            id.possible_names().for_each(|name| taken.entry(name).or_default().push((id, STAGED)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::examples::{self, AI_SECRET_ID, role_based, user_based, with};

    fn defaults() -> Defaults {
        Defaults { api_url: "https://api.braintrust.dev".parse().unwrap(), api_key_secret_id: Some(id("braintrust")) }
    }

    fn id(text: &str) -> SecretId {
        SecretId::try_from(text.to_owned()).unwrap()
    }

    fn read_text(json: &str) -> Result<Vec<Target>, String> {
        targets(json, &defaults(), None).map_err(|invalid| invalid.to_string())
    }

    fn read(targets: &Value) -> Result<Vec<Target>, String> {
        read_text(&targets.to_string())
    }

    #[test]
    fn a_minimal_target_has_the_defaults() {
        let targets = read(&json!([role_based()])).unwrap();
        let target = &targets[0];
        let Source::RoleBased(source) = &target.source else { panic!("{target:?}") };
        assert_eq!((source.role.duration_seconds, &target.probe), (3_600, &Probe::Models));
        assert_eq!(target.destinations[0].layout, LayoutChoice::Auto);
        assert_eq!(target.destinations[0].data_plane.api_key_secret_id, id("braintrust"));
    }

    #[test]
    fn a_minimal_user_based_target_has_the_defaults() {
        let targets = read(&json!([with(user_based(), json!({"kind": "long_term_api_key"}))])).unwrap();
        let source = targets[0].user_based().unwrap();
        assert_eq!((source.rotate_after.as_secs(), source.overlap.as_secs()), (2_592_000, 7_200));
        assert_eq!(source.kind, UserBasedKind::LongTermApiKey { credential_age_days: 90 });
    }

    #[test]
    fn white_space_and_a_byte_order_mark_make_no_difference() {
        let plain = with(user_based(), json!({"role_arn": "arn:aws:iam::123456789012:role/x", "external_id": "ab"}));
        let mut padded = plain.clone();
        for field in ["name", "user_name", "secret_id", "region", "role_arn", "external_id"] {
            padded[field] = format!(" {}\n", plain[field].as_str().unwrap()).into();
        }
        let (rotate_after, overlap) = (json!(" 30d"), json!("2h "));
        padded = with(padded, json!({"rotate_after": rotate_after, "overlap": overlap}));
        padded["ai_secrets"] = json!([{"id": format!("{AI_SECRET_ID}\n"), "api_key_secret_id": " braintrust"}]);
        let padded = read_text(&format!("\u{feff} {}\n", json!([padded]))).unwrap();
        assert_eq!(format!("{padded:?}"), format!("{:?}", read(&json!([plain])).unwrap()));
    }

    #[test]
    fn what_a_wrong_secret_holds_is_shortened_where_an_error_repeats_it() {
        let long = "x".repeat(10_000);
        for target in [
            json!({"name": long}),
            with(role_based(), json!({"kind": long})),
            with(role_based(), json!({"role_arn": long})),
            with(role_based(), json!({&long: 1})),
            with(role_based(), json!({"duration_seconds": long})),
            with(role_based(), json!({"ai_secrets": [{"id": long}]})),
        ] {
            let error = read(&json!([target])).unwrap_err();
            assert!(error.len() < 800, "{error}");
        }
    }

    #[test]
    fn every_wrong_field_is_named_with_what_is_expected() {
        for (target, expected) in examples::refused().into_iter().chain(examples::refused_by_the_parser()) {
            let error = read(&json!([target])).unwrap_err();
            assert!(error.contains(expected), "{error}\n  expected {expected}");
        }
    }

    #[test]
    fn values_at_the_bounds_are_accepted() {
        for target in examples::accepted() {
            assert!(read(&json!([target])).is_ok(), "{target}");
        }
    }

    #[test]
    fn a_field_that_is_given_twice_is_refused_wherever_it_is() {
        let json =
            json!([with(role_based(), json!({"session_policy": {"Statement": [{"Effect": "Deny"}]}}))]).to_string();
        for (once, twice, place) in [
            (r#""region":"us-east-1""#, r#""region":"us-east-1","region":"us-east-1""#, "region"),
            (r#""region":"us-east-1""#, r#""region":null,"region":"us-east-1""#, "region"),
            (r#""id":"#, r#""id":null,"id":"#, "ai_secrets[0].id"),
            (r#""Effect":"#, r#""Effect":"Allow","Effect":"#, "session_policy.Statement[0].Effect"),
        ] {
            assert!(json.contains(once), "{json}");
            let error = read_text(&json.replace(once, twice)).unwrap_err();
            assert_eq!(error, format!("target \"prod\": {place}: the field is given twice"));
        }
    }

    #[test]
    fn without_a_default_each_destination_needs_its_own_api_key() {
        let defaults = Defaults { api_key_secret_id: None, ..defaults() };
        let invalid = targets(&json!([role_based()]).to_string(), &defaults, None).unwrap_err();
        let error = invalid.to_string();
        assert!(error.contains("BRAINTRUST_API_KEY_SECRET_ID, its default, is not set"), "{error}");
    }

    #[test]
    fn two_targets_may_not_share_a_name_or_a_destination() {
        let error = read(&json!([role_based(), role_based()])).unwrap_err();
        assert_eq!(error, "target \"prod\": name: another target has it already");
        let error = read(&json!([role_based(), with(role_based(), json!({"name": "other"}))])).unwrap_err();
        assert!(error.contains(&format!("target \"other\": ai_secrets: {AI_SECRET_ID} is named twice")), "{error}");
        let twice = |entry: Value| {
            read(&json!([with(role_based(), json!({"ai_secrets": [entry.clone(), entry]}))])).unwrap_err()
        };
        let error = twice(json!({"name": "a", "org_name": "b"}));
        assert!(error.contains("ai_secrets: \"a\" of \"b\" is named twice"), "{error}");
        let error = twice(json!({"name": "a"}));
        assert!(error.contains("ai_secrets: \"a\" is named twice"), "{error}");
    }

    #[test]
    fn one_id_under_two_urls_is_one_destination_and_one_name_is_not() {
        let read = |lookup: Value| {
            let elsewhere = with(lookup.clone(), json!({"api_url": "https://braintrust.example"}));
            read(&json!([with(role_based(), json!({"ai_secrets": [lookup, elsewhere]}))])).map(|_| ())
        };
        let error = read(json!({"id": AI_SECRET_ID})).unwrap_err();
        assert!(error.contains(&format!("ai_secrets: {AI_SECRET_ID} is named twice")), "{error}");
        assert_eq!(read(json!({"name": "a"})), Ok(()));
    }

    #[test]
    fn a_projects_provider_is_one_destination_however_it_is_spelt() {
        const PROJECT_ID: &str = "22222222-2222-4222-8222-222222222222";
        let two = |one: Value, other: Value| {
            read(&json!([
                with(role_based(), json!({"ai_secrets": [one]})),
                with(role_based(), json!({"name": "other", "ai_secrets": [other]})),
            ]))
        };
        let in_project = |project: &str| json!({"project": project, "name": "AWS Bedrock"});
        let by_id = |project: &str| json!({"project": project, "id": AI_SECRET_ID});
        for (one, other, named) in [
            (in_project("a"), in_project("a"), "\"AWS Bedrock\" in the project \"a\" is named twice"),
            (in_project(PROJECT_ID), in_project(PROJECT_ID), "\"AWS Bedrock\" in the project 2222"),
            (by_id("a"), by_id(PROJECT_ID), "in the project 2222"),
            (by_id("a"), json!({"id": AI_SECRET_ID}), "is named twice"),
        ] {
            let error = two(one, other).unwrap_err();
            assert!(error.contains("target \"other\": ai_secrets:") && error.contains(named), "{error}");
        }
        for (one, other) in [
            (in_project("a"), in_project("b")),
            (in_project("a"), json!({"name": "AWS Bedrock"})),
            // Only Braintrust knows whether these are the same.
            (in_project("a"), in_project(PROJECT_ID)),
        ] {
            let targets = two(one, other).unwrap();
            assert_eq!((targets[1].claims.len(), targets[1].destinations[0].earlier_claims), (2, 1));
        }
        let all_by_id = two(by_id("a"), json!({"id": PROJECT_ID})).unwrap();
        assert!(all_by_id[0].claims.is_empty(), "IDs need no comparison");
    }

    #[test]
    fn equal_names_with_two_api_keys_are_accepted_and_counted_as_claims() {
        let of = |name: &str, key: &str| {
            let ai_secrets = json!([{"name": "AWS Bedrock", "api_key_secret_id": key}]);
            with(role_based(), json!({"name": name, "ai_secrets": ai_secrets}))
        };
        let targets = read(&json!([of("one", "key-of-one"), of("two", "key-of-two")])).unwrap();
        let earlier: Vec<_> = targets.iter().map(|target| target.destinations[0].earlier_claims).collect();
        assert_eq!(earlier, [0, 1]);
        let claims: Vec<_> = targets[1].claims.iter().map(|claim| claim.target.as_str()).collect();
        assert_eq!(claims, ["one", "two"]);
        assert!(read(&json!([of("one", "key"), of("two", "key")])).is_err());
        assert!(read(&json!([role_based()])).unwrap()[0].claims.is_empty(), "IDs need no comparison");
    }

    #[test]
    fn the_secret_that_holds_the_targets_stages_no_credentials() {
        let json = json!([with(user_based(), json!({"secret_id": "the-targets"}))]).to_string();
        let error = targets(&json, &defaults(), Some(&id("the-targets"))).unwrap_err().to_string();
        assert!(error.contains("secret_id: that secret holds the targets"), "{error}");
        assert!(targets(&json, &defaults(), Some(&id("other-targets"))).is_ok());
    }

    #[test]
    fn two_targets_may_not_share_an_iam_user_or_a_staged_secret() {
        let other = |change: Value| {
            with(with(user_based(), json!({"name": "other", "ai_secrets": [{"name": "other"}]})), change)
        };
        let error = read(&json!([user_based(), other(json!({"secret_id": "another"}))])).unwrap_err();
        assert!(error.contains("user_name: another target rotates this IAM user"), "{error}");
        let error = read(&json!([user_based(), other(json!({"user_name": "another"}))])).unwrap_err();
        assert!(error.contains("secret_id: another target keeps"), "{error}");
    }

    #[test]
    fn sessions_are_only_revoked_if_no_other_target_uses_the_role() {
        let two = |one: Value, two: Value| {
            let second = with(role_based(), json!({"name": "two", "ai_secrets": [{"name": "other"}]}));
            read(&json!([with(role_based(), one), with(second, two)])).map(drop)
        };
        let (revokes, shares) = (|| json!({"revoke_sessions": true}), || json!({}));
        for (one, other) in [(revokes(), shares()), (shares(), revokes()), (revokes(), revokes())] {
            let error = two(one, other).unwrap_err();
            assert!(error.contains("revoke_sessions: another target uses this role"), "{error}");
        }
        let with_a_path = json!({"role_arn": "arn:aws:iam::123456789012:role/team/bedrock"});
        assert!(two(revokes(), with_a_path).is_err(), "no account has two roles of one name");
        for arn in ["arn:aws:iam::123456789012:role/other", "arn:aws:iam::210987654321:role/bedrock"] {
            assert_eq!(two(revokes(), json!({"role_arn": arn})), Ok(()), "{arn}");
        }
        assert_eq!(two(shares(), shares()), Ok(()));
        let user = json!({"role_arn": "arn:aws:iam::123456789012:role/bedrock", "name": "two"});
        let user = with(with(user_based(), user), json!({"ai_secrets": [{"name": "other"}]}));
        assert!(read(&json!([with(role_based(), revokes()), user])).is_ok(), "its sessions are not in Braintrust");
    }

    #[test]
    fn another_spelling_does_not_hide_that_a_user_or_secret_is_shared() {
        let arn = |name: &str| format!("arn:aws:secretsmanager:us-east-1:123456789012:secret:{name}");
        let role = |account: &str| json!({"role_arn": format!("arn:aws:iam::{account}:role/x")});
        let two = |one: Value, two: Value| {
            let second = with(user_based(), json!({"name": "two", "ai_secrets": [{"name": "other"}]}));
            read(&json!([with(user_based(), one), with(second, two)])).map(drop)
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
        // A name that, like an ARN, ends in a hyphen and six characters.
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
    fn anything_but_an_array_of_targets_is_refused() {
        for json in ["", "{}", "[", "null", "[] []", "5"] {
            assert!(
                read_text(json).unwrap_err().starts_with("the array: not a JSON array of targets (line 1"),
                "{json}"
            );
        }
        assert!(read_text("[]").unwrap_err().starts_with("the array: it has no target; expected ["));
    }
}
