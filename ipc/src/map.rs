//! Memory that processes share: sealed memfds and their mappings. One of the two rooms of this crate with `unsafe`.
//!
//! A page is a memfd that can neither shrink nor grow (sealed), so that no other process can make a reader fault.
//! Mappings give `&[AtomicU64]`, never `&[u8]`: other processes write while we read.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};

use crate::sync::AtomicU64;

/// Makes a sealed memfd of `words` zero words. `name` shows in /proc.
///
/// # Errors
/// What the system refused (memory, descriptors).
pub fn memfd(name: &CStr, words: usize) -> io::Result<OwnedFd> {
    // SAFETY: `name` is a valid C string; the call reads nothing else and returns a new descriptor or -1.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let bytes = libc::off_t::try_from(words * 8).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: plain system calls on a descriptor we own.
    let rc = unsafe { libc::ftruncate(fd.as_raw_fd(), bytes) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    seal(fd.as_fd(), libc::F_SEAL_SHRINK | libc::F_SEAL_GROW)?;
    Ok(fd)
}

/// Forbids every later writable mapping of a page; mappings that exist keep their rights. For pages that only the
/// core writes, before they are given to anybody.
///
/// # Errors
/// What the system refused; kernels before 5.1 do not know this seal.
pub fn seal_future_writes(fd: BorrowedFd<'_>) -> io::Result<()> {
    const F_SEAL_FUTURE_WRITE: i32 = 0x0010; // linux/fcntl.h, since 5.1
    seal(fd, F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL)
}

/// A second descriptor of a page, for reading only: a mapping of it for writing is refused. For a page that one process
/// writes after others were given it. Whoever owns the page and has /proc can get around it, so this guards against mistakes,
/// and against other users: the page is made inaccessible to them by name.
///
/// # Errors
/// What the system refused; without a mounted /proc it does not work.
pub fn read_only_copy(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: an integer and a mode.
    if unsafe { libc::fchmod(fd.as_raw_fd(), 0o600) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(std::fs::File::open(format!("/proc/self/fd/{}", fd.as_raw_fd()))?.into())
}

fn seal(fd: BorrowedFd<'_>, seals: i32) -> io::Result<()> {
    // SAFETY: F_ADD_SEALS takes an int and touches no memory of ours.
    let rc = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A page mapped into this process until it is dropped.
#[derive(Debug)]
pub struct Mapping {
    map: MmapRaw,
    words: usize,
}

impl Mapping {
    /// Maps a whole page for reading and writing.
    ///
    /// # Errors
    /// What the system refused; `InvalidData` when the page is no whole number of words or not sealed against
    /// shrinking.
    pub fn writable(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let (options, words) = checked(fd)?;
        Ok(Self { map: options.map_raw(fd.as_raw_fd())?, words })
    }

    /// Maps a whole page for reading.
    ///
    /// # Errors
    /// As [`Self::writable`].
    pub fn read_only(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let (options, words) = checked(fd)?;
        Ok(Self { map: options.map_raw_read_only(fd.as_raw_fd())?, words })
    }

    /// The words. A read-only mapping must only be loaded from: a store would end the process with SIGSEGV.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `words * 8` bytes long, lives as long as `self`, and cannot shrink
        // (seal checked in `checked`). All access, here and in other processes, is by atomic or plain 64-bit
        // accesses of other address spaces; this process uses atomics only.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.words) }
    }

    /// Keeps the mapping for the rest of the process's life, so that threads may hold its words without counting.
    pub fn leak(self) -> &'static [AtomicU64] {
        Box::leak(Box::new(self)).words()
    }
}

fn checked(fd: BorrowedFd<'_>) -> io::Result<(MmapOptions, usize)> {
    // SAFETY: F_GET_SEALS takes no argument and touches no memory of ours.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a sealed memory page of multusd"));
    }
    // SAFETY: a zeroed stat is a valid value of that plain structure.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid and writable for the call.
    if unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = usize::try_from(stat.st_size).unwrap_or(0);
    if bytes == 0 || bytes % 8 != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a page of {bytes} bytes")));
    }
    let mut options = MmapOptions::new();
    options.len(bytes).populate();
    Ok((options, bytes / 8))
}

/// The heartbeat table: one contiguous range of addresses with room for a page per slot. A slot without a page reads
/// as zeros. Mapped for reading only: the core cannot damage a child's page, not even by mistake.
#[derive(Debug)]
pub struct Table {
    base: NonNull<u8>,
    slots: usize,
    page_words: usize,
}

// SAFETY: the range is valid for reading until `self` is dropped, by any thread; what threads read are atomics.
unsafe impl Send for Table {}
// SAFETY: as above; `install` replaces a mapping atomically with respect to page faults of other threads (mmap with
// MAP_FIXED), which then read the old words or the new ones.
unsafe impl Sync for Table {}

impl Table {
    /// Reserves addresses for the first `page_words` words (a multiple of the system's page size) of `slots` pages.
    ///
    /// # Errors
    /// What the system refused.
    pub fn reserve(slots: usize, page_words: usize) -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice overlaps nothing that exists.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                slots * page_words * 8,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { base, slots, page_words }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Maps a page into a slot, in place of whatever was there. Blocks for the page-table work (about 10 us): not
    /// for the watch thread.
    ///
    /// # Errors
    /// What the system refused; `InvalidInput` for a slot outside the table or a page that is too short.
    pub fn install(&self, slot: usize, fd: BorrowedFd<'_>) -> io::Result<()> {
        let (_, words) = checked(fd)?;
        if slot >= self.slots || words < self.page_words {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: slot < slots, so the target lies inside the range that `reserve` owns; MAP_FIXED replaces only
        // that. The file is sealed against shrinking (checked), so that reading never faults.
        let at = unsafe {
            libc::mmap(
                self.base.as_ptr().add(slot * self.page_words * 8).cast(),
                self.page_words * 8,
                libc::PROT_READ,
                libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The words of a slot's page that are watched.
    ///
    /// # Panics
    /// For a slot outside the table: an error of ours.
    pub fn page(&self, slot: usize) -> &[AtomicU64] {
        assert!(slot < self.slots, "slot {slot} of {}", self.slots);
        // SAFETY: the range is mapped readable for the life of `self`; 64-bit loads from it are what AtomicU64 does.
        // Other processes change the words, which is why they are atomics; nothing here stores.
        unsafe {
            let first = self.base.as_ptr().add(slot * self.page_words * 8).cast::<AtomicU64>();
            std::slice::from_raw_parts(first, self.page_words)
        }
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.slots
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `reserve` mapped; no slice of it outlives `self`.
        unsafe {
            libc::munmap(self.base.as_ptr().cast(), self.slots * self.page_words * 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::WORDS;
    use crate::sync::Ordering;

    #[test]
    fn a_page_can_neither_shrink_nor_grow() {
        let fd = memfd(c"test", 512).unwrap();
        let file = std::fs::File::from(fd);
        assert!(file.set_len(8).is_err());
        assert!(file.set_len(8192).is_err());
    }

    #[test]
    fn two_mappings_see_each_other_and_a_sealed_page_takes_no_new_writer() {
        let fd = memfd(c"test", 512).unwrap();
        let writer = Mapping::writable(fd.as_fd()).unwrap();
        seal_future_writes(fd.as_fd()).unwrap();
        assert!(Mapping::writable(fd.as_fd()).is_err());
        let reader = Mapping::read_only(fd.as_fd()).unwrap();
        writer.words()[7].store(42, Ordering::Relaxed);
        assert_eq!(reader.words()[7].load(Ordering::Relaxed), 42);
    }

    #[test]
    fn a_copy_for_reading_takes_no_writer() {
        let fd = memfd(c"test", 512).unwrap();
        let copy = read_only_copy(fd.as_fd()).unwrap();
        assert!(Mapping::writable(copy.as_fd()).is_err());
        let (writer, reader) = (Mapping::writable(fd.as_fd()).unwrap(), Mapping::read_only(copy.as_fd()).unwrap());
        writer.words()[7].store(42, Ordering::Relaxed);
        assert_eq!(reader.words()[7].load(Ordering::Relaxed), 42);
    }

    #[test]
    fn a_file_that_could_shrink_is_refused() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(Mapping::read_only(file.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn slots_of_the_table_read_zero_until_a_page_is_installed() {
        let table = Table::reserve(3, WORDS).unwrap();
        assert_eq!(table.page(1)[0].load(Ordering::Relaxed), 0);
        let fd = memfd(c"test", WORDS).unwrap();
        let child = Mapping::writable(fd.as_fd()).unwrap();
        table.install(1, fd.as_fd()).unwrap();
        child.words()[WORDS - 1].store(9, Ordering::Relaxed);
        assert_eq!(table.page(1)[WORDS - 1].load(Ordering::Relaxed), 9);
        assert_eq!(table.page(2)[WORDS - 1].load(Ordering::Relaxed), 0);
        assert!(table.install(3, fd.as_fd()).is_err());
        assert!(table.install(0, memfd(c"small", 512).unwrap().as_fd()).is_err());
    }
}
