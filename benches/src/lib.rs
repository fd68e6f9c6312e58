//! What the latency harness (`latency`) and the processes that it has supervised (`bench-child`) have in common.
#![deny(unsafe_code)]

pub mod board;
pub mod random;
pub mod sys;
