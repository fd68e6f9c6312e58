//! The gRPC protocols as Rust: messages, servers, clients. The `.proto` files beside this crate are the documentation of
//! every field.

#![forbid(unsafe_code)]

/// Package `multus.v1`.
#[allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all)]
pub mod v1 {
    tonic::include_proto!("multus.v1");
}

/// What the original multusd speaks, without a package.
#[allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all)]
pub mod legacy {
    tonic::include_proto!("_");
}

/// Every file of what multus-control serves, with its comments, as server reflection hands it out (an encoded
/// `FileDescriptorSet`).
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
