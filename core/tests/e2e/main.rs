//! The daemon as a whole, with real processes: one world of its own for each test, see [`world`].
//!
//! Nothing here asserts that something is fast; how fast it is, `scripts/bench` measures.

#[path = "../world/mod.rs"]
mod world;

mod commands;
mod config;
mod edges;
mod ending;
mod faults;
mod helpers;
mod hooks;
mod logs;
mod outputs;
mod pages;
mod reload;
mod snooze;
mod socket;
mod starting;
mod trees;
mod weather;

/// Not a test: the program that the tests have supervised. Alone it does nothing.
#[test]
fn child() {
    world::child::main();
}
