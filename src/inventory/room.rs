//! The room that the answer has for providers. Lambda limits an answer to 6 MB, and others chose the providers' names.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use uuid::Uuid;

use super::Provider;
use crate::braintrust::ai_provider::AuthType;

/// The rest of the answer needs less than half a megabyte.
const ROOM: usize = 5_500_000;
/// What a provider takes at most, apart from the texts that somebody else chose.
const FIXED_BYTES: usize = 1_000;

pub struct Room {
    bytes_left: Cell<usize>,
    taken: RefCell<HashSet<(usize, Uuid)>>,
}

impl Room {
    pub fn of_the_answer() -> Self {
        Self { bytes_left: Cell::new(ROOM), taken: RefCell::default() }
    }

    /// Takes those for which there is room and that another API key has not shown already. Says whether there was no
    /// room for some.
    pub fn take(&self, found: impl Iterator<Item = Provider>) -> (Vec<Provider>, bool) {
        let (mut is_full, mut taken) = (false, self.taken.borrow_mut());
        let is_new_and_fits = |provider: &Provider| {
            let id = (provider.url, provider.id);
            if taken.contains(&id) {
                return false;
            }
            let left = self.bytes_left.get().checked_sub(bytes(provider));
            is_full |= left.is_none();
            left.is_some_and(|left| {
                self.bytes_left.set(left);
                taken.insert(id)
            })
        };
        let new = found.filter(is_new_and_fits).collect();
        (new, is_full)
    }
}

/// The length of a provider in the answer, at most.
fn bytes(provider: &Provider) -> usize {
    let metadata = &provider.metadata;
    let other = match &metadata.auth_type {
        AuthType::Other(other) => Some(other),
        AuthType::Absent | AuthType::Empty | AuthType::IamCredentials | AuthType::ApiKey | AuthType::AssumeRole => None,
    };
    let project = provider.project.as_ref().map(|project| &project.name);
    let texts = [Some(&provider.name), project, other, metadata.region.as_ref(), metadata.access_key.as_ref()];
    let texts = texts.into_iter().flatten().chain(&metadata.aws_access_key_id);
    FIXED_BYTES + texts.flat_map(|text| text.chars()).map(bytes_in_json).sum::<usize>()
}

fn bytes_in_json(character: char) -> usize {
    match character {
        '"' | '\\' => 2,
        '\0'..' ' => 6,
        _ => character.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::braintrust::ai_provider::{Metadata, Place};

    fn provider(id: u128, name: &str) -> Provider {
        Provider {
            url: 0,
            id: Uuid::from_u128(id),
            place: Place::Organization,
            name: name.to_owned(),
            organization: None,
            project: None,
            metadata: Metadata::default(),
            secret_updated_at: None,
            writers: Vec::new(),
            possible_targets: Vec::new(),
            findings: Vec::new(),
        }
    }

    #[test]
    fn whoever_finds_no_room_is_told_even_if_it_was_filled_exactly() {
        for (bytes_left, expected) in [
            (3_003, [(3, false), (0, true), (0, false)]),
            (3_002, [(2, true), (0, true), (0, true)]),
            (5_500, [(3, false), (2, true), (0, false)]),
            (9_000, [(3, false), (3, false), (0, false)]),
        ] {
            let room = Room { bytes_left: Cell::new(bytes_left), taken: RefCell::default() };
            // The last API key sees what the first one does.
            let found = [0, 3, 0].map(|first| {
                let (taken, is_full) = room.take((first..first + 3).map(|id| provider(id, "x")));
                (taken.len(), is_full)
            });
            assert_eq!(found, expected, "{bytes_left}");
        }
    }

    #[test]
    fn a_text_counts_at_least_as_long_as_it_is_in_json() {
        for text in ["a", "\"\\", "\n\t\u{1}\u{1f}", "\u{7f}\u{2028}", "資", "😀"] {
            let in_json = json!(text).to_string().len() - 2;
            let counted = bytes(&provider(1, text)) - FIXED_BYTES;
            assert!((in_json..=in_json * 3).contains(&counted), "{text:?}: {counted}, not {in_json}");
        }
    }
}
