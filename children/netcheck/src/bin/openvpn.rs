//! Checks whether what lies behind a tunnel can be reached; see `multus_netcheck`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    multus_netcheck::openvpn()
}
