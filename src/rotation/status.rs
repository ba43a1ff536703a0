//! Reads what there is of a target, for `status`; it must never write anywhere.

use std::time::Duration;

use futures_util::future::join;

use super::Rotation;
use super::places::{Found, Place};
use crate::braintrust::layout;
use crate::config::{Kind, Target};
use crate::credentials::{Credentials, Lifetime, Secret};
use crate::deadline::Deadline;
use crate::status::{AiSecretStatus, Read, RotatedBy, TargetStatus};

impl Rotation {
    /// One target's credentials, as the staged secret and Braintrust hold them.
    pub async fn status(&self, target: &Target, deadline: Deadline) -> TargetStatus {
        let contents = async {
            match &target.secret_id {
                Some(id) => self.staged(target, id, None, deadline).read().await.map(Some),
                None => Ok(None),
            }
        };
        let (contents, places) = join(contents, self.find_all(target, deadline)).await;
        let current = contents.as_ref().ok().and_then(|contents| contents.as_ref()?.current.as_ref());
        let ai_secrets: Vec<_> = places.iter().map(|found| entry(target, found, current)).collect();
        let warnings = places.iter().filter_map(|(_, place)| place.as_ref().ok());
        let warnings = warnings.flat_map(|place| layout::warnings(place.layout, &place.before)).collect();
        let read = contents.map(|contents| match contents {
            Some(contents) => Read {
                credential_id: contents.current.as_ref().map(|current| current.id.clone()),
                minted_at: contents.current.as_ref().map(|current| current.minted_at),
                expires_at: contents.current.as_ref().and_then(|current| current.expires_at),
                rotated_by: match contents.description.rotation_enabled {
                    Some(true) => RotatedBy::SecretsManager,
                    _ => RotatedBy::Schedule,
                },
                next_by_secrets_manager: contents.description.next_rotation,
                rotation_under_way: contents.description.pending().is_some(),
            },
            None => read_from_braintrust(target, &places),
        });
        TargetStatus::new((self.clock)(), target, read, ai_secrets, warnings)
    }
}

/// How the access key ids of temporary credentials begin.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids>
const TEMPORARY: &str = "ASIA";

fn entry(target: &Target, (configured, place): &Found<'_>, current: Option<&Credentials>) -> AiSecretStatus {
    let place = place.as_ref();
    let found = place.ok().map(|place| &place.before);
    let access_key_id = place.ok().and_then(|place| layout::access_key_id(place.layout, &place.before.metadata));
    let is_standing = access_key_id.as_ref().is_some_and(|id| !id.starts_with(TEMPORARY));
    let holds = |current: &Credentials| {
        let arrived = layout::arrived(place.ok()?.layout, current, None, &place.ok()?.before).is_ok();
        // An API key does not read back: somebody else's looks the same.
        (!arrived || matches!(current.secret, Secret::AccessKey { .. })).then_some(arrived)
    };
    AiSecretStatus {
        ai_secret: configured.lookup.to_string(),
        id: found.map(|ai_secret| ai_secret.id),
        layout: place.ok().map(|place| place.layout),
        access_key_id,
        updated_at: found.and_then(layout::changed_at),
        holds_current: match (&target.secret_id, &target.kind) {
            (Some(_), _) => current.and_then(holds),
            // Whose they are cannot be told, but not the function's.
            (None, Kind::Temporary(_)) if is_standing => Some(false),
            (None, _) => None,
        },
        error: place.err().cloned(),
    }
}

/// Without a staged secret, what Braintrust shows is all there is. Of several `ai_secret`s the oldest counts.
fn read_from_braintrust(target: &Target, places: &[Found<'_>]) -> Read {
    let oldest = oldest(places);
    let held = held_by_braintrust(target, places);
    Read {
        credential_id: oldest.and_then(|place| layout::access_key_id(place.layout, &place.before.metadata)),
        minted_at: held.map(|held| held.minted_at),
        expires_at: held.and_then(|held| held.expires_at),
        rotated_by: RotatedBy::Schedule,
        next_by_secrets_manager: None,
        rotation_under_way: false,
    }
}

/// The lifetime of what Braintrust holds of a target without a staged secret. The credentials were made just before
/// they were written, so their end is known to some seconds, on the late side.
pub(super) fn held_by_braintrust(target: &Target, places: &[Found<'_>]) -> Option<Lifetime> {
    let minted_at = layout::changed_at(&oldest(places)?.before)?;
    let expires_at = match &target.kind {
        Kind::Temporary(role) | Kind::ShortTermApiKey(role) => {
            minted_at.checked_add(Duration::from_secs(role.duration_seconds.into())).ok()
        }
        Kind::AccessKey(_) | Kind::LongTermApiKey { .. } => None,
    };
    Some(Lifetime { minted_at, expires_at })
}

fn oldest<'a, 'p>(places: &'a [Found<'p>]) -> Option<&'a Place<'p>> {
    let found = places.iter().filter_map(|(_, place)| place.as_ref().ok());
    found.min_by_key(|place| layout::changed_at(&place.before).map_or((1, None), |time| (0, Some(time))))
}
