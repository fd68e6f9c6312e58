//! What tests of pages and API share: everything behind the guard, without a daemon.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Instant;

use multus_users::{Hash, User, Users, UsersError};

use super::Web;
use crate::auth::{Auth, Visitor};
use crate::service::{Service, Settings};
use crate::testing::dirs;

pub(crate) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const PASSWORD: &str = "pump house three";

/// With directories below `root`, and one user: "admin" of level 10.
pub(crate) fn web(root: &Path) -> Web {
    let dirs = dirs(root);
    let set = |users: &mut Users| {
        let password = Hash::of(PASSWORD).expect("random numbers");
        Ok::<_, UsersError>(users.set("admin", User { level: 10, read_only: false, password }))
    };
    Users::change(&Users::file(&dirs.config), set).expect("writable").1.expect("a good name");
    let service = Service::new(dirs.clone(), Settings::default());
    let auth = Auth::new(&dirs.config, &dirs.runtime);
    Web::new(auth, service, false).expect("a thread")
}

/// That user, logged in just now.
pub(crate) fn admin(web: &Web) -> Visitor {
    Visitor::Session(web.auth.log_in(Instant::now(), HERE, "admin", PASSWORD).expect("right").session)
}
