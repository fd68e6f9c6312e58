//! Sets up the LAN; see `multus_lan`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    multus_lan::main()
}
