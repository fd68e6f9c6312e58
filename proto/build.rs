//! Compiles `multus/v1/*.proto` and `legacy/*.proto` into Rust, and what multus-control serves into the descriptor set that
//! server reflection hands out.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (own, legacy) = (files(&root.join("multus/v1"))?, files(&root.join("legacy"))?);
    println!("cargo::rerun-if-changed=multus/v1");
    println!("cargo::rerun-if-changed=legacy");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    // Reflection must not name services of other programs.
    let of_others = ["network.proto", "mirror.proto"];
    let reflected: Vec<&PathBuf> =
        own.iter().filter(|file| !of_others.iter().any(|name| file.ends_with(name))).collect();
    std::fs::write(out.join("descriptors.bin"), protox::compile(reflected, [root])?.encode_to_vec())?;
    for files in [own, legacy] {
        tonic_prost_build::configure().compile_fds(protox::compile(files, [root])?)?;
    }
    Ok(())
}

/// The `.proto` files of a folder, in order.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
