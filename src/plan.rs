//! Decides what a tick does with which target; pure, and it must never know a service.

use jiff::{SignedDuration, Timestamp};

use crate::config::{Standing, Target};
use crate::credentials::KindName;
use crate::error::{Cause, Error, Service, shortened};
use crate::mint;

/// Credentials with less life than this are as good as dead: they would end soon after they arrive.
const WORTH_SETTING: SignedDuration = SignedDuration::from_mins(5);

/// Of an expiring kind's life, how much has to be left of pending ones. Others cost nothing, and the next tick has to
/// find these alive.
const WORTH_RESUMING: f64 = 0.75;

/// What a staged secret says of one version's credentials: no secret part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// How they were made.
    pub kind: KindName,
    /// Their id.
    pub id: String,
    /// When they were made.
    pub minted_at: Timestamp,
    /// When they end by themselves.
    pub expires_at: Option<Timestamp>,
}

/// A version with `AWSPENDING` that is not current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// It holds no value: a rotation that was begun and minted nothing that it could stage.
    Empty,
    /// It holds credentials.
    Holds(Known),
}

/// What a tick knows of a staged target before it acts.
#[derive(Clone, Debug)]
pub struct State {
    /// Secrets Manager rotates it.
    pub rotation_enabled: bool,
    /// This very event has been carried out: its version is current.
    pub event_is_done: bool,
    /// The rotation that has not ended.
    pub pending: Option<Pending>,
    /// What consumers read, if those are Bedrock credentials.
    pub current: Option<Known>,
    /// Until when the credentials before those are to stay valid.
    pub overlap_ends_at: Option<Timestamp>,
    /// The IAM user's credentials, for standing kinds.
    pub listed: Vec<mint::Standing>,
}

/// What a tick does with a staged target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing but retirement: Secrets Manager rotates it.
    LeaveToSecretsManager,
    /// Nothing but retirement.
    NotDue,
    /// Go on with the pending version.
    Resume,
    /// Drop the pending version, whose credentials are dead, and begin another.
    StartAfresh,
    /// Begin a rotation.
    Start,
}

/// Decides for one staged target. `force` ignores the age.
pub fn decide(now: Timestamp, target: &Target, force: bool, state: &State) -> Decision {
    if state.rotation_enabled {
        return Decision::LeaveToSecretsManager;
    }
    match &state.pending {
        Some(Pending::Empty) => return Decision::Resume,
        Some(Pending::Holds(known)) if is_worth_resuming(now, target, known, &state.listed) => return Decision::Resume,
        Some(Pending::Holds(_)) => return Decision::StartAfresh,
        None if state.event_is_done => return Decision::NotDue,
        None => {}
    }
    if force || is_due(now, target, state) { Decision::Start } else { Decision::NotDue }
}

fn is_due(now: Timestamp, target: &Target, state: &State) -> bool {
    let (Some(current), Some(standing)) = (&state.current, target.kind.standing()) else { return true };
    let ends_too_soon = current.expires_at.is_some_and(|end| later(now, standing.overlap) >= end);
    // The ones before may still be in use, and would have to make room.
    let has_room = state.listed.len() < SLOTS || state.overlap_ends_at.is_none_or(|end| now >= end);
    let is_old_enough = has_room && now >= later(current.minted_at, standing.rotate_after);
    current.kind != target.kind.name() || !is_active(&state.listed, &current.id) || ends_too_soon || is_old_enough
}

fn is_worth_resuming(now: Timestamp, target: &Target, known: &Known, listed: &[mint::Standing]) -> bool {
    let has_most_of_its_life = match (target.kind.standing(), known.expires_at) {
        (None, Some(end)) => {
            let (left, life) = (end.duration_since(now), end.duration_since(known.minted_at));
            left.as_secs_f64() > WORTH_RESUMING * life.as_secs_f64()
        }
        _ => true,
    };
    has_most_of_its_life && is_alive(now, target, known, listed)
}

/// Whether pending credentials are worth going on with: they have not ended, and IAM still has them.
pub fn is_alive(now: Timestamp, target: &Target, known: &Known, listed: &[mint::Standing]) -> bool {
    known.kind == target.kind.name() && !is_dead(now, target, known, listed)
}

/// Whether credentials are known not to work: they have ended, or IAM does not have them. Of another kind than the
/// target's, IAM was not asked.
pub fn is_dead(now: Timestamp, target: &Target, known: &Known, listed: &[mint::Standing]) -> bool {
    let is_listed = target.kind.standing().is_some() && known.kind == target.kind.name();
    !lasts(now, known.expires_at) || (is_listed && !is_active(listed, &known.id))
}

fn is_active(listed: &[mint::Standing], id: &str) -> bool {
    listed.iter().any(|found| found.id == id && found.active)
}

/// Whether credentials are worth setting: they do not end soon.
pub fn lasts(now: Timestamp, expires_at: Option<Timestamp>) -> bool {
    expires_at.is_none_or(|end| end.duration_since(now) > WORTH_SETTING)
}

/// Which credentials the staged secret names, and since when it exists.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Of `AWSCURRENT`.
    pub current: Option<String>,
    /// When those were made.
    pub current_minted_at: Option<Timestamp>,
    /// The last time at which those may have become current.
    pub promoted_at: Option<Timestamp>,
    /// Of `AWSPENDING`.
    pub pending: Option<String>,
    /// Of `AWSPREVIOUS`.
    pub previous: Option<String>,
    /// When the secret was made.
    pub secret_created_at: Option<Timestamp>,
}

impl Names {
    /// Whether it is what `AWSCURRENT` or `AWSPENDING` names.
    pub fn is_in_use(&self, id: &str) -> bool {
        [&self.current, &self.pending].into_iter().any(|named| named.as_deref() == Some(id))
    }

    /// One that a rotation made and nothing uses: the previous, or an orphan of a crashed run. What is older than the
    /// secret was made by a human. IAM tells seconds.
    fn is_retirable(&self, found: &mint::Standing) -> bool {
        let is_orphan = match (found.created_at, self.secret_created_at) {
            (Some(created), Some(secret)) => created.as_second() >= secret.as_second(),
            _ => false,
        };
        !self.is_in_use(&found.id) && (is_orphan || self.is_previous(&found.id))
    }

    fn is_previous(&self, id: &str) -> bool {
        self.previous.as_deref() == Some(id)
    }

    /// Until when the previous credentials have to stay valid: the overlap begins when the current ones were made, or
    /// became current, which is later where a rotation was held up.
    pub fn overlap_ends_at(&self, standing: &Standing) -> Option<Timestamp> {
        let since = self.current_minted_at.max(self.promoted_at);
        self.current.as_ref().and(since).map(|since| later(since, standing.overlap))
    }

    fn occupant(&self, found: &mint::Standing, is_new: bool) -> Occupant {
        let is_current = self.current.as_deref() == Some(found.id.as_str());
        match (self.is_in_use(&found.id), self.is_retirable(found)) {
            (true, _) if !is_current && !found.active => Occupant::Dead,
            (_, false) => Occupant::Kept,
            (_, true) if !found.active => Occupant::Dead,
            (_, true) if is_new => Occupant::New,
            (_, true) if self.is_previous(&found.id) => Occupant::Previous,
            (_, true) => Occupant::Orphan,
        }
    }
}

/// One act of retirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retirement {
    /// In the overlap already, an orphan: a rotation that was cut off may have left it with Braintrust.
    Replace,
    /// It can be activated again, should somebody miss it.
    Deactivate,
    /// A tick later.
    Delete,
}

/// What to do with which credential. Nothing stops working before the overlap has passed.
pub fn retirements<'l>(
    now: Timestamp,
    standing: &Standing,
    names: &Names,
    listed: &'l [mint::Standing],
) -> Vec<(Retirement, &'l mint::Standing)> {
    let Some(end) = names.overlap_ends_at(standing) else { return Vec::new() };
    let retirable = listed.iter().filter(|found| names.is_retirable(found));
    let acts = retirable.filter_map(|found| match (now >= end, found.active) {
        (true, true) => Some((Retirement::Deactivate, found)),
        (true, false) => Some((Retirement::Delete, found)),
        (false, true) if !names.is_previous(&found.id) => Some((Retirement::Replace, found)),
        (false, _) => None,
    });
    acts.collect()
}

/// IAM's limit, inactive ones included.
pub const SLOTS: usize = 2;

/// What stands in one of the IAM user's slots, in the order in which it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Occupant {
    /// Ours, even the pending one, and IAM has it as inactive.
    Dead,
    /// It appeared while this run tried to mint: its answer was lost, so that it was never staged.
    New,
    /// Made by a rotation that was cut off.
    Orphan,
    /// What `AWSPREVIOUS` names.
    Previous,
    /// The current one, one that is being rotated in, or a human's.
    Kept,
}

/// The credentials of which one must go before another can be made, the first of them first; none, if there is a free
/// slot. An orphan is protected by the overlap of current credentials that work.
///
/// # Errors
/// `conflict`, if both are in use, made by a human, or still in their overlap.
pub fn in_the_way<'l>(
    now: Timestamp,
    standing: &Standing,
    names: &Names,
    is_current_dead: bool,
    listed: &'l [mint::Standing],
    is_new: impl Fn(&mint::Standing) -> bool,
) -> Result<Vec<(Occupant, &'l mint::Standing)>, Error> {
    if listed.len() < SLOTS {
        return Ok(Vec::new());
    }
    let refuse = |remedy: String| {
        let problem = format!("the IAM user {} has two credentials, and neither may be deleted", standing.user_name);
        Err(Error::new(Cause::Conflict, Service::Iam, "create", problem, remedy))
    };
    let occupants = listed.iter().map(|found| (names.occupant(found, is_new(found)), found));
    let mut ours: Vec<_> = occupants.filter(|(occupant, _)| *occupant != Occupant::Kept).collect();
    ours.sort_by_key(|(occupant, _)| *occupant);
    let end = names.overlap_ends_at(standing);
    let may_go = |occupant| match occupant {
        Occupant::Dead | Occupant::New => true,
        Occupant::Orphan => is_current_dead || end.is_none_or(|end| now >= end),
        Occupant::Previous => end.is_some_and(|end| now >= end),
        Occupant::Kept => false,
    };
    let free: Vec<_> = ours.iter().copied().filter(|(occupant, _)| may_go(*occupant)).collect();
    match (ours.first(), end) {
        _ if !free.is_empty() => Ok(free),
        (Some((_, found)), Some(end)) => {
            refuse(format!("{} is in its overlap until {end:.0}: rotate after that", found.id))
        }
        (Some((_, found)), None) => refuse(format!(
            "AWSCURRENT holds no credentials, so {} may be in use: delete it if nothing uses it, or put its value back",
            found.id
        )),
        (None, _) => {
            let ids: Vec<_> = listed.iter().map(|found| found.id.as_str()).filter(|id| !names.is_in_use(id)).collect();
            match &ids[..] {
                [] => refuse("A rotation is under way: see why it does not end".to_owned()),
                ids => refuse(format!("Not made by this function: {}. Delete one that nothing uses", ids.join(", "))),
            }
        }
    }
}

fn later(time: Timestamp, period: std::time::Duration) -> Timestamp {
    time.saturating_add(period).unwrap_or(Timestamp::MAX)
}

/// The targets that a tick names, in the configured order; all, if it names none.
///
/// # Errors
/// `configuration`, listing the configured names.
pub fn select<'a>(targets: &'a [Target], names: &[String]) -> Result<Vec<&'a Target>, Error> {
    if let Some(unknown) = names.iter().find(|name| !targets.iter().any(|target| target.name == **name)) {
        let configured: Vec<_> = targets.iter().map(|target| target.name.as_str()).collect();
        return Err(Error::configuration(
            "event",
            format!("no target is named {:?}", shortened(unknown)),
            format!("Configured are: {}", configured.join(", ")),
        ));
    }
    Ok(targets.iter().filter(|target| names.is_empty() || names.contains(&target.name)).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{AssumeRole, Kind, Probe};

    fn with_kind(name: &str, kind: Kind) -> Target {
        Target {
            name: name.to_owned(),
            kind,
            region: "us-east-1".to_owned(),
            secret_id: Some("staged".to_owned()),
            probe: Probe::Models,
            ai_secrets: Vec::new(),
        }
    }

    fn target(name: &str) -> Target {
        let role_arn = "arn:aws:iam::123456789012:role/x".to_owned();
        let role = AssumeRole { role_arn, external_id: None, duration_seconds: 3_600, session_policy: None };
        with_kind(name, Kind::Temporary(role))
    }

    fn standing() -> Standing {
        Standing {
            user_name: "braintrust".to_owned(),
            role: None,
            rotate_after: Duration::from_secs(30 * 86_400),
            overlap: Duration::from_secs(3_600),
        }
    }

    /// Hours since some midnight.
    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + hours * 3_600).unwrap()
    }

    fn known(kind: KindName, minted: i64, expires: Option<i64>) -> Known {
        Known { kind, id: "PENDING".to_owned(), minted_at: at(minted), expires_at: expires.map(at) }
    }

    fn listed(id: &str, active: bool, created: i64) -> mint::Standing {
        mint::Standing { id: id.to_owned(), active, created_at: Some(at(created)) }
    }

    #[test]
    fn a_tick_decides() {
        use Decision::{LeaveToSecretsManager, NotDue, Resume, Start, StartAfresh};
        use KindName::{AccessKey, Temporary};
        let expiring = target("expiring");
        let user = with_kind("standing", Kind::AccessKey(standing()));
        let idle = State {
            rotation_enabled: false,
            event_is_done: false,
            pending: None,
            current: None,
            overlap_ends_at: None,
            listed: vec![listed("PENDING", true, 0)],
        };
        let current = |kind, minted| State { current: Some(known(kind, minted, None)), ..idle.clone() };
        let ends = |hours| State { current: Some(known(AccessKey, 0, Some(hours))), ..idle.clone() };
        let pending = |known| State { pending: Some(Pending::Holds(known)), ..idle.clone() };
        let empty = State { pending: Some(Pending::Empty), ..idle.clone() };
        let month = 30 * 24;
        for (case, target, force, state, decision) in [
            (
                "rotated by Secrets Manager",
                &user,
                true,
                State { rotation_enabled: true, ..empty.clone() },
                LeaveToSecretsManager,
            ),
            ("a new secret", &user, false, idle.clone(), Start),
            ("expiring ones are always due", &expiring, false, current(Temporary, 0), Start),
            ("an hour too early", &user, false, current(AccessKey, 1 - month), NotDue),
            ("just due", &user, false, current(AccessKey, -month), Start),
            ("forced", &user, true, current(AccessKey, 0), Start),
            ("gone from IAM", &user, false, State { listed: vec![], ..current(AccessKey, 0) }, Start),
            (
                "deactivated by somebody",
                &user,
                false,
                State { listed: vec![listed("PENDING", false, 0)], ..current(AccessKey, 0) },
                Start,
            ),
            ("ends before the overlap could", &user, false, ends(1), Start),
            ("ends later", &user, false, ends(2), NotDue),
            (
                "due, but the ones before are in their overlap",
                &user,
                false,
                State {
                    overlap_ends_at: Some(at(1)),
                    listed: vec![listed("PENDING", true, 0); 2],
                    ..current(AccessKey, -month)
                },
                NotDue,
            ),
            (
                "due, and a slot is free, whatever the overlap",
                &user,
                false,
                State { overlap_ends_at: Some(at(1)), ..current(AccessKey, -month) },
                Start,
            ),
            ("the kind was changed", &user, false, current(Temporary, 0), Start),
            ("a begun rotation", &user, false, empty, Resume),
            ("a staged one", &user, false, pending(known(AccessKey, 0, None)), Resume),
            (
                "one that IAM lost",
                &user,
                false,
                State { listed: vec![], ..pending(known(AccessKey, 0, None)) },
                StartAfresh,
            ),
            (
                "one that is inactive",
                &user,
                false,
                State { listed: vec![listed("PENDING", false, 0)], ..pending(known(AccessKey, 0, None)) },
                StartAfresh,
            ),
            ("one of another kind", &user, false, pending(known(Temporary, 0, Some(1))), StartAfresh),
            ("one that lives", &expiring, false, pending(known(Temporary, 0, Some(1))), Resume),
            (
                "one that lost a quarter of its life",
                &expiring,
                false,
                pending(known(Temporary, -1, Some(3))),
                StartAfresh,
            ),
            ("one that ended", &expiring, false, pending(known(Temporary, -1, Some(0))), StartAfresh),
            (
                "an event that comes twice",
                &expiring,
                false,
                State { event_is_done: true, ..current(Temporary, 0) },
                NotDue,
            ),
            (
                "an event that comes twice, forced",
                &user,
                true,
                State { event_is_done: true, ..current(AccessKey, 0) },
                NotDue,
            ),
        ] {
            assert_eq!(decide(at(0), target, force, &state), decision, "{case}");
        }
    }

    fn names() -> Names {
        Names {
            current: Some("CURRENT".to_owned()),
            current_minted_at: Some(at(0)),
            promoted_at: Some(at(0)),
            pending: Some("PENDING".to_owned()),
            previous: Some("PREVIOUS".to_owned()),
            secret_created_at: Some(at(-100)),
        }
    }

    #[test]
    fn only_what_rotations_made_and_nothing_uses_is_retired_and_only_after_the_overlap() {
        use Retirement::{Deactivate, Delete, Replace};
        for (case, found, hours, expected) in [
            ("the previous", listed("PREVIOUS", true, -50), 1, Some(Deactivate)),
            ("the previous, older than the secret", listed("PREVIOUS", true, -200), 1, Some(Deactivate)),
            ("the previous, a tick later", listed("PREVIOUS", false, -50), 2, Some(Delete)),
            ("the previous, in its overlap", listed("PREVIOUS", true, -50), 0, None),
            ("an orphan", listed("ORPHAN", true, -1), 1, Some(Deactivate)),
            ("an orphan, in the overlap", listed("ORPHAN", true, -1), 0, Some(Replace)),
            ("an orphan, inactive, in the overlap", listed("ORPHAN", false, -1), 0, None),
            ("a human's", listed("HUMAN", true, -101), 1, None),
            ("a human's, inactive", listed("HUMAN", false, -101), 1, None),
            ("one of unknown age", mint::Standing { created_at: None, ..listed("ODD", true, 0) }, 1, None),
            ("the current", listed("CURRENT", true, 0), 9, None),
            ("the pending", listed("PENDING", true, 0), 9, None),
        ] {
            let expected: Vec<_> = expected.map(|act| (act, &found)).into_iter().collect();
            assert_eq!(retirements(at(hours), &standing(), &names(), std::slice::from_ref(&found)), expected, "{case}");
        }
        let held_up = Names { promoted_at: Some(at(8)), ..names() };
        assert!(retirements(at(8), &standing(), &held_up, &[listed("PREVIOUS", true, -50)]).is_empty());
        let nothing_current = Names { current: None, current_minted_at: None, ..names() };
        assert!(retirements(at(9), &standing(), &nothing_current, &[listed("ORPHAN", true, 0)]).is_empty());
    }

    #[test]
    fn a_slot_is_freed_without_touching_what_is_in_use_or_a_humans() {
        use Occupant::{Dead, New, Orphan, Previous};
        let (current, human) = (|active| listed("CURRENT", active, 0), || listed("HUMAN", true, -101));
        let (orphan, previous) = (|active| listed("ORPHAN", active, -9), |active| listed("PREVIOUS", active, -9));
        let (new, pending) = (|| listed("NEW", true, 0), |active| listed("PENDING", active, 0));
        let none = Names { current: None, current_minted_at: None, ..names() };
        let in_the_way = |hours, names: &Names, is_current_dead, both: &[mint::Standing]| {
            let found = in_the_way(at(hours), &standing(), names, is_current_dead, both, |found| found.id == "NEW")?;
            let found = found.into_iter().map(|(occupant, found)| (occupant, found.id.clone()));
            Ok::<_, Error>(found.collect::<Vec<_>>())
        };
        for (case, hours, is_current_dead, both, expected) in [
            ("an orphan goes", 1, false, [current(true), orphan(true)], vec![(Orphan, "ORPHAN")]),
            ("the previous goes", 1, false, [current(true), previous(true)], vec![(Previous, "PREVIOUS")]),
            ("it goes last", 1, true, [previous(true), orphan(true)], vec![(Orphan, "ORPHAN"), (Previous, "PREVIOUS")]),
            ("what is inactive goes", 0, false, [current(true), previous(false)], vec![(Dead, "PREVIOUS")]),
            ("it goes first", 1, true, [orphan(true), previous(false)], vec![(Dead, "PREVIOUS"), (Orphan, "ORPHAN")]),
            ("never the current", 1, true, [current(false), previous(true)], vec![(Previous, "PREVIOUS")]),
            ("even the pending", 0, false, [current(true), pending(false)], vec![(Dead, "PENDING")]),
            ("a lost answer's goes", 0, false, [current(true), new()], vec![(New, "NEW")]),
            ("before the orphan", 1, false, [orphan(true), new()], vec![(New, "NEW"), (Orphan, "ORPHAN")]),
            ("if the current is dead", 0, true, [orphan(true), previous(true)], vec![(Orphan, "ORPHAN")]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(occupant, id)| (occupant, id.to_owned())).collect();
            assert_eq!(in_the_way(hours, &names(), is_current_dead, &both).unwrap(), expected, "{case}");
        }
        for (case, names, hours, both, words) in [
            ("not in the overlap", &names(), 0, [current(true), previous(true)], "PREVIOUS is in its overlap until"),
            ("an orphan neither", &names(), 0, [current(true), orphan(true)], "ORPHAN is in its overlap until 2026-01"),
            ("a human's stays", &names(), 1, [current(true), human()], "Not made by this function: HUMAN. Delete"),
            ("if inactive too", &names(), 1, [current(true), listed("HUMAN", false, -101)], "by this function: HUMAN."),
            ("what is in use stays", &names(), 1, [current(true), pending(true)], "A rotation is under way"),
            ("a dead current too", &names(), 0, [current(false), previous(true)], "PREVIOUS is in its overlap"),
            ("nothing is current", &none, 9, [human(), previous(true)], "PREVIOUS may be in use"),
        ] {
            let error = in_the_way(hours, names, false, &both).unwrap_err().to_string();
            assert!(error.contains(words), "{case}: {error}");
        }
        for found in [orphan(true), orphan(false), previous(false), new()] {
            let [(_, id)] = &in_the_way(9, &none, false, &[human(), found.clone()]).unwrap()[..] else {
                panic!("{found:?}")
            };
            assert_eq!(*id, found.id, "where nothing is current");
        }
        assert!(in_the_way(9, &names(), false, &[current(true)]).unwrap().is_empty());
    }

    #[test]
    fn credentials_that_end_within_five_minutes_are_not_worth_setting() {
        let end = Some(at(0) + SignedDuration::from_mins(5));
        assert!(!lasts(at(0), end) && lasts(at(0) - SignedDuration::from_nanos(1), end) && lasts(at(0), None));
    }

    #[test]
    fn a_tick_takes_the_targets_it_names_or_all() {
        let targets = [target("a"), target("b"), target("c")];
        for (names, expected) in [(vec![], "abc"), (vec!["c", "a"], "ac"), (vec!["b", "b"], "b")] {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let selected: String = select(&targets, &names).unwrap().iter().map(|t| t.name.as_str()).collect();
            assert_eq!(selected, expected);
        }
    }

    #[test]
    fn an_unknown_target_is_refused_with_the_known_ones() {
        let error = select(&[target("a"), target("b")], &["c".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("\"c\"") && error.contains("Configured are: a, b"), "{error}");
    }
}
