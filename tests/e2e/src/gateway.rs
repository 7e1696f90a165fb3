//! Either gateway behind one face: strongSwan, which is not ours, and the reference gateway, which is.

use std::net::IpAddr;

use anyhow::Result;
use ropewalk_lab::{
    Authority, Childless, Credential, KeyKind, Namespace, Purpose, Request, Site, Swan, SwanGateway,
    Validity,
    site::{LAN_V4, LAN_V6, POOL_V4, POOL_V6, SERVER_V4, SERVER_V6},
};

use crate::reference::Reference;

/// Which gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayKind {
    /// strongSwan of the machine's distribution.
    StrongSwan,
    /// `ropewalk-gateway`.
    Reference,
}

/// Both.
pub const BOTH: [GatewayKind; 2] = [GatewayKind::StrongSwan, GatewayKind::Reference];

/// How client and gateway prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthKind {
    /// Pre-shared key, both.
    Psk,
    /// ECDSA certificates, both.
    Ecdsa,
    /// RSA certificates, both.
    Rsa,
    /// The gateway by ECDSA certificate, the client by EAP-MSCHAPv2.
    EapMschapv2,
}

impl AuthKind {
    /// What the gateway calls itself for this kind.
    #[must_use]
    pub fn gateway_identity(self) -> &'static str {
        match self {
            Self::Psk => "psk.gw.test",
            Self::Ecdsa => "ecdsa.gw.test",
            Self::Rsa => "rsa.gw.test",
            Self::EapMschapv2 => "eap.gw.test",
        }
    }

    fn key(self) -> KeyKind {
        match self {
            Self::Rsa => KeyKind::Rsa(2048),
            Self::Psk | Self::Ecdsa | Self::EapMschapv2 => KeyKind::P256,
        }
    }
}

/// All that a gateway and its client know of each other.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The client's IKE identity for PSK and certificates.
    pub client_id: String,
    /// The pre-shared key.
    pub psk: String,
    /// The EAP user.
    pub user: String,
    /// The EAP user's password.
    pub password: String,
    /// PEM of the root that both trust.
    pub root: String,
    /// PEM of the authority that issued both certificates.
    pub intermediate: String,
    /// The gateway's certificate and key.
    pub gateway: Credential,
    /// The client's certificate and key.
    pub client: Credential,
}

impl Credentials {
    /// Fresh ones for a kind of authentication.
    ///
    /// # Errors
    /// When a key or certificate cannot be made.
    pub fn new(kind: AuthKind) -> Result<Self> {
        Self::with_gateway_certificate(kind, kind.gateway_identity(), Validity::Now)
    }

    /// The same with another name or time in the gateway's certificate.
    ///
    /// # Errors
    /// When a key or certificate cannot be made.
    pub fn with_gateway_certificate(kind: AuthKind, name: &str, validity: Validity) -> Result<Self> {
        let root = Authority::root("Corp Root", KeyKind::P384)?;
        let intermediate = root.intermediate("Corp Gateways and Users", KeyKind::P256)?;
        Self::issued(&root, &intermediate, kind.key(), name, validity)
    }

    /// Those of a public authority that likes its keys large: RSA with 4096 bits in the whole chain, so that IKE_AUTH takes
    /// several datagrams.
    ///
    /// # Errors
    /// When a key or certificate cannot be made.
    pub fn large() -> Result<Self> {
        let large = KeyKind::Rsa(4096);
        let root = Authority::root("Corp Root", large)?;
        let intermediate = root.intermediate("Corp Gateways and Users", large)?;
        Self::issued(&root, &intermediate, large, AuthKind::Rsa.gateway_identity(), Validity::Now)
    }

    fn issued(
        root: &Authority,
        intermediate: &Authority,
        key: KeyKind,
        name: &str,
        validity: Validity,
    ) -> Result<Self> {
        let client_id = "alice@corp.test";
        let issue = |name: &str, purpose, validity| {
            intermediate.issue(&Request { name, alternative: &[name], key, purpose, validity })
        };
        Ok(Self {
            client_id: client_id.to_owned(),
            psk: "correct horse battery".to_owned(),
            user: "bob".to_owned(),
            password: "p4ssword".to_owned(),
            gateway: issue(name, Purpose::Gateway, validity)?,
            client: issue(client_id, Purpose::Client, Validity::Now)?,
            root: root.certificate().to_owned(),
            intermediate: intermediate.certificate().to_owned(),
        })
    }

    /// What `connect` needs on standard input for a kind.
    #[must_use]
    pub fn password_for(&self, kind: AuthKind) -> Option<&str> {
        (kind == AuthKind::EapMschapv2).then_some(self.password.as_str())
    }
}

/// What a gateway is to offer.
#[derive(Debug, Clone)]
pub struct Offer {
    /// How it authenticates.
    pub kind: AuthKind,
    /// Networks that may be reached through it.
    pub traffic: Vec<String>,
    /// Address pools.
    pub pools: Vec<String>,
    /// DNS servers it hands out.
    pub dns: Vec<IpAddr>,
    /// IKE proposals in strongSwan's syntax, when not all.
    pub ike: Option<String>,
    /// ESP proposals in strongSwan's syntax, when not all.
    pub esp: Option<String>,
    /// Seconds of silence after which the gateway asks whether the client is alive, when not its own default.
    pub dpd: Option<u32>,
    /// The outer addresses that the reference gateway tells clients of; strongSwan tells of all it has.
    pub outer: Vec<IpAddr>,
    /// Where the reference gateway listens, when not everywhere.
    pub listen: Vec<IpAddr>,
    /// IKE_AUTH without a CHILD_SA (RFC 6023).
    pub childless: Childless,
    /// Seconds that a login with strongSwan holds (RFC 4478); 0 for ever.
    pub reauth: u32,
    /// strongSwan speaks IKE fragmentation (RFC 7383).
    pub fragmentation: bool,
    /// The EAP method by which strongSwan wants its users to log in.
    pub eap_method: &'static str,
    /// Further lines of the reference gateway's `[options]`.
    pub options: String,
}

impl Offer {
    /// The network behind the gateway and an address of each family.
    #[must_use]
    pub fn new(kind: AuthKind) -> Self {
        Self {
            kind,
            traffic: vec![LAN_V4.to_owned(), LAN_V6.to_owned()],
            pools: vec![POOL_V4.to_owned(), POOL_V6.to_owned()],
            dns: vec![SERVER_V4.into(), SERVER_V6.into()],
            ike: None,
            esp: None,
            dpd: None,
            outer: Vec::new(),
            listen: Vec::new(),
            childless: Childless::Allow,
            reauth: 0,
            fragmentation: true,
            eap_method: "eap-mschapv2",
            options: String::new(),
        }
    }

    /// Everything, as a full tunnel.
    #[must_use]
    pub fn everything(self) -> Self {
        Self { traffic: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()], ..self }
    }
}

/// A running gateway.
#[derive(Debug)]
pub enum Gateway {
    /// strongSwan.
    StrongSwan(Box<Swan>),
    /// The reference gateway.
    Reference(Box<Reference>),
}

impl Gateway {
    /// Starts one in the site's gateway namespace.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(which: GatewayKind, site: &Site, offer: &Offer, credentials: &Credentials) -> Result<Self> {
        Self::start_in(which, &site.gateway, offer, credentials)
    }

    /// Starts one in another namespace. There can be one of each kind in a laboratory.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_in(
        which: GatewayKind,
        namespace: &Namespace,
        offer: &Offer,
        credentials: &Credentials,
    ) -> Result<Self> {
        Ok(match which {
            GatewayKind::StrongSwan => {
                let config = strongswan(offer, credentials).config();
                Self::StrongSwan(Box::new(Swan::start(namespace, "gateway", &config)?))
            }
            GatewayKind::Reference => {
                Self::Reference(Box::new(Reference::start(namespace, offer, credentials)?))
            }
        })
    }

    /// Kills it without a word to its clients and starts it again.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn restart(&mut self) -> Result<()> {
        match self {
            Self::StrongSwan(swan) => Ok(swan.restart()?),
            Self::Reference(reference) => reference.restart(),
        }
    }

    /// How many clients it has.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn sessions(&self) -> Result<usize> {
        match self {
            Self::StrongSwan(swan) => Ok(swan.list_sas()?.matches("ESTABLISHED").count()),
            Self::Reference(reference) => reference.sessions(),
        }
    }

    /// Ends every client's connection, telling them.
    ///
    /// # Errors
    /// When it cannot be told to.
    pub fn disconnect_clients(&mut self, kind: AuthKind) -> Result<()> {
        match self {
            Self::StrongSwan(swan) => {
                let name = kind.gateway_identity().split('.').next().unwrap_or_default();
                Ok(swan.terminate(name)?)
            }
            Self::Reference(reference) => reference.disconnect_clients(),
        }
    }
}

fn strongswan(offer: &Offer, credentials: &Credentials) -> SwanGateway {
    let certificate = |kind| (offer.kind == kind).then(|| credentials.gateway.clone());
    let mut config = SwanGateway {
        pools: offer.pools.clone(),
        dns: offer.dns.clone(),
        traffic: offer.traffic.clone(),
        ecdsa: certificate(AuthKind::Ecdsa),
        rsa: certificate(AuthKind::Rsa),
        eap: certificate(AuthKind::EapMschapv2),
        authorities: vec![credentials.root.clone(), credentials.intermediate.clone()],
        ..SwanGateway::default()
    };
    match offer.kind {
        AuthKind::Psk => config.psk.push((credentials.client_id.clone(), credentials.psk.clone())),
        AuthKind::EapMschapv2 => config.users.push((credentials.user.clone(), credentials.password.clone())),
        AuthKind::Ecdsa | AuthKind::Rsa => {}
    }
    if let Some(ike) = &offer.ike {
        config.ike.clone_from(ike);
    }
    if let Some(esp) = &offer.esp {
        config.esp.clone_from(esp);
    }
    config.dpd = offer.dpd.unwrap_or(config.dpd);
    config.childless = offer.childless;
    config.reauth = offer.reauth;
    config.fragmentation = offer.fragmentation;
    config.eap_method = offer.eap_method;
    config
}
