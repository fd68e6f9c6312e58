//! See the library. Here only how memory is held: a process that runs for years beside others on a small box gives back what
//! it no longer needs.

fn main() -> std::process::ExitCode {
    return_memory();
    multus_control::main()
}

/// Of the C library's allocator: few arenas (else each thread keeps one of its own), and large blocks straight from the kernel
/// and back to it. Left alone, that limit rises with the first password hash of 19 MiB to that size, and from then on such
/// blocks stay. A page is smaller than that: what one leaves is there for the next.
#[cfg(target_env = "gnu")]
fn return_memory() {
    for (what, value) in
        [(libc::M_ARENA_MAX, 2), (libc::M_MMAP_THRESHOLD, 512 * 1024), (libc::M_TRIM_THRESHOLD, 1024 * 1024)]
    {
        // SAFETY: no other thread runs yet; the call takes two numbers, and refuses those that it does not know.
        unsafe { libc::mallopt(what, value) };
    }
}

#[cfg(not(target_env = "gnu"))]
fn return_memory() {}
