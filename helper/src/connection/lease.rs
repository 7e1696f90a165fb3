//! Who this machine is to a DHCP server behind a gateway, and the lease that it had last: one file for each user and profile in
//! `STATE/leases`, 0600. Identity and hardware address are chosen once and kept, so that a server knows the client again over
//! restarts and whatever its interfaces are then (RFC 3456 section 4.1).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ropewalk_dhcp::hardware::LanInterface;
use ropewalk_dhcp::{ClientConfig, ClientIdentifier, HardwareAddress, Lease};
use ropewalk_ike::time::UnixTime;
use ropewalk_ipc::{ErrorCode, ErrorInfo};
use ropewalk_net::{InterfaceKind, Snapshot};
use ropewalk_session::DhcpConfig;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::engine::ConnectionContext;
use crate::store::{file_stem, make_private_dir, write_atomically};

/// A file larger than this was not written by us.
const MAX_FILE: u64 = 64 * 1024;

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    hardware: HardwareAddress,
    identifier: ClientIdentifier,
    /// With when it ends, in seconds since 1970.
    lease: Option<(Lease, u64)>,
}

/// The file.
#[derive(Debug)]
pub struct LeaseFile {
    path: PathBuf,
    kept: Kept,
}

impl LeaseFile {
    /// Reads it, or makes it when this is the first time.
    ///
    /// # Errors
    /// The state folder cannot be written: without it a server would not know this client again.
    pub fn open(context: &ConnectionContext, networks: &Snapshot) -> Result<Self, ErrorInfo> {
        let folder = folder(&context.config.state_dir);
        let path = folder.join(file_name(context.owner, &context.profile.name));
        match read(&path) {
            Ok(kept) => return Ok(Self { path, kept }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(file = %path.display(), %error, "the kept lease is of no use"),
        }
        let kept = Kept { hardware: hardware(networks), identifier: ClientIdentifier::Hardware, lease: None };
        let file = Self { path, kept };
        make_private_dir(&folder).and_then(|()| file.write()).map_err(|error| {
            ErrorInfo::new(
                ErrorCode::Failed,
                format!("the file of the DHCP lease cannot be written: {error}"),
                "look at the state folder's space and permissions",
            )
        })?;
        Ok(file)
    }

    /// What a session needs of it. `allowed` are the networks that the profile lets into the tunnel.
    #[must_use]
    pub fn config(&self, allowed: Vec<ipnet::Ipv4Net>) -> DhcpConfig {
        let Kept { hardware, identifier, lease } = self.kept.clone();
        let remembered = lease.map(|(lease, ends)| (lease, UnixTime(ends)));
        // The machine's name is nobody's business: servers know clients by their identifier.
        let client = ClientConfig { hardware, identifier, host_name: None, remembered: None };
        DhcpConfig { client, remembered, allowed }
    }

    /// Remembers a lease that begins now, or that there is none.
    pub fn keep(&mut self, lease: Option<Lease>) {
        let ends = |lease: &Lease| {
            if lease.is_forever() {
                u64::MAX
            } else {
                clock::wall().0.saturating_add(lease.duration.as_secs())
            }
        };
        self.kept.lease = lease.map(|lease| {
            let ends = ends(&lease);
            (lease, ends)
        });
        if let Err(error) = self.write() {
            tracing::warn!(file = %self.path.display(), %error, "the lease cannot be kept");
        }
    }

    fn write(&self) -> io::Result<()> {
        write_atomically(&self.path, &serde_json::to_vec_pretty(&self.kept)?)
    }
}

/// Removes what was kept for a removed profile: of this user, or of all when it was everybody's.
///
/// # Errors
/// The state folder cannot be read or written.
pub fn forget(state_dir: &Path, owner: Option<u32>, profile: &str) -> io::Result<()> {
    let entries = match fs::read_dir(folder(state_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let of = name.to_str().and_then(|name| name.split_once('-')?.0.parse().ok());
        if of.is_some_and(|of: u32| owner.is_none_or(|owner| owner == of) && name == *file_name(of, profile))
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("leases")
}

fn file_name(owner: u32, profile: &str) -> String {
    format!("{owner}-{}.json", file_stem(profile))
}

fn read(path: &PathBuf) -> io::Result<Kept> {
    if fs::metadata(path)?.len() > MAX_FILE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let kept: Kept = serde_json::from_slice(&fs::read(path)?)?;
    // What is in a file need not be what was written.
    HardwareAddress::from_octets(kept.hardware.octets()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(kept)
}

/// The hardware address of the first real LAN interface; of software's only when there is no other.
fn hardware(networks: &Snapshot) -> HardwareAddress {
    let real = |kind| matches!(kind, InterfaceKind::Ethernet | InterfaceKind::Wifi);
    let lan = |wanted: fn(InterfaceKind) -> bool| {
        let interfaces = networks.interfaces.iter().filter(move |interface| wanted(interface.kind));
        interfaces.filter_map(|interface| {
            let mac = interface.mac?;
            Some(LanInterface { number: interface.index, mac, active: interface.up })
        })
    };
    let mut interfaces: Vec<LanInterface> = lan(real).collect();
    if interfaces.is_empty() {
        interfaces = lan(|kind| kind == InterfaceKind::Virtual).collect();
    }
    let candidates = networks.candidates();
    let outer = candidates.iter().find_map(|candidate| match candidate.address {
        IpAddr::V4(v4) => Some((v4, candidate.index)),
        IpAddr::V6(_) => None,
    });
    let (outer, number) = outer.unwrap_or((Ipv4Addr::UNSPECIFIED, 0));
    HardwareAddress::choose(&interfaces, outer, u8::try_from(number % 256).unwrap_or(0))
}

/// Whether an interface other than the tunnel's own has this address.
#[must_use]
pub fn has_address(networks: &Snapshot, tunnel: Option<&str>, address: Ipv4Addr) -> bool {
    let others = networks.interfaces.iter().filter(|interface| Some(interface.name.as_str()) != tunnel);
    others.flat_map(|interface| &interface.addresses).any(|own| own.net.addr() == IpAddr::V4(address))
}

#[cfg(test)]
mod tests {
    use ropewalk_net::{Interface, InterfaceAddress};

    use super::*;

    fn interface(index: u32, kind: InterfaceKind, mac: Option<[u8; 6]>) -> Interface {
        let own = InterfaceAddress {
            net: format!("10.0.{index}.7/24").parse().unwrap(),
            global: true,
            temporary: false,
            deprecated: false,
            tentative: false,
        };
        Interface {
            name: format!("net{index}"),
            index,
            kind,
            up: true,
            mtu: 1500,
            mac,
            addresses: vec![own],
            default_v4: None,
            default_v6: None,
        }
    }

    #[test]
    fn a_real_interface_comes_before_softwares() {
        let bridge = interface(2, InterfaceKind::Virtual, Some([2, 0, 0, 0, 0, 2]));
        let cable = interface(3, InterfaceKind::Ethernet, Some([2, 0, 0, 0, 0, 3]));
        let tunnel = interface(1, InterfaceKind::Tun, None);
        let all = Snapshot { interfaces: vec![tunnel.clone(), bridge.clone(), cable] };
        assert_eq!(hardware(&all).octets(), [2, 0, 0, 0, 0, 3]);
        let software = Snapshot { interfaces: vec![tunnel.clone(), bridge] };
        assert_eq!(hardware(&software).octets(), [2, 0, 0, 0, 0, 2]);
        assert_eq!(hardware(&Snapshot { interfaces: vec![tunnel] }).octets()[..2], [0x40, 0x00]);
    }

    #[test]
    fn an_address_of_another_interface_is_this_machines_already() {
        let all = Snapshot { interfaces: vec![interface(2, InterfaceKind::Ethernet, None)] };
        let ours = Ipv4Addr::new(10, 0, 2, 7);
        assert!(has_address(&all, Some("ropewalk0"), ours));
        assert!(!has_address(&all, Some("net2"), ours), "the tunnel's own, from before");
        assert!(!has_address(&all, None, Ipv4Addr::new(10, 0, 2, 8)));
    }

    #[test]
    fn what_is_kept_survives_its_file() {
        let folder = std::env::temp_dir().join(format!("ropewalk-lease-{}", std::process::id()));
        make_private_dir(&folder).unwrap();
        let hardware = HardwareAddress::from_octets(&[2, 0, 0, 0, 0, 1]).unwrap();
        let kept = Kept { hardware, identifier: ClientIdentifier::Hardware, lease: None };
        let mut file = LeaseFile { path: folder.join("7-a.json"), kept };
        let times = (std::time::Duration::from_secs(600), None, None);
        let address = Ipv4Addr::new(10, 0, 0, 9);
        file.keep(Some(Lease::new(address, address, times, ropewalk_dhcp::Settings::default())));
        let read_back = read(&file.path).unwrap();
        assert_eq!(read_back, file.kept);
        let (_, ends) = read_back.lease.unwrap();
        assert!(ends > clock::wall().0 + 500 && ends <= clock::wall().0 + 600);
        fs::write(&file.path, b"{\"hardware\":[],\"identifier\":\"Hardware\",\"lease\":null}").unwrap();
        assert!(read(&file.path).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_was_kept_goes_with_its_profile() {
        let state = std::env::temp_dir().join(format!("ropewalk-leases-{}", std::process::id()));
        forget(&state, None, "Office").unwrap();
        make_private_dir(&folder(&state)).unwrap();
        let file = |owner, profile| folder(&state).join(file_name(owner, profile));
        let all = [file(7, "Office"), file(8, "Office"), file(9, "Office"), file(7, "Home")];
        all.iter().for_each(|path| fs::write(path, b"{}").unwrap());
        let left = || all.iter().map(|path| path.exists()).collect::<Vec<_>>();
        forget(&state, Some(7), "Office").unwrap();
        assert_eq!(left(), [false, true, true, true]);
        forget(&state, None, "Office").unwrap();
        assert_eq!(left(), [false, false, false, true]);
        fs::remove_dir_all(&state).unwrap();
    }
}
