//! Random operations on one file, verified against memory after each: what fsx does.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;

use crate::harness::Mount;

/// A generator that gives the same numbers in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[test]
fn random_operations_leave_what_memory_says() {
    const MOST: usize = 300_000;
    let steps = std::env::var("SKIFF_FSX_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(2000);
    let mount = Mount::new();
    let path = mount.guest.join("file");
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    let mut model: Vec<u8> = Vec::new();
    let mut numbers = Numbers(0x5eed_1234_5678_9abc);
    for step in 0..steps {
        let (at, length) = (numbers.below(MOST), 1 + numbers.below(70_000));
        match numbers.below(12) {
            0..=3 => {
                let data: Vec<u8> = (0..length).map(|index| (index * 7 + step) as u8).collect();
                model.resize(model.len().max(at + length), 0);
                model[at..at + length].copy_from_slice(&data);
                file.write_all_at(&data, at as u64).unwrap();
            }
            4..=6 => {
                let mut data = vec![0; length];
                let count = file.read_at(&mut data, at as u64).unwrap();
                let expected = &model[at.min(model.len())..(at + length).min(model.len())];
                assert!(data[..count] == expected[..count], "step {step}: read of {length} at {at}");
                assert_eq!(count == 0, expected.is_empty(), "step {step}");
            }
            7 => {
                model.resize(at, 0);
                file.set_len(at as u64).unwrap();
            }
            8 => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                if rustix::fs::fallocate(&file, flags, at as u64, length as u64).is_ok() {
                    let end = (at + length).min(model.len());
                    if at < end {
                        model[at..end].fill(0);
                    }
                }
            }
            9 => {
                // On the host, behind the guest's back; it is told before it looks again.
                let outside = File::options().write(true).open(mount.host.join("file")).unwrap();
                outside.write_all_at(b"from the host", at as u64).unwrap();
                model.resize(model.len().max(at + 13), 0);
                model[at..at + 13].copy_from_slice(b"from the host");
                mount.settle();
            }
            10 => file.sync_all().unwrap(),
            _ => file = File::options().read(true).write(true).open(&path).unwrap(),
        }
        assert_eq!(file.metadata().unwrap().len(), model.len() as u64, "step {step}");
    }
    assert!(fs::read(&path).unwrap() == model);
    assert!(fs::read(mount.host.join("file")).unwrap() == model);
}
