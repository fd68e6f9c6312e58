//! The files of `www/` are in the program; when one changes, it is built anew.

fn main() {
    println!("cargo:rerun-if-changed=../../www");
    println!("cargo:rerun-if-changed=build.rs");
}
