//! Lets `make mutants` hold a changed function against black-box tests; it must never be what alone runs them.

#![expect(clippy::disallowed_methods, reason = "the environment is this test's command line")]

use std::process::Command;

#[test]
#[ignore = "pytest runs them; this is for cargo-mutants, which says in BLACK_BOX which of them"]
fn the_function_is_held_against_the_black_box_tests() {
    let files = std::env::var("BLACK_BOX").unwrap_or_default();
    let mut pytest = Command::new("python");
    // Most of their time they wait.
    pytest.args(["-m", "pytest", "-x", "-n", "6", "-p", "no:cacheprovider"]).args(files.split_whitespace());
    let status = pytest.env("BOOTSTRAP", env!("CARGO_BIN_EXE_bootstrap")).status();
    assert!(!files.is_empty() && status.is_ok_and(|status| status.success()));
}
