//! `ropewalk report` after a connection and a failure: the diagnosis is in it, and nothing secret.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{AuthKind, BOTH, Client, Credentials, Gateway, Offer, ProfileText, in_lab};
use ropewalk_lab::{
    Site, SiteOptions,
    site::{GATEWAY_V4, SERVER_V4},
};

/// Every word of the key log that can be a key: hexadecimal and at least 128 bits.
fn keys_below(folder: &Path) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            keys.extend(keys_below(&path)?);
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        let key = |word: &&str| {
            let digits = word.strip_prefix("0x").unwrap_or(word);
            digits.len() >= 32 && digits.chars().all(|c| c.is_ascii_hexdigit())
        };
        keys.extend(words.filter(key).map(|word| word.trim_start_matches("0x").to_lowercase()));
    }
    Ok(keys)
}

/// The lines of base64 between the marks of a PEM text.
fn lines_of(pem: &str) -> impl Iterator<Item = &str> {
    pem.lines().filter(|line| !line.starts_with("-----") && line.len() > 20)
}

#[test]
fn a_report_holds_the_diagnosis_and_no_password_key_or_name() -> Result<()> {
    for which in BOTH {
        for kind in [AuthKind::Psk, AuthKind::EapMschapv2, AuthKind::Rsa] {
            in_lab(|lab| {
                let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
                let credentials = Credentials::new(kind)?;
                let offer = Offer { esp: Some("aes256gcm16".to_owned()), ..Offer::new(kind) };
                let _gateway = Gateway::start(which, &site, &offer, &credentials)?;
                // The most talkative log there is, and a key log beside it.
                let options = ropewalk_e2e::ClientOptions { log: "trace".to_owned(), ..Default::default() };
                let client = Client::start_with(&site.client, options)?;
                let mut profile = ProfileText::new(kind, &credentials, &GATEWAY_V4.to_string());
                let password = credentials.password_for(kind);
                client.connect(&profile, password)?;
                ensure!(site.client.ping(&SERVER_V4.to_string(), 1)?, "ping");
                let spi = client.status_at("/ike/0/spi_i")?;
                client.disconnect()?;
                profile.esp = Some("aes128-sha256".to_owned());
                client.import(&profile)?;
                ensure!(client.try_connect("lab", password, 30)?.code == 7, "it did not fail");
                let report = client.cli(&["report"])?.success()?.stdout;

                let said = [
                    "== connections",
                    "\"state\":\"failed\"",
                    "\"code\":\"no-proposal\"",
                    "aes128-sha256",
                    "crypto.esp",
                    "== profiles",
                    "aes128-sha256",
                    "== log",
                    "address-1",
                    "from=\"connecting\"",
                ];
                for word in said {
                    ensure!(report.contains(word), "{which:?} {kind:?}: {word:?} is not in\n{report}");
                }
                ensure!(
                    report.contains(spi.as_str().unwrap_or("?")) || report.contains("connected"),
                    "no history"
                );

                let lower = report.to_lowercase();
                let keys = keys_below(&client.key_log())?;
                ensure!(keys.len() >= 4, "the key log holds {} keys", keys.len());
                for key in &keys {
                    ensure!(!lower.contains(key), "{which:?} {kind:?}: key material is in the report");
                }
                for pem in [&credentials.client.private_key, &credentials.client.certificate] {
                    for line in lines_of(pem) {
                        ensure!(!report.contains(line), "{which:?} {kind:?}: PEM is in the report");
                    }
                }
                let named = [&credentials.psk, &credentials.password, &credentials.client_id];
                for secret in
                    named.into_iter().map(String::as_str).chain(["PRIVATE KEY", "198.51.100.2", "10.77.1.2"])
                {
                    ensure!(!report.contains(secret), "{which:?} {kind:?}: {secret:?} is in the report");
                }
                Ok(())
            })?;
        }
    }
    Ok(())
}
