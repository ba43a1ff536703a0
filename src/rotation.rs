//! What the commands share: one run of one target, and its parts.

pub mod assumed_by_braintrust;
pub mod contract;
pub mod destinations;
pub mod end_to_end;
pub mod in_memory;
pub mod policy;
pub mod restore;
pub mod retirement;
pub mod revocation;
pub mod service_token;
pub mod snapshot;
pub mod staged_run;
pub mod steps;
pub mod target_run;
#[cfg(test)]
pub mod test_world;
pub mod verdict;
pub mod writing;
