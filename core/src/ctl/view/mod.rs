//! How status and events look in a terminal. Pure: from values and a width to lines; no clock, no terminal, no socket.
//!
//! `status`, `events` and `top` draw with the same functions, so that the same things look the same and carry the words of
//! the Status JSON.

pub(crate) mod bar;
pub(crate) mod detail;
pub(crate) mod event;
pub(crate) mod header;
pub(crate) mod state;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod timeline;

#[cfg(test)]
pub(crate) mod sample;
