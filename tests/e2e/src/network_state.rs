//! All of a namespace's network settings in one comparable text, to prove that nothing is left behind.

use anyhow::Result;
use ropewalk_lab::Namespace;

/// Links, addresses, rules, routes of every table, firewall, `/etc/resolv.conf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkState(String);

impl NetworkState {
    /// As it is now.
    ///
    /// # Errors
    /// When `ip` or `nft` fails.
    pub fn of(namespace: &Namespace) -> Result<Self> {
        let mut text = String::new();
        for arguments in [
            &["-br", "link"][..],
            &["-br", "addr"],
            &["-4", "rule"],
            &["-6", "rule"],
            &["-4", "route", "show", "table", "all"],
            &["-6", "route", "show", "table", "all"],
        ] {
            text += &format!("# ip {}\n", arguments.join(" "));
            let shown = namespace.ip_show(arguments)?;
            let mut lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
            lines.sort_unstable(); // the order of routes is the order of their making
            text += &lines.join("\n");
            text.push('\n');
        }
        text += "# nft list ruleset\n";
        text += &namespace.run("nft", &["list", "ruleset"], crate::PATIENCE)?.success()?.stdout;
        text += "# resolv.conf\n";
        text += &std::fs::read_to_string(namespace.resolv_conf_path()).unwrap_or_default();
        Ok(Self(text))
    }

    /// What is in only one of the two, line by line.
    #[must_use]
    pub fn difference(&self, later: &Self) -> String {
        let gone = self.0.lines().filter(|line| !later.0.lines().any(|other| other == *line));
        let new = later.0.lines().filter(|line| !self.0.lines().any(|other| other == *line));
        gone.map(|line| format!("- {line}\n")).chain(new.map(|line| format!("+ {line}\n"))).collect()
    }

    /// Fails, showing the difference, unless `namespace` is as it was.
    ///
    /// # Errors
    /// When something differs.
    pub fn assert_restored(&self, namespace: &Namespace) -> Result<()> {
        let now = Self::of(namespace)?;
        anyhow::ensure!(*self == now, "the network is not as it was:\n{}", self.difference(&now));
        Ok(())
    }
}
