//! What is decided, without a clock, a socket or a file: answers and times come in, changes of state come out.

pub mod guard;
pub mod health;
pub mod monitor;
pub mod rule;
pub mod window;
