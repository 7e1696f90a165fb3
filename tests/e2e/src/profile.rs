//! Native profiles as text, written here without the product's own code so that its parser is tested too.

use std::fmt::Write as _;

use crate::gateway::{AuthKind, Credentials};

/// A profile in the making.
#[derive(Debug, Clone)]
pub struct ProfileText {
    /// Its name.
    pub name: String,
    /// The gateway's address, or several in the order of trying, with commas.
    pub address: String,
    /// What the gateway must prove.
    pub identity: String,
    /// PEM of what it is trusted by.
    pub ca: Vec<String>,
    /// Lines of `[auth]`.
    pub auth: String,
    /// IKE proposals, when not the default.
    pub ike: Option<String>,
    /// ESP proposals, when not the default.
    pub esp: Option<String>,
    /// Lines of `[tunnel]`.
    pub tunnel: String,
    /// Lines of `[timing]`.
    pub timing: String,
}

impl ProfileText {
    /// The profile that fits a gateway offering `kind` with these credentials.
    #[must_use]
    pub fn new(kind: AuthKind, credentials: &Credentials, address: &str) -> Self {
        let auth = match kind {
            AuthKind::Psk => format!(
                "method = \"psk\"\nidentity = \"{}\"\npsk = \"{}\"\n",
                credentials.client_id, credentials.psk
            ),
            AuthKind::EapMschapv2 => {
                format!("method = \"eap-mschapv2\"\nidentity = \"{0}\"\nuser = \"{0}\"\n", credentials.user)
            }
            AuthKind::Ecdsa | AuthKind::Rsa => format!(
                "method = \"certificate\"\nidentity = \"{}\"\ncertificate = '''\n{}{}'''\nprivate_key = '''\n{}'''\n",
                credentials.client_id,
                credentials.client.certificate,
                credentials.intermediate,
                credentials.client.private_key
            ),
        };
        let ca = if kind == AuthKind::Psk { Vec::new() } else { vec![credentials.root.clone()] };
        Self {
            name: "lab".to_owned(),
            address: address.to_owned(),
            identity: kind.gateway_identity().to_owned(),
            ca,
            auth,
            ike: None,
            esp: None,
            tunnel: String::new(),
            timing: String::new(),
        }
    }

    /// As it stands in the file.
    #[must_use]
    pub fn text(&self) -> String {
        let addresses: Vec<_> = self.address.split(',').map(|address| format!("\"{address}\"")).collect();
        let addresses = match addresses.as_slice() {
            [one] => format!("address = {one}"),
            several => format!("addresses = [{}]", several.join(", ")),
        };
        let mut text = format!(
            "version = 1\nname = \"{}\"\n\n[gateway]\n{addresses}\nidentity = \"{}\"\n",
            self.name, self.identity
        );
        if !self.ca.is_empty() {
            let certificates: Vec<_> = self.ca.iter().map(|pem| format!("'''\n{pem}'''")).collect();
            let _ = writeln!(text, "ca = [{}]", certificates.join(", "));
        }
        let _ = write!(text, "\n[auth]\n{}", self.auth);
        text.push_str("\n[crypto]\n");
        for (key, value) in [("ike", &self.ike), ("esp", &self.esp)] {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = [\"{value}\"]");
            }
        }
        let _ = write!(text, "\n[tunnel]\n{}\n[timing]\n{}", self.tunnel, self.timing);
        text
    }
}
