//! What several integration tests share.

pub mod loopback_hub;
