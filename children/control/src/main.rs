//! See the library.

fn main() -> std::process::ExitCode {
    multus_control::main()
}
