//! Checks whether the LAN and the world can be reached; see `multus_netcheck`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    multus_netcheck::lanwan()
}
