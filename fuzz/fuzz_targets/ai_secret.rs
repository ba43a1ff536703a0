#![no_main]

use bedrock_braintrust_rotator::properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::of_an_ai_provider(bytes));
