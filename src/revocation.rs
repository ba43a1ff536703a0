//! The evidence of a revocation, as its report shows it.

use jiff::Timestamp;
use serde::Serialize;

use crate::error::Service;
use crate::report::iso8601;

#[derive(Debug, Default, Serialize)]
pub struct Revocation {
    /// The credentials that were replaced, and what became of each.
    pub revoked: Vec<Revoked>,
    /// The keys of the same IAM user that somebody else created, which were not touched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub foreign_keys: Vec<String>,
    /// What somebody has to do by hand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remaining: Vec<Remaining>,
}

#[derive(Debug, Serialize)]
pub struct Revoked {
    pub credential_id: String,
    pub state: RevokedState,
    /// When it was deleted, or when its sessions were ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// The function can't end it: `remaining` has the command.
    #[serde(skip)]
    is_left: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokedState {
    /// A service refused it.
    Dead,
    /// It was ended, but no request has proven that yet.
    Ended,
    /// It still works.
    Alive,
    /// A dry run would end it.
    WouldEnd,
}

/// The answer that refused the credentials.
#[derive(Clone, Debug, Serialize)]
pub struct Evidence {
    pub service: Service,
    pub call: &'static str,
    /// The status and the error code.
    pub answer: String,
    pub at: String,
}

#[derive(Debug, Serialize)]
pub struct Remaining {
    pub what: String,
    pub command: String,
}

impl Revocation {
    /// Adds an entry for these credentials, if there is none.
    pub fn list(&mut self, credential_id: &str) {
        self.entry(credential_id);
    }

    /// Adds an entry for credentials that only somebody else can end, and how they do it.
    pub fn leave(&mut self, credential_id: &str, remaining: Remaining) {
        if !std::mem::replace(&mut self.entry(credential_id).is_left, true) {
            self.remaining.push(remaining);
        }
    }

    /// What the function ends itself.
    pub fn own(&mut self) -> impl Iterator<Item = &mut Revoked> {
        self.revoked.iter_mut().filter(|revoked| !revoked.is_left)
    }

    /// The entry of these credentials, which is added if there is none.
    pub fn entry(&mut self, credential_id: &str) -> &mut Revoked {
        let found = self.revoked.iter().position(|revoked| revoked.credential_id == credential_id);
        let index = found.unwrap_or(self.revoked.len());
        if found.is_none() {
            let (credential_id, state) = (credential_id.to_owned(), RevokedState::Alive);
            self.revoked.push(Revoked { credential_id, state, ended_at: None, evidence: None, is_left: false });
        }
        #[expect(clippy::indexing_slicing, reason = "the entry was found or added above")]
        &mut self.revoked[index]
    }
}

impl Revoked {
    /// Credentials that are dead stay so.
    pub fn ended(&mut self, at: Timestamp) {
        if self.state != RevokedState::Dead {
            self.state = RevokedState::Ended;
            self.ended_at = Some(iso8601(at));
        }
    }

    pub fn proven(&mut self, evidence: Evidence) {
        self.state = RevokedState::Dead;
        self.evidence = Some(evidence);
    }
}
