//! Every Bedrock provider that the configured API keys see in Braintrust, and what is wrong with each. It only reads.
//!
//! [`reading`] asks Braintrust, [`room`] bounds the answer, and [`writers`] finds the targets of each provider.
//! [`findings`] decides: pure functions of what was read.

pub mod findings;
pub mod reading;
mod room;
mod writers;

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::braintrust::ai_provider::{Metadata, Place};
use findings::Finding;

/// A Bedrock provider, reduced to small facts: the inventory may have thousands.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The position of its data plane's URL in [`reading::Inventory::urls`].
    pub url: usize,
    pub id: Uuid,
    pub place: Place,
    pub name: String,
    /// `None` if Braintrust doesn't say.
    pub organization: Option<Uuid>,
    pub project: Option<NamedProject>,
    pub metadata: Metadata,
    pub secret_updated_at: Option<Timestamp>,
    /// The targets that write it, or that would if Braintrust didn't assume a role itself.
    pub writers: Vec<Writer>,
    /// The targets that may write it: which provider they name could not be determined.
    pub possible_targets: Vec<String>,
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug)]
pub struct NamedProject {
    pub id: Uuid,
    pub name: String,
}

/// A target that writes a provider, or may write it.
#[derive(Clone, Debug)]
pub struct Writer {
    pub target: String,
    /// How long its credentials live, if they are role-based.
    pub lifetime: Option<Duration>,
    /// Whether the target names the provider by its name, which another organization's may have, too.
    pub by_name: bool,
}

impl Provider {
    /// Its organization on its data plane.
    fn place_of_load(&self) -> Option<(usize, Uuid)> {
        Some((self.url, self.organization?))
    }

    pub fn is_written_by(&self, target: &str) -> bool {
        self.writers.iter().any(|writer| writer.target == target)
    }
}
