//! The server with the real multusd and multus-io on a simulated board: real masters, and connections that are none.

mod connections;
mod frames;
mod masters;
mod plant;
#[cfg(feature = "rtu")]
mod rtu;
mod world;
