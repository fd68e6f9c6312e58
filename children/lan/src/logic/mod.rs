//! What is decided and written, without a clock and without touching anything.

pub mod cidr;
pub mod journal;
pub mod nat;
pub mod plan;
pub mod text;
