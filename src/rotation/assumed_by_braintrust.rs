//! A target whose destinations have moved to Braintrust's own `assume_role`: Braintrust assumes a role itself when it
//! calls Bedrock, so there is nothing to rotate. The target stays as it is, in case somebody moves it back.

use super::destinations;
use super::target_run::TargetRun;
use crate::aws::iam_keys::Key;
use crate::config::{Target, UserBasedKind};
use crate::error::{Error, ErrorClass};

impl TargetRun<'_> {
    /// Whether all destinations have moved. Reports them if they have. A destination that can't be read doesn't count
    /// as moved.
    pub async fn uses_assume_role(&self) -> bool {
        let readings = self.read_destinations().await;
        let have_moved = destinations::all_use_assume_role(&readings);
        if have_moved {
            self.progress.destinations(readings.iter().map(destinations::Reading::report).collect(), Vec::new());
        }
        have_moved
    }

    /// The IAM user's keys. Whoever moved may have deleted the user.
    pub async fn remaining_keys(&self) -> Result<Vec<Key>, Error> {
        match self.list_keys().await {
            Err(error) if error.class == ErrorClass::NotFound => Ok(Vec::new()),
            listed => listed,
        }
    }
}

/// What remains to be done by hand. The function never deletes the last keys by itself, because moving back requires
/// them, and because other readers of the staged secret may use them.
pub fn remaining(target: &Target, keys: &[Key], rotation_enabled: Option<bool>) -> Vec<String> {
    let mut remaining = Vec::new();
    if let (Some(true), Some(id)) = (rotation_enabled, target.secret_id()) {
        let id = id.as_str();
        remaining.push(format!(
            "Braintrust assumes a role itself, but Secrets Manager still rotates the secret. To end that: `aws \
             secretsmanager cancel-rotate-secret --secret-id {id}`"
        ));
    }
    if let Some(source) = target.user_based() {
        let user = &source.user_name;
        remaining.extend(keys.iter().map(|Key { id, .. }| {
            let command = match source.kind {
                UserBasedKind::AccessKey => format!("delete-access-key --user-name {user} --access-key-id {id}"),
                UserBasedKind::LongTermApiKey { .. } => format!(
                    "delete-service-specific-credential --user-name {user} --service-specific-credential-id {id}"
                ),
            };
            format!(
                "Braintrust assumes a role itself, and the key {id} of the IAM user {user} still exists. When nothing \
                 else uses it, and you don't want to move back, delete it: `aws iam {command}`"
            )
        }));
    }
    remaining
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;
    use crate::config::for_test::{role_based, user_based};

    fn key(id: &str) -> Key {
        Key { id: id.to_owned(), active: true, created_at: None }
    }

    #[test]
    fn each_key_of_the_user_gets_the_command_that_deletes_it() {
        let mut target = user_based("prod");
        let found = remaining(&target, &[key("AKIA1"), key("AKIA2")], Some(false));
        assert!(found[0].ends_with("`aws iam delete-access-key --user-name prod --access-key-id AKIA1`"), "{found:?}");
        assert_eq!((found.len(), found[1].contains("AKIA2")), (2, true));
        if let Source::UserBased(source) = &mut target.source {
            source.kind = UserBasedKind::LongTermApiKey { credential_age_days: 90 };
        }
        let found = remaining(&target, &[key("ACCA1")], None);
        assert!(found[0].contains("--service-specific-credential-id ACCA1`"), "{found:?}");
    }

    #[test]
    fn a_rotation_by_secrets_manager_has_to_be_canceled() {
        let target = user_based("prod");
        let found = remaining(&target, &[], Some(true));
        assert!(found[0].ends_with("cancel-rotate-secret --secret-id staged`"), "{found:?}");
        assert_eq!(remaining(&target, &[], Some(false)), [""; 0]);
        assert_eq!(remaining(&role_based("prod"), &[], Some(true)), [""; 0]);
    }
}
