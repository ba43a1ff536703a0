//! The commands, one file each. They share [`crate::rotation`] and don't call each other.

pub mod check;
pub mod inventory;
pub mod revoke;
pub mod revoke_api_key;
pub mod rollback;
pub mod rotate;
pub mod rotate_api_key;
pub mod rotation_step;
pub mod status;
