//! The administrator's key log: the two files that Wireshark reads as its tables. The lines are `ropewalk_ike::keylog`'s;
//! here they are written. A file that cannot be written is a warning in the log, never a reason to stop.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path as FsPath;

use ropewalk_ike::crypto::{IkeCipher, IkeKeys};
use ropewalk_ike::exchange::child::ChildSa;
use ropewalk_ike::exchange::{IkeSpis, Path};
use ropewalk_ike::keylog::{EspKeys, esp_line, ike_line};
use ropewalk_ike::proposal::ChosenIke;

/// Logs an IKE_SA in `folder`.
pub fn ike(folder: &FsPath, spis: IkeSpis, suite: &ChosenIke, keys: &IkeKeys) {
    let Some(cipher) = IkeCipher::from_iana(suite.encr, suite.key_bits, suite.integ) else { return };
    let line = ike_line(spis.initiator.to_be_bytes(), spis.responder.to_be_bytes(), cipher, keys);
    match line {
        Some(line) => append(folder, "ikev2_decryption_table", &line),
        None => tracing::info!(suite = %suite, "Wireshark cannot decrypt this suite: no key log for it"),
    }
}

/// Logs both directions of a CHILD_SA on `path` in `folder`.
pub fn child(folder: &FsPath, child: &ChildSa, path: Path) {
    let (here, there) = (path.local.ip(), path.remote.ip());
    let directions =
        [(here, there, child.spi_out, &child.keys_out), (there, here, child.spi_in, &child.keys_in)];
    for (source, destination, spi, keys) in directions {
        let line = esp_line(&EspKeys {
            source,
            destination,
            spi,
            encr: child.suite.encr,
            encr_key: &keys.encr,
            integ: child.suite.integ,
            integ_key: &keys.integ,
        });
        if let Some(line) = line {
            append(folder, "esp_sa", &line);
        }
    }
}

fn append(folder: &FsPath, file: &str, line: &str) {
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join(file));
    let written = opened.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if let Err(error) = written {
        tracing::warn!(%error, file, "the key log cannot be written");
    }
}
