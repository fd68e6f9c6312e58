//! The network side of multusd: people and programs see and configure a device through this process.
//!
//! A supervised child like any other. It speaks with the daemon over `control.sock` and files only; nothing that happens
//! here can hold up the watching. [`service`] is what all protocols share.

#![forbid(unsafe_code)]

pub mod auth;
pub mod blocking;
mod certificates;
pub mod config;
mod gate;
pub mod grpc;
pub mod history;
pub mod metrics;
pub mod mqtt;
pub mod notify;
mod outward;
pub mod service;
pub mod web;

pub mod run;
#[cfg(test)]
mod testing;

use std::process::ExitCode;

/// The whole program.
pub fn main() -> ExitCode {
    multus_child::run_with_check(&multus_child::about!(), config::check, run::run)
}
