#![no_main]

use bedrock_braintrust_rotator::properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &str| properties::of_targets(json));
