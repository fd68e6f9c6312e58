//! Mirrored inputs and outputs end to end: real multusd, multus-io and multus-read-dido on simulated boards.

mod frames;
mod loopback;
mod net;
mod original;
mod security;
mod world;
