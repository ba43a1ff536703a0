//! Lets `make mutants` hold a changed function against the black-box tests; it must never be what alone runs them.

use std::process::Command;

/// Those that drive whole rotations. Not the crashes and faults, which take minutes.
const TESTS: [&str; 8] = [
    "test_steps.py",
    "test_staged.py",
    "test_rotation.py",
    "test_rollback.py",
    "test_check.py",
    "test_status.py",
    "test_api_key_rotation.py",
    "test_metrics.py",
];

#[test]
#[ignore = "pytest runs them; this is for cargo-mutants"]
fn the_function_is_held_against_the_black_box_tests() {
    let mut pytest = Command::new("python");
    pytest
        .args(["-m", "pytest", "-x", "-n", "8", "-p", "no:cacheprovider"])
        .args(TESTS.map(|test| format!("tests/{test}")));
    let status = pytest.env("BOOTSTRAP", env!("CARGO_BIN_EXE_bootstrap")).status();
    assert!(status.is_ok_and(|status| status.success()));
}
