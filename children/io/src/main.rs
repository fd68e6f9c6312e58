//! See the library.

fn main() -> std::process::ExitCode {
    multus_io::main()
}
