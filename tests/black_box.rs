//! Runs black-box tests against a function that `make mutants` has changed. Everything else runs them with pytest.

#![expect(clippy::disallowed_methods, reason = "the environment takes the place of arguments")]

use std::process::Command;

#[test]
#[ignore = "only for cargo-mutants, which names the test files in BLACK_BOX"]
fn the_black_box_tests_pass() {
    let files = std::env::var("BLACK_BOX").unwrap_or_default();
    let mut pytest = Command::new("python");
    // The tests mostly wait, so there are more processes than cores.
    pytest.args(["-m", "pytest", "-x", "-n", "6", "-p", "no:cacheprovider"]).args(files.split_whitespace());
    let status = pytest.env("BOOTSTRAP", env!("CARGO_BIN_EXE_bootstrap")).status();
    assert!(!files.is_empty() && status.is_ok_and(|status| status.success()));
}
