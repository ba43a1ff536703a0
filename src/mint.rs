//! Makes new Bedrock credentials, a file for each kind; it must never keep or write them.

pub mod temporary;
