//! Serves inputs and outputs to Modbus masters; see `multus_modbus`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    multus_modbus::main()
}
