//! All interleavings of one writer and one reader, by the model checker loom. Run with `scripts/loom`.
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use multus_ipc::sync::{AtomicU64, Ordering};
use multus_ipc::{heartbeat, seqlock};

#[test]
fn a_record_is_read_whole_or_not_at_all() {
    loom::model(|| {
        let record: Arc<Vec<AtomicU64>> = Arc::new((0..3).map(|_| AtomicU64::new(0)).collect());
        let writer = {
            let record = Arc::clone(&record);
            thread::spawn(move || {
                seqlock::write(&record, &[1, 1]);
                seqlock::write(&record, &[2, 2]);
            })
        };
        let mut data = [9; 2];
        if seqlock::read(&record, &mut data).is_ok() {
            assert_eq!(data[0], data[1], "mixed record");
            assert!(data[0] <= 2);
        }
        writer.join().unwrap();
        assert_eq!(seqlock::read(&record, &mut data), Ok(()));
        assert_eq!(data, [2, 2]);
    });
}

/// The order of a beat: whoever sees the n-th sequence sees the n-th time or a later one. The page itself is too
/// large for loom, so the two words stand alone here, with the orderings of `LaneWriter::beat_at` and `Reader::look`
/// (`the_orderings_are_those_of_the_code` keeps them equal).
#[test]
fn a_beat_is_never_older_than_its_sequence() {
    loom::model(|| {
        let words: Arc<[AtomicU64; 2]> = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let writer = {
            let words = Arc::clone(&words);
            thread::spawn(move || {
                for n in 1..=2u64 {
                    words[1].store(n * 10, Ordering::Relaxed);
                    words[0].store(n, Ordering::Release);
                }
            })
        };
        let sequence = words[0].load(Ordering::Acquire);
        let time = words[1].load(Ordering::Relaxed);
        assert!(time >= sequence * 10, "sequence {sequence} with time {time}");
        writer.join().unwrap();
    });
}

#[test]
fn the_orderings_are_those_of_the_code() {
    let source = include_str!("../src/heartbeat.rs");
    for line in [
        "time.store(now.0, Ordering::Relaxed);",
        "seq.store(seq.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);",
        "let sequence = self.lane(lane)[SEQUENCE].load(Ordering::Acquire);",
        "let time = self.lane(lane)[TIME].load(Ordering::Relaxed);",
    ] {
        assert!(source.contains(line), "{line}");
    }
    let _ = heartbeat::WORDS;
}
