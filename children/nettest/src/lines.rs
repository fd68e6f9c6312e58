//! Pages as multusd and multus-io have them, for a test that stands for both.

use std::os::fd::AsFd as _;

use multus_ipc::io::{Definition, LineKind};
use multus_ipc::map::{self, Mapping};
use multus_ipc::sync::Ordering;
use multus_ipc::text::{Name, Text};

/// A page with this header, twice: for the test, and for what is tested.
///
/// # Panics
/// There is no memory.
pub fn page(words: usize, header: [u64; 3]) -> (Mapping, Mapping) {
    let fd = map::memfd(c"test", words).expect("memory");
    let page = Mapping::writable(fd.as_fd()).expect("own memory");
    for (word, value) in page.words().iter().zip(header) {
        word.store(value, Ordering::Relaxed);
    }
    (page, Mapping::writable(fd.as_fd()).expect("own memory"))
}

/// A digital output of this owner, whose safe value is off.
pub fn output(name: &str, owner: &str) -> Definition {
    let (name, owner) = (Text::new(name), Name::new(owner));
    let kind = LineKind::DigitalOutput;
    Definition { name, unit: Text::EMPTY, owner, kind, safe: 0.0, lowest: 0.0, highest: 1.0 }
}
