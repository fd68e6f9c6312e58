//! Pages and JSON API as the network sees them: a real daemon, a real multus-control, raw sockets.

#[path = "../world/mod.rs"]
mod world;

mod access;
mod api;
mod guard;
mod http;
mod io;
mod outward;
mod schema;
mod texts;

use std::net::SocketAddr;

use multus_users::{Hash, User, Users, UsersError};

use http::Browser;
use world::World;

const PASSWORD: &str = "pump house three";
/// A port that nobody else has, and no gRPC.
const ANY_PORT: &str = "[web]\nlisten = [\"127.0.0.1:0\"]\n[grpc]\nlisten = \"\"\nsocket = false\n";
/// Saved changes are applied at once.
const AT_ONCE: &str = "[configuration]\nsettle = \"0s\"\n";
/// A watchdog that resets nothing.
const DAEMON: &str = "[[watchdog]]\ndevice = \"sim\"\ntimeout = \"60s\"\n";
/// A child that does nothing.
const IDLE: &str = "command = [\"/bin/sleep\", \"100000\"]\n[heartbeat]\nmethod = \"none\"\n";

/// A world with these users, and one that is up.
fn up(world: &mut World) -> SocketAddr {
    for (name, level, read_only) in
        [("admin", 10, false), ("operator", 30, false), ("guest", 100, false), ("viewer", 10, true)]
    {
        user(world, name, level, read_only);
    }
    let daemon = format!("{DAEMON}{}", world.reboot());
    std::fs::write(world.dirs().config.join("multusd.toml"), daemon).expect("own file");
    world.child("idle", IDLE);
    world.control(&format!("{ANY_PORT}{AT_ONCE}"));
    world.start();
    address(world)
}

/// Where it listens.
fn address(world: &World) -> SocketAddr {
    world.wait_log("control", "pages and API on http://").parse().expect("an address")
}

fn user(world: &World, name: &str, level: u32, read_only: bool) {
    let password = Hash::of(PASSWORD).expect("random numbers");
    let file = Users::file(&world.dirs().config);
    let set = Users::change(&file, |users| Ok::<_, UsersError>(users.set(name, User { level, read_only, password })));
    assert_eq!(set.expect("writable").1, Ok(()));
}

/// Somebody who is logged in.
fn logged_in(address: SocketAddr, name: &str) -> Browser {
    let mut browser = Browser::new(address);
    let reply = browser.log_in(name, PASSWORD);
    assert_eq!(reply.status, 200, "{reply:?}");
    browser
}
