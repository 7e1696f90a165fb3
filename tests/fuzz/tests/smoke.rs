//! A smoke round: each target's corpus, and copies of it changed at random (by a fixed seed), through the target's function
//! and through its libFuzzer program.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use ropewalk_fuzz::TARGETS;

/// Changed copies per target, at most, and time for them.
const COPIES: usize = 20_000;
const TIME: Duration = Duration::from_secs(3);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn corpus(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} is empty");
    files
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % limit.max(1)
    }

    fn change(&mut self, octets: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            let at = self.below(octets.len() + 1);
            let length = self.below(9).min(octets.len() - at);
            match self.below(6) {
                0 => octets.truncate(at),
                1 => drop(octets.drain(at..at + length)),
                2 => octets.insert(at, [0, 1, 0x7f, 0x80, 0xff, b'"', b'=', b'0'][self.below(8)]),
                3 => octets.iter_mut().skip(at).take(1).for_each(|octet| *octet ^= 1 << self.below(8)),
                4 => {
                    let from = self.below(other.len() + 1);
                    let piece = other[from..other.len().min(from + self.below(40))].to_vec();
                    octets.splice(at..at, piece);
                }
                _ => octets.iter_mut().skip(at).take(length).for_each(|octet| *octet = 0xff),
            }
        }
    }
}

#[test]
fn no_target_panics_on_its_corpus_or_on_changed_copies() {
    for (name, run, folder) in TARGETS {
        let files: Vec<Vec<u8>> = corpus(folder).iter().map(|path| fs::read(path).unwrap()).collect();
        files.iter().for_each(|octets| run(octets));
        let mut random = Random(0x0072_6f70_6577_616c);
        let started = Instant::now();
        let mut copies = 0;
        while copies < COPIES && started.elapsed() < TIME {
            let mut octets = files[random.below(files.len())].clone();
            let other = random.below(files.len());
            random.change(&mut octets, &files[other]);
            run(&octets);
            copies += 1;
        }
        println!("{name}: {} files, {copies} changed copies", files.len());
    }
}

#[test]
fn every_target_is_a_program_that_replays_its_corpus() {
    let programs = [
        env!("CARGO_BIN_EXE_fuzz-datagram"),
        env!("CARGO_BIN_EXE_fuzz-decrypted-payloads"),
        env!("CARGO_BIN_EXE_fuzz-certificate"),
        env!("CARGO_BIN_EXE_fuzz-profile"),
        env!("CARGO_BIN_EXE_fuzz-ipc-frame"),
        env!("CARGO_BIN_EXE_fuzz-exchanges"),
    ];
    for ((name, _, folder), program) in TARGETS.iter().zip(programs) {
        assert!(program.ends_with(name), "{program} is not {name}");
        let output = Command::new(program).args(corpus(folder)).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
