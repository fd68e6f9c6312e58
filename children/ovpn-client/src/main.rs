//! Runs openvpn as a client and watches its tunnel; see `multus_ovpn_client`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    multus_ovpn_client::main()
}
