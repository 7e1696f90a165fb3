//! Replays the corpus of the fuzz targets, as it is and with each octet changed in turn: nothing panics.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails panics")]

use std::fs;
use std::path::Path;

use ropewalk_ike::wire::{Message, fuzz, parse_payloads};

/// The files of one target's corpus, with their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} has files", folder.display());
    files
}

fn replay(target: &str, run: fn(&[u8])) {
    for (_, octets) in corpus(target) {
        run(&octets);
        for index in 0..octets.len() {
            for value in
                [0, 1, 0x7F, 0x80, 0xFF, octets[index].wrapping_add(1), octets[index].wrapping_sub(1)]
            {
                let mut changed = octets.clone();
                changed[index] = value;
                run(&changed);
            }
            run(&octets[..index]);
        }
    }
}

#[test]
fn datagrams_of_the_corpus_are_read_without_panic() {
    replay("datagram", fuzz::datagram);
}

#[test]
fn decrypted_payloads_of_the_corpus_are_read_without_panic() {
    replay("decrypted_payloads", fuzz::decrypted_payloads);
}

#[test]
fn the_well_formed_files_of_the_corpus_are_well_formed() {
    for (name, octets) in corpus("datagram") {
        let broken =
            ["critical_unknown", "length_mismatch", "non_esp_marker", "empty"].contains(&name.as_str());
        assert_eq!(Message::parse(&octets).is_err(), broken, "{name}");
    }
    for (name, octets) in corpus("decrypted_payloads") {
        let (first, rest) = octets.split_first().unwrap();
        assert_eq!(parse_payloads(*first, rest).is_err(), name == "nested_sk", "{name}");
    }
}
