//! Who asks, and what that one may do.

use super::error::{Error, Result};

/// Who asks. Made by whoever checked it: a password, a token, a certificate, the peer of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// For the history and the log.
    pub name: String,
    /// The right level: lower is mightier, see [`Caller::ROOT`] and so on.
    pub level: u32,
}

impl Caller {
    /// May do everything, also what lets programs run as any user.
    pub const ROOT: u32 = 0;
    /// May change configurations and reboot.
    pub const ADMIN: u32 = 10;
    /// May start, stop, restart and snooze children.
    pub const OPERATOR: u32 = 30;
    /// May look.
    pub const USER: u32 = 100;

    /// A caller of this name and level.
    pub fn new(name: impl Into<String>, level: u32) -> Self {
        Self { name: name.into(), level }
    }

    /// This program itself: what happens without anybody asking.
    pub(crate) fn own() -> Self {
        Self::new("multus-control", Self::ROOT)
    }

    /// # Errors
    /// [`Error::Forbidden`] for somebody less mighty than `level`.
    pub fn needs(&self, level: u32) -> Result<()> {
        if self.level <= level {
            return Ok(());
        }
        let Self { name, level: own } = self;
        Err(Error::Forbidden(format!("{name} has right level {own}; this needs level {level} or a lower number")))
    }
}
