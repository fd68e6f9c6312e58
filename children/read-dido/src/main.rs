//! Shows digital lines of one device at the outputs of another; see `multus_read_dido`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    multus_read_dido::main()
}
