//! The diagnostics bundle: what somebody who helps needs to see, and nothing that is a secret or names a person.
//!
//! Addresses, host names, user names, e-mail addresses and home folders are replaced by the same word wherever the
//! same one stands (`address-1`), so that the reader can still follow what belongs together.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ropewalk_ipc::Status;

use crate::state::now_rfc3339;
use crate::store::{Broken, Stored};

/// Writes the bundle; `log` is left out for those who may not see other users' connections.
#[must_use]
pub fn write(statuses: &[Status], profiles: &[Result<Stored, Broken>], log: Option<&[String]>) -> String {
    let mut redactor = Redactor::default();
    for stored in profiles.iter().flatten() {
        let profile = &stored.profile;
        redactor.learn("profile", &profile.name);
        for address in &profile.gateway.addresses {
            redactor.learn("gateway", address);
        }
        for name in
            [&profile.gateway.identity, &profile.auth.identity, &profile.auth.user].into_iter().flatten()
        {
            redactor.learn("name", name);
        }
        for domain in &profile.dns.domains {
            redactor.learn("domain", domain);
        }
    }
    for status in statuses {
        for (kind, name) in [("profile", &status.profile), ("name", &status.gateway.identity)] {
            if let Some(name) = name {
                redactor.learn(kind, name);
            }
        }
        for domain in &status.dns.domains {
            redactor.learn("domain", domain);
        }
    }
    if let Ok(name) = nix::sys::utsname::uname() {
        redactor.learn("host", &name.nodename().to_string_lossy());
    }

    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "Ropewalk report, {}", now_rfc3339());
    let _ = writeln!(text, "helper {}", env!("CARGO_PKG_VERSION"));
    for (name, value) in system_facts() {
        let _ = writeln!(text, "{name}: {value}");
    }
    let _ = writeln!(text, "\n== connections");
    for status in statuses {
        let _ = writeln!(text, "{}", redactor.clean(&serde_json::to_string(status).unwrap_or_default()));
        if status.group.as_ref().is_some_and(|group| !group.replay_protection && group.spi.is_some()) {
            let _ = writeln!(
                text,
                "warning: packets of the group are not checked for replay: its members count for themselves, so whoever \
                 records one can play it again until the next SA"
            );
        }
    }
    let _ = writeln!(text, "\n== profiles");
    for one in profiles {
        match one {
            Ok(stored) => {
                let mut profile = stored.profile.clone();
                profile.gateway.ca =
                    profile.gateway.ca.iter().map(|_| "(a certificate)".to_owned()).collect();
                profile.auth.certificate = profile.auth.certificate.map(|_| "(a certificate)".to_owned());
                let _ = writeln!(
                    text,
                    "# from: {}; secrets: {:?}\n{}",
                    stored.source.as_str(),
                    stored.secrets,
                    redactor.clean(&profile.to_toml())
                );
            }
            Err(broken) => {
                let _ = writeln!(text, "# broken: {}", redactor.clean(&broken.error.message));
            }
        }
    }
    let _ = writeln!(text, "\n== log");
    match log {
        Some(lines) => {
            for line in lines {
                let _ = writeln!(text, "{}", redactor.clean(line));
            }
        }
        None => {
            let _ = writeln!(text, "(only for administrators: sudo ropewalk report)");
        }
    }
    text
}

fn system_facts() -> Vec<(&'static str, String)> {
    let system = nix::sys::utsname::uname()
        .map(|name| {
            format!("{} {} {}", name.sysname().display(), name.release().display(), name.machine().display())
        })
        .unwrap_or_default();
    let distribution = std::fs::read_to_string("/etc/os-release")
        .ok()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=").map(str::to_owned)))
        .unwrap_or_default();
    vec![("system", system), ("distribution", distribution.trim_matches('"').to_owned())]
}

/// Replaces what names a person or a place, the same by the same.
#[derive(Debug, Default)]
struct Redactor {
    words: Vec<(String, String)>,
    seen: HashMap<String, String>,
    counts: HashMap<&'static str, usize>,
}

impl Redactor {
    /// A word that is to be replaced wherever it stands.
    fn learn(&mut self, kind: &'static str, word: &str) {
        // One or two letters stand in too many other words; they name nobody either.
        if word.len() < 3
            || word.parse::<IpAddr>().is_ok()
            || self.words.iter().any(|(known, _)| known == word)
        {
            return;
        }
        let name = self.next(kind);
        self.words.push((word.to_owned(), name));
        // Longest first, so that no part of a longer word is left.
        self.words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
    }

    fn clean(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for (word, name) in &self.words {
            if text.contains(word.as_str()) {
                text = text.replace(word.as_str(), name);
            }
        }
        let part = |c: char| {
            c.is_alphanumeric() || matches!(c, '.' | ':' | '/' | '@' | '-' | '_' | '[' | ']' | '%' | '+')
        };
        let mut clean = String::with_capacity(text.len());
        let mut token = String::new();
        for c in text.chars() {
            if part(c) {
                token.push(c);
                continue;
            }
            clean.push_str(&self.token(&token));
            token.clear();
            clean.push(c);
        }
        clean.push_str(&self.token(&token));
        clean
    }

    fn token(&mut self, token: &str) -> String {
        let bare = token.trim_end_matches(['.', ':']);
        let tail = token.get(bare.len()..).unwrap_or_default();
        if let Ok(address) = bare.parse::<IpAddr>() {
            return format!("{}{tail}", self.address(address));
        }
        if let Ok(address) = bare.parse::<SocketAddr>() {
            return format!("{}:{}{tail}", self.address(address.ip()), address.port());
        }
        if let Ok(net) = bare.parse::<IpNet>() {
            return format!("{}/{}{tail}", self.address(net.addr()), net.prefix_len());
        }
        if bare.contains('@') {
            return format!("{}{tail}", self.same("account", bare));
        }
        for home in ["/home/", "/Users/"] {
            if let Some(rest) = bare.strip_prefix(home) {
                let (user, path) = rest.split_once('/').map_or((rest, ""), |(user, path)| (user, path));
                return format!("{home}{}/{path}{tail}", self.same("account", user));
            }
        }
        token.to_owned()
    }

    fn address(&mut self, address: IpAddr) -> String {
        // These name no one, and hide much when they are not seen.
        if address.is_loopback() || address.is_unspecified() {
            return address.to_string();
        }
        self.same("address", &address.to_string())
    }

    fn same(&mut self, kind: &'static str, word: &str) -> String {
        if let Some(name) = self.seen.get(word) {
            return name.clone();
        }
        let name = self.next(kind);
        self.seen.insert(word.to_owned(), name.clone());
        name
    }

    fn next(&mut self, kind: &'static str) -> String {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        format!("{kind}-{count}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ropewalk_ipc::{ProfileSource, State};
    use ropewalk_profile::Profile;

    #[test]
    fn a_report_names_no_one_and_holds_no_secret() {
        let text = "version = 1\nname = \"Example Corp\"\n[gateway]\naddress = \"vpn.example.com\"\n\
                    [auth]\nmethod = \"eap-mschapv2\"\nuser = \"alice\"\npassword = \"hunter2\"\n";
        let parsed = Profile::from_toml(text).unwrap();
        let stored = Stored { profile: parsed.profile, secrets: parsed.secrets, source: ProfileSource::User };
        let mut status =
            Status { state: State::Connected, addresses: vec!["10.1.2.3/32".into()], ..Status::default() };
        status.gateway.address = Some("203.0.113.7".into());
        let log = vec![
            "peer 203.0.113.7:4500 said hello to alice in /home/alice/x, mail bob@example.org".to_owned(),
        ];
        let report = write(&[status], &[Ok(stored)], Some(&log));
        for word in ["hunter2", "alice", "vpn.example.com", "203.0.113.7", "10.1.2.3", "Example Corp", "bob@"]
        {
            assert!(!report.contains(word), "{word} is in\n{report}");
        }
        assert!(report.contains("address-2:4500") || report.contains("address-1:4500"), "{report}");
        assert!(report.contains("eap-mschapv2"));
    }

    #[test]
    fn the_same_address_keeps_the_same_name() {
        let mut redactor = Redactor::default();
        assert_eq!(
            redactor.clean("[2001:db8::1]:500 10.0.0.0/8 2001:db8::1 127.0.0.1 aes256gcm16-prfsha384"),
            "address-1:500 address-2/8 address-1 127.0.0.1 aes256gcm16-prfsha384"
        );
    }
}
