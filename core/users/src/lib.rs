//! Who may use the pages and the API: `users.toml` in the configuration directory, and the passwords in it.
//!
//! `multusctl passwd` and multus-control share this; the daemon does not use it. Passwords are kept as argon2id hashes.
//! Making or checking one takes 19 MiB of memory and some ten milliseconds of a processor: whoever does it for strangers
//! must do it one at a time.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod file;
mod password;
mod tokens;

pub use file::{User, Users, UsersError, name_fault};
pub use password::{Hash, SHORTEST, password_fault};
pub use tokens::{Token, Tokens};

/// The right level of somebody who may do everything.
pub const ROOT: u32 = 0;
/// The right level of somebody who may change configurations.
pub const ADMIN: u32 = 10;
/// The right level of somebody who may look.
pub const USER: u32 = 100;
