//! Gives the shared library the name under which programs ask for it. While the interface only grows, that name stays.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libmultus.so.0");
}
