//! What the network children share: what the kernel knows and does by rtnetlink(7), pings, and a gRPC server for this machine.
//!
//! All of it runs in the one thread of a child: netlink answers at once, everything else is awaited.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod address;
pub mod connection;
mod icmp;
pub mod netlink;
pub mod router;
pub mod serve;
mod socket;

pub use icmp::ping;
pub use socket::{bound, not_through};
