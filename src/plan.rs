//! Decides what a tick does with which target; pure, and it must never know a service.

use crate::config::Target;
use crate::error::Error;

/// The targets that a tick names, in the configured order; all, if it names none.
///
/// # Errors
/// `configuration`, listing the configured names.
pub fn select<'a>(targets: &'a [Target], names: &[String]) -> Result<Vec<&'a Target>, Error> {
    if let Some(unknown) = names.iter().find(|name| !targets.iter().any(|target| target.name == **name)) {
        let configured: Vec<_> = targets.iter().map(|target| target.name.as_str()).collect();
        return Err(Error::configuration(
            "event",
            format!("no target is named {unknown:?}"),
            format!("Configured are: {}", configured.join(", ")),
        ));
    }
    Ok(targets.iter().filter(|target| names.is_empty() || names.contains(&target.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AssumeRole, Kind, Probe};

    fn target(name: &str) -> Target {
        let role_arn = "arn:aws:iam::123456789012:role/x".to_owned();
        Target {
            name: name.to_owned(),
            kind: Kind::Temporary(AssumeRole {
                role_arn,
                external_id: None,
                duration_seconds: 3_600,
                session_policy: None,
            }),
            region: "us-east-1".to_owned(),
            probe: Probe::Models,
            ai_secrets: Vec::new(),
        }
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
