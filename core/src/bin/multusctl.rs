//! The command line of multusd. Everything it does lives in `multusd::ctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    multusd::ctl::main()
}
