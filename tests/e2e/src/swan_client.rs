//! strongSwan's own client beside ours: with networks of its own in the same laboratory, towards a gateway of its own.

use anyhow::{Context, Result};
use ropewalk_lab::{
    Lease, Namespace, Site, Swan, SwanAuth, SwanClient, TransferServer, Uplink,
    site::{LAN_V4, TRANSFER_PORT},
};

use crate::{
    AuthKind, Credentials, Gateway, GatewayKind, Offer, PATIENCE, SECOND_V4, second_gateway, several::THREE,
};

/// charon with MOBIKE, connected, with two networks like those of [`crate::Several`].
#[derive(Debug)]
pub struct OtherClient {
    /// The client.
    pub swan: Swan,
    /// Its gateway.
    pub gateway: Gateway,
    /// The networks.
    pub uplinks: Vec<Uplink>,
    /// Where it runs.
    pub namespace: Namespace,
    _transfer: TransferServer,
}

impl OtherClient {
    /// Sets it up at a site and connects.
    ///
    /// # Errors
    /// When a part cannot be made, or the client does not connect.
    pub fn up(site: &Site) -> Result<Self> {
        let server = second_gateway(site)?;
        let transfer = TransferServer::start(&server, TRANSFER_PORT)?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let mut offer = Offer::new(AuthKind::Psk);
        offer.traffic = vec![LAN_V4.to_owned()];
        let gateway = Gateway::start_in(GatewayKind::StrongSwan, &server, &offer, &credentials)?;
        let namespace = site.lab.namespace("client2")?;
        let mut uplinks = Vec::new();
        for (number, (interface, lease)) in (11..).zip(THREE.iter().take(2)) {
            let link = (number, *interface);
            uplinks.push(Uplink::new(site, &namespace, link, lease, &[SECOND_V4.into()])?);
        }
        let config = SwanClient {
            gateway: SECOND_V4.into(),
            gateway_id: AuthKind::Psk.gateway_identity().to_owned(),
            auth: SwanAuth::Psk { id: credentials.client_id.clone(), secret: credentials.psk.clone() },
            ike: "aes256gcm16-prfsha384-x25519".to_owned(),
            esp: "aes256gcm16".to_owned(),
            traffic: offer.traffic,
            authorities: Vec::new(),
        };
        let swan = Swan::start(&namespace, "client", &config.config())?;
        swan.initiate("net", PATIENCE)?;
        Ok(Self { swan, gateway, uplinks, namespace, _transfer: transfer })
    }
    /// The interface whose address its IKE_SA has.
    ///
    /// # Errors
    /// When it has none.
    pub fn interface_in_use(&self) -> Result<String> {
        let list = self.swan.list_sas()?;
        let has = |lease: &Lease| {
            let own = lease.client.iter().filter_map(|net| net.split('/').next());
            own.into_iter().any(|address| list.contains(&format!("@ {address}[")))
        };
        let used = THREE.iter().find(|(_, lease)| has(lease));
        Ok(used.with_context(|| format!("by which network? {list}"))?.0.to_owned())
    }
}
