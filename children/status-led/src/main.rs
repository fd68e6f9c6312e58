//! Shows by lamps whether the internet and the tunnel are there; see `multus_status_led`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    multus_status_led::main()
}
